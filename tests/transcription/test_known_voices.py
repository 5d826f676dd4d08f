"""Speakers by comparison with the voices heard so far."""

import numpy as np

from redifu.transcription.known_voices import MOST_SPEAKERS, KnownVoices


def voice(angle: float) -> np.ndarray:
    """A voice in a plane, at an angle in degrees; the cosine of two is that of their difference."""
    return np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))], np.float32)


def test_a_voice_that_is_unlike_all_others_is_a_new_speaker():
    known = KnownVoices()
    assert [known.speaker(voice(angle), 2.0) for angle in (0, 10, 90, 95, 5, 180)] == [0, 0, 1, 1, 0, 2]


def test_a_known_number_of_speakers_is_met_sooner_and_never_exceeded():
    unlike = 53  # a cosine of 0.60
    assert [KnownVoices().speaker(voice(0), 2.0), (one := KnownVoices()).speaker(voice(0), 2.0)] == [0, 0]
    assert one.speaker(voice(unlike), 2.0) == 0
    two = KnownVoices(2)
    assert [two.speaker(voice(angle), 2.0) for angle in (0, unlike, 180, 270)] == [0, 1, 1, 0]


def test_nobody_is_known_by_a_moment():
    known = KnownVoices()
    assert known.speaker(voice(0), 0.3) == 0
    assert [known.speaker(voice(90), 2.0), known.speaker(voice(0), 0.3), known.speaker(voice(0), 2.0)] == [
        0,
        0,
        1,
    ]


def test_a_mean_voice_moves_with_what_is_heard():
    known = KnownVoices()
    assert [known.speaker(voice(angle), 5.0) for angle in (0, 40, 75)] == [0, 0, 0]


def test_the_number_of_speakers_has_a_limit():
    known = KnownVoices()
    found = [known.speaker(np.eye(40, dtype=np.float32)[number], 2.0) for number in range(40)]
    assert found[:MOST_SPEAKERS] == list(range(MOST_SPEAKERS))
    assert max(found) == MOST_SPEAKERS - 1
