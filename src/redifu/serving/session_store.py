"""The live sessions of a service: a limited number, and idle ones end."""

import secrets
import time
from collections.abc import Callable

from redifu.inference.session import ConversationSession


class TooManySessionsError(Exception):
    """The maximum number of live sessions is reached."""


class UnknownSessionError(Exception):
    """The session does not exist or has ended."""


class SessionStore:
    """Live sessions under names that cannot be guessed. Idle ones end when the store is next used."""

    def __init__(
        self,
        start: Callable[[], ConversationSession],
        *,
        max_sessions: int,
        idle_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Make an empty store.

        Args:
            start: makes a session.
            max_sessions: maximum number of live sessions.
            idle_seconds: a session ends after this many seconds without use.
            clock: returns the time in seconds.
        """
        self._start = start
        self._max_sessions = max_sessions
        self._idle_seconds = idle_seconds
        self._clock = clock
        # With the time of their last use, least recently used first.
        self._sessions: dict[str, tuple[float, ConversationSession]] = {}

    def __len__(self) -> int:
        """Return the number of live sessions."""
        self._end_idle()
        return len(self._sessions)

    def create(self) -> str:
        """Start a session and return its name.

        Raises:
            TooManySessionsError: nothing was started.
        """
        if len(self) >= self._max_sessions:
            raise TooManySessionsError(
                f"too many live sessions ({self._max_sessions}): end one, or try again later"
            )
        name = secrets.token_urlsafe(16)
        self._sessions[name] = (self._clock(), self._start())
        return name

    def use(self, name: str) -> ConversationSession:
        """Return a live session and restart its idle time.

        Raises:
            UnknownSessionError: the session does not exist or has ended.
        """
        session = self.end(name)
        self._sessions[name] = (self._clock(), session)
        return session

    def end(self, name: str) -> ConversationSession:
        """Remove a live session from the store and return it.

        Raises:
            UnknownSessionError: the session does not exist or has ended.
        """
        self._end_idle()
        if name not in self._sessions:
            raise UnknownSessionError(f"session {name} does not exist or has ended")
        return self._sessions.pop(name)[1]

    def _end_idle(self) -> None:
        latest = self._clock() - self._idle_seconds
        for name, (used, _) in list(self._sessions.items()):
            if used > latest:
                break
            del self._sessions[name]
