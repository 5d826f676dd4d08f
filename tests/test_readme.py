"""What README.md shows is what happens."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(ROOT)
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL):
        exec(code, names)
    # The model, the pipeline and the session say the same.
    printed = capsys.readouterr().out.split()
    assert len(printed) == 3 and set(printed) <= set(names["model"].config.labels) and len(set(printed)) == 1
    assert names["probabilities"].sum().item() == pytest.approx(1.0, abs=1e-5)


def test_links_and_recipes_exist() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    for target in re.findall(r"\b(?:examples|scripts|model_cards)/[\w./-]*\w", README):
        assert (ROOT / target).exists(), target


def test_contributing_names_tests_and_files_that_exist() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    names = re.findall(r"`(test_\w+)`", contributing)
    assert names
    assert [name for name in names if f"def {name}(" not in tests] == []
    files = re.findall(r"`((?:tests|scripts|src|\.github)/[\w./-]*\.\w+)`", contributing)
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_the_table_shown_is_what_predict_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from redifu.cli import main

    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "110")
    assert main(["predict", "model_cards/redifu-meld-text", "examples/conversation.json"]) == 0
    printed = [line.rstrip() for line in capsys.readouterr().out.strip().splitlines()]
    assert "\n".join(printed) in README
