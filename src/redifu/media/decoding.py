"""Sound and sampled frames out of media files: read once from front to back, in bounded memory."""

import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from redifu.optional_packages import optional_package

# What a file may ask of a machine that did not choose it.
LONGEST_UTTERANCE = 300.0  # seconds
LARGEST_PICTURE = 8192  # pixels a side
DECODING_LIMIT = 1800.0  # seconds of work a file
# Pictures are kept no larger, and no more of them an utterance: then every second one goes.
PICTURE_SIDE = 960
MOST_PICTURES = 120
# Timestamps that disagree by more with the samples that came before are believed: there is a gap.
LARGEST_DRIFT = 0.05  # seconds
# How long the last picture of a stream is shown, where the one before does not tell.
PICTURE_SECONDS = 0.04


class MediaError(ValueError):
    """A medium that has nothing of a stream or of a span of it; the message says why."""


class UnreadableMediumError(MediaError):
    """A file that cannot be opened or decoded."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """The part of a medium that is one utterance: seconds from its beginning, to its end where None."""

    start: float = 0.0
    end: float | None = None

    @property
    def stop(self) -> float:
        """Where reading ends at the latest, in seconds."""
        return self.start + LONGEST_UTTERANCE if self.end is None else self.end


@dataclass(kw_only=True)
class Frames:
    """Sampled frames of an utterance.

    Attributes:
        pictures: (height, width, 3) uint8 RGB each.
        times: seconds from the beginning of the medium, one a picture.
    """

    pictures: list[np.ndarray] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


def read_sound(
    source: str | Path | bytes, spans: Sequence[Span], *, sampling_rate: int
) -> Iterator[tuple[int, np.ndarray | MediaError]]:
    """Read the sound of spans of a file, the mean of its channels.

    The file is decoded once, and no more is held than the spans that are being read. Where by its timestamps
    the stream has a gap, or begins after the medium, there are zeros. What a damaged file holds before the
    damage is used.

    Args:
        source: a path, or the bytes of a file, in any format of FFmpeg.
        spans: in any order; they may overlap.
        sampling_rate: samples a second of what is returned.

    Yields:
        As they end, the number of each span and its waveform (samples,) float32, or why there is none.
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
    """Read frames of spans of a file at even times, turned as the file says.

    The file is decoded once, and no more is held than the spans that are being read. For each time that
    picture is taken which a player would show then, whatever the frame rate does. Large pictures are made
    smaller, and of a long span fewer are taken a second. What a damaged file holds before the damage is used.

    Args:
        source: a path, or the bytes of a file, in any format of FFmpeg.
        spans: in any order; they may overlap.
        frames_per_second: pictures to take of a second, from the start of each span on.

    Yields:
        As they end, the number of each span and its frames, or why there are none.
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
    """The takers of all spans: those that wait for their start, and those that are being served."""

    def __init__(self, takers: Sequence[Any]):
        order = sorted(range(len(takers)), key=lambda number: takers[number].span.start, reverse=True)
        self.waiting = [(number, takers[number]) for number in order]
        self.serving: dict[int, Any] = {}

    @property
    def are_done(self) -> bool:
        """Whether every span has ended."""
        return not self.waiting and not self.serving

    def until(self, seconds: float) -> list[Any]:
        """Return those that take from what ends at `seconds`."""
        while self.waiting and self.waiting[-1][1].span.start < seconds:
            number, taker = self.waiting.pop()
            self.serving[number] = taker
        return list(self.serving.values())

    def ended(self, seconds: float) -> Iterator[tuple[int, Any]]:
        """Give what the spans that end before `seconds` have, and forget them."""
        for number in [number for number, taker in self.serving.items() if taker.span.stop < seconds]:
            yield number, self.serving.pop(number).result(None)

    def rest(self, failure: MediaError | None) -> Iterator[tuple[int, Any]]:
        """Give what is left when nothing more comes, because of a failure or because it is the end."""
        for number, taker in [*self.serving.items(), *self.waiting]:
            yield number, taker.result(failure)


class _Taker:
    """Collects what belongs to one span as it comes by."""

    def __init__(self, span: Span):
        self.span = span
        self.too_long = span.stop - span.start > LONGEST_UTTERANCE

    def see(self, seconds: float) -> bool:
        """Note that the medium goes on until `seconds`, and say whether more of it is wanted."""
        # Of a span without an end, what goes beyond its stop is too much.
        self.too_long |= self.span.end is None and seconds > self.span.stop
        return not self.too_long

    def missing(self, failure: MediaError | None) -> MediaError:
        """Return why nothing can be given of this span."""
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
        """Take what belongs to the span of samples that begin at `position` of the medium."""
        end = position + len(samples)
        first, last = max(position, self.start), min(end, self.stop)
        if self.see(end / self.sampling_rate) and first < last:
            self.parts.append((first - self.start, samples[first - position : last - position]))

    def result(self, failure: MediaError | None) -> np.ndarray | MediaError:
        """Return the waveform, or why there is none."""
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
        self.taken = 0  # of the times since the start of the span, whether there was a picture or not
        self.frames = Frames()

    @property
    def due(self) -> float:
        """When the next picture is to be taken; rounded, so that steps of 0.2 s end where they should."""
        return round(self.span.start + self.taken * self.step, 6)

    def take(self, picture: "_Picture", *, since: float, until: float) -> None:
        """Take a picture for each time that is due while it is shown, from `since` to `until` seconds."""
        if not self.see(until):
            return
        while self.due < min(until, self.span.stop):
            if self.due >= since:
                self.frames.pictures.append(picture.pixels())
                self.frames.times.append(self.due)
            self.taken += 1
            if len(self.frames.times) == MOST_PICTURES:
                # Counted from the first, so that every second one stays and the next is a double step on.
                del self.frames.pictures[1::2], self.frames.times[1::2]
                self.step *= 2
                self.taken = -(-self.taken // 2)

    def result(self, failure: MediaError | None) -> Frames | MediaError:
        """Return the frames, or why there are none."""
        if self.too_long or not self.frames.times:
            return self.missing(failure)
        return self.frames


class _Picture:
    """A decoded frame, turned into pixels at most once, and only if somebody wants them."""

    def __init__(self, frame: Any):
        self.frame = frame
        self.array: np.ndarray | None = None

    def pixels(self) -> np.ndarray:
        if self.array is None:
            scale = min(1.0, PICTURE_SIDE / max(self.frame.width, self.frame.height))
            width, height = (max(round(side * scale), 1) for side in (self.frame.width, self.frame.height))
            self.array = self.frame.to_ndarray(format="rgb24", width=width, height=height)
            # The angle is counterclockwise, as that of rot90.
            self.array = np.ascontiguousarray(np.rot90(self.array, round(self.frame.rotation / 90)))
        return self.array


def _av() -> Any:
    return optional_package("av", extra="media")


def _opened(source: str | Path | bytes) -> Any:
    """Open a medium; everything that FFmpeg or the file system has against it becomes a MediaError."""
    av = _av()
    file = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    try:
        # Tags in an old encoding say nothing about the streams.
        return av.open(file, timeout=DECODING_LIMIT, metadata_errors="ignore")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnreadableMediumError(
            f"cannot be opened: {getattr(error, 'strerror', None) or error}"
        ) from None


def _decoded(source: str | Path | bytes, kind: str) -> Iterator[tuple[float | None, Any]]:
    """Decode one kind of stream: of each frame its time in seconds, None if it has none, and itself."""
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
    """Return the "audio" or "video" streams of an open container, the covers of songs left out."""
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
