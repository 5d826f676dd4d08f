"""A process that decodes: its results, messages and errors are the caller's; its crash is not."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from media.made_media import tone, write_sound
from redifu.media import decoder_process
from redifu.media.decoder_process import DecoderCrashedError, decode_apart

pytestmark = pytest.mark.skipif(os.name == "nt", reason="decodes in the process itself on this system")

CALLS = """
import logging, os, signal
from pathlib import Path

def numbers(count, *, crash_at=None):
    for number in range(count):
        if number == crash_at:
            os.kill(os.getpid(), signal.SIGSEGV)
        yield number

def complain(text):
    logging.getLogger("redifu.stand_in").warning(text)
    raise KeyError(text)

def place():
    return os.getpid(), Path("here").read_text()
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """A module of functions to call in a new process."""
    (tmp_path / "calls_of_decoder.py").write_text(CALLS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(decoder_process, "_idle", [])
    import calls_of_decoder

    yield calls_of_decoder
    decoder_process._end_all()
    del sys.modules["calls_of_decoder"]


def test_a_crash_is_an_error_and_the_next_call_is_answered(calls) -> None:
    for _ in range(2):
        with pytest.raises(DecoderCrashedError, match="^the process that decoded it crashed$"):
            list(decode_apart(calls.numbers, 5, crash_at=3))
        assert list(decode_apart(calls.numbers, 5)) == [0, 1, 2, 3, 4]


def test_what_came_before_a_crash_is_given(calls) -> None:
    numbers = decode_apart(calls.numbers, 5, crash_at=3)
    assert [next(numbers) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DecoderCrashedError):
        next(numbers)


def test_messages_and_errors_are_the_callers(calls, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KeyError, match="too dark") as error:
        list(decode_apart(calls.complain, "too dark"))
    assert caplog.record_tuples == [("redifu.stand_in", logging.WARNING, "too dark")]
    # Where it was raised is shown with the traceback.
    assert "in complain" in error.value.__notes__[0]


def test_one_process_answers_all_calls_in_the_folder_of_the_caller(
    calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "here").write_text(name)
        monkeypatch.chdir(tmp_path / name)
        found += decode_apart(calls.place)
    assert [text for _, text in found] == ["a", "b"]
    assert found[0][0] == found[1][0] != os.getpid()


def test_calls_that_are_open_at_the_same_time_do_not_mix(calls) -> None:
    pairs = zip(decode_apart(calls.numbers, 3), decode_apart(calls.numbers, 3), strict=True)
    assert list(pairs) == [(0, 0), (1, 1), (2, 2)]
    assert len(decoder_process._idle) == 2


def test_a_call_that_is_given_up_leaves_no_results_for_the_next(calls) -> None:
    started = decode_apart(calls.numbers, 1000)
    next(started)
    started.close()
    assert decoder_process._idle == []
    assert list(decode_apart(calls.numbers, 2)) == [0, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_has_processes_of_its_own(calls) -> None:
    list(decode_apart(calls.numbers, 1))
    if not (child := os.fork()):
        os._exit(len(decoder_process._idle))
    assert os.waitpid(child, 0)[1] == 0 and len(decoder_process._idle) == 1


def test_a_script_without_a_main_is_not_run_twice(tmp_path: Path) -> None:
    write_sound(tmp_path / "a.wav", tone(0.5))
    (tmp_path / "script.py").write_text(
        "from redifu.media.sound import channels_of\nprint(channels_of('a.wav'), 'channel')\n"
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 channel\n", "")


def test_the_process_ends_with_a_killed_caller(calls, tmp_path: Path) -> None:
    code = "import time\ndef sleep():\n    yield 1\n    time.sleep(60)\n"
    (tmp_path / "sleeping.py").write_text(code)
    program = (
        "from redifu.media import decoder_process as d; import sleeping\n"
        "calls = d.decode_apart(sleeping.sleep); next(calls); print(flush=True); next(calls)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    caller = psutil.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment, cwd=tmp_path
    )
    caller.stdout.readline()
    (decoder,) = caller.children()
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    decoder.wait(timeout=10)
