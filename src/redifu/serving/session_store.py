"""The live sessions of a service: a limited number, and idle ones end."""

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

from redifu.inference.session import ConversationSession


class TooManySessionsError(Exception):
    """The maximum number of live sessions is reached."""


class UnknownSessionError(Exception):
    """The session does not exist or has ended."""


class _Live(NamedTuple):
    used: float
    client: str
    session: ConversationSession
    turn: asyncio.Lock


class SessionStore:
    """Live sessions under names that cannot be guessed. Idle ones end when the store is next used."""

    def __init__(
        self,
        start: Callable[[], ConversationSession],
        *,
        max_sessions: int,
        max_client_sessions: int | None = None,
        idle_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Make an empty store.

        Args:
            start: makes a session.
            max_sessions: maximum number of live sessions.
            max_client_sessions: the same, of one client; None for `max_sessions`.
            idle_seconds: a session ends after this many seconds without use.
            clock: returns the time in seconds.
        """
        self._start = start
        self._max_sessions = max_sessions
        self._max_client_sessions = max_client_sessions or max_sessions
        self._idle_seconds = idle_seconds
        self._clock = clock
        # Least recently used first.
        self._sessions: dict[str, _Live] = {}

    def __len__(self) -> int:
        """Return the number of live sessions."""
        self._end_idle()
        return len(self._sessions)

    def create(self, client: str = "") -> str:
        """Start a session of a client and return its name.

        Raises:
            TooManySessionsError: nothing was started.
        """
        advice = "end one, or try again later"
        if len(self) >= self._max_sessions:
            raise TooManySessionsError(f"too many live sessions ({self._max_sessions}): {advice}")
        if sum(each.client == client for each in self._sessions.values()) >= self._max_client_sessions:
            raise TooManySessionsError(
                f"too many live sessions of this client ({self._max_client_sessions}): {advice}"
            )
        name = secrets.token_urlsafe(16)
        self._sessions[name] = _Live(self._clock(), client, self._start(), asyncio.Lock())
        return name

    def use(self, name: str) -> ConversationSession:
        """Return a live session and restart its idle time.

        Raises:
            UnknownSessionError: the session does not exist or has ended.
        """
        live = self._remove(name)
        self._sessions[name] = live._replace(used=self._clock())
        return live.session

    def turn(self, name: str) -> asyncio.Lock:
        """Return what to hold while an utterance is added to a live session, and restart its idle time.

        Raises:
            UnknownSessionError: the session does not exist or has ended.
        """
        self.use(name)
        return self._sessions[name].turn

    def end(self, name: str) -> ConversationSession:
        """Remove a live session from the store and return it.

        Raises:
            UnknownSessionError: the session does not exist or has ended.
        """
        return self._remove(name).session

    def _remove(self, name: str) -> _Live:
        self._end_idle()
        if name not in self._sessions:
            raise UnknownSessionError(f"session {name} does not exist or has ended")
        return self._sessions.pop(name)

    def _end_idle(self) -> None:
        latest = self._clock() - self._idle_seconds
        for name, live in list(self._sessions.items()):
            if live.used > latest:
                break
            del self._sessions[name]
