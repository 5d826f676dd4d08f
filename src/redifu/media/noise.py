"""Noise on waveforms, at a signal-to-noise ratio."""

from collections.abc import Sequence

import numpy as np

BABBLE_VOICES = 8
LOUDEST = 0.99  # of full scale 1


def white_noise(
    sounds: Sequence[np.ndarray], place: int, *, length: int, generator: np.random.Generator
) -> np.ndarray:
    """Draw (length,) samples of white noise; `sounds` and `place` are as of `babble_noise`, and not read."""
    return generator.standard_normal(length)


def pink_noise(
    sounds: Sequence[np.ndarray], place: int, *, length: int, generator: np.random.Generator
) -> np.ndarray:
    """Draw (length,) samples of pink noise, as much power in every octave; arguments as of `white_noise`."""
    spectrum = np.fft.rfft(generator.standard_normal(length))
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), n=length)


def babble_noise(
    sounds: Sequence[np.ndarray], place: int, *, length: int, generator: np.random.Generator
) -> np.ndarray:
    """Mix other sounds, each as loud as the others, from anywhere on.

    Args:
        sounds: waveforms, (samples,) each, of the same sampling rate.
        place: of the sound in `sounds` that is to be disturbed; it is not mixed in.
        length: samples to make.
        generator: chooses `BABBLE_VOICES` sounds, or all others where there are fewer.

    Returns:
        (length,) samples.

    Raises:
        ValueError: no other sound is more than silence.
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
        noise: (samples,) of any loudness.
        level: signal-to-noise ratio in dB, of the powers over the whole length.

    Returns:
        (samples,) float32.
    """
    scale = np.sqrt(np.square(sound).mean() / np.square(noise).mean()) * 10 ** (-level / 20)
    return (sound + scale * noise).astype(np.float32)


def record_in_noise(sound: np.ndarray, noise: np.ndarray, *, level: float) -> np.ndarray:
    """Add noise as `add_noise` does, and turn down what is then louder than full scale, as a recorder would.

    Else it would count as clipped.
    """
    mixed = add_noise(sound, noise, level=level)
    return mixed / max(1.0, np.abs(mixed).max() / LOUDEST)
