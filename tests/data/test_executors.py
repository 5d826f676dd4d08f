"""Work in processes: every item once, in spite of those that crash their process."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from redifu.data.executors import in_processes


def square(number: int, *, crashing: tuple[int, ...] = ()) -> int:
    if number in crashing:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number < 0:
        raise ValueError(f"expected a number from 0, got {number}")
    return number**2


@pytest.mark.parametrize("crashing", [(), (3,), (0, 1, 5)])
def test_a_crash_costs_its_own_item(crashing: tuple[int, ...]) -> None:
    found = list(in_processes(partial(square, crashing=crashing), range(6), number=2))
    assert sorted(found) == [(item, None if item in crashing else item**2) for item in range(6)]


def test_an_error_is_raised_as_it_is() -> None:
    with pytest.raises(ValueError, match="expected a number from 0, got -1"):
        list(in_processes(square, [1, -1], number=2))


PARENT = """
import sys, time
from redifu.data.executors import in_processes

if __name__ == "__main__":
    list(in_processes(time.sleep, [60, 60], number=2))
"""


def test_a_killed_parent_leaves_no_process(tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, program], env=environment) as parent:
        deadline = time.monotonic() + 60
        # Two workers and the process that tracks their resources.
        while len(children := psutil.Process(parent.pid).children()) < 3 and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(2)
        parent.kill()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert len(children) >= 3 and not alive
