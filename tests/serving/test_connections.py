"""Idle, half-sent and unread connections end; those who talk are served; the log stays short."""

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx2 as httpx
import pytest

from model.tiny_models import text_model
from model.tiny_processors import conversation, text_processor, utterance
from redifu.inference.recogniser import Recogniser
from redifu.serving.service_limits import Limits
from serving.running import running

http_service = pytest.importorskip("redifu.serving.http_service", reason="serving needs the extra `serve`")

DINNER = conversation(utterance(text="you came !"))


class Service:
    """A service on a free port of loopback."""

    def __init__(self, **limits: int):
        recogniser = Recogniser(text_model("bert", visual_size=None), text_processor(max_text_tokens=16))
        self.limits = Limits(**limits)
        app = http_service.create_app(recogniser, limits=self.limits, hosts={"127.0.0.1"})
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = self.listening.getsockname()
        self.server = http_service._server(app, self.limits)
        self.thread = threading.Thread(
            target=self.server.run, kwargs={"sockets": [self.listening]}, daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}"

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=20)


@contextmanager
def service(**limits: int) -> Iterator[Service]:
    filters = {name: list(logging.getLogger(name).filters) for name in ("uvicorn.error", "asyncio")}
    try:
        with running(Service(**limits)) as one:
            yield one
    finally:
        for name, before in filters.items():
            logging.getLogger(name).filters = before


def is_ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1000) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nHo"], ids=["idle", "half a head"])
def test_a_connection_that_sends_no_head_ends(sent: bytes) -> None:
    with service(head_seconds=1) as one, one.connect() as connection:
        began = time.monotonic()
        connection.sendall(sent)
        assert is_ended(connection)
        assert 0.5 < time.monotonic() - began < 10


def test_a_head_that_drips_ends() -> None:
    with service(head_seconds=1) as one, one.connect() as connection:
        began = time.monotonic()
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        with pytest.raises(ConnectionError):
            while time.monotonic() - began < 10:
                connection.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() - began < 5


def test_what_is_sent_after_a_refusal_keeps_no_connection_open() -> None:
    with service(head_seconds=1) as one, one.connect() as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert b" 415 " in connection.recv(10_000)
        began = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - began < 10:
                connection.sendall(b"1\r\nx\r\n")
                time.sleep(0.05)
        assert time.monotonic() - began < 5


def test_idle_connections_leave_room_for_those_who_talk() -> None:
    with service(max_connections=5, head_seconds=60) as one, ExitStack() as open_:
        with httpx.Client(base_url=one.url) as client:
            assert client.get("/health").status_code == 200
            idle = [open_.enter_context(one.connect()) for _ in range(30)]
            for _ in range(3):
                assert client.post("/predict", json=DINNER).status_code == 200
        assert sum(map(is_ended, idle[:20])) == 20


def test_the_log_has_each_warning_once(capfd: pytest.CaptureFixture[str]) -> None:
    with service(max_connections=3) as one:
        for _ in range(20):
            with one.connect() as connection:
                connection.sendall(b"nonsense\r\n\r\n")
                connection.recv(1000)
        idle = [one.connect() for _ in range(20)]
        assert is_ended(idle[0])  # otherwise the service might stop before it has accepted them
        for each in idle:
            each.close()
    lines = capfd.readouterr().err.splitlines()
    assert sorted(line.split()[1] for line in lines) == ["Invalid", "more"]


def ask_without_reading(connection: socket.socket) -> None:
    """Send a request whose answer is larger than all buffers on the way, and read only its begin."""
    body = json.dumps(conversation(*[utterance(text="no", note="x" * 10_000)] * 300)).encode()
    head = "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert connection.recv(10)


def test_a_client_that_does_not_read_loses_its_connection() -> None:
    with service(head_seconds=1) as one, one.connect() as connection:
        ask_without_reading(connection)
        end = time.monotonic() + 20
        while one.server.server_state.connections:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_stopping_waits_a_while_for_a_client_that_does_not_read() -> None:
    with service(drain_seconds=1) as one, one.connect() as connection:
        ask_without_reading(connection)
        began = time.monotonic()
        one.server.should_exit = True
        one.thread.join(timeout=20)
        assert not one.thread.is_alive()
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(("proxies", "refused"), [(None, True), ("", True), ("127.0.0.1", False)])
def test_only_a_proxy_tells_the_address_of_a_client(
    monkeypatch: pytest.MonkeyPatch, proxies: str | None, refused: bool
) -> None:
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    if proxies is not None:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", proxies)
    with service(max_client_sessions=2) as one, httpx.Client(base_url=one.url) as client:
        ways = [{"X-Forwarded-For": f"203.0.113.{number}"} for number in range(3)]
        codes = [client.post("/sessions", json={}, headers=headers).status_code for headers in ways]
        assert codes == [201, 201, 429 if refused else 201]


def test_a_page_of_another_site_is_refused() -> None:
    with service() as one, httpx.Client(base_url=one.url) as client:
        own = {"Origin": one.url}
        assert client.post("/sessions", json={}, headers=own).status_code == 201
        attacks: list[dict[str, Any]] = [{"Origin": "http://evil.example"}, {"Origin": "null"}]
        attacks += [{"Host": "evil.example"}, {"Host": f"evil.example:{one.address[1]}"}]
        for headers in attacks:
            for path in ("/predict", "/sessions"):
                assert client.post(path, json=DINNER, headers=headers).status_code == 403
