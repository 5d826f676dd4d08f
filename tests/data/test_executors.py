"""Work in processes: every item once, in spite of those that crash their process."""

import os
import signal
from functools import partial

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
