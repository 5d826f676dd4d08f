"""Loads models and their processors from a folder or from the Hugging Face Hub."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError

from redifu.model import ReDiFuForEmotionRecognition, ReDiFuProcessor

# The errors that loading raises for damaged or inconsistent files.
_BROKEN = (ValueError, OSError, RuntimeError, TypeError, KeyError, SafetensorError, StrictDataclassError)
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
        check_same_labels(model, processor)
    except _BROKEN as error:
        raise ValueError(f"{name_or_path}: not a ReDiFu model: {error}") from error
    # Loaded tensors lie unaligned in the mapped file, and matrix products round differently there.
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data = tensor.data.clone()
    return model.eval(), processor


def check_same_labels(model: Any, processor: Any) -> None:
    """Reject a processor whose labels, or their order, differ from the model's.

    Raises:
        ValueError: the labels differ; the message lists both.
    """
    if processor.labels and processor.labels != model.config.labels:
        of_model, of_processor = (", ".join(labels) for labels in (model.config.labels, processor.labels))
        raise ValueError(
            f"the model has the labels {of_model}, but its processor has {of_processor}: "
            "load both with the same id2label or num_labels"
        )


def _check_kind(folder: Path) -> None:
    """Reject an incomplete folder, or one of another model, before transformers warns and guesses."""
    for name in ("config.json", "processor_config.json", "model*.safetensors"):
        if not list(folder.glob(name)):
            pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
            hint = f"; pickled files are never loaded: {', '.join(pickled)}" if pickled else ""
            raise ValueError(f"it has no {name}{hint}")
    try:
        config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"config.json is not JSON: {error}") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "redifu":
        raise ValueError(f"model_type in config.json must be 'redifu', got {kind!r}")
