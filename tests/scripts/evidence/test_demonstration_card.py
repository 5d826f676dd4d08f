"""The scores of a card of three streams have intervals, and are those of what is given to the model."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hub.toy_models import SIZES, write_features_model
from model.tiny_models import LABELS
from redifu.data.readers import read_conversations
from redifu.evaluation.scoring import evaluate_conversations
from redifu.inference.loading import load_pretrained
from script_modules import load_script

demonstration_card = load_script("evidence/demonstration_card")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as it is stored, and in data.jsonl labelled conversations of two splits."""
    folder = write_features_model(tmp_path_factory.mktemp("card") / "model")
    (folder / "metrics.json").write_text('{"best_epoch": 3, "epochs": 5}')
    (folder / "recipe.yaml").write_text("training: {seed: 7, modality_dropout: 0.25, side_dropout: 0.4}")
    generator = np.random.default_rng(0)
    conversations = [
        {
            "id": str(number),
            "split": "dev" if number % 3 == 0 else "test",
            "utterances": [
                {"speaker": "AB"[turn % 2], "label": LABELS[generator.integers(len(LABELS))]}
                | {f"{name}_features": generator.normal(size=size).tolist() for name, size in SIZES.items()}
                for turn in range(4)
            ],
        }
        for number in range(12)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(each) + "\n" for each in conversations))
    return folder


def test_the_scores_are_those_of_each_subset(folder: Path) -> None:
    results = demonstration_card.score(folder, folder / "data.jsonl")
    model, processor = load_pretrained(folder)
    for split in ("dev", "test"):
        given = list(read_conversations(folder / "data.jsonl", split=split))
        expected = evaluate_conversations(model, processor, given)
        assert results[split]["weighted_f1"] == pytest.approx(expected["weighted_f1"])
        for metric, interval in expected["intervals"].items():
            assert results[split]["intervals"][metric] == pytest.approx(interval)
    assert list(results["streams"]) == ["t", "a", "v", "ta", "tv", "av", "tav"]
    hidden = [
        replace(each, utterances=[one.with_fields(audio_features=None) for one in each.utterances])
        for each in given
    ]
    expected = evaluate_conversations(model, processor, hidden)
    assert results["streams"]["tv"]["confusion"] == expected["confusion"]
    gain = results["streams"]["tav"]["weighted_f1"] - results["streams"]["t"]["weighted_f1"]
    assert results["gain"]["difference"] == pytest.approx(gain)
    classes = results["test"]["per_class"].values()
    assert any(values["f1"] > 0 for values in classes)
    for values in classes:
        low, high = values["f1_interval"]
        assert 0 <= low <= values["f1"] <= high <= 100 and (low < high) == (values["f1"] > 0)


def test_the_card_shows_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["card", str(folder), "--data", str(folder / "data.jsonl")])
    demonstration_card.main()
    card = (folder / "README.md").read_text(encoding="utf-8")
    measured = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert measured["best_epoch"] == 3 and "epoch 3 of 5" in card and "seed 7" in card
    assert f"| text, visual | {demonstration_card.cell(measured['streams']['tv'], 'weighted_f1')} |" in card
    # Rendered again without data, it is the same.
    monkeypatch.setattr("sys.argv", ["card", str(folder)])
    demonstration_card.main()
    assert (folder / "README.md").read_text(encoding="utf-8") == card
