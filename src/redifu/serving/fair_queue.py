"""A queue that shares time among clients."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Generic, TypeVar

Item = TypeVar("Item")

# Clients whose time differs by less, in seconds, take turns.
EQUAL = 0.02


class FairQueue(Generic[Item]):
    """Waiting items of many clients: each client gets as much time as any other, however much it asks for."""

    def __init__(self) -> None:
        """Make an empty queue."""
        # Of clients that have used equal time, the one whose turn comes first stands first.
        self._waiting: dict[str, deque[Item]] = {}
        self._used: dict[str, float] = {}  # seconds
        self._least = 0.0  # what a client has used that comes, or comes back
        self._lock = Lock()

    def put(self, client: str, item: Item) -> None:
        """Add an item at the end of its client's."""
        with self._lock:
            self._waiting.setdefault(client, deque()).append(item)
            self._used[client] = max(self._used.get(client, 0.0), self._least)

    def take(self, fits: Callable[[list[Item], Item], bool]) -> tuple[list[str], list[Item]]:
        """Remove and return the next item, and others that fit to it, one of each client in turn.

        Args:
            fits: says whether an item may join those that are already taken.

        Returns:
            The clients of the items, and the items; none if the queue is empty.
        """
        clients: list[str] = []
        taken: list[Item] = []
        with self._lock:
            before = -1
            while len(taken) > before:
                before = len(taken)
                for client in sorted(self._waiting, key=lambda each: self._used[each] // EQUAL):
                    items = self._waiting[client]
                    if taken and not fits(taken, items[0]):
                        continue
                    clients.append(client)
                    taken.append(items.popleft())
                    del self._waiting[client]
                    if items:
                        self._waiting[client] = items
        return clients, taken

    @contextmanager
    def charged(self, clients: Sequence[str], sizes: Sequence[int]) -> Iterator[None]:
        """Charge the time that passes inside to the clients of what is worked on, by the sizes of the items.

        Args:
            clients: what `take` returned.
            sizes: one for each client.
        """
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            with self._lock:
                # Another thread may have forgotten them.
                used = [self._used.get(client, self._least) for client in clients]
                self._least = min(used, default=self._least)
                for client, before, size in zip(clients, used, sizes, strict=True):
                    self._used[client] = before + seconds * size / max(sum(sizes), 1)
                # Forget who has used no more than a new client, and everybody when nobody waits.
                self._used = {
                    client: used
                    for client, used in self._used.items()
                    if self._waiting and (client in self._waiting or used > self._least)
                }
