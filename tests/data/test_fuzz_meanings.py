"""Good files are read as they were meant: some of each kind in every run, all of them in the slow tests."""

from pathlib import Path
from random import Random

import pytest

from data.fuzz_meanings import KINDS, Made, difference

MOST_FAST, MOST = 8, 90  # files of each kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_file_means_what_it_says(tmp_path: Path, kind: str) -> None:
    assert [found for number in range(MOST_FAST) if (found := difference(kind, number, tmp_path))] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_good_file_means_what_it_says(tmp_path: Path, kind: str) -> None:
    assert [found for number in range(MOST_FAST, MOST) if (found := difference(kind, number, tmp_path))] == []


def wrong(random: Random, folder: Path) -> Made:
    path = folder / "a.txt"
    return Made(path, b"Ana: Hi.", lambda path: [(path.read_text(), 1.0)], [("Ana: Hi.", 1.5)])


def refused(random: Random, folder: Path) -> Made:
    return Made(folder / "a.txt", b"", lambda path: {}[path.name], [])


def test_a_wrong_reading_and_a_refusal_are_differences(tmp_path: Path) -> None:
    kinds = {"wrong": wrong, "refused": refused, "short": lambda random, folder: Made(folder, None, str, "")}
    found = [difference(kind, 0, tmp_path, kinds=kinds) for kind in kinds]
    assert found[0] == "wrong 0: read ('Ana: Hi.', 1.0), expected ('Ana: Hi.', 1.5)"
    assert found[1] == "refused 0: refused: KeyError: 'a.txt'"
    assert found[2] == f"short 0: read {len(str(tmp_path))}, expected 0"
