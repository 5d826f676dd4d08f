import sys
from pathlib import Path

import numpy as np
import pytest

from media.made_media import tone
from redifu.media.decoding import Span, read_sound
from redifu.model import audio_features
from redifu.model.audio_features import LOG_MEL_SIZE, log_mel_features, opensmile_features

# Where the statistics of one track stand: means of 40 bands first, and so on; see log_mel_features.
PITCH = slice(-11, -6)
VOICED_SHARE, STRETCHES, MEAN_STRETCH, LONGEST_STRETCH, SPEECH_SHARE, SLOPE = range(-6, 0)


def voice(frequencies: np.ndarray, *, rate: int = 16000) -> np.ndarray:
    """A buzz of ten harmonics whose pitch is given sample by sample; silent where it is 0."""
    phase = 2 * np.pi * np.cumsum(frequencies) / rate
    buzz = sum(np.sin(order * phase) / order for order in range(1, 11))
    return (0.2 * buzz * (frequencies > 0)).astype(np.float32)


@pytest.mark.parametrize("frequency", [90.0, 150.0, 300.0])
def test_a_steady_voice_has_its_pitch(frequency: float) -> None:
    features = log_mel_features(voice(np.full(16000, frequency)))
    mean, deviation, low, high, _ = features[PITCH]
    expected = 12 * np.log2(frequency / 100)
    assert abs(mean - expected) < 0.3 and deviation < 0.3
    assert abs(low - expected) < 0.3 and abs(high - expected) < 0.3
    assert features[VOICED_SHARE] > 0.9 and abs(features[SLOPE]) < 0.2


def test_a_rising_voice_has_a_slope() -> None:
    features = log_mel_features(voice(100 * 2 ** np.linspace(0, 1, 32000)))
    assert abs(features[SLOPE] - 6) < 0.3  # an octave in two seconds


def test_stretches_of_voice_are_counted() -> None:
    spoken = np.concatenate([np.full(4800, 150.0), np.zeros(3200)] * 4)
    features = log_mel_features(voice(spoken) + 1e-4 * np.random.default_rng(0).standard_normal(len(spoken)))
    assert features[STRETCHES] == pytest.approx(2.0, abs=0.05)
    assert features[MEAN_STRETCH] == pytest.approx(0.3, abs=0.06)
    assert features[LONGEST_STRETCH] == pytest.approx(0.3, abs=0.06)
    assert 0.55 < features[SPEECH_SHARE] < 0.75


def test_noise_has_no_voice() -> None:
    features = log_mel_features(0.1 * np.random.default_rng(0).standard_normal(16000))
    assert features[VOICED_SHARE] < 0.05 and not features[PITCH].any()


def test_a_louder_voice_differs_in_level_alone() -> None:
    sound = voice(np.full(16000, 120.0))
    quiet, loud = log_mel_features(0.1 * sound), log_mel_features(sound)
    bands = slice(0, 18)  # below 1.3 kHz, where the voice is
    np.testing.assert_allclose((loud - quiet)[bands], 2.0, atol=1e-2)  # log10 of power
    np.testing.assert_allclose(loud[PITCH], quiet[PITCH], atol=1e-3)


@pytest.mark.parametrize("samples", [1, 100, 800, 16000])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_any_sound_gives_finite_features(samples: int, level: float) -> None:
    features = log_mel_features(np.full(samples, level, dtype=np.float32))
    assert features.shape == (LOG_MEL_SIZE,) and features.dtype == np.float32 and np.isfinite(features).all()


@pytest.mark.parametrize(("name", "size"), [("eGeMAPSv02", 88), ("IS10", 1582)])
def test_opensmile_gives_its_sets(name: str, size: int) -> None:
    pytest.importorskip("opensmile", reason="the extra smile is not installed")
    for sound in (tone(1.0), tone(0.02)):
        features = opensmile_features(sound, name)
        assert features.shape == (size,) and np.isfinite(features).all()


def test_opensmile_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    audio_features._opensmile.cache_clear()
    monkeypatch.setitem(sys.modules, "opensmile", None)
    with pytest.raises(ImportError, match=r"^opensmile is not installed: pip install 'redifu\[smile\]'$"):
        opensmile_features(tone(0.1), "IS10")


def test_the_pitch_is_that_of_librosa(test_data: Path) -> None:
    librosa = pytest.importorskip("librosa", reason="librosa is not installed: it comes with the extra dev")
    options = {"fmin": 60.0, "fmax": 500.0, "sr": 16000, "frame_length": 1024, "hop_length": 160}
    rising = voice(70 * 2 ** np.linspace(0, 2.7, 32000))  # 70 to 455 Hz
    noise = np.random.default_rng(0).standard_normal(16000)
    sounds = [rising, noise, np.zeros(4000), np.ones(4000)]
    for name in ("speech.flac", "two_speakers.wav", "vosk_test.wav"):
        ((_, waveform),) = read_sound(test_data / "fixtures" / name, [Span()], sampling_rate=16000)
        sounds.append(waveform)
    for sound in sounds:
        frames = np.lib.stride_tricks.sliding_window_view(np.pad(sound, 512), 1024)[::160]
        expected = librosa.yin(sound.astype(np.float64), **options)
        np.testing.assert_allclose(audio_features._fundamental_frequency(frames), expected, rtol=1e-6)


def test_cepstra_are_the_orthonormal_cosine_transform() -> None:
    fft = pytest.importorskip("scipy.fft", reason="scipy is not installed: it comes with the extra media")
    mel = np.random.default_rng(0).normal(-4, 2, (7, 40)).astype(np.float32)
    cepstra = audio_features._cepstra(mel)
    assert cepstra.dtype == np.float32
    np.testing.assert_allclose(cepstra, fft.dct(mel, norm="ortho", axis=1)[:, :14], atol=1e-5)


def test_real_speech_is_voiced(test_data: Path) -> None:
    ((_, waveform),) = read_sound(test_data / "fixtures/speech.flac", [Span()], sampling_rate=16000)
    features = log_mel_features(waveform)
    assert 0.3 < features[VOICED_SHARE] < 0.9 and -6 < features[PITCH][0] < 15
