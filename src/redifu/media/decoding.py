"""Decode audio and sampled frames from media files in one pass with bounded memory."""

import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from redifu.optional_packages import optional_package

# Limits on the work that an untrusted file can cause.
LONGEST_UTTERANCE = 300.0  # seconds
LARGEST_PICTURE = 8192  # pixels per side
DECODING_LIMIT = 1800.0  # seconds of work per file
# Limits on stored frames: pixels per side, and frames per utterance (then every second one is dropped).
PICTURE_SIDE = 960
MOST_PICTURES = 120
# A larger difference between timestamps and decoded samples means that there is a gap.
LARGEST_DRIFT = 0.05  # seconds
# Duration of the last frame of a stream if there is no previous frame to infer it from.
PICTURE_SECONDS = 0.04


class MediaError(ValueError):
    """A medium lacks a stream or a span of it; the message says why."""


class UnreadableMediumError(MediaError):
    """A file cannot be opened or decoded."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """The part of a medium that is one utterance, in seconds; an `end` of None is the end of the medium."""

    start: float = 0.0
    end: float | None = None

    @property
    def stop(self) -> float:
        """The latest time to read, in seconds."""
        return self.start + LONGEST_UTTERANCE if self.end is None else self.end


@dataclass(kw_only=True)
class Frames:
    """Sampled frames of an utterance.

    Attributes:
        pictures: (height, width, 3) uint8 RGB each.
        times: seconds from the start of the medium, one per picture.
    """

    pictures: list[np.ndarray] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


def read_sound(
    source: str | Path | bytes, spans: Sequence[Span], *, sampling_rate: int
) -> Iterator[tuple[int, np.ndarray | MediaError]]:
    """Read the audio of spans of a file as mono, the mean of its channels.

    The file is decoded once, and memory holds only the spans that are being read. Gaps in the timestamps and
    a late start of the stream are filled with zeros. In a damaged file, everything before the damage is used.

    Args:
        source: a path, or the bytes of a file, in any format that FFmpeg reads.
        spans: in any order; they may overlap.
        sampling_rate: output samples per second.

    Yields:
        The index of each span and its waveform (samples,) float32, or an error, as each span ends.
    """
    takers = _Takers([_SoundTaker(span, sampling_rate) for span in spans])
    failure = None
    try:
        resampler = _av().AudioResampler(format="fltp", rate=sampling_rate)
        position = 0
        for seconds, frame in _decoded(source, "audio"):
            if seconds is not None and abs(seconds - position / sampling_rate) > LARGEST_DRIFT:
                position = round(seconds * sampling_rate)
            for resampled in resampler.resample(frame):
                samples = resampled.to_ndarray().mean(axis=0)
                for taker in takers.until((position + len(samples)) / sampling_rate):
                    taker.take(position, samples)
                position += len(samples)
                yield from takers.ended(position / sampling_rate)
            if takers.are_done:
                return
    except MediaError as error:
        failure = error
    yield from takers.rest(failure)


def read_frames(
    source: str | Path | bytes, spans: Sequence[Span], *, frames_per_second: float
) -> Iterator[tuple[int, Frames | MediaError]]:
    """Read evenly spaced frames of spans of a file, rotated as the file specifies.

    The file is decoded once, and memory holds only the spans that are being read. Each frame is the one that
    a player would show at that time, even if the frame rate varies. Large frames are shrunk, and long spans
    are sampled less often. In a damaged file, everything before the damage is used.

    Args:
        source: a path, or the bytes of a file, in any format that FFmpeg reads.
        spans: in any order; they may overlap.
        frames_per_second: sampling rate of the frames, from the start of each span.

    Yields:
        The index of each span and its frames, or an error, as each span ends.
    """
    takers = _Takers([_FrameTaker(span, 1 / frames_per_second) for span in spans])
    failure = None
    shown: tuple[float, _Picture] | None = None
    shown_for = PICTURE_SECONDS
    try:
        for seconds, frame in _decoded(source, "video"):
            if seconds is None:
                continue
            if shown is not None:
                shown_for = seconds - shown[0]
                _show(shown, seconds, takers)
                yield from takers.ended(seconds)
                if takers.are_done:
                    return
            shown = (seconds, _Picture(frame))
    except MediaError as error:
        failure = error
    if shown is not None:
        _show(shown, shown[0] + shown_for, takers)
    yield from takers.rest(failure)


def _show(shown: "tuple[float, _Picture]", until: float, takers: "_Takers") -> None:
    for taker in takers.until(until):
        taker.take(shown[1], since=shown[0], until=until)


class _Takers:
    """The takers of all spans: those before their start and those that are being served."""

    def __init__(self, takers: Sequence[Any]):
        order = sorted(range(len(takers)), key=lambda number: takers[number].span.start, reverse=True)
        self.waiting = [(number, takers[number]) for number in order]
        self.serving: dict[int, Any] = {}

    @property
    def are_done(self) -> bool:
        """Whether every span has ended."""
        return not self.waiting and not self.serving

    def until(self, seconds: float) -> list[Any]:
        """Return the takers of data that ends at `seconds`."""
        while self.waiting and self.waiting[-1][1].span.start < seconds:
            number, taker = self.waiting.pop()
            self.serving[number] = taker
        return list(self.serving.values())

    def ended(self, seconds: float) -> Iterator[tuple[int, Any]]:
        """Yield and forget the results of spans that end before `seconds`."""
        for number in [number for number, taker in self.serving.items() if taker.span.stop < seconds]:
            yield number, self.serving.pop(number).result(None)

    def rest(self, failure: MediaError | None) -> Iterator[tuple[int, Any]]:
        """Yield the remaining results after a failure or the end of the medium."""
        for number, taker in [*self.serving.items(), *self.waiting]:
            yield number, taker.result(failure)


class _Taker:
    """Collects the data of one span as it is decoded."""

    def __init__(self, span: Span):
        self.span = span
        self.too_long = span.stop - span.start > LONGEST_UTTERANCE

    def see(self, seconds: float) -> bool:
        """Record that the medium continues until `seconds`, and return whether the span is still wanted."""
        # A span without an end is too long if the medium continues past its stop.
        self.too_long |= self.span.end is None and seconds > self.span.stop
        return not self.too_long

    def missing(self, failure: MediaError | None) -> MediaError:
        """Return why this span has no data."""
        if self.too_long:
            return MediaError(
                f"an utterance can be at most {LONGEST_UTTERANCE:g} s long: set its start and end, got "
                f"{self.span.start:g} to {'the end' if self.span.end is None else f'{self.span.end:g}'}"
            )
        return failure or MediaError(f"no data found from {self.span.start:g} s onward")


class _SoundTaker(_Taker):
    def __init__(self, span: Span, sampling_rate: int):
        super().__init__(span)
        self.sampling_rate = sampling_rate
        self.start, self.stop = round(span.start * sampling_rate), round(span.stop * sampling_rate)
        self.parts: list[tuple[int, np.ndarray]] = []

    def take(self, position: int, samples: np.ndarray) -> None:
        """Take the part of the samples, which start at `position` in the medium, that is in the span."""
        end = position + len(samples)
        first, last = max(position, self.start), min(end, self.stop)
        if self.see(end / self.sampling_rate) and first < last:
            self.parts.append((first - self.start, samples[first - position : last - position]))

    def result(self, failure: MediaError | None) -> np.ndarray | MediaError:
        """Return the waveform, or an error."""
        if self.too_long or not self.parts:
            return self.missing(failure)
        waveform = np.zeros(max(place + len(part) for place, part in self.parts), dtype=np.float32)
        for place, part in self.parts:
            waveform[place : place + len(part)] = part
        return waveform


class _FrameTaker(_Taker):
    def __init__(self, span: Span, step: float):
        super().__init__(span)
        self.step = step
        self.taken = 0  # sampling times since the start of the span, with or without a picture
        self.frames = Frames()

    @property
    def due(self) -> float:
        """The time of the next picture, rounded so that steps of 0.2 s add up exactly."""
        return round(self.span.start + self.taken * self.step, 6)

    def take(self, picture: "_Picture", *, since: float, until: float) -> None:
        """Take a picture at each sampling time while it is shown, from `since` to `until` seconds."""
        if not self.see(until):
            return
        while self.due < min(until, self.span.stop):
            if self.due >= since:
                self.frames.pictures.append(picture.pixels())
                self.frames.times.append(self.due)
            self.taken += 1
            if len(self.frames.times) == MOST_PICTURES:
                # Keep every second picture from the first, so that the next is one doubled step later.
                del self.frames.pictures[1::2], self.frames.times[1::2]
                self.step *= 2
                self.taken = -(-self.taken // 2)

    def result(self, failure: MediaError | None) -> Frames | MediaError:
        """Return the frames, or an error."""
        if self.too_long or not self.frames.times:
            return self.missing(failure)
        return self.frames


class _Picture:
    """A decoded frame that is converted to pixels on first use."""

    def __init__(self, frame: Any):
        self.frame = frame
        self.array: np.ndarray | None = None

    def pixels(self) -> np.ndarray:
        if self.array is None:
            scale = min(1.0, PICTURE_SIDE / max(self.frame.width, self.frame.height))
            width, height = (max(round(side * scale), 1) for side in (self.frame.width, self.frame.height))
            self.array = self.frame.to_ndarray(format="rgb24", width=width, height=height)
            # The angle is counterclockwise, as in rot90.
            self.array = np.ascontiguousarray(np.rot90(self.array, round(self.frame.rotation / 90)))
        return self.array


def _av() -> Any:
    return optional_package("av", extra="media")


def _opened(source: str | Path | bytes) -> Any:
    """Open a medium; errors of FFmpeg and the file system become a MediaError."""
    av = _av()
    file = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    try:
        # Tags in an old encoding do not affect the streams.
        return av.open(file, timeout=DECODING_LIMIT, metadata_errors="ignore")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnreadableMediumError(
            f"cannot be opened: {getattr(error, 'strerror', None) or error}"
        ) from None


def _decoded(source: str | Path | bytes, kind: str) -> Iterator[tuple[float | None, Any]]:
    """Decode one kind of stream; yield the time of each frame in seconds (None if unknown) and the frame."""
    av = _av()
    with _opened(source) as container:
        stream = _stream(container, kind)
        beginning = (container.start_time or 0) / av.time_base
        deadline = time.monotonic() + DECODING_LIMIT
        try:
            for frame in container.decode(stream):
                if time.monotonic() > deadline:
                    raise UnreadableMediumError(f"decoding took longer than {DECODING_LIMIT:g} s")
                yield None if frame.time is None else frame.time - beginning, frame
        except av.FFmpegError as error:
            raise UnreadableMediumError(f"cannot be decoded: {error.strerror}") from None


def streams_of(container: Any, kind: str) -> list[Any]:
    """Return the "audio" or "video" streams of an open container, without cover images."""
    cover = _av().stream.Disposition.attached_pic
    return [one for one in getattr(container.streams, kind) if not one.disposition & cover]


def _stream(container: Any, kind: str) -> Any:
    streams = streams_of(container, kind)
    if not streams:
        raise MediaError(f"there is no {kind} stream")
    if kind == "video":
        width, height = streams[0].codec_context.width, streams[0].codec_context.height
        if max(width, height) > LARGEST_PICTURE:
            raise MediaError(f"video is {width} x {height} pixels: the limit is {LARGEST_PICTURE} per side")
    return streams[0]
