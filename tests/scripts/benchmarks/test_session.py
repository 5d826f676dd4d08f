"""The benchmark of sessions measures what it says, at toy size; it says nothing about speed here."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from model.tiny_models import LABELS, text_model
from model.tiny_processors import text_processor
from script_modules import load_script


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_script("benchmarks/session")


def test_both_sides_answer_every_utterance_alike(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = text_model("bert", causal=True), text_processor(max_text_tokens=32)
    answers: dict[str, list[list[float]]] = {"session": [], "without reuse": []}

    def collect(given: dict[str, Any], stream: Iterator[dict[str, Any]]) -> None:
        for utterance in stream:
            scores = given["session"](utterance)["scores"]
            answers["session"].append([scores[label] for label in LABELS])
            answers["without reuse"].append(given["without reuse"](utterance).tolist())

    monkeypatch.setattr(benchmark, "take_turns", collect)
    benchmark.measure_latency(*sides, window=3, number=4)
    assert np.shape(answers["session"]) == (4, 3)
    np.testing.assert_allclose(*answers.values(), rtol=0, atol=1e-5)


def test_every_utterance_is_timed_on_both_sides(benchmark: ModuleType) -> None:
    sides = text_model("bert"), text_processor(max_text_tokens=32)
    times = benchmark.measure_latency(*sides, window=2, number=3)
    growth = benchmark.measure_growth(*sides, window=2, number=7, part=4)
    for measured, shape in ((times, (3, 2)), (growth, (4, 2))):
        assert [values.shape for values in measured.values()] == [shape, shape]
    assert len({line.count("|") for line in benchmark.describe_latency(times)}) == 1


def test_the_ends_of_a_long_conversation_are_compared(benchmark: ModuleType) -> None:
    times = {"first": np.array([[1.0, 10], [1, 10], [9, 90]]), "last": np.array([[2.0, 20], [2, 20], [0, 0]])}
    report = benchmark.describe_growth(times, number=2000)
    assert report.startswith("2,000 utterances")
    assert "the first 3 1.0 ms (10.0), the last 3 2.0 ms (20.0)" in report


def test_memory_is_that_of_a_tenth_and_of_the_whole(benchmark: ModuleType) -> None:
    memory = benchmark.measure_memory(
        text_model("bert"), text_processor(max_text_tokens=32), window=2, number=20
    )
    assert list(memory) == [2, 20]
    # A process that has imported torch.
    assert min(memory.values()) > 50e6
    report = benchmark.describe_memory({10_000: 123_400_000, 100_000: 123_500_000})
    assert "123.4 MB after 10,000 utterances, 123.5 MB after 100,000 utterances" in report
