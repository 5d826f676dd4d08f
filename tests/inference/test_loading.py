"""A folder that lacks a part, or has a part of another model, is refused: it never just answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoProcessor, pipeline

from hub.toy_models import CONVERSATION, write_features_model, write_text_model
from redifu import ReDiFuForEmotionRecognition
from redifu.cli import main
from redifu.hub.publishing import files_to_publish
from redifu.inference.loading import check_processor, load_pretrained

ROOT = Path(__file__).parents[2]


@pytest.fixture
def text_model(tmp_path: Path) -> Path:
    return write_text_model(tmp_path / "model")


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def of_extractor(**fields: Any) -> Callable[[Path], None]:
    return lambda folder: edit(
        folder / "processor_config.json", lambda content: content["feature_extractor"].update(fields)
    )


def with_words(change: Callable[[dict[str, int]], object]) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "tokenizer.json", lambda content: change(content["model"]["vocab"]))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no vocabulary": (
        lambda folder: (folder / "tokenizer.json").unlink(),
        "the tokenizer has no vocabulary: expected tokenizer.json or vocab.txt",
    ),
    "no tokenizer": (
        lambda folder: (folder / "tokenizer_config.json").unlink(),
        "it has a text backbone, but no tokenizer",
    ),
    "an empty tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{}"), "not a ReDiFu model"),
    "more words than the backbone": (
        with_words(lambda words: words.update(strange=11)),
        "belongs to another text backbone: it has 12 tokens, expected 11",
    ),
    "no extractor": (
        lambda folder: edit(
            folder / "processor_config.json", lambda content: content.pop("feature_extractor")
        ),
        "processor_config.json has no feature_extractor",
    ),
    "nothing in it": (
        lambda folder: (folder / "processor_config.json").write_text("[]"),
        "processor_config.json has no feature_extractor",
    ),
    "another extractor": (
        of_extractor(feature_extractor_type="WhisperFeatureExtractor"),
        "expected a ReDiFuFeatureExtractor, got WhisperFeatureExtractor",
    ),
    "features that the model does not take": (
        of_extractor(audio_size=5),
        "the model has audio_size None, but its feature extractor has audio_size 5",
    ),
    "sound that the model does not take": (
        of_extractor(audio_backend="backbone"),
        "the processor reads audio for a backbone, but the model has none",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_part_that_is_missing_or_does_not_fit_is_named(text_model: Path, damage: str) -> None:
    spoil, complaint = DAMAGES[damage]
    spoil(text_model)
    with pytest.raises(ValueError, match=complaint) as refused:
        load_pretrained(text_model)
    assert str(refused.value).startswith(f"{text_model}: not a ReDiFu model: ")
    with pytest.raises(ValueError, match=complaint):
        files_to_publish(text_model, "ana/mood")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("text_config", "num_hidden_layers", 10**6),
        ("text_config", "max_position_embeddings", 10**12),
        ("text_config", "vocab_size", 10**12),
        (None, "diffusion_steps", 10**6),
        (None, "num_speakers", 10**12),
        (None, "hidden_size", 10**9),
    ],
)
def test_a_config_larger_than_the_weights_is_refused_before_it_is_built(
    text_model: Path, monkeypatch: pytest.MonkeyPatch, section: str | None, key: str, value: int
) -> None:
    def change(config: dict[str, Any]) -> None:
        (config if section is None else config[section])[key] = value

    edit(text_model / "config.json", change)
    monkeypatch.setattr(ReDiFuForEmotionRecognition, "__init__", None)
    with pytest.raises(ValueError, match=f"config.json: {key} is {value:,}, but its weights allow at most"):
        load_pretrained(text_model)


def test_features_that_the_model_needs_are_read(tmp_path: Path) -> None:
    folder = write_features_model(tmp_path / "model")
    of_extractor(audio_size=None)(folder)
    with pytest.raises(ValueError, match="the model has audio_size 5, but its feature extractor has .* None"):
        load_pretrained(folder)


def test_a_tokenizer_of_a_much_smaller_backbone_is_refused(text_model: Path) -> None:
    model, processor = load_pretrained(text_model)
    model.config.text_config.vocab_size = 11 + 1024  # rows that only pad the table
    check_processor(model.config, processor)
    model.config.text_config.vocab_size += 1
    with pytest.raises(ValueError, match="it has 11 tokens, expected 1,036"):
        check_processor(model.config, processor)


@pytest.mark.parametrize("command", ["predict", "evaluate", "serve", "export"])
def test_every_command_refuses_in_one_line(
    text_model: Path, capsys: pytest.CaptureFixture[str], command: str, tmp_path: Path
) -> None:
    (text_model / "tokenizer.json").unlink()
    (tmp_path / "dinner.json").write_text(json.dumps(CONVERSATION), encoding="utf-8")
    rest = {
        "serve": ["--port", "0"],
        "export": ["--output", str(tmp_path / "model.onnx")],
    }
    assert main([command, str(text_model), *rest.get(command, [str(tmp_path / "dinner.json")])]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"redifu {command}: error: {text_model}: ")
    assert "the tokenizer has no vocabulary" in err


def test_transformers_own_loaders_refuse_it_as_well(text_model: Path) -> None:
    (text_model / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="the tokenizer has no vocabulary"):
        AutoProcessor.from_pretrained(text_model)
    with pytest.raises(ValueError, match="the tokenizer has no vocabulary"):
        pipeline("conversation-emotion-recognition", model=str(text_model))
