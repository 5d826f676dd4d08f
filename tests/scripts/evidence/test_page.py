"""Runs are scored once each, against the text-only run of their seed, and the rows are all that is drawn."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from redifu.data.readers import read_conversations
from redifu.evaluation.corruptions import Grid, Severities
from redifu.training.trainer import train
from script_modules import SCRIPTS, load_script
from training.toy import toy_recipe, write_toy_data

read_rows = load_script("evidence/rows").read_rows

RESULTS = SCRIPTS / "evidence/results"
PAGE = SCRIPTS.parent / "examples/guides/evidence.md"
GRID = Grid(conditions={"subsets": Severities(), "noise": Severities(severities=(0.5, 1.0), draws=2)})


@pytest.fixture(scope="module")
def score() -> ModuleType:
    return load_script("evidence/score")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of a model of text and audio, and of one of text only."""
    folder = tmp_path_factory.mktemp("runs")
    write_toy_data(folder)
    for seed in (1, 2):
        settings = {"training_seed": seed, "training_epochs": 4, "training_learning_rate": 0.03}
        train(toy_recipe(folder, training_output=str(folder / f"full-s{seed}"), **settings))
        text = toy_recipe(
            folder, training_output=str(folder / f"text-s{seed}"), model_audio_size=None, **settings
        )
        train(text)
    return folder


def runs_of(folder: Path, model: str) -> list[Path]:
    return sorted(folder.glob(f"{model}-s*"))


def value_of(rows, **fields) -> float:
    (found,) = [row["value"] for row in rows if all(row[key] == value for key, value in fields.items())]
    return found


def test_the_gain_is_against_the_text_only_run_of_the_seed(
    score: ModuleType, folder: Path, tmp_path: Path
) -> None:
    options = {"dataset": "toy", "data": folder / "test.jsonl", "grid": GRID, "cache": tmp_path}
    runs = [*runs_of(folder, "full"), *runs_of(folder, "text")]
    rows = score.score(runs, text_only=runs_of(folder, "text"), **options)
    point = {"condition": "noise", "severity": "1"}
    gains = []
    for seed in ("1", "2"):
        f1 = value_of(rows, model="full", seed=seed, metric="weighted_f1", **point)
        clean = {"condition": "clean", "severity": "0"}
        text = value_of(rows, model="text", seed=seed, metric="weighted_f1", **clean)
        gains.append(value_of(rows, model="full", seed=seed, metric="gain_over_text", **point))
        assert gains[-1] == pytest.approx(f1 - text)
        assert value_of(rows, model="text", seed=seed, metric="gain_over_text", **clean) == 0
    pooled = {"model": "full", "seed": "all", **point}
    low, mean, high = (
        value_of(rows, metric=f"gain_over_text{end}", **pooled) for end in ("_low", "", "_high")
    )
    assert mean == pytest.approx(np.mean(gains)) and low < mean < high
    assert {row["dataset"] for row in rows} == {"toy"}


def test_the_most_frequent_label_stands_beside_the_models(
    score: ModuleType, folder: Path, tmp_path: Path
) -> None:
    options = {"dataset": "toy", "data": folder / "test.jsonl", "grid": GRID, "cache": tmp_path}
    rows = score.score(runs_of(folder, "full"), text_only=runs_of(folder, "text"), **options)
    labels = [
        one.label
        for each in read_conversations(folder / "test.jsonl")
        for one in each.utterances
        if one.label is not None
    ]
    most = max(labels.count(label) for label in set(labels)) / len(labels)
    majority = [row for row in rows if row["model"] == "majority"]
    assert {row["condition"] for row in majority} == {"clean", "calibration"}
    for seed in ("1", "2"):
        of_seed = {"seed": seed, "condition": "clean"}
        assert value_of(majority, metric="accuracy", **of_seed) == pytest.approx(100 * most)
        text = value_of(rows, model="full", metric="weighted_f1", **of_seed) - value_of(
            rows, model="full", metric="gain_over_text", **of_seed
        )
        f1 = value_of(majority, metric="weighted_f1", **of_seed)
        assert value_of(majority, metric="gain_over_text", **of_seed) == pytest.approx(f1 - text)


def test_a_run_is_scored_again_only_where_its_weights_have_changed(
    score: ModuleType, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load = score.load

    def counted(run: Path):
        loaded.append(run.name)
        return load(run)

    monkeypatch.setattr(score, "load", counted)
    runs = [tmp_path / run.name for run in runs_of(folder, "full")]
    for run in runs:
        run.mkdir()
        for path in (folder / run.name).iterdir():
            if path.is_file():
                (run / path.name).write_bytes(path.read_bytes())
    options = {"dataset": "toy", "data": folder / "test.jsonl", "grid": GRID, "cache": tmp_path / "cache"}
    alone = score.score(runs[:1], **options)
    both = score.score(runs, **options)
    assert loaded == ["full-s1", "full-s2"]
    of_first = [row for row in both if row["seed"] == "1"]
    assert of_first == [row for row in alone if row["seed"] == "1"]
    for name in ("model.safetensors", "config.json"):  # the temperature stands in the second
        (runs[0] / name).write_bytes((runs[1] / name).read_bytes())
    again = score.score(runs, **options)
    assert loaded == ["full-s1", "full-s2", "full-s1"]
    for row in again:
        if row["model"] == "full" and row["seed"] == "1":
            same = {key: row[key] for key in ("condition", "severity", "metric")}
            assert row["value"] == pytest.approx(value_of(again, seed="2", **same))


def test_folds_are_scored_as_one_run(score: ModuleType, folder: Path, tmp_path: Path) -> None:
    lines = (folder / "test.jsonl").read_text().splitlines(keepends=True)
    for fold, part in ((1, lines[:3]), (2, lines[3:])):
        (tmp_path / f"test-{fold}.jsonl").write_text("".join(part))
        shutil.copytree(folder / "full-s1", tmp_path / f"full-f{fold}-s1")
    options = {"dataset": "toy", "grid": GRID, "cache": tmp_path}
    folds = score.score(sorted(tmp_path.glob("full-f*")), data=tmp_path / "test-{fold}.jsonl", **options)
    whole = score.score([folder / "full-s1"], data=folder / "test.jsonl", **options)
    for metric in ("weighted_f1", "nll", "ece", "gain_over_text"):
        same = {"model": "full", "seed": "1", "condition": "clean", "metric": metric}
        assert value_of(folds, **same) == pytest.approx(value_of(whole, **same), abs=1e-4)
    pooled = {"model": "full", "seed": "all", "condition": "clean", "metric": "weighted_f1_low"}
    assert value_of(folds, **pooled) == pytest.approx(value_of(whole, **pooled), abs=1e-4)


def test_seeds_that_do_not_fit_are_refused(score: ModuleType, folder: Path, tmp_path: Path) -> None:
    options = {"dataset": "toy", "data": folder / "test.jsonl", "grid": GRID, "cache": tmp_path}
    full, text = runs_of(folder, "full"), runs_of(folder, "text")
    with pytest.raises(ValueError, match="no text-only run of seed 2"):
        score.score(full, text_only=text[:1], **options)
    with pytest.raises(ValueError, match="are of the same model and seed, 1"):
        score.score([full[0], full[0]], **options)
    with pytest.raises(ValueError, match="one text-only run of each seed"):
        score.score(full, text_only=[*text, *full], **options)


def test_the_commands_go_from_runs_to_a_report(folder: Path, tmp_path: Path) -> None:
    grid, rows = tmp_path / "grid.yaml", tmp_path / "rows.csv"
    grid.write_text("conditions:\n  subsets: {}\n  noise: {severities: [0.5, 1], draws: 2}\n")
    runs, text = [str(run) for run in runs_of(folder, "full")], [str(run) for run in runs_of(folder, "text")]
    command = [sys.executable, str(SCRIPTS / "evidence/score.py"), *runs, "--text-only", *text]
    command += ["--data", str(folder / "test.jsonl"), "--grid", str(grid), "--output", str(rows)]
    subprocess.run(command, check=True)
    table = read_rows([rows])
    assert set(table["seed"]) == {"1", "2", "all"} and set(table["model"]) == {"full", "majority"}
    page = tmp_path / "report.md"
    command = [sys.executable, str(SCRIPTS / "evidence/full_report.py"), str(rows), "--output", str(page)]
    subprocess.run(command, check=True)
    said = page.read_text(encoding="utf-8")
    assert sorted(re.findall(r"\]\((.*?)\)", said)) == sorted(
        str(path.relative_to(tmp_path)) for path in (tmp_path / "report").iterdir()
    )
    at_one = table[(table["condition"] == "noise") & (table["severity"] == "1")]
    f1 = at_one.loc[(at_one["metric"] == "weighted_f1") & (at_one["seed"] != "all"), "value"]
    assert f"{f1.mean():.2f} ± {f1.std():.2f} |" in said
    gain, low, high = (
        at_one.loc[(at_one["metric"] == f"gain_over_text{end}") & (at_one["seed"] == "all"), "value"].item()
        for end in ("", "_low", "_high")
    )
    assert f"{gain:+.2f} [{low:+.2f}, {high:+.2f}] |" in said


@pytest.fixture
def render(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script that makes the page; it draws empty pictures, as their own tests draw them."""
    render = load_script("evidence/render")
    empty = {
        name: replace(finding, plot=lambda rows, path: Image.new("RGB", (1, 1)).save(path))
        for name, finding in render.FINDINGS.items()
    }
    monkeypatch.setattr(render, "FINDINGS", empty)
    return render


def test_the_page_is_what_its_rows_give(render: ModuleType, tmp_path: Path) -> None:
    pictures = tmp_path / "evidence"
    pictures.mkdir()
    assert render.page(pictures) == PAGE.read_text(encoding="utf-8")
    drawn = {path.name for path in pictures.iterdir()}
    assert drawn == {path.name for path in PAGE.with_suffix("").iterdir()}
    stored = {path.stem for path in RESULTS.glob("*.parquet")}
    assert stored == set(load_script("evidence/full_report").STORED)


def test_sentences_say_what_their_table_says() -> None:
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    findings = [section for section in sections if re.match(r"\d+\. ", section)]
    assert len(findings) == 7
    sentences = 0
    for section in findings:
        _, said, rest = section.split("\n\n", 2)
        table = rest.split("\n\n")[0]
        cells = [float(number) for number in re.findall(r"\d+\.\d+", table)]
        for number in re.findall(r"\d+\.\d+", said):
            digits = len(number.partition(".")[2])
            assert any(f"{cell:.{digits}f}" == number for cell in cells), number
        sentences += len(re.findall(r"\.(?=\s|$)", said))
    assert sentences <= 10


def test_the_page_names_files_that_exist() -> None:
    names = set(re.findall(r"scripts/[\w./-]+\.\w+", PAGE.read_text(encoding="utf-8")))
    assert names and [name for name in names if not (SCRIPTS.parent / name).is_file()] == []
