"""Decode sound to blocks of samples at one rate, in the order of time, with bounded memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from redifu.media.containers import MediaError, UnreadableMediumError, decoded, pyav
from redifu.media.decoder_process import decode_apart

# A larger difference between timestamps and decoded samples means that there is a gap.
LARGEST_DRIFT = 0.05  # seconds
# Share of the power that unrelated channels keep in their mean, below which the channels cancel each other.
CANCELLED = 0.01
LARGEST_SAMPLE = 2.0**32  # above all integers that are stored as float without scaling


def sound_blocks(source: str | Path | bytes, *, sampling_rate: int) -> Iterator[tuple[int, np.ndarray]]:
    """Decode the sound of a file.

    Args:
        source: a path, or the bytes of a file.
        sampling_rate: output samples per second.

    Yields:
        The place of each block, in samples since time 0, and its samples (channels, count) float32. Blocks
        ascend and do not overlap; nothing is yielded for gaps in the timestamps and before a late start.

    Raises:
        MediaError: there is no sound, or from here on, it cannot be decoded.
    """
    av = pyav()
    timeline = _Timeline(sampling_rate)
    resampler: Any = None
    form: tuple[Any, ...] = ()
    try:
        for seconds, frame in decoded(source, "audio"):
            changes = form != (form := (frame.format.name, frame.layout.name, frame.sample_rate))
            jump = timeline.jump(seconds)
            if changes or jump is not None:
                # At a change of format, the millisecond that the resampler holds is lost, as with FFmpeg.
                if jump is not None:
                    yield from timeline.placed(_resampled(resampler, None))
                    timeline.position = jump
                # Packed samples, because PyAV reads beyond the end of 8 or more planes.
                resampler = av.AudioResampler(format="flt", rate=sampling_rate)
            yield from timeline.placed(_resampled(resampler, frame))
        yield from timeline.placed(_resampled(resampler, None))
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise UnreadableMediumError(f"cannot be decoded: {reason}") from None


class _Timeline:
    """Places samples one after the other, and says when timestamps disagree with that."""

    def __init__(self, sampling_rate: int):
        self.sampling_rate = sampling_rate
        self.position = 0  # of the next sample
        self.written = 0  # the end of what has been placed, where `position` may have gone back

    def jump(self, seconds: float | None) -> int | None:
        """Return the position that a timestamp demands, if it is far from that of the next sample."""
        if seconds is None or abs(seconds - self.position / self.sampling_rate) <= LARGEST_DRIFT:
            return None
        return round(seconds * self.sampling_rate)

    def placed(self, blocks: Iterator[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (channels, samples) blocks with their positions, without what would lie over earlier ones."""
        for samples in blocks:
            new = samples[:, max(self.written - self.position, 0) :]
            self.position += samples.shape[1]
            if new.shape[1]:
                yield self.position - new.shape[1], new
                self.written = self.position


def _resampled(resampler: Any, frame: Any) -> Iterator[np.ndarray]:
    """Yield (channels, samples) float32 that a resampler makes of a frame, or of None at the end."""
    if resampler is None:
        return
    for one in resampler.resample(frame):
        if one is not None:  # which a resampler with nothing to do returns at the end
            yield one.to_ndarray().reshape(-1, one.layout.nb_channels).T


def mono(channels: np.ndarray) -> np.ndarray:
    """Mix channels: (channels, samples) to (samples,), their mean.

    Channels in antiphase would cancel each other. If nearly all power is lost in the mean, the loudest
    channel is returned.
    """
    mixed = channels.mean(axis=0)
    powers = np.square(channels, dtype=np.float64).mean(axis=1) if channels.size else np.zeros(1)
    if np.square(mixed, dtype=np.float64).mean() < CANCELLED * powers.mean() / len(channels):
        return channels[powers.argmax()]
    return mixed


def check_finite(waveform: np.ndarray) -> None:
    """Raise a MediaError if samples are not finite numbers, or so large that their powers would not be."""
    if not (np.abs(waveform) <= LARGEST_SAMPLE).all():
        raise MediaError("the sound has samples that are not finite numbers")


def channels_of(source: str | Path | bytes) -> int:
    """Return the number of sound channels with which a file begins.

    Raises:
        ImportError: PyAV is not installed.
        MediaError: the file cannot be opened, or has no sound.
    """
    [channels] = decode_apart(_channels_of, source)
    return channels


def _channels_of(source: str | Path | bytes) -> int:
    for _, samples in sound_blocks(source, sampling_rate=16000):
        return len(samples)
    raise MediaError("there is no sound in the audio stream")
