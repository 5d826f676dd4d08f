"""HTTP service for a model: whole conversations, or live sessions utterance by utterance."""

import asyncio
import hmac
import ipaddress
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from redifu.conversation import MEDIA, Conversation
from redifu.data.readers import parse_json
from redifu.data.writers import with_predictions
from redifu.inference.recogniser import Recogniser
from redifu.serving.batching import ModelThread, TooManyWaitingError
from redifu.serving.service_limits import Limits
from redifu.serving.session_store import SessionStore, TooManySessionsError, UnknownSessionError

from . import http_schema

KEY_VARIABLE = "REDIFU_API_KEY"

_SOURCE = "request"  # stands in errors where a file name would
_STATUS: dict[type[Exception], int] = {
    ValueError: 422,
    FloatingPointError: 422,
    UnknownSessionError: 404,
    TooManySessionsError: 429,
    TooManyWaitingError: 503,
}


class _Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counted = partial(Counter, registry=self.registry)
        self.requests = counted("redifu_requests", "Requests by route and status", ["route", "status"])
        self.utterances = counted("redifu_utterances", "Utterances predicted")
        observed = partial(Histogram, registry=self.registry)
        self.seconds = observed("redifu_request_seconds", "Time to the end of the response", ["route"])
        sizes = [2**power for power in range(9)]
        self.batches = observed("redifu_batch_conversations", "Conversations per model call", buckets=sizes)
        self.sessions = Gauge("redifu_sessions", "Live sessions", registry=self.registry)


class _Gate:
    """Middleware that checks the key, enforces the time limit and counts requests."""

    def __init__(self, app: ASGIApp, *, key: str | None, seconds: float, metrics: _Metrics):
        self._app = app
        self._expected = None if key is None else f"Bearer {key}".encode()
        self._seconds = seconds
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
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
                await self._answer(scope, receive, observe)
        except TimeoutError:
            if not status:
                late = _error(504, f"request timed out after {self._seconds} s")
                await late(scope, receive, observe)
        except ClientDisconnect:
            status = 499  # nginx's status for a client that closed the connection early
        finally:
            # Label by route, not by path: clients must not create new labels.
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(route, status or 500).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope["headers"]).get(b"authorization", b"")
        # Health checks need no key.
        health = scope["path"] == "/health"
        if self._expected is None or health or hmac.compare_digest(given, self._expected):
            await self._app(scope, receive, send)
        else:
            refusal = _error(401, "expected the header 'Authorization: Bearer KEY' with the service's key")
            refusal.headers["WWW-Authenticate"] = "Bearer"
            await refusal(scope, receive, send)


class _Service:
    """The routes."""

    def __init__(self, recogniser: Recogniser, *, limits: Limits, metrics: _Metrics):
        self.recogniser = recogniser
        self.limits = limits
        self.metrics = metrics
        self.thread = ModelThread(
            recogniser,
            max_batch=limits.max_batch,
            max_waiting=limits.max_waiting,
            observe_batch=metrics.batches.observe,
        )
        self.sessions = SessionStore(
            recogniser.session,
            max_sessions=limits.max_sessions,
            idle_seconds=limits.session_idle_seconds,
        )
        metrics.sessions.set_function(lambda: len(self.sessions))

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an application."""
        for method, path, handler, operation in (
            ("POST", "/predict", self.predict, http_schema.PREDICT),
            ("POST", "/sessions", self.create_session, http_schema.CREATE_SESSION),
            ("POST", "/sessions/{session}/utterances", self.add_utterance, http_schema.ADD_UTTERANCE),
            ("DELETE", "/sessions/{session}", self.end_session, http_schema.END_SESSION),
            ("GET", "/health", self.health, http_schema.HEALTH),
            ("GET", "/metrics", self.show_metrics, http_schema.METRICS),
        ):
            app.add_api_route(path, handler, methods=[method], response_class=Response, **operation)

    async def predict(self, request: Request) -> Response:
        """Recognise the emotion of every utterance of a conversation."""
        conversation = Conversation.from_dict(await self._body(request), source=_SOURCE)
        self._refuse_unreadable(conversation)
        predictions = await self.thread.predict(conversation)
        self.metrics.utterances.inc(len(predictions))
        return _reply(with_predictions(conversation, predictions))

    async def create_session(self) -> Response:
        """Start a live session, whose utterances arrive one by one."""
        return _reply({"id": self.sessions.create()}, status=201)

    async def add_utterance(self, session: str, request: Request) -> Response:
        """Recognise the emotion of the next utterance of a session.

        An utterance whose request times out while the model runs is still added to the session.
        """
        utterance = await self._body(request)
        if isinstance(utterance, dict):
            _refuse_media(utterance, where=_SOURCE)
        answer = await self.thread.run(self.sessions.use(session).add, utterance)
        self.metrics.utterances.inc()
        return _reply(answer)

    async def end_session(self, session: str) -> Response:
        """End a session."""
        self.sessions.end(session)
        return Response(status_code=204)

    async def health(self) -> Response:
        """Report that the service is up."""
        return _reply({"status": "ok"})

    async def show_metrics(self) -> Response:
        """Return counts of requests, utterances, batches and sessions, for Prometheus."""
        return Response(generate_latest(self.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _body(self, request: Request) -> Any:
        # This type makes browsers ask (CORS preflight) before they send another site's request to loopback.
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise HTTPException(415, f"Content-Type must be application/json, got {kind or 'none'}")
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self.limits.max_body_bytes:
                raise HTTPException(
                    413, f"request body too large: expected at most {self.limits.max_body_bytes} bytes"
                )
        return parse_json(bytes(body), source=_SOURCE)

    def _refuse_unreadable(self, conversation: Conversation) -> None:
        """Raise ValueError for a conversation that the model cannot read or that names files."""
        number = len(conversation.utterances)
        where = f"{_SOURCE}: dialogue {conversation.id}"
        if number > self.limits.max_utterances:
            raise ValueError(
                f"{where}: expected at most {self.limits.max_utterances} utterances, got {number}"
            )
        for turn, utterance in enumerate(conversation.utterances):
            _refuse_media(utterance.given, where=f"{where}, utterance {turn}")
        try:
            self.recogniser.check(conversation)
        except ValueError as error:
            raise ValueError(f"{_SOURCE}: {error}") from error


def create_app(recogniser: Recogniser, *, limits: Limits, key: str | None = None) -> FastAPI:
    """Build the service as an ASGI application.

    Args:
        recogniser: the model.
        limits: limits for clients.
        key: required by every request except /health; None requires no key.

    Returns:
        The application; its model thread runs until the lifespan ends. Every error is {"error": one line}.
    """
    metrics = _Metrics()
    service = _Service(recogniser, limits=limits, metrics=metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.thread.close()

    # The documentation pages would load scripts from another site; the schema is available without them.
    app = FastAPI(
        title="ReDiFu",
        description="A service with a key requires 'Authorization: Bearer KEY' in all requests but /health.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(_Gate, key=key, seconds=limits.request_seconds, metrics=metrics)
    for kind in (*_STATUS, HTTPException, Exception):
        app.add_exception_handler(kind, _refuse)
    service.add_to(app)
    return app


def serve(load: Callable[[], Recogniser], *, host: str, port: int, limits: Limits) -> None:
    """Print the address and serve until SIGINT or SIGTERM; accepted requests are still answered.

    The key is read from the environment variable REDIFU_API_KEY.

    Args:
        load: loads the model; called last, after everything else that can fail.
        host: host name or address.
        port: 0 chooses a free port.
        limits: limits for clients.

    Raises:
        ValueError: the port is not available, or `host` is not loopback and there is no key.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip() or None
    if key is None and not _is_loopback(host):
        raise ValueError(
            f"--host {host} is reachable from other machines: expected a key in {KEY_VARIABLE}, got none"
        )
    with _listen(host, port) as listening:
        app = create_app(load(), limits=limits, key=key)
        address, port = listening.getsockname()[:2]
        # uvicorn raises the signal again after the last response; this handler then exits with status 0.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: sys.exit(0))
        print(f"http://{f'[{address}]' if ':' in address else address}:{port}", flush=True)
        # Every request has a time limit, so the shutdown needs none.
        uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot listen on host {host}, port {port}: {reason}") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refuse_media(utterance: Mapping[str, Any], *, where: str) -> None:
    for name in MEDIA.values():
        if utterance.get(name) is not None:
            raise ValueError(f"{where}: {name} must be null: send text or precomputed features instead")


def _reply(content: dict[str, Any], *, status: int = 200) -> Response:
    try:
        # In ASCII, because a client's text can contain half of a surrogate pair.
        text = json.dumps(content, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{_SOURCE}: the response cannot be written as JSON: {error}") from error
    return Response(text, status, media_type="application/json")


def _error(status: int, message: str) -> Response:
    return _reply({"error": " ".join(message.split())}, status=status)


async def _refuse(request: Request, error: Exception) -> Response:
    """Answer a client's mistake with its message, and an internal error without details."""
    if isinstance(error, HTTPException):
        refusal = _error(error.status_code, error.detail)
        refusal.headers.update(error.headers or {})
        return refusal
    for kind, status in _STATUS.items():
        if isinstance(error, kind):
            return _error(status, str(error))
    return _error(500, HTTPStatus.INTERNAL_SERVER_ERROR.phrase)
