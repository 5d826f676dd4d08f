"""Loads models and their processors from a folder or from the Hugging Face Hub."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open

from redifu.model import (
    MODALITIES,
    ReDiFuConfig,
    ReDiFuFeatureExtractor,
    ReDiFuForEmotionRecognition,
    ReDiFuProcessor,
)
from redifu.model.configuration_redifu import BACKBONE_CONFIGS

# The errors that loading raises for damaged or inconsistent files.
BROKEN = (
    *(ValueError, OSError, RuntimeError, TypeError, AttributeError, ArithmeticError, LookupError),
    *(SafetensorError, StrictDataclassError),
)
# Encoders pad their table of tokens to a multiple that is fast, by up to about 900 rows.
_MOST_UNUSED_TOKENS = 1024
# Fields of a configuration, and of those of backbones, by which the work of building a model grows.
_LAYERS = re.compile(r"layers?$|_steps$")
_SIZES = re.compile(r"_size$|positions?$|position_embeddings$|^num_speakers$")
_PICKLED = {".bin", ".pkl", ".pickle", ".pt", ".pth", ".ckpt"}
# Code and pickled files are not even downloaded.
_READ = ["*.json", "*.txt", "*.model", "*.jinja", "README.md"]


def model_folder(name_or_path: str | Path, *, weights: str = "model*.safetensors") -> Path:
    """Return the folder of a model, after downloading it if `name_or_path` is a Hub id.

    An existing folder is used without network. `ORG/NAME` is a Hub id if no local folder ORG exists.
    Anything else, such as `./NAME`, is a path and is never looked up on the Hub.

    Args:
        name_or_path: a folder or a Hub id.
        weights: pattern of the weight files to download.

    Raises:
        FileNotFoundError: the folder does not exist, or the model cannot be downloaded.
    """
    folder = Path(name_or_path)
    if folder.is_dir():
        return folder
    if not is_hub_id(str(name_or_path)) or folder.parent.exists():
        raise FileNotFoundError(f"{name_or_path}: no such model folder")
    try:
        return Path(snapshot_download(str(name_or_path), allow_patterns=[*_READ, weights]))
    except OSError as error:
        raise FileNotFoundError(
            f"{name_or_path}: no such model folder, and downloading it failed: {error}"
        ) from error


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form ORG/NAME of a repository."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1


def load_pretrained(name_or_path: str | Path) -> tuple[ReDiFuForEmotionRecognition, ReDiFuProcessor]:
    """Load a model and its processor from a folder, without network, or from the Hub.

    Only this package's code runs, and weights are read from safetensors only.

    Args:
        name_or_path: a folder or a Hub id; see `model_folder`.

    Raises:
        FileNotFoundError: the folder does not exist, or the model cannot be downloaded.
        ValueError: it is not a ReDiFu model, or it is damaged; the message names it.
    """
    folder = model_folder(name_or_path)
    try:
        _check_kind(folder)
        loaded: Any = ReDiFuForEmotionRecognition.from_pretrained(
            folder, local_files_only=True, output_loading_info=True
        )
        model, found = loaded
        # transformers only warns and fills them with random numbers.
        if found["missing_keys"]:
            raise ValueError(f"missing weights: {', '.join(sorted(found['missing_keys']))}")
        processor = ReDiFuProcessor.from_pretrained(folder, local_files_only=True)
        check_processor(model.config, processor)
    except BROKEN as error:
        raise ValueError(f"{name_or_path}: not a ReDiFu model: {error}") from error
    # Loaded tensors lie unaligned in the mapped file, and matrix products round differently there.
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data = tensor.data.clone()
    return model.eval(), processor


def check_processor(config: ReDiFuConfig, processor: Any) -> None:
    """Reject a processor that does not fit a model, because the model would still answer, but wrongly.

    Args:
        config: the configuration of the model.
        processor: the processor to use with it.

    Raises:
        ValueError: the labels or their order differ, the processor does not produce an input that the model
            needs, or its tokenizer belongs to another text backbone.
    """
    if processor.labels and processor.labels != config.labels:
        of_model, of_processor = (", ".join(labels) for labels in (config.labels, processor.labels))
        raise ValueError(
            f"the model has the labels {of_model}, but its processor has {of_processor}: "
            "load both with the same id2label or num_labels"
        )
    extractor = processor.feature_extractor
    if not isinstance(extractor, ReDiFuFeatureExtractor):
        raise ValueError(f"expected a ReDiFuFeatureExtractor, got {type(extractor).__name__}")
    _check_tokenizer(config, processor.tokenizer)
    for name in MODALITIES:
        inside = getattr(config, BACKBONE_CONFIGS[name]) is not None
        expected, size = getattr(config, f"{name}_size"), extractor.sizes.get(name)
        if size != expected and not (inside and size is None):
            raise ValueError(
                f"the model has {name}_size {expected}, but its feature extractor has {name}_size {size}"
            )
        if name in extractor.raw and not inside:
            raise ValueError(f"the processor reads {name} for a backbone, but the model has none")


def _check_tokenizer(config: ReDiFuConfig, tokenizer: Any) -> None:
    backbone: Any = config.text_config
    if backbone is None:
        return  # the model itself refuses tokens
    if tokenizer is None:
        raise ValueError("it has a text backbone, but no tokenizer")
    rows, tokens = backbone.vocab_size, max(tokenizer.get_vocab().values(), default=-1) + 1
    if not rows - _MOST_UNUSED_TOKENS <= tokens <= rows:
        raise ValueError(
            f"the tokenizer belongs to another text backbone: it has {tokens:,} tokens, expected {rows:,}"
        )


def _check_kind(folder: Path) -> None:
    """Reject an incomplete folder, or one of another model, before transformers warns and guesses."""
    for name in ("config.json", "processor_config.json", "model*.safetensors"):
        if not list(folder.glob(name)):
            pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
            hint = f"; pickled files are never loaded: {', '.join(pickled)}" if pickled else ""
            raise ValueError(f"it has no {name}{hint}")
    config = _read_object(folder / "config.json")
    if (kind := config.get("model_type")) != "redifu":
        raise ValueError(f"model_type in config.json must be 'redifu', got {kind!r}")
    tensors, parameters = _count_weights(folder)
    _check_bounds(config, tensors=tensors, parameters=parameters)
    if not isinstance(_read_object(folder / "processor_config.json").get("feature_extractor"), dict):
        raise ValueError("processor_config.json has no feature_extractor")


def _count_weights(folder: Path) -> tuple[int, int]:
    """Return the number of tensors and of parameters in the weights of a folder, without reading them."""
    tensors = parameters = 0
    whole = folder / "model.safetensors"  # transformers prefers it to shards
    for path in [whole] if whole.is_file() else folder.glob("model-*.safetensors"):
        with safe_open(str(path), "pt") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
        tensors, parameters = tensors + len(shapes), parameters + sum(map(math.prod, shapes))
    return tensors, parameters


def _check_bounds(config: Mapping[str, Any], *, tensors: int, parameters: int) -> None:
    """Reject a configuration whose model is larger than its weights, before it is built.

    Each layer has at least one tensor, and each unit of a size at least one parameter.
    """
    for key, value in config.items():
        if isinstance(value, dict):
            _check_bounds(value, tensors=tensors, parameters=parameters)
        most = tensors if _LAYERS.search(key) else parameters if _SIZES.search(key) else math.inf
        if isinstance(value, int) and value > most:
            raise ValueError(f"config.json: {key} is {value:,}, but its weights allow at most {most:,}")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from None
    return content if isinstance(content, dict) else {}
