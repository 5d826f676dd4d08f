"""Decode audio and sampled frames from media files in one pass with bounded memory."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from redifu.media.containers import MediaError, decoded
from redifu.media.containers import UnreadableMediumError as UnreadableMediumError
from redifu.media.decoder_process import decode_apart
from redifu.media.sound import channels_of as channels_of
from redifu.media.sound import check_finite, mono, sound_blocks

logger = logging.getLogger(__name__)

LONGEST_UTTERANCE = 300.0  # seconds
# Limits on stored frames: pixels per side, and frames per utterance (then every second one is dropped).
PICTURE_SIDE = 960
MOST_PICTURES = 120
# Of sound with more channels, a span holds only the mean.
KEPT_CHANNELS = 8
# Duration of the last frame of a stream if there is no previous frame to infer it from.
PICTURE_SECONDS = 0.04


@dataclass(frozen=True, kw_only=True)
class Span:
    """The part of a medium that is one utterance, in seconds; an `end` of None is the end of the medium.

    `channel` is the number of a sound channel, from 0; None is the mean of the channels.
    """

    start: float = 0.0
    end: float | None = None
    channel: int | None = None

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
    """Read the audio of spans of a file as mono, the mean of its channels or one of them.

    The file is decoded once, and memory holds only the spans that are being read. Gaps in the timestamps and
    a late start of the stream are filled with zeros. In a damaged file, everything before the damage is used.

    Args:
        source: a path, or the bytes of a file, in any format that FFmpeg reads.
        spans: in any order; they may overlap.
        sampling_rate: output samples per second.

    Yields:
        The index of each span and its waveform (samples,) float32, or an error, as each span ends.
    """
    takers = _Takers([_SpanOfSound(span, sampling_rate) for span in spans])
    failure = None
    try:
        for position, samples in sound_blocks(source, sampling_rate=sampling_rate):
            end = position + samples.shape[1]
            for taker in takers.until(end / sampling_rate):
                taker.take(position, samples)
            yield from takers.ended(end / sampling_rate)
            if takers.are_done:
                return
    except MediaError as error:
        failure = error
    yield from takers.rest(failure)


def sound_chunks(
    source: str | Path | bytes, *, sampling_rate: int, seconds: float = 30.0, channel: int | None = None
) -> Iterator[np.ndarray]:
    """Read the audio of a whole file as consecutive chunks in bounded memory.

    Gaps in the timestamps and a late start of the stream are filled with zeros. In a damaged file, everything
    before the damage is used, and a warning says where the sound ends.

    Args:
        source: a path, or the bytes of a file, in any format that FFmpeg reads.
        sampling_rate: output samples per second.
        seconds: length of a chunk.
        channel: the number of a channel, from 0; None for the mean of the channels (see `sound.mono`).

    Yields:
        Waveforms (seconds * sampling_rate,) float32 from time 0 on; the last can be shorter.

    Raises:
        ImportError: PyAV is not installed.
        MediaError: the file cannot be opened, has no sound or no such channel, or a chunk holds samples that
            are not finite numbers.
    """
    size = round(seconds * sampling_rate)
    if size < 1:
        raise ValueError(f"seconds must be at least one sample, got {seconds:g}")
    end = 0
    try:
        for waveform in decode_apart(_chunks, source, size, sampling_rate=sampling_rate, channel=channel):
            end += len(waveform)
            yield waveform
    except UnreadableMediumError as error:
        if not end:
            raise
        place = "" if isinstance(source, bytes) else f"{source}: "
        logger.warning(f"{place}the sound ends at {end / sampling_rate:.2f} s: {error}")


def _chunks(
    source: str | Path | bytes, size: int, *, sampling_rate: int, channel: int | None
) -> Iterator[np.ndarray]:
    """Yield waveforms (size,), of which the last can be shorter; after it, raise what ended them."""
    chunk = _Chunk(0, size)
    end, failure = 0, None
    try:
        for position, samples in sound_blocks(source, sampling_rate=sampling_rate):
            end = position + samples.shape[1]
            while True:
                chunk.take(position, of_channel(samples, channel))
                if end < chunk.stop:
                    break
                yield chunk.waveform(size)
                chunk = _Chunk(chunk.stop, chunk.stop + size)
    except UnreadableMediumError as error:
        failure = error
    if chunk.parts:
        yield chunk.waveform(max(place + part.shape[1] for place, part in chunk.parts))
    if failure or not end:
        raise failure or MediaError("there is no sound in the audio stream")


def of_channel(samples: np.ndarray, channel: int | None) -> np.ndarray:
    """Return one channel of (channels, samples), or all for None; raise a MediaError if there is none."""
    if channel is None:
        return samples
    if not 0 <= channel < len(samples):
        raise MediaError(f"there is no channel {channel}: expected 0 to {len(samples) - 1}")
    return samples[channel : channel + 1]


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
        for seconds, frame in decoded(source, "video"):
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
        _show(shown, round(shown[0] + shown_for, 6), takers)
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


class _Chunk:
    """Collects sound between two positions, in samples since time 0."""

    def __init__(self, start: int, stop: int):
        self.start, self.stop = start, stop
        self.parts: list[tuple[int, np.ndarray]] = []

    def take(self, position: int, samples: np.ndarray) -> None:
        """Take what lies in the chunk of samples (channels, count) that start at `position`."""
        first, last = max(position, self.start), min(position + samples.shape[1], self.stop)
        if first < last:
            part = samples[:, first - position : last - position]
            # More channels would take too much memory.
            few = part if len(part) <= KEPT_CHANNELS else part.mean(axis=0, keepdims=True)
            self.parts.append((first - self.start, few))

    def waveform(self, length: int) -> np.ndarray:
        """Return the sound as mono (length,) float32, with zeros in gaps; raise a MediaError for NaN."""
        waveform = np.zeros(length, dtype=np.float32)
        for count in {len(part) for _, part in self.parts}:  # which can change within a file
            parts = [(place, part) for place, part in self.parts if len(part) == count]
            mixed = mono(np.concatenate([part for _, part in parts], axis=1))
            for place, part in parts:
                waveform[place : place + part.shape[1]], mixed = np.split(mixed, [part.shape[1]])
        check_finite(waveform)
        return waveform


class _SpanOfSound(_Taker):
    def __init__(self, span: Span, sampling_rate: int):
        super().__init__(span)
        self.sampling_rate = sampling_rate
        self.chunk = _Chunk(round(span.start * sampling_rate), round(span.stop * sampling_rate))
        self.wrong: MediaError | None = None

    def take(self, position: int, samples: np.ndarray) -> None:
        """Take the part of the samples, which start at `position` in the medium, that is in the span."""
        if self.see((position + samples.shape[1]) / self.sampling_rate):
            try:
                self.chunk.take(position, of_channel(samples, self.span.channel))
            except MediaError as error:
                self.wrong = error

    def result(self, failure: MediaError | None) -> np.ndarray | MediaError:
        """Return the waveform, or an error."""
        if self.wrong or self.too_long or not self.chunk.parts:
            return self.wrong or self.missing(failure)
        try:
            return self.chunk.waveform(max(place + part.shape[1] for place, part in self.chunk.parts))
        except MediaError as error:
            return error


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
