import numpy as np
import pytest

from media.made_media import tone
from redifu.media.quality import LIMITS, QUALITY, audio_quality, reason_to_drop


def speech(seconds: float = 4.0) -> np.ndarray:
    """A tone that comes and goes twice a second, as syllables do."""
    sound = tone(seconds)
    return sound * (np.arange(len(sound)) % 8000 < 4000)


def test_measures_are_those_that_are_declared() -> None:
    assert tuple(audio_quality(speech(), 16000)) == QUALITY["audio"]
    assert set(LIMITS) <= {name for names in QUALITY.values() for name in names}


def test_the_estimate_follows_the_noise() -> None:
    clean, noise = speech(), np.random.default_rng(0).standard_normal(64000)
    noise *= np.sqrt((clean**2).mean() / (noise**2).mean())
    estimates = [
        audio_quality(clean + noise * 10 ** (-level / 20), 16000)["snr"] for level in (20, 10, 5, 0, -5)
    ]
    assert estimates == sorted(estimates, reverse=True)
    # The tone is on half of the time, so where it is on, it stands 3 dB above its mean power.
    assert estimates[0] == pytest.approx(23, abs=1.5) and estimates[1] == pytest.approx(13, abs=1.5)


def test_shares() -> None:
    sound = np.concatenate([np.zeros(8000), np.ones(4000), tone(0.25)])
    quality = audio_quality(sound, 16000)
    assert quality["silence"] == pytest.approx(0.5) and quality["clipping"] == pytest.approx(0.25)
    assert quality["duration"] == 1.0


@pytest.mark.parametrize(
    ("sound", "reason"),
    [
        (tone(0.05), "duration 0.05 is below 0.1"),
        (np.zeros(16000), "silence 1 is above 0.99"),
        (np.sign(tone(1.0)), "clipping 1 is above 0.5"),
        (np.zeros(0), "duration 0 is below 0.1"),
        (speech(), None),
    ],
    ids=["short", "silent", "clipped", "empty", "good"],
)
def test_below_the_limits_a_stream_is_dropped(sound: np.ndarray, reason: str | None) -> None:
    assert reason_to_drop(audio_quality(sound, 16000)) == reason


def test_what_was_not_measured_is_no_reason() -> None:
    assert reason_to_drop({}) is None
