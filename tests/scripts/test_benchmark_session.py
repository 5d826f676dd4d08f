"""The benchmark of sessions measures what it says, at toy size; it says nothing about speed here."""

from types import ModuleType

import numpy as np
import pytest
import torch

from model.tiny_models import LABELS, text_model
from model.tiny_processors import text_processor
from redifu import ConversationSession
from script_modules import load_script


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_script("benchmark_session")


def test_both_sides_answer_the_same(benchmark: ModuleType) -> None:
    model, processor = text_model("bert", causal=True), text_processor(max_text_tokens=32)
    session = ConversationSession(model, processor, window=3)
    stream = benchmark.utterances()
    seen = [next(stream) for _ in range(5)]
    answers = [session.add(utterance) for utterance in seen]
    whole = benchmark.answer_whole(model, processor, seen[-3:])
    scores = torch.tensor([answers[-1]["scores"][label] for label in LABELS])
    torch.testing.assert_close(scores, whole, rtol=0, atol=1e-5)


def test_every_utterance_is_timed(benchmark: ModuleType) -> None:
    sides = text_model("bert"), text_processor(max_text_tokens=32)
    times = benchmark.measure_latency(*sides, window=2, number=3)
    assert {name: values.shape for name, values in times.items()} == {
        "session": (3, 2),
        "without reuse": (3, 2),
    }
    table = benchmark.describe_latency(times)
    assert len({line.count("|") for line in table}) == 1
    assert benchmark.measure_growth(*sides, window=2, number=4).shape == (4, 2)


def test_the_ends_of_a_long_conversation_are_compared(benchmark: ModuleType) -> None:
    # The two utterances before the window is full count for nothing.
    times = np.array([[900.0, 900], [900, 900], [1, 10], [1, 10], [500, 500], [2, 20], [2, 20]])
    report = benchmark.describe_growth(times, window=2, part=2)
    for words in ("first 2 with a full window 1.0 ms", "last 2 2.0 ms", "processor 10.0 ms and 20.0 ms"):
        assert words in report
