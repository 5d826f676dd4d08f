"""README.md is short, and what it shows is what happens."""

import re
from pathlib import Path

import pytest
import yaml

import redifu
from documents import ROOT, blocks, shell_commands
from redifu.cli import main

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 130
    assert len(README.split()) <= 1200


def test_the_python_example_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    names: dict = {}
    (code,) = blocks(ROOT / "README.md", "python")
    exec(code, names)
    spoken = [each["speaker"] for each in names["conversation"]["utterances"]]
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == spoken
    prediction = names["prediction"]
    assert prediction.scores[prediction.emotion] == prediction.probability == max(prediction.scores.values())
    assert sum(prediction.scores.values()) == pytest.approx(1.0, abs=1e-5)


def test_the_first_command_prints_what_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("av", reason="the extra media is not installed")
    for name in ("examples", "model_cards"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")
    (command,) = (line for line in shell_commands(ROOT / "README.md") if ".venv/bin/redifu predict" in line)
    assert main(command.partition(".venv/bin/redifu ")[2].split()) == 0
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    (shown,) = re.findall(r"```\n(moving-day\n.*?)\n```", README, flags=re.DOTALL)
    assert printed == shown.splitlines()
    assert Path("emotions.html").stat().st_size > 10_000


def test_set_up_commands_are_what_the_whole_check_looks_for() -> None:
    lines = [line for line in shell_commands(ROOT / "README.md") if "pip install -c constraints.txt" in line]
    first, second = lines
    assert "redifu predict" in first and "pytest" not in first
    assert "pytest" in second and "redifu predict" not in second


def test_contributing_names_tests_and_files_that_exist() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    names = re.findall(r"`(test_\w+)`", contributing)
    assert names
    assert [name for name in names if f"def {name}(" not in tests] == []
    files = re.findall(r"`((?:tests|scripts|src|\.github)/[\w./-]*\.\w+)`", contributing)
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == redifu.__version__
    assert citation["preferred-citation"]["url"].removeprefix("https://") in README
