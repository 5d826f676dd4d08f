"""The comparison of runs repeats their own scores, and tells equal systems from unequal ones."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from redifu.training.trainer import train
from script_modules import SCRIPTS, load_script
from training.toy import toy_recipe, write_toy_data

SCRIPT = SCRIPTS / "evidence/compare_runs.py"


@pytest.fixture(scope="module")
def compare_runs() -> ModuleType:
    return load_script("evidence/compare_runs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of a system that learns, and one run of a system that does not."""
    folder = tmp_path_factory.mktemp("runs")
    write_toy_data(folder)
    settings = {"training_epochs": 8, "training_learning_rate": 0.03}
    for seed in (1, 2):
        output = str(folder / f"learnt-{seed}")
        train(toy_recipe(folder, training_output=output, training_seed=seed, **settings))
    still = {**settings, "training_epochs": 1, "training_learning_rate": 0.0}
    train(toy_recipe(folder, training_output=str(folder / "untrained-1"), **still))
    return folder


def test_runs_score_what_they_scored_when_trained(compare_runs: ModuleType, folder: Path) -> None:
    runs = sorted(folder.glob("learnt-*"))
    compared = compare_runs.compare({"learnt": runs}, folder / "test.jsonl")
    for place, run in enumerate(runs):
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["test"]
        for name, values in compared["learnt"]["runs"].items():
            assert values[place] == pytest.approx(metrics[name], abs=1e-4)


def test_differences_are_from_the_first_system(compare_runs: ModuleType, folder: Path) -> None:
    learnt = sorted(folder.glob("learnt-*"))
    systems = {"learnt": learnt, "again": learnt, "untrained": [folder / "untrained-1"]}
    compared = compare_runs.compare(systems, folder / "test.jsonl")
    assert compared["learnt"]["difference"] is None
    assert compared["again"]["difference"]["difference"] == 0
    assert compared["again"]["difference"]["p_value"] == 1
    worse = compared["untrained"]
    expected = np.mean(worse["runs"]["weighted_f1"]) - np.mean(compared["learnt"]["runs"]["weighted_f1"])
    assert worse["difference"]["difference"] == pytest.approx(expected)
    assert worse["difference"]["interval"][1] < 0


def test_the_command_prints_a_table_and_writes_the_numbers(folder: Path, tmp_path: Path) -> None:
    runs = [str(run) for run in sorted(folder.glob("learnt-*"))]
    output = tmp_path / "compared.json"
    command = [sys.executable, str(SCRIPT), str(folder / "test.jsonl"), "--system", "learnt", *runs]
    done = subprocess.run([*command, "--output", str(output)], capture_output=True, text=True, check=True)
    header, _, learnt, majority = done.stdout.splitlines()
    assert learnt.startswith("| learnt | 2 | ") and majority.startswith("| most frequent label | 1 | ")
    assert len({line.count("|") for line in (header, learnt, majority)}) == 1
    assert len(json.loads(output.read_text(encoding="utf-8"))["learnt"]["runs"]["weighted_f1"]) == 2
