"""Convert spans of one medium to waveforms or face arrays, with quality or the reason for failure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np

from redifu.media import decoder_process
from redifu.media.decoder_process import DecoderCrashedError, decode_apart
from redifu.media.decoding import (
    MOST_PICTURES,
    Frames,
    MediaError,
    Span,
    UnreadableMediumError,
    of_channel,
    read_frames,
    read_sound,
)
from redifu.media.face_features import face_crops, face_descriptor, read_action_units, visual_quality
from redifu.media.face_tracking import FaceFinder, choose_speaking_face
from redifu.media.quality import audio_quality, reason_to_drop
from redifu.media.sound import check_finite, mono
from redifu.optional_packages import optional_package

FRAMES_PER_SECOND = 5.0

Readings = Iterator[tuple[int, "Reading"]]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The result of reading a span of a medium.

    Attributes:
        values: a waveform (samples,) float32, features (size,) float32 or face crops (count, size, size, 3)
            uint8; None if the stream counts as missing.
        quality: the available measures of `quality.QUALITY`.
        missing: why there are no values.
        failed: whether the file could not be read.
    """

    values: np.ndarray | None = None
    quality: Mapping[str, float] = field(default_factory=dict)
    missing: str | None = None
    failed: bool = False


CRASHED = Reading(missing=decoder_process.CRASHED, failed=True)


def read_waveforms(
    medium: Any, spans: Sequence[Span], *, sampling_rate: int
) -> Iterator[tuple[int, Reading]]:
    """Read the audio of spans of one medium.

    Args:
        medium: a path, the bytes of a file, a waveform (samples,) or (channels, samples) as {"array",
            "sampling_rate"}, or a value of a datasets Audio column.
        spans: in any order; they may overlap.
        sampling_rate: output samples per second.

    Yields:
        The index of each span and its reading, a waveform (samples,), in order of completion.

    Raises:
        ImportError: PyAV (or scipy, to resample an array) is not installed.
        ValueError: the medium has an unsupported type.
    """
    yield from _read(_waveforms, medium, spans, sampling_rate)


def _waveforms(medium: Any, spans: Sequence[Span], sampling_rate: int) -> Readings:
    for number, waveform in _sounds(medium, spans, sampling_rate):
        if isinstance(waveform, MediaError):
            yield number, _nothing(waveform)
        else:
            yield number, _kept(audio_quality(waveform, sampling_rate), partial(np.copy, waveform))


def read_face_descriptors(
    medium: Any, spans: Sequence[Span], *, face_detector: str | None = None
) -> Iterator[tuple[int, Reading]]:
    """Describe the speaking face in spans of one medium; see `face_descriptor` and `read_face_crops`."""
    yield from _read(_faces, medium, spans, face_detector, face_descriptor)


def read_face_crops(
    medium: Any, spans: Sequence[Span], *, count: int, size: int, face_detector: str | None = None
) -> Iterator[tuple[int, Reading]]:
    """Crop the speaking face in spans of one medium.

    Args:
        medium: a path, the bytes of a file, frames (frames, height, width, 3) uint8 RGB as {"frames",
            "frames_per_second"}, or a value of a datasets Video column.
        spans: in any order; they may overlap.
        count: crops per span.
        size: side of a crop in pixels.
        face_detector: a YuNet ONNX file; None for OpenCV's cascades.

    Yields:
        The index of each span and its reading, crops (count, size, size, 3), in order of completion.

    Raises:
        ImportError: PyAV or OpenCV is not installed.
        ValueError: the medium has an unsupported type.
    """
    yield from _read(_faces, medium, spans, face_detector, partial(face_crops, count=count, size=size))


def action_units_file(medium: str | Path) -> Path:
    """Return the path of a video's action units, the CSV next to it, where OpenFace writes them."""
    return Path(medium).with_suffix(".csv")


def read_spans_of_action_units(medium: Any, spans: Sequence[Span]) -> Iterator[tuple[int, Reading]]:
    """Average action units over spans of OpenFace's CSV, or of the video next to it.

    Yields:
        The index of each span and its reading, features (35,), in order.
    """
    for number, span in enumerate(spans):
        try:
            values, share = read_action_units(action_units_file(medium), start=span.start, end=span.end)
        except (OSError, TypeError, ValueError) as error:
            yield number, Reading(missing=str(error), failed=True)
            continue
        yield number, _kept({"face_share": share}, partial(np.copy, values))


def _read(read: Callable[..., Readings], medium: Any, spans: Sequence[Span], *options: Any) -> Readings:
    """Read spans: those of a file in a process of its own, whose crash costs only what it has not read."""
    medium = _file_of(medium)
    if not isinstance(medium, str | Path | bytes):
        yield from read(medium, spans, *options)
        return
    unread = dict.fromkeys(range(len(spans)))
    try:
        for number, reading in decode_apart(read, medium, spans, *options):
            del unread[number]
            yield number, reading
    except DecoderCrashedError:
        for number in unread:
            yield number, CRASHED


def _faces(
    medium: Any, spans: Sequence[Span], face_detector: str | None, describe: Callable[..., np.ndarray]
) -> Readings:
    finder = _face_finder(face_detector)
    for number, frames in _pictures(medium, spans):
        if isinstance(frames, MediaError):
            yield number, _nothing(frames)
            continue
        boxes = choose_speaking_face(finder, frames.pictures, frames.times)
        yield number, _kept(visual_quality(frames.pictures, boxes), partial(describe, frames.pictures, boxes))


def _nothing(error: MediaError) -> Reading:
    return Reading(missing=str(error), failed=isinstance(error, UnreadableMediumError))


@lru_cache(maxsize=1)
def _face_finder(weights: str | None) -> FaceFinder:
    return FaceFinder(weights)


def _kept(quality: Mapping[str, float], describe: Callable[[], np.ndarray]) -> Reading:
    reason = reason_to_drop(quality)
    return Reading(values=None if reason else describe(), quality=quality, missing=reason)


def _sounds(medium: Any, spans: Sequence[Span], rate: int) -> Iterator[tuple[int, np.ndarray | MediaError]]:
    if isinstance(medium, str | Path | bytes):
        yield from read_sound(medium, spans, sampling_rate=rate)
        return
    if hasattr(medium, "get_all_samples"):  # as datasets decodes an Audio column
        samples = medium.get_all_samples()
        medium = {"array": samples.data.numpy(), "sampling_rate": samples.sample_rate}
    waveform, given_rate = _parts(medium, "array", "sampling_rate")
    waveform = np.asarray(waveform, dtype=np.float32)
    if waveform.ndim not in (1, 2):
        raise ValueError(f"expected a (samples,) or (channels, samples) waveform, got shape {waveform.shape}")
    for number, span in enumerate(spans):
        part = np.atleast_2d(waveform)[:, round(span.start * given_rate) : round(span.stop * given_rate)]
        if not part.size:
            yield number, MediaError(f"the waveform has no samples from {span.start:g} s onward")
            continue
        try:
            part = of_channel(part, span.channel)
            check_finite(part)
        except MediaError as error:
            yield number, error
            continue
        yield number, _resampled(mono(part), int(given_rate), rate)


def _resampled(waveform: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    if rate == wanted:
        return waveform
    common = gcd(rate, wanted)
    signal = optional_package("scipy.signal", extra="media")
    return signal.resample_poly(waveform, wanted // common, rate // common).astype(np.float32)


def _pictures(medium: Any, spans: Sequence[Span]) -> Iterator[tuple[int, Frames | MediaError]]:
    if isinstance(medium, str | Path | bytes):
        yield from read_frames(medium, spans, frames_per_second=FRAMES_PER_SECOND)
        return
    if hasattr(medium, "get_frames_in_range"):  # as datasets decodes a Video column
        rate = medium.metadata.average_fps
        medium = {"frames": medium[:].permute(0, 2, 3, 1).numpy(), "frames_per_second": rate}
    frames, rate = _parts(medium, "frames", "frames_per_second")
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"expected (frames, height, width, 3) uint8, got {frames.shape} {frames.dtype}")
    for number, span in enumerate(spans):
        end = min(span.stop, len(frames) / rate)
        step = max(1 / FRAMES_PER_SECOND, 1 / rate, (end - span.start) / MOST_PICTURES)
        times = np.arange(span.start, end - 1e-6, step)
        if not len(times):
            yield number, MediaError(f"there are no frames from {span.start:g} s onward")
            continue
        pictures = [frames[int(time * rate + 1e-6)] for time in times]
        yield number, Frames(pictures=pictures, times=times.tolist())


def _file_of(medium: Any) -> Any:
    """Return the bytes or else the path of an undecoded datasets value; return other media unchanged."""
    if isinstance(medium, Mapping) and ("bytes" in medium or "path" in medium) and "array" not in medium:
        held = medium.get("bytes")
        return medium.get("path") if held is None else held
    return medium


def _parts(medium: Any, values: str, rate: str) -> tuple[Any, float]:
    if not isinstance(medium, Mapping) or not {values, rate} <= set(medium):
        raise ValueError(
            f"expected a path, the bytes of a file or {{{values!r}, {rate!r}}}, got {type(medium).__name__}"
        )
    if not medium[rate] > 0:
        raise ValueError(f"{rate} must be above 0, got {medium[rate]!r}")
    return medium[values], float(medium[rate])
