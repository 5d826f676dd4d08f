"""A queue in which clients take turns."""

from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Waiting items of many clients: each client gets its turn, however much others have waiting."""

    def __init__(self) -> None:
        """Make an empty queue."""
        # The client whose turn comes first stands first.
        self._waiting: dict[str, deque[Item]] = {}
        self._lock = Lock()

    def put(self, client: str, item: Item) -> None:
        """Add an item at the end of its client's."""
        with self._lock:
            self._waiting.setdefault(client, deque()).append(item)

    def take(self, fits: Callable[[list[Item], Item], bool]) -> list[Item]:
        """Remove and return the next item, and others that fit to it, one of each client in turn.

        Args:
            fits: says whether an item may join those that are already taken.

        Returns:
            The items; none if the queue is empty.
        """
        taken: list[Item] = []
        with self._lock:
            before = -1
            while len(taken) > before:
                before = len(taken)
                for client, items in list(self._waiting.items()):
                    if taken and not fits(taken, items[0]):
                        continue
                    taken.append(items.popleft())
                    del self._waiting[client]
                    if items:
                        self._waiting[client] = items
        return taken
