"""From the media of an utterance to its features, its quality and, where a stream is missing, the reason."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np

from .audio_features import LOG_MEL_SIZE, SAMPLING_RATE, log_mel_features, opensmile_features
from .face_tracking import FaceFinder, choose_speaking_face
from .media_decoding import (
    MOST_PICTURES,
    Frames,
    MediaError,
    Span,
    UnreadableMediumError,
    read_frames,
    read_sound,
)
from .media_quality import audio_quality, reason_to_drop
from .optional_packages import optional_package
from .visual_features import (
    ACTION_UNITS,
    FACE_DESCRIPTOR_SIZE,
    face_crops,
    face_descriptor,
    read_action_units,
    visual_quality,
)

# How many features a backend gives.
AUDIO_BACKENDS: dict[str, int] = {
    "log_mel": LOG_MEL_SIZE,
    "opensmile:eGeMAPSv02": 88,
    "opensmile:IS10": 1582,
}
VISUAL_BACKENDS: dict[str, int] = {"face_descriptor": FACE_DESCRIPTOR_SIZE, "action_units": len(ACTION_UNITS)}
FRAMES_PER_SECOND = 5.0
# The backend that leaves sound and picture to the backbone of the model.
BACKBONE = "backbone"


@dataclass(frozen=True, kw_only=True)
class StreamReading:
    """What an utterance's sound or picture gave.

    Attributes:
        features: (size,) float32, None where the stream counts as missing; of the backend "backbone" what a
            backbone reads: a waveform (samples,) float32 or face crops (count, size, size, 3) uint8.
        quality: the measures of `media_quality.QUALITY` that could be taken.
        missing: why there are no features.
        failed: whether that is because the file cannot be read.
    """

    features: np.ndarray | None = None
    quality: Mapping[str, float] = field(default_factory=dict)
    missing: str | None = None
    failed: bool = False


def read_audio(medium: Any, spans: Sequence[Span], *, backend: str) -> Iterator[tuple[int, StreamReading]]:
    """Describe the sound of spans of one medium.

    Args:
        medium: a path, the bytes of a file, a waveform (samples,) or (channels, samples) as {"array",
            "sampling_rate"}, or a value of a datasets Audio column.
        spans: in any order; they may overlap.
        backend: a key of AUDIO_BACKENDS, or BACKBONE for the waveform itself, at SAMPLING_RATE.

    Yields:
        The number of each span and its reading, as they come.
    """
    describe: Callable[[np.ndarray], np.ndarray] = log_mel_features
    if backend == BACKBONE:
        describe = np.copy
    elif backend != "log_mel":
        describe = partial(opensmile_features, name=backend.removeprefix("opensmile:"))
    for number, waveform in _sounds(medium, spans):
        if isinstance(waveform, MediaError):
            yield number, _nothing(waveform)
            continue
        quality = audio_quality(waveform, SAMPLING_RATE)
        yield number, _kept(quality, partial(describe, waveform))


def read_visual(
    medium: Any,
    spans: Sequence[Span],
    *,
    backend: str,
    face_detector: str | None = None,
    picture_count: int = 4,
    picture_size: int = 224,
) -> Iterator[tuple[int, StreamReading]]:
    """Describe the face that speaks in spans of one medium.

    Args:
        medium: a path, the bytes of a file, frames (frames, height, width, 3) uint8 RGB as {"frames",
            "frames_per_second"}, or a value of a datasets Video column; of action_units, a CSV file of
            OpenFace, or a video beside which one of the same name lies.
        spans: in any order; they may overlap.
        backend: a key of VISUAL_BACKENDS, or BACKBONE for crops of the face.
        face_detector: a YuNet ONNX file that finds faces; None for OpenCV's cascades.
        picture_count: crops of an utterance.
        picture_size: pixels of a crop's side.

    Yields:
        The number of each span and its reading, as they come.
    """
    if backend == "action_units":
        yield from _action_units(medium, spans)
        return
    describe: Callable[..., np.ndarray] = face_descriptor
    if backend == BACKBONE:
        describe = partial(face_crops, count=picture_count, size=picture_size)
    finder = _face_finder(face_detector)
    for number, frames in _pictures(medium, spans):
        if isinstance(frames, MediaError):
            yield number, _nothing(frames)
            continue
        boxes = choose_speaking_face(finder, frames.pictures, frames.times)
        quality = visual_quality(frames.pictures, boxes)
        yield number, _kept(quality, partial(describe, frames.pictures, boxes))


def _nothing(error: MediaError) -> StreamReading:
    return StreamReading(missing=str(error), failed=isinstance(error, UnreadableMediumError))


@lru_cache(maxsize=1)
def _face_finder(weights: str | None) -> FaceFinder:
    return FaceFinder(weights)


def _kept(quality: Mapping[str, float], describe: Callable[[], np.ndarray]) -> StreamReading:
    reason = reason_to_drop(quality)
    features = None if reason else describe()
    return StreamReading(features=features, quality=quality, missing=reason)


def _sounds(medium: Any, spans: Sequence[Span]) -> Iterator[tuple[int, np.ndarray | MediaError]]:
    medium = _file_of(medium)
    if isinstance(medium, str | Path | bytes):
        yield from read_sound(medium, spans, sampling_rate=SAMPLING_RATE)
        return
    if hasattr(medium, "get_all_samples"):  # as datasets decodes an Audio column
        samples = medium.get_all_samples()
        medium = {"array": samples.data.numpy(), "sampling_rate": samples.sample_rate}
    waveform, rate = _parts(medium, "array", "sampling_rate")
    waveform = np.asarray(waveform, dtype=np.float32)
    waveform = waveform.mean(axis=0) if waveform.ndim == 2 else waveform
    if waveform.ndim != 1 or not np.isfinite(waveform).all():
        raise ValueError(f"a waveform is (samples,) of finite numbers, got shape {waveform.shape}")
    for number, span in enumerate(spans):
        part = waveform[round(span.start * rate) : round(span.stop * rate)]
        if not len(part):
            yield number, MediaError(f"the waveform holds nothing from {span.start:g} s on")
            continue
        yield number, _resampled(part, int(rate))


def _resampled(waveform: np.ndarray, rate: int) -> np.ndarray:
    if rate == SAMPLING_RATE:
        return waveform
    common = gcd(rate, SAMPLING_RATE)
    signal = optional_package("scipy.signal", extra="media")
    return signal.resample_poly(waveform, SAMPLING_RATE // common, rate // common).astype(np.float32)


def _pictures(medium: Any, spans: Sequence[Span]) -> Iterator[tuple[int, Frames | MediaError]]:
    medium = _file_of(medium)
    if isinstance(medium, str | Path | bytes):
        yield from read_frames(medium, spans, frames_per_second=FRAMES_PER_SECOND)
        return
    if hasattr(medium, "get_frames_in_range"):  # as datasets decodes a Video column
        rate = medium.metadata.average_fps
        medium = {"frames": medium[:].permute(0, 2, 3, 1).numpy(), "frames_per_second": rate}
    frames, rate = _parts(medium, "frames", "frames_per_second")
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames are (frames, height, width, 3) uint8, got {frames.shape} {frames.dtype}")
    for number, span in enumerate(spans):
        end = min(span.stop, len(frames) / rate)
        step = max(1 / FRAMES_PER_SECOND, 1 / rate, (end - span.start) / MOST_PICTURES)
        times = np.arange(span.start, end - 1e-6, step)
        if not len(times):
            yield number, MediaError(f"the frames hold nothing from {span.start:g} s on")
            continue
        pictures = [frames[int(time * rate + 1e-6)] for time in times]
        yield number, Frames(pictures=pictures, times=times.tolist())


def action_units_file(medium: str | Path) -> Path:
    """Return where the action units of a video lie: beside it, as OpenFace writes them."""
    return Path(medium).with_suffix(".csv")


def _action_units(medium: Any, spans: Sequence[Span]) -> Iterator[tuple[int, StreamReading]]:
    for number, span in enumerate(spans):
        try:
            values, share = read_action_units(action_units_file(medium), start=span.start, end=span.end)
        except (OSError, TypeError, ValueError) as error:
            yield number, StreamReading(missing=str(error), failed=True)
            continue
        yield number, _kept({"face_share": share}, partial(np.copy, values))


def _file_of(medium: Any) -> Any:
    """The file of a datasets value that is not decoded: its bytes where it holds them, else its path."""
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
