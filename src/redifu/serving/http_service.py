"""A model over HTTP: conversations whole, or utterance by utterance."""

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

_SOURCE = "request"  # named in errors, where a file would be
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
        self.utterances = counted("redifu_utterances", "Utterances answered")
        observed = partial(Histogram, registry=self.registry)
        self.seconds = observed("redifu_request_seconds", "Time to the end of the answer", ["route"])
        sizes = [2**power for power in range(9)]
        self.batches = observed("redifu_batch_conversations", "Conversations of a call", buckets=sizes)
        self.sessions = Gauge("redifu_sessions", "Live sessions", registry=self.registry)


class _Gate:
    """Stands before the routes: demands the key, ends what takes too long, and counts."""

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
                late = _error(504, f"expected an answer within {self._seconds} seconds, got none")
                await late(scope, receive, observe)
        except ClientDisconnect:
            status = 499  # as others count those who went before their answer
        finally:
            # Of routes and not of paths: a client must not make names.
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(route, status or 500).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope["headers"]).get(b"authorization", b"")
        # What watches whether the service lives needs no key.
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
        """Give an application the routes."""
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
        """Start a conversation whose utterances come one by one."""
        return _reply({"id": self.sessions.create()}, status=201)

    async def add_utterance(self, session: str, request: Request) -> Response:
        """Recognise the emotion of the next utterance of a session.

        One whose time is over while the model reads it is part of the session all the same.
        """
        utterance = await self._body(request)
        if isinstance(utterance, dict):
            _refuse_media(utterance, where=_SOURCE)
        answer = await self.thread.run(self.sessions.use(session).add, utterance)
        self.metrics.utterances.inc()
        return _reply(answer)

    async def end_session(self, session: str) -> Response:
        """Forget a session."""
        self.sessions.end(session)
        return Response(status_code=204)

    async def health(self) -> Response:
        """Say that requests are answered."""
        return _reply({"status": "ok"})

    async def show_metrics(self) -> Response:
        """Count requests, utterances, batches and sessions, for Prometheus."""
        return Response(generate_latest(self.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _body(self, request: Request) -> Any:
        # By this demand a browser asks before it sends what a foreign page wants of a service on loopback.
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise HTTPException(415, f"Content-Type: expected application/json, got {kind or 'none'}")
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self.limits.max_body_bytes:
                raise HTTPException(
                    413, f"body: expected at most {self.limits.max_body_bytes} bytes, got more"
                )
        return parse_json(bytes(body), source=_SOURCE)

    def _refuse_unreadable(self, conversation: Conversation) -> None:
        """Reject by ValueError what the model cannot take, and files."""
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
        limits: what one client may take.
        key: demanded of every request but /health; None demands none.

    Returns:
        The application, whose model works until the lifespan ends. Every error is {"error": one line}.
    """
    metrics = _Metrics()
    service = _Service(recogniser, limits=limits, metrics=metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.thread.close()

    # The pages of documentation would load their scripts from elsewhere; the schema is there without them.
    app = FastAPI(
        title="ReDiFu",
        description="A service with a key demands 'Authorization: Bearer KEY' of all requests but /health.",
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
    """Print the address and answer there until the process is told to end, and then what was accepted before.

    The key is what the environment variable REDIFU_API_KEY holds.

    Args:
        load: gives the model; called when nothing else can go wrong.
        host: a name or an address.
        port: 0 takes a free one.
        limits: what one client may take.

    Raises:
        ValueError: the port cannot be had, or there is no key and `host` can be reached from elsewhere.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip() or None
    if key is None and not _is_loopback(host):
        raise ValueError(
            f"--host {host} can be reached from elsewhere: expected a key in {KEY_VARIABLE}, got none"
        )
    with _listen(host, port) as listening:
        app = create_app(load(), limits=limits, key=key)
        address, port = listening.getsockname()[:2]
        # uvicorn raises the signal again when all is answered, and what is set here ends the process well.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: sys.exit(0))
        print(f"http://{f'[{address}]' if ':' in address else address}:{port}", flush=True)
        # Every request has its own limit of time, so that the shutdown needs none.
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
            raise ValueError(f"{where}: {name}: expected null, got a medium: give text or ready features")


def _reply(content: dict[str, Any], *, status: int = 200) -> Response:
    try:
        # In ASCII: what a client sent may hold half of a surrogate pair.
        text = json.dumps(content, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{_SOURCE}: what it holds cannot be given back as JSON: {error}") from error
    return Response(text, status, media_type="application/json")


def _error(status: int, message: str) -> Response:
    return _reply({"error": " ".join(message.split())}, status=status)


async def _refuse(request: Request, error: Exception) -> Response:
    """Answer an error by its message, or where the fault is ours by no more than that there is one."""
    if isinstance(error, HTTPException):
        refusal = _error(error.status_code, error.detail)
        refusal.headers.update(error.headers or {})
        return refusal
    for kind, status in _STATUS.items():
        if isinstance(error, kind):
            return _error(status, str(error))
    return _error(500, HTTPStatus.INTERNAL_SERVER_ERROR.phrase)
