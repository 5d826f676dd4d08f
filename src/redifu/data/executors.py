"""Where a piece of work is done for each of many items: in processes of one machine, or by Ray on many."""

import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from redifu.optional_packages import optional_package

Item = TypeVar("Item")
Result = TypeVar("Result")

# Ray keeps account of each block of items: where there are very many items, several share a block.
MOST_BLOCKS = 10_000


def in_processes(
    work: Callable[[Item], Result], items: Sequence[Item], *, number: int
) -> Iterator[tuple[Item, Result]]:
    """Do some work for each item in processes of this machine, where there is one in this process itself.

    Args:
        work: what to do; it is pickled to reach a process, as are items and results.
        items: for each of which it is done once.
        number: of processes.

    Yields:
        Items and their results, as they are done.
    """
    if number == 1:
        yield from ((item, work(item)) for item in items)
        return
    # Not forked: the threads of torch, FFmpeg and OpenCV do not survive it.
    context = multiprocessing.get_context("spawn")
    with _one_thread_each(), ProcessPoolExecutor(number, context, initializer=_quieten_opencv) as pool:
        waiting = {pool.submit(work, item): item for item in items}
        try:
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def on_ray(
    work: Callable[[Item], Result], items: Sequence[Item], *, number: int
) -> Iterator[tuple[Item, Result]]:
    """Do some work for each item by Ray Data, on the cluster that RAY_ADDRESS names or on this machine.

    All machines of a cluster have this package and see the same files; relative paths begin in the folder in
    which this is called. On this machine, Ray listens on loopback alone and ends with the work.

    Args:
        work: what to do; it is pickled to reach a machine, as are items and results.
        items: for each of which it is done once.
        number: of tasks at a time.

    Yields:
        Items and their results, as they are done.

    Raises:
        ImportError: Ray is not installed.
    """
    if not items:
        return
    folder = os.getcwd()

    def do(row: dict[str, Any]) -> dict[str, Any]:
        place, item = row["task"].place, row["task"].item
        try:
            os.chdir(folder)
            return {"done": _Done(place, result=work(item))}
        # Carried home as a value: Ray would wrap it in errors of its own.
        except Exception as error:
            error.add_note(traceback.format_exc())
            return {"done": _Done(place, error=error)}

    with _ray_data(number) as data:
        rows = [{"task": _Task(place, item)} for place, item in enumerate(items)]
        tasks = data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS))
        for row in tasks.map(do, compute=data.TaskPoolStrategy(size=number)).iter_rows():
            done: _Done = row["done"]
            if done.error is not None:
                raise done.error
            yield items[done.place], done.result


ENGINES: dict[str, Callable[..., Iterator[tuple[Any, Any]]]] = {"processes": in_processes, "ray": on_ray}


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let processes that start inside compute in one thread each, as Ray's do: there is one for each core."""
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    for name in before:
        os.environ.setdefault(name, "1")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]


def _quieten_opencv() -> None:
    """Do the same for OpenCV, which reads no such variable."""
    with suppress(ImportError):
        import cv2

        cv2.setNumThreads(1)


# Objects of their own, which Ray carries as they are; lists and numbers it would turn into arrays.
@dataclass(frozen=True)
class _Task:
    place: int
    item: Any


@dataclass(frozen=True)
class _Done:
    place: int
    result: Any = None
    error: Exception | None = None


@contextmanager
def _ray_data(number: int) -> Iterator[Any]:
    """Connect to Ray, starting it with `number` processors where no cluster is named, and give `ray.data`."""
    local = "RAY_ADDRESS" not in os.environ
    # Read when Ray is imported.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")
    if local:
        # Whatever its name says: without clusters, nothing binds beyond loopback.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray = optional_package("ray", extra="ray")
    data = optional_package("ray.data", extra="ray")
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if local:
        ray.init("local", num_cpus=number, include_dashboard=False, **quiet)
    else:
        ray.init(**quiet)
    try:
        data.DataContext.get_current().enable_progress_bars = False
        yield data
    finally:
        ray.shutdown()
