"""The configuration: released values, what it refuses, and that it survives a round trip."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

import redifu
from model.tiny_models import LABELS, TEXT_CONFIGS, VARIANTS, tiny_config
from redifu.model import ReDiFuConfig, ReDiFuForEmotionRecognition

RELEASED = {
    "iemocap": {
        "hidden_size": 512,
        "num_attention_heads": 64,
        "text_size": 1024,
        "audio_size": 1582,
        "visual_size": 342,
        "num_speakers": 2,
        "relation_window": 20,
        "dropout": 0.5,
        "modality_weights": [1.0, 1.0, 0.4],
        "labels": ["happy", "sad", "neutral", "angry", "excited", "frustrated"],
    },
    "meld": {
        "hidden_size": 256,
        "num_attention_heads": 16,
        "text_size": 1024,
        "audio_size": 300,
        "visual_size": 342,
        "num_speakers": 9,
        "relation_window": 25,
        "dropout": 0.6,
        "modality_weights": [3.0, 1.0, 0.3],
        "labels": ["neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"],
    },
}


@pytest.mark.parametrize("recipe", RELEASED)
def test_released_values(recipe: str) -> None:
    config = ReDiFuConfig.released(recipe)
    assert {name: getattr(config, name) for name in RELEASED[recipe]} == RELEASED[recipe]
    fusion_heads = config.fusion_num_attention_heads or config.num_attention_heads
    assert fusion_heads == {"iemocap": 32, "meld": 16}[recipe]
    assert config.num_labels == len(config.labels)
    assert config.label2id == {label: index for index, label in enumerate(config.labels)}
    assert config.modalities == ("text", "audio", "visual")
    assert config.differential_attention == "shifted_keys"
    assert config.fusion == "mutual_attention"
    assert config.relation_modalities == ["text"]
    assert config.causal is config.cross_modal_relations is False


@pytest.mark.parametrize("recipe", RELEASED)
def test_overrides_replace_released_values(recipe: str) -> None:
    config = ReDiFuConfig.released(
        recipe, hidden_size=8, num_attention_heads=4, id2label={0: "yes", 1: "no"}, audio_size=None
    )
    assert (config.hidden_size, config.num_attention_heads) == (8, 4)
    fusion_heads = config.fusion_num_attention_heads or config.num_attention_heads
    assert fusion_heads == {"iemocap": 2, "meld": 4}[recipe]
    assert config.labels == ["yes", "no"]
    assert config.modalities == ("text", "visual")
    assert ReDiFuConfig.released(recipe, num_labels=4).num_labels == 4


def test_only_two_recipes_are_released() -> None:
    with pytest.raises(ValueError, match=r"iemocap.*meld.*got 'mosi'"):
        ReDiFuConfig.released("mosi")


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("hiden_size", "hidden_size"),
        ("num_atention_heads", "num_attention_heads"),
        ("relation_windw", "relation_window"),
        ("modality_weight", "modality_weights"),
        ("id2labels", "id2label"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_right_name(
    key: str, nearest: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"{key!r}.*{nearest!r}"):
        ReDiFuConfig(**{key: 15})
    tiny_config().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: 15}))
    with pytest.raises(ValueError, match=f"{key!r}.*{nearest!r}"):
        AutoConfig.from_pretrained(tmp_path)


def test_a_key_near_to_none_is_refused_too() -> None:
    with pytest.raises(ValueError, match="'zzz'"):
        ReDiFuConfig(zzz=1)


# What config.json of the two first checkpoints says beside the fields that are left.
FORMER_DEFAULTS = {"graph_implementation": "auto", "learned_modality_weights": False, "quality_size": None}


def test_a_deleted_option_at_its_default_is_ignored(tmp_path: Path) -> None:
    config = tiny_config(fusion="text_diffusion", diffusion_steps=2, temperature=1.5)
    config.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    written = json.loads(file.read_text())
    assert not FORMER_DEFAULTS.keys() & written.keys()
    file.write_text(json.dumps({**written, **FORMER_DEFAULTS}))
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert loaded.to_diff_dict() == config.to_diff_dict()
    loaded.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == written


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("graph_implementation", "sparse", '"auto"'),
        ("learned_modality_weights", True, "false"),
        ("quality_size", 4, "null"),
    ],
)
def test_a_deleted_option_at_another_value_is_refused(
    key: str, value: object, expected: str, tmp_path: Path
) -> None:
    message = f"{key} is no longer supported: remove it or set it to {expected}, got {value!r}"
    tiny_config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        AutoConfig.from_pretrained(tmp_path, **{key: value})
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(ValueError, match=message) as caught:
        ReDiFuForEmotionRecognition.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"fusion": "sum"},
        {"differential_attention": "difference"},
        {"position_encoding": "learned"},
        {"head_activation": "gelu"},
        {"relation_modalities": ["smell"]},
        {"hidden_size": 0},
        {"hidden_size": 15},
        {"hidden_size": 15, "num_attention_heads": 3, "position_encoding": "rotary"},
        {"num_attention_heads": 3},
        {"fusion_num_attention_heads": 5},
        {"num_speakers": 0},
        {"relation_window": -1},
        {"relation_embedding_size": 0},
        {"consistency_size": 0},
        {"consistency_size": 4, "audio_size": None, "visual_size": None},
        {"audio_size": 0},
        {"text_size": None, "audio_size": None, "visual_size": None},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"dropout": float("nan")},
        {"relation_dropout": 1.5},
        {"modality_weights": [1.0, 1.0]},
        {"modality_weights": [1.0, 1.0, -1.0]},
        {"modality_weights": [1.0, 1.0, float("nan")]},
        {"modality_weights": [1.0, 1.0, float("inf")]},
        {"stream_loss_weight": -1.0},
        {"feed_forward_gelu_scale": float("nan")},
        {"encoder_residual_scale": float("inf")},
        {"id2label": {0: "calm", 1: "glad"}, "num_labels": 3},
        {"id2label": {0: "calm", 1: "calm"}},
        {"id2label": {0: "calm", 2: "glad"}},
        {"id2label": {}},
    ],
    ids=str,
)
def test_values_that_do_not_fit_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))) as caught:
        tiny_config(**fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fields", [{"hidden_size": "16"}, {"dropout": "none"}, {"causal": 3}], ids=str)
def test_values_of_a_wrong_type_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError, StrictDataclassError), match=next(iter(fields))):
        tiny_config(**fields)


@pytest.mark.parametrize("field", ["dropout", "relation_dropout", "stream_loss_weight"])
def test_whole_numbers_are_numbers(field: str) -> None:
    assert getattr(tiny_config(**{field: 0}), field) == 0


@pytest.mark.parametrize("field", ["relation_window", "attention_window"])
def test_windows_fit_an_integer_of_tensors(field: str) -> None:
    assert getattr(ReDiFuConfig(**{field: 2**31 - 1}), field) == 2**31 - 1
    with pytest.raises(ValueError, match=f"{field} must be at most 2,147,483,647, got 1,000,000,000"):
        ReDiFuConfig(**{field: 10**30})


@pytest.mark.parametrize("fields", [*VARIANTS.values(), {"audio_size": None}], ids=str)
def test_round_trip(fields: dict[str, Any], tmp_path: Path) -> None:
    config = tiny_config(**fields)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is ReDiFuConfig
    assert loaded.to_diff_dict() == config.to_diff_dict()
    assert loaded.labels == LABELS
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_text() == (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("family", TEXT_CONFIGS)
@pytest.mark.parametrize("as_dict", [False, True])
def test_round_trip_with_a_text_backbone(family: str, as_dict: bool, tmp_path: Path) -> None:
    given = TEXT_CONFIGS[family]
    config = tiny_config(text_config=given.to_dict() if as_dict else given)
    assert config.text_size == given.hidden_size
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded.text_config) is type(config.text_config) is type(given)
    assert loaded.to_diff_dict() == config.to_diff_dict()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("named", [False, True])
def test_labels_survive_a_round_trip(count: int, named: bool, tmp_path: Path) -> None:
    names = [f"emotion {index}" for index in range(count)]
    config = ReDiFuConfig(**({"id2label": dict(enumerate(names))} if named else {"num_labels": count}))
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert loaded.num_labels == count
    assert (
        loaded.labels == config.labels == (names if named else [f"LABEL_{index}" for index in range(count)])
    )
    assert loaded.label2id == {label: index for index, label in enumerate(loaded.labels)}


def test_overrides_at_loading(tmp_path: Path) -> None:
    tiny_config().save_pretrained(tmp_path)
    assert ReDiFuConfig.from_pretrained(tmp_path, dropout=0.25).dropout == 0.25
    with pytest.raises(ValueError, match="fusion"):
        ReDiFuForEmotionRecognition(ReDiFuConfig.from_pretrained(tmp_path, fusion="sum"))


def test_misspelt_overrides_at_loading_are_refused(tmp_path: Path) -> None:
    tiny_config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"dropot.*did you mean 'dropout'"):
        ReDiFuConfig.from_pretrained(tmp_path, dropot=0.25)
    config, unused = ReDiFuConfig.from_pretrained(tmp_path, dropot=0.25, return_unused_kwargs=True)
    assert (type(config), unused["dropot"]) == (ReDiFuConfig, 0.25)


def test_two_configurations_share_nothing() -> None:
    first, second = ReDiFuConfig(), ReDiFuConfig()
    first.modality_weights[0] = 7.0
    first.relation_modalities.clear()
    assert second.modality_weights[0] == 3.0
    assert second.relation_modalities == ["text"]


def test_auto_classes_know_the_model() -> None:
    config = tiny_config()
    assert type(AutoConfig.for_model("redifu")) is ReDiFuConfig
    assert type(AutoModel.from_config(config)) is redifu.ReDiFuModel
    assert type(AutoModelForSequenceClassification.from_config(config)) is redifu.ReDiFuForEmotionRecognition
