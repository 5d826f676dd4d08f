"""A command that is killed at any moment tears no file, and leaves nothing behind once it is repeated."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

for package in ("accelerate", "av", "onnx"):
    pytest.importorskip(package, reason=f"{package} is not installed: it comes with an extra")

import killed_commands  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.mark.parametrize("command", killed_commands.COMMANDS)
def test_a_killed_command_can_be_repeated(folder: Path, command: str) -> None:
    program = [sys.executable, killed_commands.__file__, folder, command, "--kills", "4"]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-1000:]


def test_what_a_killed_command_tears_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import sys, time
from pathlib import Path
from random import Random
import killed_commands as killed
def torn(arguments):
    for name in ("b", time.time_ns()):
        Path("out", f"{name}").write_text("half")
        time.sleep(0.2)
        Path("out", f"{name}").write_text("whole")
    return 0
killed.run = torn
Path("out").mkdir()
print(*killed.kill_and_repeat([], kills=4, random=Random(1), old=False)[1], sep="\\n")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    environment["TMPDIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "torn: b" in done.stdout and "left behind: " in done.stdout
