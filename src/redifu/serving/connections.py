"""Connections of the service: a limited number, each with a limited time to send a head and to read."""

import asyncio
import logging
import time
from typing import Any

from h11 import LocalProtocolError
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

logger = logging.getLogger("uvicorn.error")


class LoggedOnce(logging.Filter):
    """Passes each message once: whoever can cause one can also cause a million, and fill the disk."""

    most = 1000

    def __init__(self) -> None:
        """Start with nothing logged."""
        super().__init__()
        self._logged: set[tuple[str, str]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is new."""
        fault = repr(record.exc_info[1]) if record.exc_info else ""
        key = (str(record.msg), fault)
        if key in self._logged or len(self._logged) >= self.most:
            return False
        self._logged.add(key)
        return True


class BoundedConnection(H11Protocol):
    """A connection of uvicorn that ends if it waits too long for a request, or in favour of a new one.

    uvicorn limits the time between requests, but neither the time before the first one nor that between the
    bytes of a head, nor the time for which a client leaves an answer unread.

    When there are too many connections, the new one takes the place of the one that has been waiting longest,
    of those that never sent a whole request if there are any. While all are being answered, it is refused.
    """

    max_connections: int
    head_seconds: float
    _timer: asyncio.TimerHandle | None = None
    _since = 0.0
    _answered = False

    def connection_made(self, transport: Any) -> None:
        """Make room for the connection and give it a time limit."""
        self._since = time.monotonic()
        if len(self.connections) >= self.max_connections:
            logger.warning("more than max_connections=%d connections: some are closed", self.max_connections)
            # Only of this class: a WebSocket is another one.
            waiting = [
                each for each in self.connections if isinstance(each, BoundedConnection) and each.waits
            ]
            if not waiting:
                self.transport = transport
                transport.abort()
                return
            min(waiting, key=lambda each: (each._answered, each._since)).end()
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop()
        if self.flow is not None:  # it was not refused
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, which may complete a head."""
        try:
            super().data_received(data)
        except LocalProtocolError:  # nonsense after an answer, to which there can be no further one
            self.end()
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._answered, self._since = True, time.monotonic()
        super().on_response_complete()
        self._watch()

    @property
    def waits(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def end(self) -> None:
        """Close the connection without waiting for the client."""
        self._stop()
        self.connections.discard(self)
        self.transport.abort()

    def _watch(self) -> None:
        # A connection that became a WebSocket is no longer listed.
        if not self.waits or self not in self.connections:
            self._stop()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.head_seconds, self.end)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket of uvicorn that waits only so long for a client to read, and may finish at a shutdown."""

    head_seconds: float
    _timer: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Give a client that does not read a time limit."""
        super().pause_writing()
        self._timer = self.loop.call_later(self.head_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the clock."""
        super().resume_writing()
        if self._timer is not None:
            self._timer.cancel()

    def keepalive_timeout(self) -> None:
        """Close a connection whose client has disappeared, though it may not read that it is closed."""
        super().keepalive_timeout()
        self.loop.call_later(self.head_seconds, self.transport.abort)

    def shutdown(self) -> None:
        """Tell the application that nothing more will come, by an empty message with a close code."""
        if self.handshake_complete and not self.close_sent:
            self.stop_keepalive()
            self.queue.put_nowait({"type": "websocket.receive", "bytes": b"", "code": 1012})  # type: ignore
        else:
            super().shutdown()
