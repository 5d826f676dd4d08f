"""Acoustic features of an utterance: statistics of spectrum, loudness, pitch and voicing."""

import warnings
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

SAMPLING_RATE = 16000
_HOP = 160  # samples between frames: 10 ms
_FRAME = 400  # 25 ms, for the spectrum and loudness
_PITCH_FRAME = 1024
_PADDED = 1296  # FFT size: a product of small primes that fits a frame and its longest lag
_BLOCK = 256  # frames per batch of the pitch tracker
_PITCH_RANGE = (60.0, 500.0)  # Hz, for speaking voices
_PERIODIC = 0.1  # YIN accepts a lag as the period below this normalised difference
_BANDS = 40
_CEPSTRA = 14
# Thresholds for speech and voiced frames: dB below the loud frames, and harmonicity.
_SPEECH_DEPTH, _VOICED_DEPTH, _VOICED_HARMONICITY = 35.0, 30.0, 0.6
_STATISTICS = 5

LOG_MEL_SIZE = _STATISTICS * (_BANDS + _CEPSTRA + 3) + 6


def log_mel_features(waveform: np.ndarray) -> np.ndarray:
    """Compute acoustic features of an utterance.

    The features are the mean, standard deviation, 10th and 90th percentile, and standard deviation of the
    frame-to-frame differences of 40 log-mel bands, their first 14 cepstral coefficients, loudness (dB),
    harmonicity (-1 to 1) and the pitch of voiced frames (semitones above 100 Hz); then the share of voiced
    frames, voiced segments per second, their mean and maximum length (seconds), the share of speech, and the
    pitch slope (semitones per second). Spectrum, loudness and harmonicity use only frames with speech.

    Args:
        waveform: (samples,) float at 16 kHz.

    Returns:
        (LOG_MEL_SIZE,) float32.
    """
    mel, loudness, pitch, harmonicity = _tracks(waveform)
    loud = np.percentile(loudness, 95)
    speech = loudness >= loud - _SPEECH_DEPTH
    voiced = (harmonicity > _VOICED_HARMONICITY) & (loudness >= loud - _VOICED_DEPTH)
    parts = [
        _statistics(mel[speech]),
        _statistics(_cepstra(mel[speech])),
        _statistics(loudness[speech, None]),
        _statistics(harmonicity[speech, None]),
        _statistics(pitch[voiced, None]),
        _voicing(voiced, pitch, speech_share=float(speech.mean())),
    ]
    return np.concatenate(parts).astype(np.float32)


def opensmile_features(waveform: np.ndarray, name: str) -> np.ndarray:
    """Compute functionals with the openSMILE toolkit, whose licence forbids commercial use.

    Args:
        waveform: (samples,) float at 16 kHz.
        name: "eGeMAPSv02" (88 features) or "IS10" (1582 features, used by published IEMOCAP recipes).

    Returns:
        (features,) float32.

    Raises:
        ImportError: opensmile is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about clips that are too short, and fills in NaN
        values = _opensmile(name).process_signal(waveform, SAMPLING_RATE).to_numpy()[0]
    # Functionals over voiced frames are NaN if there are none; 0 is also what silence gives.
    return np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


@lru_cache(maxsize=2)
def _opensmile(name: str) -> Any:
    try:
        opensmile = import_module("opensmile")
    except ImportError as error:
        message = f"{error.name} is not installed: pip install 'redifu[smile]'"
        raise ImportError(message, name=error.name) from None
    return opensmile.Smile(getattr(opensmile.FeatureSet, name), opensmile.FeatureLevel.Functionals)


def _tracks(waveform: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return log-mel bands, loudness (dB), pitch (semitones above 100 Hz) and harmonicity per 10 ms frame."""
    sound = waveform.astype(np.float32) - waveform.mean(dtype=np.float64).astype(np.float32)
    sound = np.pad(sound, (0, max(0, _PITCH_FRAME - len(sound))))
    mel = spectrogram(
        sound,
        window_function(_FRAME, "hann"),
        frame_length=_FRAME,
        hop_length=_HOP,
        fft_length=512,
        power=2.0,
        mel_filters=_mel_filters(),
        mel_floor=1e-10,
        log_mel="log10",
    ).T
    padded = np.pad(sound, _PITCH_FRAME // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _PITCH_FRAME)[::_HOP]
    count = min(len(mel), len(frames))
    mel, frames = mel[:count], frames[:count]
    # Blocks fit in the processor's cache.
    blocks = [frames[start : start + _BLOCK] for start in range(0, count, _BLOCK)]
    frequency = np.concatenate([_fundamental_frequency(block) for block in blocks])
    middle = slice((_PITCH_FRAME - _FRAME) // 2, (_PITCH_FRAME + _FRAME) // 2)
    loudness = 10 * np.log10((frames[:, middle] ** 2).mean(axis=1) + 1e-10)
    return mel, loudness, 12 * np.log2(frequency / 100), _harmonicity(frames, frequency)


def _fundamental_frequency(frames: np.ndarray) -> np.ndarray:
    """Estimate pitch by YIN (de Cheveigne and Kawahara, 2002): (frames, samples) to (frames,) Hz."""
    low, high = _PITCH_RANGE
    shortest, longest = int(SAMPLING_RATE // high), int(-(-SAMPLING_RATE // low))
    frames = frames.astype(np.float64)  # the differences of large numbers below need the precision
    # Equation 7, by autocorrelation: squared differences between a frame and its lagged copy.
    spectrum = np.fft.rfft(frames, _PADDED)
    correlation = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, _PADDED)[:, : longest + 1]
    lost = np.cumsum(frames[:, :longest] ** 2, axis=1)
    lost[:, 0] = 0  # as in librosa, whose pitch the checkpoints were trained on
    difference = 2 * (correlation[:, :1] - correlation[:, 1:]) - lost
    # Equation 8: divide by the mean over all shorter lags.
    mean = np.cumsum(difference, axis=1) / np.arange(1, longest + 1)
    normalised = (difference / (mean + np.finfo(mean.dtype).tiny))[:, shortest - 1 :]
    # The first trough below the threshold, or else the global minimum.
    trough = np.zeros(normalised.shape, dtype=bool)
    trough[:, 1:] = normalised[:, 1:] < normalised[:, :-1]
    trough[:, :-1] &= normalised[:, :-1] <= normalised[:, 1:]
    trough[:, 0] = normalised[:, 0] < normalised[:, 1]
    trough &= normalised < _PERIODIC
    place = np.where(trough.any(axis=1), trough.argmax(axis=1), normalised.argmin(axis=1))
    return SAMPLING_RATE / (shortest + place + _parabolic_shift(normalised, place))


def _parabolic_shift(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return the offset from `place` to the minimum of the parabola through its neighbours; 0 at edges."""
    rows, inner = np.arange(len(values)), place.clip(1, values.shape[1] - 2)
    before, here, after = (values[rows, inner + step] for step in (-1, 0, 1))
    curvature, slope = before + after - 2 * here, (after - before) / 2
    inside = (np.abs(slope) < np.abs(curvature)) & (inner == place)
    return np.where(inside, -slope / np.where(inside, curvature, 1.0), 0.0)


def _harmonicity(frames: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """Correlate a frame's first half with the samples one period later: (frames,) in -1 to 1."""
    half = _PITCH_FRAME // 2
    lag = np.minimum(np.round(SAMPLING_RATE / frequency).astype(int), half)
    left = frames[:, :half]
    right = np.take_along_axis(frames, np.arange(half) + lag[:, None], axis=1)
    norms = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
    return (left * right).sum(axis=1) / (norms + 1e-9)


def _cepstra(mel: np.ndarray) -> np.ndarray:
    """Return the first coefficients of the orthonormal DCT-II of the bands."""
    angles = np.pi / _BANDS * np.outer(np.arange(_BANDS) + 0.5, np.arange(_CEPSTRA))
    scale = np.sqrt(np.where(np.arange(_CEPSTRA) == 0, 1, 2) / _BANDS)
    return mel @ (np.cos(angles) * scale).astype(mel.dtype)


def _statistics(track: np.ndarray) -> np.ndarray:
    """Summarise (frames, values) as (5 * values,); zeros if there are no frames."""
    if not len(track):
        return np.zeros(_STATISTICS * track.shape[1])
    changes = np.diff(track, axis=0) if len(track) > 1 else np.zeros_like(track)
    low, high = np.percentile(track, (10, 90), axis=0)
    return np.concatenate([track.mean(axis=0), track.std(axis=0), low, high, changes.std(axis=0)])


def _voicing(voiced: np.ndarray, pitch: np.ndarray, *, speech_share: float) -> np.ndarray:
    per_second = SAMPLING_RATE / _HOP
    edges = np.diff(np.concatenate([[0], voiced.astype(int), [0]]))
    lengths = (np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)) / per_second
    seconds = np.flatnonzero(voiced) / per_second
    slope = np.polyfit(seconds, pitch[voiced], 1)[0] if len(seconds) > 3 else 0.0
    rate = len(lengths) / (len(voiced) / per_second)
    mean, longest = (lengths.mean(), lengths.max()) if len(lengths) else (0.0, 0.0)
    return np.array([voiced.mean(), rate, mean, longest, speech_share, slope])


@lru_cache(maxsize=1)
def _mel_filters() -> np.ndarray:
    return mel_filter_bank(
        num_frequency_bins=257,
        num_mel_filters=_BANDS,
        min_frequency=50.0,
        max_frequency=7600.0,
        sampling_rate=SAMPLING_RATE,
        norm="slaney",
        mel_scale="htk",
    )
