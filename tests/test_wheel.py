"""The wheel holds the package alone, and works where it is installed."""

import csv
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from hub.environment import make_environment

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"


def run(*command: object, cwd: Path) -> str:
    """Run a command without PYTHONPATH, which would lead to the source; return what it printed."""
    words = ["env", "-u", "PYTHONPATH", *map(str, command)]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.mark.slow
def test_the_wheel_holds_the_package_alone(wheel: Path) -> None:
    files = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name and ".egg-info" not in name}
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"redifu/hub/card_template.md", "redifu/py.typed"} <= names
    information = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert names - information == files
    assert {Path(name).name for name in information} == {
        "METADATA",
        "WHEEL",
        "RECORD",
        "LICENSE",
        "entry_points.txt",
    }


@pytest.mark.slow
def test_the_wheel_predicts_where_it_is_installed(wheel: Path, tmp_path: Path) -> None:
    python = make_environment(tmp_path / "environment")
    install = ("-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--ignore-installed")
    run(sys.executable, *install, wheel, cwd=tmp_path)
    place = run(python, "-c", "import redifu; print(redifu.__file__)", cwd=tmp_path)
    assert Path(place.strip()).is_relative_to(tmp_path / "environment")
    model, conversation = ROOT / "model_cards/redifu-meld-text", ROOT / "examples/conversation.json"
    run(python.with_name("redifu"), "predict", model, conversation, "--output", "emotions.csv", cwd=tmp_path)
    with (tmp_path / "emotions.csv").open(encoding="utf-8", newline="") as file:
        emotions = [row["emotion"] for row in csv.DictReader(file)]
    assert len(emotions) == 12
    assert len(set(emotions)) >= 4
    printed = run(python.with_name("redifu"), "publish", model, "ana/mood", "--dry-run", cwd=tmp_path)
    assert "modeling_redifu.py" in printed
