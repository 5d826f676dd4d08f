"""Runs a service in a thread."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def running(one: Any) -> Iterator[Any]:
    """Start `one.thread`, which runs `one.server`, and stop both at the end."""
    one.thread.start()
    while not one.server.started:
        time.sleep(0.01)
    try:
        yield one
    finally:
        one.server.should_exit = True
        one.thread.join(timeout=30)
        assert not one.thread.is_alive()
