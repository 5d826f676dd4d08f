"""Models and their processors, loaded from a folder or from the Hugging Face Hub."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError

from redifu.model import ReDiFuForEmotionRecognition, ReDiFuProcessor

# What loading raises for files that are damaged or do not fit each other.
_BROKEN = (ValueError, OSError, RuntimeError, TypeError, KeyError, SafetensorError, StrictDataclassError)
_PICKLED = {".bin", ".pkl", ".pickle", ".pt", ".pth", ".ckpt"}
# No code and nothing pickled is even downloaded.
_READ = ["*.json", "*.txt", "*.model", "*.jinja", "README.md"]


def model_folder(name_or_path: str | Path, *, weights: str = "model*.safetensors") -> Path:
    """Return the folder of a model, downloaded first where it is named by its Hub id.

    A folder that exists is taken, without network. `ORG/NAME`, where there is no folder ORG here, is a Hub
    id; all else, `./NAME` for instance, is a path, and the Hub is not asked for it.

    Args:
        name_or_path: a folder or a Hub id.
        weights: pattern of the files that hold them; no others are downloaded.

    Raises:
        FileNotFoundError: there is no such folder, or the Hub does not give it.
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
            f"{name_or_path}: no such model folder, and the Hub does not give it: {error}"
        ) from error


def is_hub_id(name: str) -> bool:
    """Whether a name has the form ORG/NAME of a repository."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1


def load_pretrained(name_or_path: str | Path) -> tuple[ReDiFuForEmotionRecognition, ReDiFuProcessor]:
    """Load a model and its processor from a folder, without network, or from the Hub.

    Only this package's code runs, and only safetensors are read.

    Args:
        name_or_path: a folder, or a Hub id by the rule of `model_folder`.

    Raises:
        FileNotFoundError: there is no such folder, and no such model on the Hub.
        ValueError: it is no ReDiFu model, or a broken one; names it.
    """
    folder = model_folder(name_or_path)
    try:
        _check_kind(folder)
        loaded: Any = ReDiFuForEmotionRecognition.from_pretrained(
            folder, local_files_only=True, output_loading_info=True
        )
        model, found = loaded
        # transformers draws them at random, and only warns.
        if found["missing_keys"]:
            raise ValueError(f"it lacks weights: {', '.join(sorted(found['missing_keys']))}")
        processor = ReDiFuProcessor.from_pretrained(folder, local_files_only=True)
        check_same_labels(model, processor)
    except _BROKEN as error:
        raise ValueError(f"{name_or_path}: not a ReDiFu model: {error}") from error
    # Loaded tensors lie in the mapped file at odd addresses, where products round otherwise than elsewhere.
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data = tensor.data.clone()
    return model.eval(), processor


def check_same_labels(model: Any, processor: Any) -> None:
    """Reject a processor that numbers labels in another way than the model.

    Raises:
        ValueError: naming the labels of both.
    """
    if processor.labels and processor.labels != model.config.labels:
        of_model, of_processor = (", ".join(labels) for labels in (model.config.labels, processor.labels))
        raise ValueError(
            f"the model has the labels {of_model}, its processor {of_processor}: "
            "load both with the same id2label or num_labels"
        )


def _check_kind(folder: Path) -> None:
    """Refuse, before transformers warns and guesses, a folder that lacks a part or holds another model."""
    for name in ("config.json", "processor_config.json", "model*.safetensors"):
        if not list(folder.glob(name)):
            pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
            hint = f", and what is pickled is never read: {', '.join(pickled)}" if pickled else ""
            raise ValueError(f"it has no {name}{hint}")
    try:
        config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"config.json is not JSON: {error}") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "redifu":
        raise ValueError(f"model_type in config.json must be 'redifu', got {kind!r}")
