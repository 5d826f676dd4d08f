"""The guides are run as they stand, at toy size."""

import re
import shlex
from pathlib import Path

import pytest

from redifu.cli import main

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "examples/fine-tuning/README.md"


def commands(guide: Path) -> list[list[str]]:
    """The commands of a guide's shell blocks, without what stands in front of `redifu`."""
    blocks = re.findall(r"```sh\n(.*?)```", guide.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [shlex.split(line.split("redifu ", 1)[1]) for block in blocks for line in block.splitlines()]


@pytest.mark.slow
def test_the_fine_tuning_guide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("librosa", reason="the extra media is not installed")
    for name in ("examples", "model_cards"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLIPS", "runs/clips")
    extract, train, evaluate, predict = commands(GUIDE)
    assert main(extract) == 0
    assert main([*train, "training.epochs=6"]) == 0
    assert main(evaluate) == 0
    found = re.search(r"weighted_f1\D*([\d.]+)", capsys.readouterr().out)
    assert found is not None and float(found[1]) > 60  # the most frequent mood alone has 39
    assert main(predict) == 0
    assert "excited" in capsys.readouterr().out
