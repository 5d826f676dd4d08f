"""A process that decodes: a crash of FFmpeg there costs a file, and not the command."""

import atexit
import logging
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from inspect import isgenerator
from logging.handlers import QueueHandler
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import Thread
from types import SimpleNamespace
from typing import Any

from redifu.media.containers import UnreadableMediumError

# Not a process of multiprocessing, which would import the user's script a second time.
_PROGRAM = """
import sys
sys.path[:] = sys.argv[2:]
from redifu.media.decoder_process import answer
answer(int(sys.argv[1]))
"""

CRASHED = "the process that decoded it crashed"


class DecoderCrashedError(UnreadableMediumError):
    """The process that decoded a file crashed."""


def decode_apart(function: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Any]:
    """Call a function that decodes a file in a process of its own, which is kept for the next calls.

    The process decodes ahead of the caller. Messages that the function logs are logged here.

    Args:
        function: a function of a module; it, its arguments and results are pickled.
        arguments: of the function.
        options: keyword arguments of the function.

    Yields:
        What the function yields; if it is not a generator function, what it returns.

    Raises:
        DecoderCrashedError: the process crashed.
        Exception: what the function raised.
    """
    if os.name == "nt":  # where a process cannot inherit a pipe by its number
        results = function(*arguments, **options)
        yield from results if isgenerator(results) else [results]
        return
    try:
        decoder = _idle.pop()
    except IndexError:
        decoder = _Decoder()
    ended = False
    try:
        for kind, value in decoder.answers(function, arguments, options):
            if kind == "result":
                yield value
            elif kind == "log":
                logging.getLogger(value.name).handle(value)
            else:
                ended = True
                if value is not None:
                    raise value
    finally:
        if ended:
            _idle.append(decoder)
        else:
            decoder.end()


class _Decoder:
    """A process that answers calls one by one, until it crashes or the connection is closed."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        command = [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno()), *sys.path]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
        )
        theirs.close()
        try:
            self.connection.recv()
        except EOFError:
            raise RuntimeError(f"the process that decodes media does not start: {command[0]}") from None

    def answers(self, *call: Any) -> Iterator[tuple[str, Any]]:
        """Make a call; yield its results, messages, and at the end None or an error."""
        try:
            self.connection.send((os.getcwd(), *call))
            kind = ""
            while kind != "end":
                kind, value = self.connection.recv()
                yield kind, value
        except (EOFError, ConnectionError):
            raise DecoderCrashedError(CRASHED) from None

    def end(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.communicate()


_idle: list[_Decoder] = []


@atexit.register
def _end_all() -> None:
    while _idle:
        _idle.pop().end()


if hasattr(os, "register_at_fork"):
    # Two processes cannot share a connection.
    os.register_at_fork(after_in_child=lambda: _idle.clear())


def answer(number: int) -> None:
    """Answer calls until the other end of the connection with this number is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller ends this process
    Thread(target=_end_with_caller, daemon=True).start()
    with Connection(number) as connection:
        sender: Any = SimpleNamespace(put_nowait=lambda record: connection.send(("log", record)))
        logging.getLogger().addHandler(QueueHandler(sender))
        connection.send(None)
        try:
            while True:
                folder, function, arguments, options = connection.recv()
                os.chdir(folder)
                connection.send(("end", _call(connection, function, arguments, options)))
        except (EOFError, ConnectionError):
            return


def _end_with_caller() -> None:
    """End this process when its caller does, whatever it decodes: then its input is closed."""
    os.read(0, 1)
    os._exit(1)


def _call(
    connection: Connection, function: Callable[..., Any], arguments: Any, options: Any
) -> Exception | None:
    """Send the results of a call; return what it raised."""
    try:
        results = function(*arguments, **options)
        for result in results if isgenerator(results) else [results]:
            connection.send(("result", result))
    except ConnectionError:
        raise
    except Exception as error:
        error.add_note(traceback.format_exc())
        return error
    return None
