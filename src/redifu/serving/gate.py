"""What stands before the routes: which requests are let in, their time limit, and the metrics."""

import asyncio
import hmac
import time
from collections.abc import Callable, Collection
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


class Metrics:
    """The metrics of a service, for Prometheus."""

    def __init__(self) -> None:
        """Start at zero."""
        self.registry = CollectorRegistry()
        counted = partial(Counter, registry=self.registry)
        self.requests = counted("redifu_requests", "Requests by route and status", ["route", "status"])
        self.utterances = counted("redifu_utterances", "Utterances predicted")
        observed = partial(Histogram, registry=self.registry)
        self.seconds = observed("redifu_request_seconds", "Time to the end of the response", ["route"])
        sizes = [2**power for power in range(9)]
        self.batches = observed("redifu_batch_conversations", "Conversations per model call", buckets=sizes)
        self.sessions = Gauge("redifu_sessions", "Live sessions", registry=self.registry)
        self.streams = Gauge("redifu_streams", "Live streams of sound", registry=self.registry)


class Gate:
    """Middleware that refuses pages of other sites, checks the key, limits the time and counts requests."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        key: str | None,
        hosts: Collection[str] | None,
        seconds: float,
        metrics: Metrics,
        refusal: Callable[[int, str], Response],
    ):
        """Stand before an application.

        Args:
            app: the application.
            key: required by every request except /health; None requires no key.
            hosts: the names by which the service may be called, without a port; None allows any.
            seconds: time limit of a request.
            metrics: where requests are counted.
            refusal: makes the response for a status and a message.
        """
        self._app = app
        self._key = None if key is None else key.encode()
        self._hosts = hosts
        self._seconds = seconds
        self._metrics = metrics
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "websocket" and self._refused(scope) is not None:
                await send({"type": "websocket.close", "code": 1008, "reason": "refused"})
            else:
                await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def observe(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            async with asyncio.timeout(self._seconds):
                answer = self._refused(scope) or self._app
                await answer(scope, receive, observe)
        except TimeoutError:
            if not status:
                late = self._refusal(504, f"request timed out after {self._seconds} s")
                await late(scope, receive, observe)
        except ClientDisconnect:
            status = 499  # nginx's status for a client that closed the connection early
        finally:
            # Label by route, not by path: clients must not create new labels.
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(route, status or 500).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)

    def _refused(self, scope: Scope) -> Response | None:
        """Return the response for a request that is not let in."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        # A page whose site gave its own name the address of this service sends that name.
        if self._hosts is not None and _without_port(host) not in self._hosts:
            expected = ", ".join(sorted(self._hosts))
            return self._refusal(403, f"Host must be one of {expected}, got {host!r:.80}")
        if origin is not None and origin.lower().partition("://")[2] != host.lower():
            return self._refusal(403, f"requests of web pages of other sites are refused, got {origin!r:.80}")
        # Health checks need no key.
        if self._key is not None and scope["path"] != "/health" and not self._is_right(headers):
            refusal = self._refusal(
                401, "expected the header 'Authorization: Bearer KEY' with the service's key"
            )
            refusal.headers["WWW-Authenticate"] = "Bearer"
            return refusal
        # Browsers ask before they send this type to another site, and the answer is no.
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope.get("method") == "POST" and kind != "application/json":
            return self._refusal(415, f"Content-Type must be application/json, got {kind or 'none'}")
        return None

    def _is_right(self, headers: Headers) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(key.strip().encode("latin-1"), self._key or b"")
        return scheme.lower() == "bearer" and same


def _without_port(host: str) -> str:
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdecimal() else host.lower()
