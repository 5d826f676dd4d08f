"""Positions of the utterances of a conversation on a timeline."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import quantiles
from typing import Any, NamedTuple

Row = dict[str, Any]  # an utterance, with "speaker", "start" and "end"

_LABEL_PIXELS = 108  # an emotion label, its probability, and a gap
_MOST_PIXELS = 170  # the most for the average utterance, however short the shortest ones are
_TICK_PIXELS = 90
_TICK_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600)
_STRIP_UTTERANCES = 20  # on average in each printed strip


class Timeline(NamedTuple):
    """A timeline, or a strip of it.

    Attributes:
        spans: start and end of each utterance, in seconds, or in turns if the times are unknown.
        timed: whether the spans are in seconds.
        first: where the timeline starts, in the unit of the spans.
        extent: its length, in the same unit.
        pixels: the width it needs for readable labels.
    """

    spans: list[tuple[float, float]]
    timed: bool
    first: float
    extent: float
    pixels: int

    @property
    def seconds(self) -> float | None:
        """Time from the first start to the last end; None if the times are unknown."""
        return max(end for _, end in self.spans) - self.spans[0][0] if self.timed else None

    def percent(self, value: float) -> float:
        """Return a position as a percentage of the timeline."""
        return round(100 * (value - self.first) / self.extent, 3)

    def place(self, turn: int) -> dict[str, float] | None:
        """Return the part of an utterance that lies on the timeline, in percent; None if no part does."""
        start, end = self.spans[turn]
        stop = self.first + self.extent
        if not (self.first <= start < stop or start < self.first < end):
            return None
        left = self.percent(max(start, self.first))
        return {"left": left, "width": self.percent(min(end, stop)) - left}

    def lanes(self, rows: Sequence[Row]) -> dict[str, list[Row]]:
        """Return the utterances on the timeline by speaker, with position and space up to the next one."""
        lanes: dict[str, list[Row]] = {row["speaker"]: [] for row in rows}
        for turn, row in enumerate(rows):
            if place := self.place(turn):
                block = {"turn": turn, **row, **place, "room": 100 - place["left"]}
                lanes[row["speaker"]].append(block)
        for blocks in lanes.values():
            for block, following in pairwise(blocks):
                block["room"] = round(following["left"] - block["left"], 3)
        return {speaker: blocks for speaker, blocks in lanes.items() if blocks}

    def strips(self) -> "Iterator[Timeline]":
        """Cut the timeline into strips of equal length that fit on paper."""
        length = self.extent / math.ceil(len(self.spans) / _STRIP_UTTERANCES)
        if self.timed:
            length = _step(length)
        elif length < self.extent:
            length = _STRIP_UTTERANCES
        for number in range(math.ceil(self.extent / length)):
            yield self._replace(first=self.first + number * length, extent=length)

    def ticks(self) -> list[tuple[float, str]]:
        """Return positions and labels of the ticks, without those that the end of the axis would cut off."""
        least = (_TICK_PIXELS if self.timed else _TICK_PIXELS / 3) * self.extent / self.pixels
        last = self.first + self.extent - least / 2
        if not self.timed:
            turns = range(0, len(self.spans), max(math.ceil(least), 1))
            return [(self.percent(turn), str(turn + 1)) for turn in turns if turn <= last]
        step = _step(least)
        marks = range(math.ceil(self.first / step) * step, math.floor(last) + 1, step)
        return [(self.percent(mark), clock(mark)) for mark in marks]


def lay_out(rows: Sequence[Row]) -> Timeline:
    """Compute the timeline of a conversation."""
    spans, timed = _spans(rows)
    last_starts: dict[str, float] = {}
    gaps = []
    for row, (start, _) in zip(rows, spans, strict=True):
        if (before := last_starts.get(row["speaker"])) is not None:
            gaps.append(start - before)
        last_starts[row["speaker"]] = start
    first, end = spans[0][0], max(end for _, end in spans)
    # All but the closest tenth of the utterances have enough space for their label.
    near = quantiles(gaps, n=10, method="inclusive")[0] if len(gaps) > 1 else (*gaps, end - first)[0]
    unit = min(_LABEL_PIXELS / max(near, 1e-3), _MOST_PIXELS * len(spans) / (end - first))
    extent = max(end, spans[-1][0] + _LABEL_PIXELS / unit) - first
    return Timeline(spans, timed, first, extent, round(extent * unit))


def clock(seconds: float) -> str:
    """Format a time as m:ss, or as h:mm:ss from one hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _step(least: float) -> int:
    return next((seconds for seconds in _TICK_SECONDS if seconds >= least), _TICK_SECONDS[-1])


def _spans(rows: Sequence[Row]) -> tuple[list[tuple[float, float]], bool]:
    """Return start and end of each utterance, and whether these are seconds rather than turns.

    Times that go back, or are all the same, come from several recordings: use turns instead.
    """
    starts = [row["start"] for row in rows]
    if (
        any(start is None for start in starts)
        or any(after < before for before, after in pairwise(starts))
        or (len(starts) > 1 and starts[0] == starts[-1])
    ):
        return [(turn, turn + 0.94) for turn in range(len(starts))], False
    following = [*starts[1:], starts[-1] + 1.0]
    ends = [
        row["end"] or max(after, start + 0.1)
        for row, start, after in zip(rows, starts, following, strict=True)
    ]
    return list(zip(starts, ends, strict=True)), True
