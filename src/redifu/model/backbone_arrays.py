"""Waveforms and face crops as backbone inputs: normalised and padded, one row per utterance."""

from collections.abc import Sequence

import numpy as np


def pad_waveforms(waveforms: Sequence[np.ndarray], *, normalize: bool) -> dict[str, np.ndarray]:
    """Pad waveforms with zeros at the end.

    Args:
        waveforms: at least one array (samples,) of floats.
        normalize: whether to normalise each waveform to mean 0 and variance 1 first.

    Returns:
        audio_values (audios, samples) float32 and audio_values_mask (audios, samples) bool.
    """
    lengths = np.array([len(waveform) for waveform in waveforms])
    mask = np.arange(lengths.max()) < lengths[:, None]
    values = np.zeros(mask.shape, dtype=np.float32)
    for row, waveform in zip(values, waveforms, strict=True):
        samples = np.asarray(waveform, dtype=np.float32)
        if normalize:
            # As in the backbones' training; the epsilon keeps silence near 0 and avoids a division by 0.
            samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        row[: len(samples)] = samples
    return {"audio_values": values, "audio_values_mask": mask}


def stack_pictures(
    pictures: Sequence[np.ndarray], *, mean: Sequence[float], std: Sequence[float]
) -> dict[str, np.ndarray]:
    """Scale pictures to the range 0 to 1 and normalise their channels.

    Args:
        pictures: for each of at least one utterance, (pictures, height, width, 3) uint8 RGB.
        mean: mean of each channel.
        std: standard deviation of each channel.

    Returns:
        pixel_values (utterances, pictures, 3, height, width) float32.
    """
    scaled = np.stack(pictures).astype(np.float32) / 255
    normalised = (scaled - np.array(mean, dtype=np.float32)) / np.array(std, dtype=np.float32)
    return {"pixel_values": np.ascontiguousarray(np.moveaxis(normalised, -1, 2))}
