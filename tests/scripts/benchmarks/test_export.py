"""The benchmark of exports measures what it says, at toy size; it says nothing about speed here."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from model.tiny_models import text_model
from model.tiny_processors import text_processor
from script_modules import load_script
from training.toy import toy_conversations, write_conversations


class Shifted:
    """Stands for another side: the same model, but sure of its first label."""

    def __init__(self, model: Any):
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, **given: torch.Tensor) -> Any:
        output = self.model(**given)
        output.logits = output.logits + 100 * torch.eye(output.logits.shape[-1])[0]
        return output


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    load_script("benchmarks/session")
    return load_script("benchmarks/export")


@pytest.fixture(scope="module")
def sides() -> dict[str, Any]:
    model = text_model("bert")
    return {"PyTorch": model, "other": Shifted(model)}


def test_every_side_is_timed(benchmark: ModuleType, sides: dict[str, Any]) -> None:
    processor = text_processor(max_text_tokens=32)
    sessions = benchmark.measure_sessions(sides, processor, window=2, number=3)
    dialogues = benchmark.measure_dialogues(sides, processor, length=3, number=2)
    assert {name: times.shape for name, times in sessions.items()} == dict.fromkeys(sides, (3, 2))
    assert {name: times.shape for name, times in dialogues.items()} == dict.fromkeys(sides, (2, 2))


def test_every_side_has_its_own_score(benchmark: ModuleType, sides: dict[str, Any], tmp_path: Path) -> None:
    conversations = [
        {"id": each["id"], "utterances": [{**one, "audio_features": [0.0] * 5} for one in each["utterances"]]}
        for each in toy_conversations(5, seed=1)
    ]
    data = write_conversations(tmp_path / "data.jsonl", conversations)
    lines = benchmark.describe_scores(sides, text_processor(max_text_tokens=32), str(data))
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| PyTorch", "| other"]
    assert lines[2].split(" | ")[1:] != lines[3].split(" | ")[1:]
