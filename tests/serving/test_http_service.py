"""The service answers as the model does, refuses in one line what it must, and finishes what it began."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import schemathesis
from hypothesis import given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from answers import conversation_of
from model.tiny_models import text_model
from model.tiny_processors import conversation, text_processor, utterance
from redifu import ConversationSession
from redifu.cli import main
from redifu.data.writers import with_predictions
from redifu.inference.predictions import predict_conversations
from redifu.inference.recogniser import Recogniser
from redifu.serving.service_limits import Limits

http_service = pytest.importorskip("redifu.serving.http_service", reason="serving needs the extra `serve`")
testclient = pytest.importorskip("fastapi.testclient")

ROOT = Path(__file__).resolve().parents[2]
MODEL = text_model("bert", visual_size=None)
PROCESSOR = text_processor(max_text_tokens=16)
DINNER = conversation(
    utterance(text="you came !", start=1.5, note="kept"),
    utterance("Ben", text="yes", audio_features=[0.5] * 5, audio=None),
    name="dinner",
)
KEY = "a key of 20 letters"


@contextmanager
def service(*, key: str | None = None, model: Any = MODEL, **limits: int) -> Iterator[httpx.Client]:
    app = http_service.create_app(Recogniser(model, PROCESSOR), limits=Limits(**limits), key=key)
    with testclient.TestClient(app, raise_server_exceptions=False) as client:
        client.headers["Content-Type"] = "application/json"
        yield client


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with service(max_body_bytes=10_000, max_utterances=3) as client:
        yield client


def predicted(given: dict[str, Any]) -> dict[str, Any]:
    """A conversation as `redifu predict` writes it."""
    (answer,) = predict_conversations(MODEL, PROCESSOR, [conversation_of(given)])
    return with_predictions(*answer)


def error_of(response: httpx.Response, status: int) -> str:
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    assert "\n" not in response.json()["error"]
    return response.json()["error"]


def test_a_conversation_comes_back_with_what_predict_writes(client: httpx.Client) -> None:
    response = client.post("/predict", json=DINNER)
    assert response.status_code == 200
    assert response.json() == predicted(DINNER)
    # Half of a surrogate pair, under a key of which nobody takes note.
    nameless = json.dumps({"utterances": DINNER["utterances"], "note": "\ud83d"})
    answer = client.post("/predict", content=nameless, headers={"Content-Type": "application/json"}).json()
    assert (answer["id"], answer["note"]) == ("request-0", "\ud83d")


def test_clients_at_a_time_get_each_their_own(client: httpx.Client) -> None:
    given = [conversation(utterance(text=text), name=text) for text in ("hello", "no", "you", "came")] * 4
    answers: dict[int, Any] = {}

    def ask(number: int) -> None:
        answers[number] = client.post("/predict", json=given[number]).json()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(given))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, one in enumerate(given):
        expected = predicted(one)
        assert answers[number]["id"] == one["id"]
        scores = answers[number]["utterances"][0]["scores"]
        assert scores == pytest.approx(expected["utterances"][0]["scores"], abs=1e-5)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("{]", "request: line 1: not JSON"),
        ("\xff".encode("latin-1"), "request: line 1: not JSON: the text is not UTF-8"),
        ("[" * 5000, "request: line 1: not JSON"),
        ("3", "request: conversation 0: expected an object, got 3"),
        ({"id": "d"}, "request: dialogue d: expected a non-empty list of utterances, got None"),
        ({"id": "d", "utterances": [{"text": "no"}]}, "request: dialogue d, utterance 0: speaker"),
        (
            conversation(utterance(text="no"), utterance(audio_features=[1.0])),
            "request: dialogue d1, utterance 1: audio_features must hold 5 numbers",
        ),
        (conversation(utterance(text="no", label="bored")), "request: dialogue d1, utterance 0: label"),
        (
            conversation(utterance(audio_features=[3e38] * 5)),
            "dialogue d1: the model's logits are not finite",
        ),
        (
            conversation(*[utterance(text="no")] * 4),
            "request: dialogue d1: expected at most 3 utterances",
        ),
        ('{"utterances": [{"speaker": "Ana", "text": "no"}], "note": 1e999}', "request: the response cannot"),
    ],
    ids=str,
)
def test_a_wrong_conversation_is_refused_in_one_line(client: httpx.Client, body: Any, complaint: str) -> None:
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    response = client.post("/predict", content=content, headers={"Content-Type": "application/json"})
    assert error_of(response, 422).startswith(complaint)


@pytest.mark.parametrize("key", ["audio", "video"])
def test_no_file_is_opened_for_a_client(client: httpx.Client, key: str, tmp_path: Path) -> None:
    medium = {key: str(tmp_path / "clip.wav")}
    given = conversation(utterance(text="no"), utterance(text="yes", **medium))
    said = error_of(client.post("/predict", json=given), 422)
    assert said.startswith(f"request: dialogue d1, utterance 1: {key} must be null: send text")
    session = client.post("/sessions").json()["id"]
    said = error_of(client.post(f"/sessions/{session}/utterances", json=utterance(text="no", **medium)), 422)
    assert said.startswith(f"request: {key} must be null: send text")


def test_what_readers_put_into_conversations_is_out_of_reach(client: httpx.Client) -> None:
    strange = {"_speakers": 5, "_folder": 3, "missing": 4, "audio_quality": "loud"}
    given = {**DINNER, **strange, "utterances": [{**each, **strange} for each in DINNER["utterances"]]}
    answer = client.post("/predict", json=given)
    assert answer.status_code == 200
    for utterance_, expected in zip(
        answer.json()["utterances"], predicted(DINNER)["utterances"], strict=True
    ):
        assert utterance_ == {**strange, **expected}
    session = client.post("/sessions").json()["id"]
    said = client.post(f"/sessions/{session}/utterances", json=given["utterances"][0])
    assert said.status_code == 200


def test_a_body_is_json_and_not_too_large(client: httpx.Client) -> None:
    large = conversation(utterance(text="no " * 5000))
    assert (
        error_of(client.post("/predict", json=large), 413)
        == "request body too large: expected at most 10000 bytes"
    )
    # A length that is not told before is no way around.
    parts = (b" " * 1000 for _ in range(11))
    headers = {"Content-Type": "application/json"}
    error_of(client.post("/predict", content=parts, headers=headers), 413)


@pytest.mark.parametrize("path", ["/predict", "/sessions", "/sessions/one/utterances"])
def test_every_post_tells_its_type(client: httpx.Client, path: str) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        said = error_of(client.post(path, content=json.dumps(DINNER), headers={"Content-Type": kind}), 415)
        assert said == f"Content-Type must be application/json, got {kind}"
    bare = testclient.TestClient(client.app)
    assert "got none" in error_of(bare.post(path, content=json.dumps(DINNER)), 415)


def test_a_session_answers_as_the_package_does(client: httpx.Client) -> None:
    expected = ConversationSession(MODEL, PROCESSOR)
    session = client.post("/sessions")
    assert session.status_code == 201
    path = f"/sessions/{session.json()['id']}"
    for each in DINNER["utterances"]:
        assert client.post(f"{path}/utterances", json=each).json() == expected.add(each)
        said = error_of(client.post(f"{path}/utterances", json={"speaker": "Ana"}), 422)
        assert said.startswith("session, utterance ")
        assert "expected at least one of text" in said
    error_of(client.post(f"{path}/utterances", json=3), 422)
    ended = client.delete(path)
    assert (ended.status_code, ended.content) == (204, b"")
    for response in (client.delete(path), client.post(f"{path}/utterances", json=DINNER["utterances"][0])):
        assert "does not exist or has ended" in error_of(response, 404)


def test_sessions_are_so_many_at_a_time() -> None:
    with service(max_sessions=1) as client:
        session = client.post("/sessions").json()["id"]
        assert "too many live sessions (1)" in error_of(client.post("/sessions"), 429)
        client.delete(f"/sessions/{session}")
        assert client.post("/sessions").status_code == 201


def test_sessions_of_one_client_leave_room_for_others() -> None:
    with service(max_sessions=9, max_client_sessions=2) as client:
        session = client.post("/sessions").json()["id"]
        client.post("/sessions")
        assert "too many live sessions of this client (2)" in error_of(client.post("/sessions"), 429)
        other = testclient.TestClient(client.app, client=("192.0.2.1", 1), headers=dict(client.headers))
        assert other.post("/sessions").status_code == 201
        client.delete(f"/sessions/{session}")
        assert client.post("/sessions").status_code == 201


@pytest.mark.parametrize("name", ["text", "speaker"])
def test_a_text_is_not_too_long(name: str) -> None:
    with service(max_text_characters=20) as client:
        given = {**utterance(text="no"), name: "x" * 21}
        complaint = f"{name}: expected at most 20 characters, got 21"
        said = error_of(client.post("/predict", json=conversation(given)), 422)
        assert said == f"request: dialogue d1, utterance 0: {complaint}"
        session = client.post("/sessions").json()["id"]
        said = error_of(client.post(f"/sessions/{session}/utterances", json=given), 422)
        assert said == f"request: {complaint}"


class BusyModel:
    """A model that is at work until it is told to go on."""

    def __init__(self) -> None:
        self.called, self.go_on = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(MODEL, name)

    def __call__(self, **inputs: Any) -> Any:
        self.called.set()
        self.go_on.wait()
        return MODEL(**inputs)


def test_what_takes_too_long_or_would_wait_too_long_is_ended() -> None:
    model = BusyModel()
    with service(model=model, request_seconds=1, max_waiting=1) as client:
        asking = threading.Thread(
            target=lambda: late.append(client.post("/predict", json=DINNER)), daemon=True
        )
        late: list[httpx.Response] = []
        asking.start()
        model.called.wait()
        assert "too many waiting requests (1)" in error_of(client.post("/predict", json=DINNER), 503)
        asking.join()
        assert error_of(late[0], 504) == "request timed out after 1 s"
        model.go_on.set()
        assert client.post("/predict", json=DINNER).status_code == 200


def test_a_fault_of_ours_says_no_more_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**inputs: Any) -> None:
        raise RuntimeError("what nobody outside may know")

    with service() as client:
        monkeypatch.setattr(MODEL, "forward", fail)
        assert error_of(client.post("/predict", json=DINNER), 500) == "Internal Server Error"
        monkeypatch.undo()
        assert client.post("/predict", json=DINNER).status_code == 200


def test_other_routes_and_methods_are_errors_in_json(client: httpx.Client) -> None:
    assert error_of(client.get("/nothing"), 404) == "Not Found"
    assert error_of(client.get("/predict"), 405) == "Method Not Allowed"
    assert client.get("/health").json() == {"status": "ok"}


def test_a_key_is_demanded_of_all_but_health() -> None:
    with service(key=KEY) as client:
        assert client.get("/health").status_code == 200
        for headers in ({}, {"Authorization": f"Bearer {KEY}x"}, {"Authorization": KEY}):
            for path in ("/metrics", "/openapi.json", "/nothing"):
                assert "Authorization: Bearer KEY" in error_of(client.get(path, headers=headers), 401)
            response = client.post("/predict", json=DINNER, headers=headers)
            error_of(response, 401)
            assert response.headers["WWW-Authenticate"] == "Bearer"
        for scheme in ("Bearer", "bearer", "BEARER"):
            headers = {"Authorization": f"{scheme} {KEY}"}
            assert client.post("/predict", json=DINNER, headers=headers).status_code == 200
        assert client.get("/metrics", headers={"Authorization": f"Basic {KEY}"}).status_code == 401


@pytest.mark.parametrize("key", [None, "", "  "])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "somewhere"])
def test_beyond_loopback_nothing_starts_without_a_key(
    host: str, key: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIFU_API_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("REDIFU_API_KEY", key)
    assert main(["serve", "nowhere", "--host", host]) == 2
    assert capsys.readouterr() == (
        "",
        f"redifu serve: error: --host {host} is reachable from other machines: expected a key in "
        "REDIFU_API_KEY, got none\n",
    )


def test_a_port_or_a_limit_that_cannot_be_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "nowhere", "--port", str(port)]) == 2
    assert f"cannot listen on host 127.0.0.1, port {port}: " in capsys.readouterr().err
    assert main(["serve", "nowhere", "--port", "70000"]) == 2
    assert "port 70000" in capsys.readouterr().err
    assert main(["serve", "nowhere", "--max-sessions", "0"]) == 2
    assert "max_sessions: expected at least 1, got 0" in capsys.readouterr().err


def test_metrics_count_by_route_and_not_by_path() -> None:
    with service() as client:
        client.post("/predict", json=DINNER)
        client.post("/predict", json=3)
        client.get("/one")
        client.get("/two")
        client.post("/sessions")
        lines = client.get("/metrics").text.splitlines()
    counted = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    for route, status, number in (("/predict", 200, 1), ("/predict", 422, 1), ("none", 404, 2)):
        assert float(counted[f'redifu_requests_total{{route="{route}",status="{status}"}}']) == number
    assert float(counted["redifu_utterances_total"]) == 2
    assert float(counted["redifu_batch_conversations_sum"]) == 1
    assert float(counted["redifu_sessions"]) == 1


def test_the_examples_of_the_schema_are_answered(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    session = client.post("/sessions").json()["id"]
    for path in ("/predict", "/sessions/{session}/utterances"):
        body = paths[path]["post"]["requestBody"]["content"]["application/json"]
        response = client.post(path.format(session=session), json=body["example"])
        shown = paths[path]["post"]["responses"]["200"]["content"]["application/json"]["example"]
        assert response.status_code == 200
        assert list(response.json()) == list(shown)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_whatever_comes_is_answered_as_the_schema_says(client: Any, mode: Any) -> None:
    found = schemathesis.openapi.from_asgi("/openapi.json", client.app).get_all_operations()
    # Only what takes a body can be asked in a wrong way.
    operations = [each.ok() for each in found if mode is GenerationMode.POSITIVE or each.ok().body]
    assert len(operations) == (6 if mode is GenerationMode.POSITIVE else 3)
    for operation in operations:

        @settings(max_examples=12, derandomize=True, deadline=None, database=None)
        @given(operation.as_strategy(generation_mode=mode))
        def is_answered(case: schemathesis.Case) -> None:
            case.call_and_validate(
                checks=[
                    not_a_server_error,
                    checks.status_code_conformance,
                    checks.content_type_conformance,
                    checks.response_schema_conformance,
                ]
            )

        is_answered()


@contextmanager
def running_command(model: str) -> Iterator[tuple[subprocess.Popen, str]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "REDIFU_API_KEY": KEY}
    command = [sys.executable, "-m", "redifu.cli", "serve", model, "--port", "0", "--host", "0.0.0.0"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process, process.stdout.readline().strip()  # type: ignore[union-attr]
        finally:
            process.kill()


@pytest.mark.slow
def test_what_was_accepted_is_answered_before_the_end(tmp_path: Path) -> None:
    MODEL.save_pretrained(tmp_path)
    PROCESSOR.save_pretrained(tmp_path)
    with running_command(str(tmp_path)) as (process, address):
        host, port = "127.0.0.1", httpx.URL(address).port
        body = json.dumps(DINNER).encode()
        head = (
            f"POST /predict HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\n"
            "Content-Type: application/json\r\nExpect: 100-continue\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection((host, port)) as connection:
            connection.sendall(head.encode())
            # The service asks for the body, so that it has accepted the request.
            assert b"100 Continue" in connection.recv(1000)
            process.terminate()
            while True:
                try:
                    socket.create_connection((host, port)).close()
                except ConnectionError:  # refused, or reset in the very moment
                    break
            connection.sendall(body)
            answer = b"".join(iter(lambda: connection.recv(10_000), b""))
        assert json.loads(answer.partition(b"\r\n\r\n")[2]) == predicted(DINNER)
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == ""  # type: ignore[union-attr]


@pytest.mark.slow
def test_the_command_answers_as_predict_does(tmp_path: Path) -> None:
    model, given = "model_cards/redifu-meld-text", ROOT / "examples" / "conversation.json"
    assert main(["predict", str(ROOT / model), str(given), "--output", str(tmp_path / "out.jsonl")]) == 0
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    with running_command(str(ROOT / model)) as (process, address):
        place = f"http://127.0.0.1:{httpx.URL(address).port}"
        answer = httpx.post(
            f"{place}/predict", content=given.read_bytes(), headers=headers, timeout=60
        ).json()
        process.terminate()
        assert process.wait(timeout=30) == 0
    expected = json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8"))
    assert [each["emotion"] for each in answer["utterances"]] == [
        each["emotion"] for each in expected["utterances"]
    ]
    for got, wanted in zip(answer["utterances"], expected["utterances"], strict=True):
        assert got["scores"] == pytest.approx(wanted["scores"], abs=1e-4)
