"""The sessions of a service: so many at a time, and none for longer than it is used."""

import secrets
import time
from collections.abc import Callable

from redifu.inference.session import ConversationSession


class TooManySessionsError(Exception):
    """As many sessions live as may."""


class UnknownSessionError(Exception):
    """No session of this name lives."""


class SessionStore:
    """Live sessions by a name that nobody can guess. One that idles ends when the store is next used."""

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
            max_sessions: most sessions at a time.
            idle_seconds: a session that was not asked for during so long has ended.
            clock: tells seconds.
        """
        self._start = start
        self._max_sessions = max_sessions
        self._idle_seconds = idle_seconds
        self._clock = clock
        # With the time of the last use, the one unused for longest first.
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
                f"expected at most {self._max_sessions} sessions at a time: end one, or try again later"
            )
        name = secrets.token_urlsafe(16)
        self._sessions[name] = (self._clock(), self._start())
        return name

    def use(self, name: str) -> ConversationSession:
        """Return a live session, which idles from now.

        Raises:
            UnknownSessionError: there is none of this name.
        """
        session = self.end(name)
        self._sessions[name] = (self._clock(), session)
        return session

    def end(self, name: str) -> ConversationSession:
        """Take a live session out of the store and return it.

        Raises:
            UnknownSessionError: there is none of this name.
        """
        self._end_idle()
        if name not in self._sessions:
            raise UnknownSessionError(f"session {name}: there is none of this name, or it has ended")
        return self._sessions.pop(name)[1]

    def _end_idle(self) -> None:
        latest = self._clock() - self._idle_seconds
        for name, (used, _) in list(self._sessions.items()):
            if used > latest:
                break
            del self._sessions[name]
