"""Recipes with backbones on media: what is read for them, and how they learn."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoProcessor,
    ViTImageProcessor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from answers import predicted
from media.made_media import tone, write_sound
from model.tiny_models import AUDIO_CONFIGS, VISION_CONFIGS, raw_model
from redifu.inference.loading import load_pretrained
from redifu.media.decoding import Span, read_sound
from redifu.model import ReDiFuFeatureExtractor, backbones, modeling_redifu
from redifu.model.backbones import build_backbone, encode_waveforms
from redifu.training import trainer
from redifu.training.build import build_model
from redifu.training.optimization import parameter_groups
from redifu.training.recipe import Recipe, TrainingSection
from redifu.training.trainer import train
from training.toy import LABELS, toy_values, write_conversations

WEIGHTS = "model.safetensors"
RATES = {"text": 1e-5, "audio": 2e-5, "visual": 3e-5, "fusion": 1e-3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Backbones on sound and pictures, and sounds of two pitches that tell the label."""
    folder = tmp_path_factory.mktemp("media")
    torch.manual_seed(0)
    AutoModel.from_config(AUDIO_CONFIGS["hubert_group"]).save_pretrained(folder / "hearing")
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder / "hearing")
    AutoModel.from_config(AUDIO_CONFIGS["whisper"]).save_pretrained(folder / "whisper")
    WhisperFeatureExtractor(feature_size=8).save_pretrained(folder / "whisper")
    AutoModel.from_config(VISION_CONFIGS["vit"]).save_pretrained(folder / "sight")
    normal = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    ViTImageProcessor(**normal).save_pretrained(folder / "sight")
    for index, label in enumerate(LABELS):
        write_sound(folder / f"{label}.wav", tone(0.15 + 0.05 * index, frequency=200.0 * (index + 1)))
    for name in ("train", "dev", "test"):
        utterances = [{"speaker": "Ana", "audio": f"{label}.wav", "label": label} for label in LABELS]
        write_conversations(folder / f"{name}.jsonl", [{"id": name, "utterances": utterances}])
    return folder


def recipe(folder: Path, **changes: Any) -> Recipe:
    given = {"model_audio_backbone": str(folder / "hearing"), "training_epochs": 1, **changes}
    values = toy_values(folder, **given)
    del values["model"]["audio_size"]
    values["model"]["text_size"] = None
    return Recipe.from_dict(values)


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize(
    ("backbone", "inside", "normalize"), [("hearing", "", True), ("whisper", "encoder.", False)]
)
def test_an_audio_backbone_learns_or_is_frozen(
    folder: Path, tmp_path: Path, backbone: str, inside: str, normalize: bool, freeze: bool
) -> None:
    changes = {"model_audio_backbone": str(folder / backbone), "training_freeze_audio": freeze}
    output = str(tmp_path / "model")
    done = train(recipe(folder, training_output=output, data_audio_backend="backbone", **changes))
    given, prefix = load_file(folder / backbone / "model.safetensors"), "redifu.audio_backbone."
    kept = [
        torch.equal(value, given[inside + name.removeprefix(prefix)])
        for name, value in load_file(done / "model.safetensors").items()
        if name.startswith(prefix)
    ]
    assert len(kept) > 10 and all(kept) == freeze
    extractor = AutoProcessor.from_pretrained(done).feature_extractor
    assert (extractor.audio_backend, extractor.normalize_waveform) == ("backbone", normalize)
    model, processor = load_pretrained(done)
    talk = {"id": "d", "utterances": [{"speaker": "Ana", "audio": str(folder / f"{LABELS[0]}.wav")}]}
    ((_, scores),) = predicted(model, processor, [talk])
    assert scores.shape == (1, 3) and scores.sum() == pytest.approx(1, abs=1e-5)


def test_frozen_sounds_are_embedded_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[int] = []
    encode = backbones.encode_waveforms
    monkeypatch.setattr(
        modeling_redifu,
        "encode_waveforms",
        lambda backbone, values, mask: heard.append(len(values)) or encode(backbone, values, mask),
    )
    changes = {"model_audio_backbone": str(folder / "whisper"), "training_freeze_audio": True}
    counts = []
    for epochs in (1, 3):
        heard.clear()
        output = str(tmp_path / f"model-{epochs}")
        train(recipe(folder, training_output=output, **changes, training_epochs=epochs))
        counts.append(sum(heard))
    assert counts[0] == counts[1] > 0


def test_frozen_sounds_teach_the_same_as_sounds_that_are_read_every_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"model_audio_backbone": str(folder / "whisper"), "training_freeze_audio": True}
    changes |= {"model_audio_layers": [1], "training_epochs": 2}
    once = load_file(train(recipe(folder, training_output=str(tmp_path / "once"), **changes)) / WEIGHTS)
    monkeypatch.setattr(trainer, "embed_media_once", lambda _, processor, data: (processor, data))
    again = load_file(train(recipe(folder, training_output=str(tmp_path / "again"), **changes)) / WEIGHTS)
    assert once.keys() == again.keys()
    for name, value in once.items():
        # Adam turns the rounding of small gradients into steps.
        torch.testing.assert_close(value, again[name], rtol=1e-2, atol=2e-3)


def test_pooled_layers_are_normalised_by_the_training_data(folder: Path, tmp_path: Path) -> None:
    changes = {"model_audio_backbone": str(folder / "whisper"), "model_audio_layers": [1]}
    done = train(recipe(folder, training_output=str(tmp_path / "model"), **changes))
    backbone = load_pretrained(done)[0].redifu.audio_backbone
    plain = build_backbone(backbone.config, [1]).eval()
    weights = AutoModel.from_pretrained(folder / "whisper").encoder.state_dict()
    plain.load_state_dict(weights, strict=False)
    sounds = [read_sound(folder / f"{label}.wav", [Span()], sampling_rate=16000) for label in LABELS]
    values = [torch.from_numpy(dict(each)[0]) for each in sounds]
    rows = torch.cat([encode_waveforms(plain, one[None], torch.ones(1, len(one)).bool()) for one in values])
    torch.testing.assert_close(backbone.pooled_mean, rows.mean(dim=0), rtol=0, atol=1e-4)
    torch.testing.assert_close(backbone.pooled_deviation, rows.std(dim=0, correction=0), rtol=1e-3, atol=1e-4)


def test_pictures_are_read_as_the_backbone_was_trained(folder: Path) -> None:
    model, processor = build_model(
        recipe(folder, model_visual_backbone=str(folder / "sight"), data_picture_count=2)
    )
    extractor = processor.feature_extractor
    assert isinstance(extractor, ReDiFuFeatureExtractor) and model.config.visual_size == 12
    assert (extractor.visual_backend, extractor.picture_count, extractor.picture_size) == ("backbone", 2, 8)
    assert (extractor.picture_mean, extractor.picture_std) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])


@pytest.mark.parametrize(
    ("stream", "said", "message"),
    [
        ("audio", {"sampling_rate": 8000}, "audio_backbone must expect 16000 samples per second, got 8000"),
        (
            "audio",
            {"sampling_rate": 16000, "hop_length": 320},
            r"frames of 400 samples every 160, got \(400, 320\)",
        ),
        ("visual", {"do_normalize": True}, "visual_backbone has no image_mean and image_std"),
        ("visual", None, "visual_backbone .*preprocessor_config.json"),
    ],
)
def test_how_media_are_normalised_is_not_guessed(
    folder: Path, tmp_path: Path, stream: str, said: dict[str, Any] | None, message: str
) -> None:
    backbone = shutil.copytree(folder / {"audio": "hearing", "visual": "sight"}[stream], tmp_path / "copy")
    (backbone / "preprocessor_config.json").unlink()
    if said is not None:
        (backbone / "preprocessor_config.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match=message):
        build_model(recipe(folder, **{f"model_{stream}_backbone": str(backbone)}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data_audio_backend": "log_mel"},
            "data.audio_backend must be 'backbone' if and only if.*got 'log_mel'",
        ),
        ({"data_visual_backend": "backbone"}, "data.visual_backend must be 'backbone' if and only if"),
        ({"data_picture_count": 2}, "picture_count requires model.visual_backbone"),
        ({"model_visual_backbone": "nowhere/at-all"}, "visual_backbone nowhere/at-all: "),
        ({"model_vision_config": {"image_size": 8}}, "vision_config requires visual_backbone"),
        ({"model_released": "meld"}, "got audio_backbone and released"),
    ],
)
def test_what_does_not_fit_is_said_before(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(recipe(folder, **changes))


def test_every_backbone_has_its_learning_rate() -> None:
    model = raw_model()
    settings = TrainingSection(
        output="unused",
        learning_rate=RATES["fusion"],
        **{f"{name}_learning_rate": RATES[name] for name in ("text", "audio", "visual")},
    )
    names = {id(value): name for name, value in model.named_parameters()}
    seen = set()
    for group in parameter_groups(model, settings):
        part = group["name"].removesuffix("_no_decay")
        assert group["lr"] == RATES[part]
        for value in group["params"]:
            name = names[id(value)]
            seen.add(name)
            assert part == (
                name.split(".")[1].removesuffix("_backbone") if "_backbone." in name else "fusion"
            )
    assert seen == set(names.values())
