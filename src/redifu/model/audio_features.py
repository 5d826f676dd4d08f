"""What an utterance's voice sounds like, in numbers: statistics of spectrum, loudness, pitch and voicing."""

import warnings
from functools import lru_cache
from typing import Any

import numpy as np
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from redifu.optional_packages import optional_package

SAMPLING_RATE = 16000
_HOP = 160  # samples between frames: 10 ms
_FRAME = 400  # 25 ms, of the spectrum and of loudness
_PITCH_FRAME = 1024
_PITCH_RANGE = (60.0, 500.0)  # Hz, of speaking voices
_BANDS = 40
_CEPSTRA = 14
# Frames are speech, and voiced, by their loudness below the loud ones (dB) and by how periodic they are.
_SPEECH_DEPTH, _VOICED_DEPTH, _VOICED_HARMONICITY = 35.0, 30.0, 0.6
_STATISTICS = 5

LOG_MEL_SIZE = _STATISTICS * (_BANDS + _CEPSTRA + 3) + 6


def log_mel_features(waveform: np.ndarray) -> np.ndarray:
    """Describe the sound of an utterance.

    Mean, deviation, 10th and 90th percentile, and deviation of the differences, of 40 log-mel bands and their
    first 14 cepstral coefficients, of loudness (dB), harmonicity (-1 to 1) and of the pitch where there is a
    voice (semitones above 100 Hz); then the share of voiced frames, voiced stretches a second, their mean and
    longest length (seconds), the share of speech, and the slope of the pitch (semitones a second). Spectrum,
    loudness and harmonicity are taken of frames with speech only.

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
    """Functionals of the openSMILE toolkit, whose licence forbids commercial use.

    Args:
        waveform: (samples,) float at 16 kHz.
        name: "eGeMAPSv02" (88 features) or "IS10" (1582, as published recipes for IEMOCAP use).

    Returns:
        (features,) float32.

    Raises:
        ImportError: the package opensmile is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a sound that is too short, which is then filled with NaN
        values = _opensmile(name).process_signal(waveform, SAMPLING_RATE).to_numpy()[0]
    # A functional of no voiced frame is not a number: there is nothing to say, as in silence.
    return np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


@lru_cache(maxsize=2)
def _opensmile(name: str) -> Any:
    opensmile = optional_package("opensmile", extra="smile")
    return opensmile.Smile(getattr(opensmile.FeatureSet, name), opensmile.FeatureLevel.Functionals)


def _tracks(waveform: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Per frame of 10 ms: log-mel bands, loudness in dB, pitch in semitones over 100 Hz, harmonicity."""
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
    low, high = _PITCH_RANGE
    yin = optional_package("librosa", extra="media").yin
    frequency = yin(sound, fmin=low, fmax=high, sr=SAMPLING_RATE, frame_length=_PITCH_FRAME, hop_length=_HOP)
    padded = np.pad(sound, _PITCH_FRAME // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _PITCH_FRAME)[::_HOP]
    count = min(len(mel), len(frequency), len(frames))
    mel, frequency, frames = mel[:count], frequency[:count], frames[:count]
    middle = slice((_PITCH_FRAME - _FRAME) // 2, (_PITCH_FRAME + _FRAME) // 2)
    loudness = 10 * np.log10((frames[:, middle] ** 2).mean(axis=1) + 1e-10)
    return mel, loudness, 12 * np.log2(frequency / 100), _harmonicity(frames, frequency)


def _harmonicity(frames: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """Correlation of a frame's first half with itself one period later, (frames,) from -1 to 1."""
    half = _PITCH_FRAME // 2
    lag = np.minimum(np.round(SAMPLING_RATE / frequency).astype(int), half)
    left = frames[:, :half]
    right = np.take_along_axis(frames, np.arange(half) + lag[:, None], axis=1)
    norms = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
    return (left * right).sum(axis=1) / (norms + 1e-9)


def _cepstra(mel: np.ndarray) -> np.ndarray:
    return optional_package("scipy.fft", extra="media").dct(mel, norm="ortho", axis=1)[:, :_CEPSTRA]


def _statistics(track: np.ndarray) -> np.ndarray:
    """(frames, values) to (5 * values,); zeros where there is no frame."""
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
