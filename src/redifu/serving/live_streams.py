"""Live streams over WebSockets: sound comes in as people speak, and each utterance goes out when it ends."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from redifu.data.readers import parse_json
from redifu.inference.listening import PcmSamples, frame_of, utterance_of
from redifu.inference.recogniser import Recogniser
from redifu.serving.batching import FairThread, ModelThread, TooManyWaitingError
from redifu.serving.gate import Metrics
from redifu.serving.service_limits import Limits
from redifu.transcription.live_turns import HeardTurn, LiveTurns
from redifu.transcription.speech_recognition import SAMPLING_RATE

_BYTES_PER_SECOND = 2 * SAMPLING_RATE
# Sound that is heard at a time, in bytes: other streams have their turn after it.
_PART = _BYTES_PER_SECOND // 2
# The threads that recognise speech; CTranslate2, ONNX Runtime and PyTorch let others run meanwhile.
_WORKERS = 2
# Codes of RFC 6455 and its registry.
DONE, WRONG_TYPE, REFUSED, FAILED, BUSY = 1000, 1003, 1008, 1011, 1013


class StreamError(Exception):
    """Ends a stream with a close code and a message for the client."""

    def __init__(self, code: int, message: str):
        """Keep both."""
        super().__init__(message)
        self.code = code


class LiveStreams:
    """The route of live streams; they share the models of speech, which the first of them loads."""

    def __init__(
        self,
        recogniser: Recogniser,
        *,
        limits: Limits,
        metrics: Metrics,
        preparing: FairThread,
        thread: ModelThread,
        load: Callable[[], Any],
    ):
        """Build it; nothing is loaded.

        Args:
            recogniser: the model.
            limits: limits for clients.
            metrics: where utterances and streams are counted.
            preparing: the thread that tokenizes.
            thread: the thread of the model.
            load: makes `LiveModels`.
        """
        self.recogniser, self.limits, self.metrics = recogniser, limits, metrics
        self.preparing, self.thread = preparing, thread
        self.hearing = FairThread("hear", max_waiting=limits.max_streams, workers=_WORKERS)
        self._load, self._loading = load, Lock()
        self._models: Any = None
        self._streams: Counter[str] = Counter()
        metrics.streams.set_function(self._streams.total)

    async def answer(self, websocket: WebSocket) -> None:
        """Answer one stream until it ends."""
        await websocket.accept()
        try:
            with self._place(websocket.client.host if websocket.client else ""):
                async with asyncio.timeout(self.limits.max_stream_seconds):
                    code = await _Stream(self, websocket).run()
            await websocket.close(code)
        except WebSocketDisconnect:
            pass
        except StreamError as error:
            await _refuse(websocket, error.code, str(error))
        except TimeoutError:
            await _refuse(
                websocket,
                REFUSED,
                f"the stream is longer than {self.limits.max_stream_seconds} s: start another",
            )
        except TooManyWaitingError as error:
            await _refuse(websocket, BUSY, str(error))
        except (ValueError, ImportError) as error:
            await _refuse(websocket, REFUSED if isinstance(error, ValueError) else FAILED, str(error))
        except Exception:
            await _refuse(websocket, FAILED, "internal error")
            raise

    def start(self, *, language: str | None, speakers: int | None) -> LiveTurns:
        """Start to hear a stream, in a thread; see `LiveTurns`."""
        with self._loading:
            if self._models is None:
                self._models = self._load()
        speech = self._models.speech if language is None else self._models.speech.for_language(language)
        return LiveTurns(speech, self._models.speakers, most_speakers=speakers)

    def close(self) -> None:
        """End the threads that hear."""
        self.hearing.close()

    @contextmanager
    def _place(self, client: str) -> Iterator[None]:
        limits = self.limits
        if self._streams.total() >= limits.max_streams:
            raise StreamError(BUSY, f"too many live streams ({limits.max_streams}): try again later")
        if self._streams[client] >= limits.max_client_streams:
            message = f"too many live streams of this client ({limits.max_client_streams}): end one"
            raise StreamError(BUSY, message)
        self._streams[client] += 1
        try:
            yield
        finally:
            self._streams[client] -= 1
            self._streams += Counter()  # forgets those without a stream


class _Stream:
    """One stream: a task reads the sound, another one hears and answers it."""

    def __init__(self, streams: LiveStreams, websocket: WebSocket):
        self.streams, self.limits, self.websocket = streams, streams.limits, websocket
        self.client = str(websocket.client)
        self.session = streams.recogniser.session()
        self.samples = PcmSamples()
        self.waiting = bytearray()
        self.news = asyncio.Event()
        self.received = 0  # bytes
        self.began = self.came = 0.0  # when sound came first, and last
        self.code: int | None = None  # with which the stream is to be closed, once it has ended

    async def run(self) -> int:
        """Read and answer the stream, and return the close code."""
        first = await self._receive()
        settings = _settings(first["text"]) if first.get("text") is not None else {}
        self.turns = await self._hear(lambda: self.streams.start(**{**_DEFAULTS, **settings}))
        if first.get("bytes") is not None:
            self._take(first)
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._answer())]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return DONE if self.code is None else self.code

    async def _receive(self) -> Any:
        try:
            async with asyncio.timeout(self.limits.stream_idle_seconds):
                message = await self.websocket.receive()
        except TimeoutError:
            seconds = self.limits.stream_idle_seconds
            raise StreamError(REFUSED, f"nothing came for {seconds} s: send silence as well") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        return message

    async def _read(self) -> None:
        while self.code is None:
            self._take(await self._receive())

    def _take(self, message: Any) -> None:
        """Take a message of sound; an empty one ends the stream."""
        data = message.get("bytes")
        if data is None:
            raise StreamError(WRONG_TYPE, "expected sound in binary frames after the first frame, got text")
        if not data:
            self.code = message.get("code", DONE)
        self.came = time.monotonic()
        self.began = self.began or self.came
        self.received += len(data)
        self.waiting += data
        self.news.set()
        most = self.limits.max_stream_lag_seconds
        if self.received / _BYTES_PER_SECOND - (self.came - self.began) > most:
            raise StreamError(REFUSED, f"sound came faster than speech: more than {most} s ahead of time")
        if len(self.waiting) / _BYTES_PER_SECOND > most:
            raise StreamError(BUSY, f"the service is too busy: it is {most} s behind; try again later")

    async def _answer(self) -> None:
        while self.waiting or self.code is None:
            if not self.waiting:
                self.news.clear()
                await self.news.wait()
                continue
            part = bytes(self.waiting[:_PART])
            del self.waiting[:_PART]
            # Sound comes at the speed of speech, so this is when the end of the part came.
            came = self.came - len(self.waiting) / _BYTES_PER_SECOND
            for turn in await self._hear(self._turns_of, part):
                await self._send(turn, came)
        for turn in await self._hear(lambda: list(self.turns.finish())):
            await self._send(turn, self.came)

    def _turns_of(self, part: bytes) -> list[HeardTurn]:
        return list(self.turns.feed(self.samples(part)))

    async def _hear(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await self.streams.hearing.run(work, *arguments, client=self.client)

    async def _send(self, turn: HeardTurn, came: float) -> None:
        utterance = utterance_of(turn, self.session)
        step = await self.streams.preparing.run(self.session.read, utterance, client=self.client)
        answer = await self.streams.thread.run(self.session.answer, step, client=self.client)
        latency = time.monotonic() - came + self.turns.seconds - turn.spoken.end
        await self.websocket.send_text(json.dumps(frame_of(turn, answer, latency=latency)))
        self.streams.metrics.utterances.inc()


_DEFAULTS: dict[str, Any] = {"language": None, "speakers": None}


def _settings(text: str) -> dict[str, Any]:
    """Read the first frame of a stream."""
    given = parse_json(text, source="stream")
    if not isinstance(given, dict) or not set(given) <= set(_DEFAULTS):
        raise ValueError(f'expected {{"language": "en", "speakers": 2}} or a part of it, got {text:.80}')
    language, speakers = given.get("language"), given.get("speakers")
    if not isinstance(language, str | None):
        raise ValueError(f"language: expected a code such as en, got {language!r:.80}")
    if speakers is not None and (type(speakers) is not int or speakers < 1):
        raise ValueError(f"speakers: expected a number from 1 on, got {speakers!r:.80}")
    return given


async def _refuse(websocket: WebSocket, code: int, message: str) -> None:
    with suppress(WebSocketDisconnect, RuntimeError):  # the client may have gone
        await websocket.send_text(json.dumps({"type": "error", "message": " ".join(message.split())}))
        await websocket.close(code)
