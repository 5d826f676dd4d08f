"""HTTP service for a model: whole conversations, or live sessions utterance by utterance."""

import ipaddress
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from redifu.conversation import MEDIA, Conversation
from redifu.data.readers import parse_json
from redifu.data.writers import with_predictions
from redifu.inference.recogniser import Recogniser
from redifu.inference.session import ConversationSession, Step
from redifu.serving.batching import FairThread, ModelThread, TooManyWaitingError
from redifu.serving.connections import BoundedConnection, BoundedWebSocket, LoggedOnce
from redifu.serving.gate import LOOPBACK_HOSTS, Gate, Metrics
from redifu.serving.live_streams import LiveStreams
from redifu.serving.ready_texts import ReadyTexts
from redifu.serving.service_limits import Limits
from redifu.serving.session_store import SessionStore, TooManySessionsError, UnknownSessionError
from redifu.transcription.speech_recognition import SAMPLING_RATE

from . import http_schema

KEY_VARIABLE = "REDIFU_API_KEY"
# uvicorn's own: the addresses of proxies whose X-Forwarded-For is believed.
PROXIES_VARIABLE = "FORWARDED_ALLOW_IPS"

_SOURCE = "request"  # stands in errors where a file name would
_STATUS: dict[type[Exception], int] = {
    ValueError: 422,
    FloatingPointError: 422,
    UnknownSessionError: 404,
    TooManySessionsError: 429,
    TooManyWaitingError: 503,
}


class _Service:
    """The routes."""

    def __init__(
        self, recogniser: Recogniser, *, limits: Limits, metrics: Metrics, live_models: Callable[[], Any]
    ):
        self.recogniser = recogniser
        self.limits = limits
        self.metrics = metrics
        # Only this thread tokenizes: a tokenizer must not be called by two threads at a time.
        self.preparing = FairThread("prepare", max_waiting=limits.max_waiting)
        self.texts = ReadyTexts(recogniser)
        self.thread = ModelThread(
            self.texts.recogniser,
            max_batch=limits.max_batch,
            max_waiting=limits.max_waiting,
            observe_batch=metrics.batches.observe,
        )
        self.sessions = SessionStore(
            recogniser.session,
            max_sessions=limits.max_sessions,
            max_client_sessions=limits.max_client_sessions,
            idle_seconds=limits.session_idle_seconds,
        )
        metrics.sessions.set_function(lambda: len(self.sessions))
        self.live = LiveStreams(
            recogniser,
            limits=limits,
            metrics=metrics,
            preparing=self.preparing,
            thread=self.thread,
            load=live_models,
        )

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
        app.router.add_websocket_route("/live", self.live.answer)

    def close(self) -> None:
        """Finish all accepted work."""
        self.live.close()
        self.preparing.close()
        self.thread.close()

    async def predict(self, request: Request) -> Response:
        """Recognise the emotion of every utterance of a conversation."""
        client, body = _client(request), await self._body(request)
        conversation = await self.preparing.run(self._conversation, body, client=client)
        ready = conversation
        if texts := self.texts.of(conversation):
            tokens: list[list[int]] = []
            for part in self.texts.parts(texts):
                tokens += await self.preparing.run(self.texts.tokens, part, client=client)
            ready = self.texts.embedded(conversation, await self.thread.embed(tokens, client=client))
        predictions = await self.thread.predict(ready, client=client)
        self.metrics.utterances.inc(len(predictions))
        return _reply(with_predictions(conversation, predictions))

    async def create_session(self, request: Request) -> Response:
        """Start a live session, whose utterances arrive one by one."""
        await self._body(request)
        host, _ = request.client or ("", 0)
        return _reply({"id": self.sessions.create(host)}, status=201)

    async def add_utterance(self, session: str, request: Request) -> Response:
        """Recognise the emotion of the next utterance of a session.

        An utterance whose request times out while the model runs is still added to the session.
        """
        client, body = _client(request), await self._body(request)
        live = self.sessions.use(session)
        async with self.sessions.turn(session):
            step = await self.preparing.run(self._read, live, body, client=client)
            answer = await self.thread.run(live.answer, step, client=client)
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

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self.limits.max_body_bytes:
                raise HTTPException(
                    413, f"request body too large: expected at most {self.limits.max_body_bytes} bytes"
                )
        return bytes(body)

    def _conversation(self, body: bytes) -> Conversation:
        conversation = Conversation.from_dict(parse_json(body, source=_SOURCE), source=_SOURCE)
        self._refuse_unreadable(conversation)
        return conversation

    def _read(self, session: ConversationSession, body: bytes) -> Step:
        utterance = parse_json(body, source=_SOURCE)
        if isinstance(utterance, dict):
            self._refuse_utterance(utterance, where=_SOURCE)
        return session.read(utterance)

    def _refuse_utterance(self, utterance: Mapping[str, Any], *, where: str) -> None:
        for name in MEDIA.values():
            if utterance.get(name) is not None:
                raise ValueError(f"{where}: {name} must be null: send text or precomputed features instead")
        for name in ("speaker", "text"):
            given, most = utterance.get(name), self.limits.max_text_characters
            if isinstance(given, str) and len(given) > most:
                raise ValueError(f"{where}: {name}: expected at most {most} characters, got {len(given)}")

    def _refuse_unreadable(self, conversation: Conversation) -> None:
        """Raise ValueError for a conversation that the model cannot read or that names files."""
        number = len(conversation.utterances)
        where = f"{_SOURCE}: dialogue {conversation.id}"
        if number > self.limits.max_utterances:
            raise ValueError(
                f"{where}: expected at most {self.limits.max_utterances} utterances, got {number}"
            )
        for turn, utterance in enumerate(conversation.utterances):
            self._refuse_utterance(utterance.given, where=f"{where}, utterance {turn}")
        try:
            self.recogniser.check(conversation)
        except ValueError as error:
            raise ValueError(f"{_SOURCE}: {error}") from error


def create_app(
    recogniser: Recogniser,
    *,
    limits: Limits,
    key: str | None = None,
    hosts: Collection[str] | None = None,
    live_models: Callable[[], Any] | None = None,
) -> FastAPI:
    """Build the service as an ASGI application.

    Args:
        recogniser: the model.
        limits: limits for clients.
        key: required by every request except /health; None requires no key.
        hosts: the names by which clients may call the service; None allows any.
        live_models: makes the `LiveModels` that hear live streams; None for `tiny.en`.

    Returns:
        The application; its model thread runs until the lifespan ends. Every error is {"error": one line}.
    """
    metrics = Metrics()
    service = _Service(
        recogniser, limits=limits, metrics=metrics, live_models=live_models or load_live_models
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    # The documentation pages would load scripts from another site; the schema is available without them.
    app = FastAPI(
        title="ReDiFu",
        description="A service with a key requires 'Authorization: Bearer KEY' in all requests but /health.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(
        Gate, key=key, hosts=hosts, seconds=limits.request_seconds, metrics=metrics, refusal=_error
    )
    for kind in (*_STATUS, HTTPException, Exception):
        app.add_exception_handler(kind, _refuse)
    service.add_to(app)
    return app


def load_live_models(speech_model: str = "tiny.en") -> Any:
    """Load the models that hear live streams; see `LiveModels`."""
    from redifu.transcription.live_turns import LiveModels  # brings the models of the extra `speech`

    models = LiveModels(speech_model=speech_model)
    # The first calls take seconds, which the first turn must not wait for.
    second = np.zeros(SAMPLING_RATE, np.float32)
    models.speech.recognise(second, [(0.0, 1.0)])
    models.speakers.voice(second)
    return models


def serve(
    load: Callable[[], Recogniser], *, host: str, port: int, limits: Limits, speech_model: str = "tiny.en"
) -> None:
    """Print the address and serve until SIGINT or SIGTERM; accepted requests are still answered, for a while.

    The key is read from the environment variable REDIFU_API_KEY.

    Args:
        load: loads the model; called last, after everything else that can fail.
        host: host name or address.
        port: 0 chooses a free port.
        limits: limits for clients.
        speech_model: recognises the words of live streams; see `load_speech_model`.

    Raises:
        ValueError: the port is not available, or `host` is not loopback and there is no key.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip() or None
    if key is None and not _is_loopback(host):
        raise ValueError(
            f"--host {host} is reachable from other machines: expected a key in {KEY_VARIABLE}, got none"
        )
    with _listen(host, port) as listening:
        # With a key, no page of another site gets in, by whatever name it calls the service.
        hosts = None if key else {*LOOPBACK_HOSTS, host.lower(), f"[{host.lower()}]"}
        hear = partial(load_live_models, speech_model)
        app = create_app(load(), limits=limits, key=key, hosts=hosts, live_models=hear)
        address, port = listening.getsockname()[:2]
        # uvicorn raises the signal again after the last response; this handler then exits with status 0.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: sys.exit(0))
        print(f"http://{f'[{address}]' if ':' in address else address}:{port}", flush=True)
        _server(app, limits).run(sockets=[listening])


def _server(app: FastAPI, limits: Limits) -> uvicorn.Server:
    bounds = {"max_connections": limits.max_connections, "head_seconds": limits.head_seconds}
    config = uvicorn.Config(
        app,
        http=type("Connection", (BoundedConnection,), bounds),
        ws=type("WebSocket", (BoundedWebSocket,), bounds),
        ws_max_size=limits.max_body_bytes,
        ws_per_message_deflate=False,  # sound does not compress, and bombs do
        log_level="warning",
        access_log=False,
        # Without a proxy, whoever is on this machine could choose an address, and so escape the limits.
        proxy_headers=bool(os.environ.get(PROXIES_VARIABLE)),
        # asyncio accepts up to this many connections before it notices that some have already ended.
        backlog=128,
        timeout_graceful_shutdown=limits.drain_seconds,
    )
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).addFilter(LoggedOnce())
    return uvicorn.Server(config)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot listen on host {host}, port {port}: {reason}") from None


def _client(request: Request) -> str:
    """Return what distinguishes clients: the address and port of their connection."""
    return str(request.client)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
