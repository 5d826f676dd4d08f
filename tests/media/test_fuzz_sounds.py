"""Sounds and films are read as they were made: some of each kind in every run, all in the slow tests."""

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from media.fuzz_sounds import KINDS, difference, faults, film, wav

MOST_FAST, MOST = 5, 120  # files of each kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_is_what_was_written(tmp_path: Path, kind: str) -> None:
    assert [found for number in range(MOST_FAST) if (found := difference(kind, number, tmp_path))] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_sound_is_what_was_written(tmp_path: Path, kind: str) -> None:
    assert [found for number in range(MOST_FAST, MOST) if (found := difference(kind, number, tmp_path))] == []


def test_a_wrong_reading_is_a_difference(tmp_path: Path) -> None:
    made = film(Random(0), tmp_path)
    assert faults(made, Random(0)) == []
    (start, end, frequency, level), *others = made.tones
    for tone in ((start, end, frequency + 3, level), (start, end, frequency, 1.3 * level)):
        assert faults(replace(made, tones=[tone, *others]), Random(0)) != []
    assert "longer" in faults(replace(made, seconds=made.seconds + 0.3), Random(0))[0]
    darker = [(time, 250 - level) for time, level in made.pictures]
    assert "gray" in faults(replace(made, pictures=darker), Random(0))[0]
    made = wav(Random(1), tmp_path)
    (start, end, frequency, level), *others = made.tones
    late = [(start + 0.001, end, frequency, level), *others]
    assert "samples at" in faults(replace(made, tones=late), Random(0))[0]
