"""A stand-in for a decoder that crashes: PyAV kills its process on a file whose name holds "crash"."""

import os
from pathlib import Path

import pytest

from redifu.media import decoder_process

# Python imports it first of all, in the process that decodes, but no more in that of the tests.
STAND_IN = """
import os, signal
import av

once = av.open

def opened(file, *arguments, **options):
    if "crash" in os.path.basename(str(file)):
        os.kill(os.getpid(), signal.SIGSEGV)
    return once(file, *arguments, **options)

av.open = opened
"""


def let_decoder_crash(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processes that decode, from now on and during a test, crash on a file named "crash"."""
    stand_in = folder / "stand-in"
    stand_in.mkdir()
    (stand_in / "sitecustomize.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(stand_in), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(decoder_process, "_idle", [])
