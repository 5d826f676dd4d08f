"""Where a model is: in a folder, or on the Hugging Face Hub."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

# No code and nothing pickled is even downloaded.
_READ = ["*.json", "*.txt", "*.model", "*.jinja"]


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
