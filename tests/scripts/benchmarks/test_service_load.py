"""The load test tells a right reply from a wrong one, at toy size; it says nothing about speed here."""

import asyncio
import time
from types import ModuleType
from typing import Any

import httpx2 as httpx
import pytest

from model.tiny_models import text_model
from model.tiny_processors import text_processor
from redifu.inference.recogniser import Recogniser
from redifu.serving.service_limits import Limits
from script_modules import load_script

http_service = pytest.importorskip("redifu.serving.http_service", reason="serving needs the extra `serve`")

MODEL, PROCESSOR = text_model("bert"), text_processor(max_text_tokens=32)


@pytest.fixture(scope="module")
def load_test() -> ModuleType:
    return load_script("benchmarks/service_load")


@pytest.fixture(scope="module")
def expected(load_test: ModuleType) -> list[dict[str, Any]]:
    conversations = load_test.make_conversations(5, longest=3)
    return load_test.direct_predictions(Recogniser(MODEL, PROCESSOR), conversations)


def complaints_of(load_test: ModuleType, expected: list[dict[str, Any]]) -> tuple[list[str], list[float]]:
    """Let a client ask the service, in this process, once or more."""
    times: list[float] = []
    transport = httpx.ASGITransport(http_service.create_app(Recogniser(MODEL, PROCESSOR), limits=Limits()))

    async def ask() -> list[str]:
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
            end = time.perf_counter() + 0.2
            return await load_test.client(http, "Ana", expected, end=end, times=times)

    return asyncio.run(ask()), times


def test_right_replies_are_counted(load_test: ModuleType, expected: list[dict[str, Any]]) -> None:
    complaints, times = complaints_of(load_test, expected)
    assert complaints == []
    assert times
    assert load_test.describe("batching", times, 1.0).startswith(f"| batching | {len(times)} |")


def test_what_a_service_refuses_is_a_lost_reply(
    load_test: ModuleType, expected: list[dict[str, Any]]
) -> None:
    wrong = [{"utterances": [{**each["utterances"][0], "speaker": ""}]} for each in expected]
    complaints, times = complaints_of(load_test, wrong)
    assert len(complaints) == len(times) > 0
    assert "422" in complaints[0]


def test_another_conversation_and_other_scores_are_told(
    load_test: ModuleType, expected: list[dict[str, Any]]
) -> None:
    wanted, other = ({**each, "id": name} for each, name in zip(expected, ("one", "two"), strict=False))
    assert load_test.complaint(wanted, wanted) is None
    assert "expected the reply to one" in load_test.complaint(other, wanted)
    assert "expected its" in load_test.complaint({**other, "id": "one"}, wanted)
    first, *rest = wanted["utterances"]
    for shift, right in ((5e-5, True), (2e-4, False)):
        scores = {label: score + shift for label, score in first["scores"].items()}
        reply = {**wanted, "utterances": [{**first, "scores": scores}, *rest]}
        assert (load_test.complaint(reply, wanted) is None) == right
