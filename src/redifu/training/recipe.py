"""Recipes: YAML files that define the model, the data and the settings of a training run."""

import dataclasses
import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError

from redifu.model import ReDiFuConfig
from redifu.model.configuration_redifu import BACKBONE_CONFIGS

# Backbones have their own keys, and data.labels determines the number of labels.
CONFIG_KEYS = frozenset(ReDiFuConfig.__annotations__) - {*BACKBONE_CONFIGS.values(), "sub_configs_defaults"}
SOURCES = ("train", "train_noisy", "dev", "test")


class DataSource(NamedTuple):
    """A data file or folder and, if it holds several splits, the one to read."""

    path: str
    split: str | None = None


@strict
@dataclass
class ModelSection:
    """The model to train.

    Attributes:
        text_backbone: folder or Hub id of a pretrained text encoder; None reads precomputed text features.
        audio_backbone: folder or Hub id of a waveform encoder.
        visual_backbone: folder or Hub id of an image encoder.
        text_config: fields of the text backbone's configuration to override, such as its dropout.
        audio_config: fields of the audio backbone's configuration to override.
        vision_config: fields of the visual backbone's configuration to override.
        released: "iemocap" or "meld", a released recipe to start from.
        checkpoint: folder or Hub id of a trained model to start from.
        config: fields of `ReDiFuConfig`; in the file, they are at the same level as the keys above.
    """

    text_backbone: str | None = None
    audio_backbone: str | None = None
    visual_backbone: str | None = None
    text_config: dict[str, Any] | None = None
    audio_config: dict[str, Any] | None = None
    vision_config: dict[str, Any] | None = None
    released: str | None = None
    checkpoint: str | None = None
    config: dict[str, Any] = dataclasses.field(default_factory=dict)

    def validate_start(self) -> None:
        """Raise ValueError for several starting points, or overrides for a missing backbone."""
        backbones = [f"{name}_backbone" for name in self.backbones]
        given = backbones[:1] + [key for key in ("released", "checkpoint") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"use only one of backbones, released or checkpoint, got {' and '.join(given)}")
        for name, field in BACKBONE_CONFIGS.items():
            if getattr(self, field) is not None and name not in self.backbones:
                raise ValueError(f"{field} requires {name}_backbone")

    @property
    def backbones(self) -> dict[str, str]:
        """The pretrained backbones by stream."""
        places = {name: getattr(self, f"{name}_backbone") for name in BACKBONE_CONFIGS}
        return {name: place for name, place in places.items() if place is not None}


@strict
@dataclass
class DataSection:
    """The data sets, and how they are read.

    Attributes:
        train: a path, or {path, split}; environment variables and ~ are expanded when training starts.
        train_noisy: noisy copies of the same dialogues in the same order; see `redifu add-noise`. Each epoch
            takes each dialogue from here with probability 0.5.
        dev: data for choosing the best epoch; None uses the last epoch.
        test: data that is scored once, at the end.
        columns: column names of the tables by our names, {text: Utterance}; None keeps all names.
        labels: label names, in the order of the logits; None uses those of `model.checkpoint`.
        speaker_in_text: see `ReDiFuProcessor` for this and the next three; None uses the processor's default.
        text_context_turns: number of earlier turns to append to the text.
        max_text_tokens: longer texts are cut at the end.
        max_utterances: longer dialogues are split.
        audio_backend: how audio features are computed from files, see `ReDiFuFeatureExtractor`; it sets
            model.audio_size. With model.audio_backbone, it is always "backbone".
        visual_backend: the same for pictures.
        picture_count: number of face crops per utterance for a visual backbone.
    """

    train: str | dict
    train_noisy: str | dict | None = None
    dev: str | dict | None = None
    test: str | dict | None = None
    columns: dict[str, str] | None = None
    labels: list[str] | None = None
    speaker_in_text: bool | None = None
    text_context_turns: int | None = None
    max_text_tokens: int | None = None
    max_utterances: int | None = None
    audio_backend: str | None = None
    visual_backend: str | None = None
    picture_count: int | None = None

    def validate_sources(self) -> None:
        """Raise ValueError for a source without a path, or with unknown keys."""
        for name in SOURCES:
            value = getattr(self, name)
            if isinstance(value, dict):
                _refuse_unknown(value, known=DataSource._fields, where=f"{name}.")
                if not all(isinstance(part, str) for part in value.values()) or "path" not in value:
                    raise ValueError(f"{name} must be a path or {{path: ..., split: ...}}, got {value}")

    def validate_labels(self) -> None:
        """Raise ValueError for fewer than two labels, or for duplicates."""
        if self.labels is not None and len(set(self.labels)) < max(len(self.labels), 2):
            raise ValueError(f"labels must name at least two different labels, got {self.labels}")

    def validate_least(self) -> None:
        """Raise ValueError for numbers that are too small."""
        _refuse_below(
            self, {"text_context_turns": 0, "max_text_tokens": 1, "max_utterances": 1, "picture_count": 1}
        )

    def source(self, name: str) -> DataSource | None:
        """Return one of `SOURCES`, or None if the recipe does not contain it."""
        value = getattr(self, name)
        return DataSource(value) if isinstance(value, str) else value and DataSource(**value)


@strict
@dataclass
class TrainingSection:
    """The settings of training.

    Attributes:
        output: folder for the trained model; it is created when training finishes.
        seed: random seed for the initial weights and all epochs.
        epochs: maximum number of epochs.
        batch_size: dialogues per step, over all processes.
        learning_rate: peak learning rate of the fusion.
        text_learning_rate: peak learning rate of the text backbone.
        audio_learning_rate: peak learning rate of the audio backbone.
        visual_learning_rate: peak learning rate of the visual backbone.
        freeze_text: do not train the text backbone; each text is embedded once, before the first epoch.
        freeze_audio: do not train the audio backbone.
        freeze_visual: do not train the visual backbone.
        weight_decay: weight decay of AdamW; biases, norms and embeddings have none.
        warmup_ratio: share of all steps over which the learning rates rise from 0.
        schedule: learning rates after the warm-up: "linear" or "cosine" decay to 0, or "constant".
        max_grad_norm: gradients with a larger norm are scaled down to it.
        class_weights: "none", "balanced" (inverse to the counts in the training data) or a number per label.
        modality_dropout: probability of hiding each stream of an utterance, except the last one left.
        side_dropout: probability of hiding sound, and of hiding pictures, in a whole dialogue with texts.
        patience: stop after this many epochs without a better weighted F1 on dev; None never stops early.
        mixed_precision: "no" or "bf16"; dev and test are always scored in float32.
        activation_checkpointing: recompute activations in the backward pass to save memory.
        num_threads: CPU threads of each process; None keeps PyTorch's setting.
    """

    output: str
    seed: int = 1
    epochs: int = 10
    batch_size: int = 8
    learning_rate: float | int = 1e-3
    text_learning_rate: float | int = 5e-5
    audio_learning_rate: float | int = 5e-5
    visual_learning_rate: float | int = 5e-5
    freeze_text: bool = False
    freeze_audio: bool = False
    freeze_visual: bool = False
    weight_decay: float | int = 0.01
    warmup_ratio: float | int = 0.1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    max_grad_norm: float | int = 1.0
    class_weights: Literal["none", "balanced"] | list[float | int] = "none"
    modality_dropout: float | int = 0.0
    side_dropout: float | int = 0.0
    patience: int | None = None
    mixed_precision: Literal["no", "bf16"] = "no"
    activation_checkpointing: bool = False
    num_threads: int | None = None

    def validate_ranges(self) -> None:
        """Raise ValueError for numbers out of range."""
        least = {"seed": 0, "epochs": 1, "batch_size": 1, "patience": 1, "num_threads": 1, "weight_decay": 0}
        least |= {"learning_rate": 0} | {f"{name}_learning_rate": 0 for name in BACKBONE_CONFIGS}
        _refuse_below(self, least)
        for name in ("warmup_ratio", "modality_dropout", "side_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        if self.max_grad_norm <= 0:
            raise ValueError(f"max_grad_norm must be above 0, got {self.max_grad_norm}")


@dataclass
class Recipe:
    """The three sections of a recipe, including all defaults."""

    model: ModelSection
    data: DataSection
    training: TrainingSection

    @classmethod
    def from_dict(cls, values: Any) -> "Recipe":
        """Build from the content of a YAML file.

        Raises:
            ValueError: an unknown or missing key or an invalid value; the message names the key.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"expected the sections model, data and training, got {values!r}")
        _refuse_unknown(values, known=("model", "data", "training"), where="")
        sections = {name: values.get(name) or {} for name in ("model", "data", "training")}
        for name, section in sections.items():
            if not isinstance(section, Mapping):
                raise ValueError(f"section {name}: expected keys with values, got {section!r}")
        model_keys = {field.name for field in dataclasses.fields(ModelSection)} - {"config"}
        _refuse_unknown(sections["model"], known=model_keys | CONFIG_KEYS, where="model.")
        model = {key: value for key, value in sections["model"].items() if key in model_keys}
        model["config"] = {key: value for key, value in sections["model"].items() if key in CONFIG_KEYS}
        training = dict(sections["training"])
        # YAML reads `no` as false, and an empty value as null.
        if training.get("mixed_precision") is False:
            training["mixed_precision"] = "no"
        if training.get("class_weights", "none") is None:
            training["class_weights"] = "none"
        recipe = cls(
            _section(ModelSection, model, name="model"),
            _section(DataSection, sections["data"], name="data"),
            _section(TrainingSection, training, name="training"),
        )
        if recipe.data.dev is None and recipe.training.patience is not None:
            raise ValueError("training.patience requires data.dev")
        return recipe

    def expanded(self) -> "Recipe":
        """Return the recipe with environment variables and ~ expanded in all its paths.

        Raises:
            ValueError: an environment variable is not set.
        """
        places = [*(f"{name}_backbone" for name in BACKBONE_CONFIGS), "checkpoint"]
        return Recipe(
            dataclasses.replace(
                self.model, **{name: _expanded(getattr(self.model, name)) for name in places}
            ),
            dataclasses.replace(self.data, **{name: _expanded(getattr(self.data, name)) for name in SOURCES}),
            dataclasses.replace(self.training, output=_expanded(self.training.output)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the dict that `from_dict` takes, including defaults."""
        values = dataclasses.asdict(self)
        values["model"] |= values["model"].pop("config")
        return values

    def to_yaml(self) -> str:
        """Return the recipe as YAML, including defaults."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: a YAML file with the sections model, data and training.
        overrides: "section.key=value" strings with YAML values, which override the file.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not YAML, or a key or value is invalid; the message names file and key.
    """
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such recipe") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: invalid YAML: {error}") from None
    try:
        for override in overrides:
            _apply(values, override)
        return Recipe.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _expanded(value: Any) -> Any:
    """Expand environment variables and ~ in a path, or in the path of {path, split}."""
    if isinstance(value, dict):
        return {**value, "path": _expanded(value["path"])}
    if value is None:
        return None
    expanded = os.path.expanduser(os.path.expandvars(value))
    if unset := re.search(r"\$\{?(\w+)", expanded):
        raise ValueError(f"{value}: the environment variable {unset[1]} is not set")
    return expanded


class _Loader(yaml.SafeLoader):
    """Reads `5e-5` as a number; YAML 1.1 reads it as a string, because it has no dot."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789")
)


def _apply(values: Any, override: str) -> None:
    """Set one "section.key=value" in the mapping of a recipe."""
    name, equals, value = override.partition("=")
    *parents, key = name.split(".")
    if not equals or not parents or not key:
        raise ValueError(f"an override must be SECTION.KEY=VALUE, got {override!r}")
    for parent in parents:
        if not isinstance(values, dict) or not isinstance(values.setdefault(parent, {}), dict):
            raise ValueError(f"override {override!r}: {parent} has no keys")
        values = values[parent]
    try:
        values[key] = yaml.load(value, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"override {override!r}: the value is not valid YAML: {error}") from None


def _section(kind: type, values: Mapping[str, Any], *, name: str) -> Any:
    """Build and check one section; errors name its keys."""
    known = {field.name: field for field in dataclasses.fields(kind)}
    _refuse_unknown(values, known=known, where=f"{name}.")
    for key, field in known.items():
        if field.default is field.default_factory is dataclasses.MISSING and values.get(key) is None:
            raise ValueError(f"{name}.{key} is missing")
    try:
        return kind(**values)
    except StrictDataclassError as error:
        # Its message spans several lines; the cause has the reason.
        raise ValueError(f"{name}: {error.__cause__}") from None


def _refuse_unknown(given: Iterable[str], *, known: Iterable[str], where: str) -> None:
    known = sorted(known)
    for key in given:
        if key not in known:
            nearest = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {where}{nearest[0]}?" if nearest else f"expected one of {', '.join(known)}"
            raise ValueError(f"unknown key {where}{key}; {hint}")


def _refuse_below(section: Any, least: Mapping[str, int]) -> None:
    for key, limit in least.items():
        value = getattr(section, key)
        if value is not None and not value >= limit:
            raise ValueError(f"{key} must be at least {limit}, got {value}")
