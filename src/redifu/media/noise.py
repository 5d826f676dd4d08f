"""Add noise to waveforms at a given signal-to-noise ratio."""

from collections.abc import Sequence

import numpy as np

BABBLE_VOICES = 8
LOUDEST = 0.99  # relative to a full scale of 1


def white_noise(
    sounds: Sequence[np.ndarray], place: int, *, length: int, generator: np.random.Generator
) -> np.ndarray:
    """Draw (length,) samples of white noise; `sounds` and `place` are ignored (see `babble_noise`)."""
    return generator.standard_normal(length)


def pink_noise(
    sounds: Sequence[np.ndarray], place: int, *, length: int, generator: np.random.Generator
) -> np.ndarray:
    """Draw (length,) samples of pink noise (equal power per octave); takes `white_noise`'s arguments."""
    spectrum = np.fft.rfft(generator.standard_normal(length))
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), n=length)


def babble_noise(
    sounds: Sequence[np.ndarray], place: int, *, length: int, generator: np.random.Generator
) -> np.ndarray:
    """Mix other sounds at equal loudness, starting at random positions.

    Args:
        sounds: waveforms, (samples,) each, with the same sampling rate.
        place: index in `sounds` of the sound that gets the noise; it is not mixed in.
        length: number of samples to generate.
        generator: chooses `BABBLE_VOICES` sounds, or all others if there are fewer.

    Returns:
        (length,) samples.

    Raises:
        ValueError: all other sounds are silent.
    """
    total, voices = np.zeros(length), 0
    for other in generator.permutation(len(sounds)):
        voice = sounds[other]
        if other == place or not (power := np.square(voice).mean() if len(voice) else 0.0):
            continue
        start = generator.integers(len(voice))
        total += np.tile(voice / np.sqrt(power), length // len(voice) + 2)[start : start + length]
        voices += 1
        if voices == BABBLE_VOICES:
            break
    if not voices:
        raise ValueError("babble noise requires another sound that is not silent, got none")
    return total


def add_noise(sound: np.ndarray, noise: np.ndarray, *, level: float) -> np.ndarray:
    """Add noise to a sound at a signal-to-noise ratio.

    Args:
        sound: (samples,).
        noise: (samples,) at any loudness.
        level: signal-to-noise ratio in dB, from the mean power over the whole length.

    Returns:
        (samples,) float32.
    """
    scale = np.sqrt(np.square(sound).mean() / np.square(noise).mean()) * 10 ** (-level / 20)
    return (sound + scale * noise).astype(np.float32)


def record_in_noise(sound: np.ndarray, noise: np.ndarray, *, level: float) -> np.ndarray:
    """Add noise as `add_noise` does and, like a recorder, reduce the volume if it exceeds full scale.

    Otherwise, the result would count as clipped.
    """
    mixed = add_noise(sound, noise, level=level)
    return mixed / max(1.0, np.abs(mixed).max() / LOUDEST)
