"""Apply a function to many items: in processes on one machine, or with Ray on a cluster."""

import multiprocessing
import os
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Thread
from typing import Any, TypeVar

from redifu.optional_packages import optional_package

Item = TypeVar("Item")
Result = TypeVar("Result")

# Ray tracks each block of items, so very many items share blocks.
MOST_BLOCKS = 10_000


def in_processes(
    work: Callable[[Item], Result], items: Sequence[Item], *, number: int
) -> Iterator[tuple[Item, Result | None]]:
    """Apply a function to each item in processes on this machine; if `number` is 1, in the current process.

    Args:
        work: the function; it, the items and the results are pickled if there are several processes.
        items: the arguments of `work`, one call per item.
        number: number of processes.

    Yields:
        Each item and its result, in order of completion; None if the item crashed its process.
    """
    if number == 1:
        yield from ((item, work(item)) for item in items)
        return
    waiting, suspects = deque(items), deque[Item]()
    with _one_thread_each():
        while waiting or suspects:
            # A crash does not tell which of the running items caused it, so each of them is tried alone.
            if suspects:
                for item in (yield from _until_a_crash(work, suspects, number=1)):
                    yield item, None
            else:
                suspects.extend((yield from _until_a_crash(work, waiting, number=number)))


def _until_a_crash(
    work: Callable[[Item], Result], waiting: deque[Item], *, number: int
) -> Generator[tuple[Item, Result], None, list[Item]]:
    """Take items and yield their results until a process crashes; return the items that ran at that time."""
    # Spawn, because threads of torch, FFmpeg and OpenCV do not survive a fork.
    context = multiprocessing.get_context("spawn")
    running: dict[Future[Result], Item] = {}
    with ProcessPoolExecutor(number, context, initializer=_begin_worker) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < number:
                    running[pool.submit(work, waiting[0])] = waiting[0]
                    waiting.popleft()
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    result = done.result()
                    yield running.pop(done), result
        except BrokenProcessPool:
            pass
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return list(running.values())


def on_ray(
    work: Callable[[Item], Result], items: Sequence[Item], *, number: int
) -> Iterator[tuple[Item, Result]]:
    """Apply a function to each item with Ray Data, on the cluster at RAY_ADDRESS or on this machine.

    All machines of a cluster need this package and the same files; relative paths are resolved against the
    caller's working directory. A local Ray listens only on loopback and stops when the work is done.

    Args:
        work: the function; it, the items and the results are pickled.
        items: the arguments of `work`, one call per item.
        number: number of tasks that run at the same time.

    Yields:
        Each item and its result, in order of completion.

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
        # Returned as a value, because Ray would wrap the error in its own.
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
    """Limit processes started inside to one thread each, like Ray's: there is one process per core."""
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    for name in before:
        os.environ.setdefault(name, "1")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]


def _begin_worker() -> None:
    _quieten_opencv()
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent does; a killed parent tells its workers nothing."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _quieten_opencv() -> None:
    """Limit OpenCV to one thread: it does not read these variables."""
    with suppress(ImportError):
        import cv2

        cv2.setNumThreads(1)


# Ray passes custom objects unchanged, but would convert lists and numbers to arrays.
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
    """Connect to the cluster, or start Ray here with `number` processors, and yield `ray.data`."""
    local = "RAY_ADDRESS" not in os.environ
    # Ray reads these variables on import.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")
    if local:
        # Applies to every platform despite its name: without clusters, Ray binds only to loopback.
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
