"""Timestamps that continue where the clock of a file restarts."""

from collections.abc import Iterable, Iterator
from typing import Any

# A larger step back in the timestamps of a stream means that its clock has restarted.
LARGEST_STEP_BACK = 0.5  # seconds
# So does a larger step forward. Most formats keep long gaps; in broadcasts, they are cuts (FFmpeg's limits).
LARGEST_GAP, LARGEST_GAP_IN = 30 * 3600.0, {"mpegts": 10.0, "mpeg": 10.0}
# Packets after a restart in which the earliest timestamp of all streams is searched.
LOOKED_AHEAD = 200


def continuous(packets: Iterable[Any], format_name: str) -> Iterator[Any]:
    """Shift the timestamps of packets so that each part of a file starts where the part before it ends.

    The clock restarts in files that were joined end to end, and in those of some recorders.

    Args:
        packets: packets of PyAV; all streams share a clock.
        format_name: FFmpeg's name of the container.

    Yields:
        The packets; those of one stream in the same order.
    """
    clock = _Clock(LARGEST_GAP_IN.get(format_name, LARGEST_GAP))
    held: list[tuple[int, Any]] = []
    for packet in packets:
        held.append((clock.part_of(packet), packet))
        if clock.is_settled() or len(held) == LOOKED_AHEAD:
            yield from clock.shifted(held)
            held.clear()
    yield from clock.shifted(held)


class _Clock:
    """Numbers the parts of a file between restarts and knows when each begins."""

    def __init__(self, largest_gap: float):
        self.largest_gap = largest_gap
        self.last: dict[int, float] = {}  # the latest timestamp of each stream, as in the file
        self.parts: dict[int, int] = {}  # the part that each stream has reached
        self.offsets = [0.0]  # what is added to the timestamps of each part
        self.end = 0.0  # of all packets so far

    def part_of(self, packet: Any) -> int:
        """Return the number of the part of the file to which the next packet belongs."""
        stream, seconds = packet.stream_index, _seconds(packet, packet.dts)
        part = self.parts.setdefault(stream, 0)
        if seconds is None:
            return part
        if not -LARGEST_STEP_BACK <= seconds - self.last.get(stream, seconds) <= self.largest_gap:
            self.parts[stream] = part = part + 1
        self.last[stream] = seconds
        return part

    def is_settled(self) -> bool:
        """Return whether every stream has reached the latest part, or the start of that part is known."""
        latest = max(self.parts.values(), default=0)
        return latest < len(self.offsets) or set(self.parts.values()) == {latest}

    def shifted(self, held: list[tuple[int, Any]]) -> Iterator[Any]:
        """Yield packets with their timestamps shifted; they are given with the number of their part."""
        for part, packet in sorted(held, key=lambda one: one[0]):
            if part == len(self.offsets):
                starts = [_seconds(other, other.pts) for its, other in held if its == part]
                self.offsets.append(self.end - min(start for start in starts if start is not None))
            if self.offsets[part]:
                ticks = round(self.offsets[part] / packet.time_base)
                packet.pts = None if packet.pts is None else packet.pts + ticks
                packet.dts = None if packet.dts is None else packet.dts + ticks
            if (start := _seconds(packet, packet.pts)) is not None:
                self.end = max(self.end, start + float((packet.duration or 0) * packet.time_base))
            yield packet


def _seconds(packet: Any, timestamp: int | None) -> float | None:
    timestamp = packet.dts if timestamp is None else timestamp
    return None if timestamp is None else float(timestamp * packet.time_base)
