"""Uploading the folder of a model to the Hugging Face Hub, in one commit."""

import re
from pathlib import Path, PurePath
from typing import Any

import yaml
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from redifu.hub.card import RECIPE, FoundCardData, GivenCardData, render_card
from redifu.inference.loading import is_hub_id, load_pretrained
from redifu.inference.onnx_runtime import FILE
from redifu.model.remote_code import remote_code

CARD = "README.md"
# Everything else stays on this machine: logs and optimiser state of a run, code, and pickled files.
_PUBLISHED = ("*.json", "*.yaml", "*.md", "*.txt", "*.model", "*.jinja", "*.png", "model*.safetensors", FILE)
# Bytes: a single ONNX file cannot hold more.
LARGEST_EXPORT = 2_000_000_000
# The base of all errors of huggingface_hub's HTTP client, whichever client that is.
_NETWORK_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
_PYTHON = re.compile(r"(?<=```python\n).*?(?=```)", re.DOTALL)


def files_to_publish(folder: str | Path, repo_id: str) -> dict[str, Path | bytes]:
    """Collect the files of a model's repository, without network.

    These are the weights, the export `model.onnx`, configuration, processor, metrics, recipe, the code of
    `redifu.model`, and the card. The card is the folder's README.md, with the folder's path in Python code
    replaced by the repository; without a README.md, the card is made from the folder and `card.yaml`.

    Args:
        folder: the folder of a trained model.
        repo_id: ORG/NAME on the Hub.

    Returns:
        Local paths, or generated content, by their path in the repository, in alphabetical order.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: the folder holds no model that loads, `repo_id` is not ORG/NAME, or the export is larger
            than `LARGEST_EXPORT`.
    """
    folder = Path(folder)
    if not is_hub_id(repo_id):
        raise ValueError(f"the repository must be named ORG/NAME, got {repo_id!r}")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such model folder")
    model, processor = load_pretrained(folder)
    found = [path for pattern in _PUBLISHED for path in folder.glob(pattern)]
    files: dict[str, Path | bytes] = {
        path.name: path for path in found if path.is_file() and not path.name.startswith(".")
    }
    if FILE in files and (size := size_of(files[FILE])) > LARGEST_EXPORT:
        raise ValueError(f"{folder / FILE}: expected at most {LARGEST_EXPORT:,} bytes, got {size:,}")
    if RECIPE in files:
        files[RECIPE] = _without_places((folder / RECIPE).read_text(encoding="utf-8")).encode()
    configs = {path.name: path.read_bytes() for path in folder.glob("*config.json")}
    files |= remote_code(configs)
    if CARD in files:
        card = _naming_repository((folder / CARD).read_text(encoding="utf-8"), repo_id, folder=folder)
    else:
        found_data = FoundCardData.from_folder(folder, model, processor)
        card = render_card(repo_id, GivenCardData.from_folder(folder), found_data)
    return dict(sorted({**files, CARD: card.encode()}.items()))


def size_of(content: Path | bytes) -> int:
    """Return the size of a file in bytes."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def publish(files: dict[str, Path | bytes], repo_id: str, *, private: bool = False) -> str:
    """Upload files in one commit; a failed upload leaves the repository unchanged.

    Args:
        files: files by path in the repository; see `files_to_publish`.
        repo_id: ORG/NAME; created if it does not exist.
        private: whether to create a private repository.

    Returns:
        The URL of the commit.

    Raises:
        ValueError: the Hub cannot be reached or rejects the upload, or `private` is set and the repository is
            already public.
    """
    api = HfApi()
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    try:
        api.create_repo(repo_id, private=private or None, exist_ok=True)
        if private and not api.model_info(repo_id).private:
            raise ValueError(f"{repo_id} already exists and is public, expected a private repository")
        message = "Upload model, processor, code and card"
        return api.create_commit(repo_id, operations, commit_message=message).commit_url
    except OfflineModeIsEnabled as error:
        raise ValueError(f"{repo_id}: {error}") from error
    except HfHubHTTPError as error:
        raise ValueError(f"{repo_id}: {_refusal(error)}") from error
    except _NETWORK_ERROR as error:
        raise ValueError(
            f"{repo_id}: the Hub cannot be reached: {error}; check the network and HF_ENDPOINT"
        ) from error


def _refusal(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    said = error.server_message or f"status {status}"
    if status in (401, 403):
        return f"the Hub rejected the token ({said}): log in with `hf auth login`, or set HF_TOKEN"
    return f"the Hub rejected the upload: {said}"


def _naming_repository(card: str, repo_id: str, *, folder: Path) -> str:
    """In the Python code of a card, replace each path ending in the folder's name with the repository."""
    # The path must contain a slash, because a folder can have the same name as a key or a label.
    path = re.compile(rf"""(["'])[^"'\n]*/{re.escape(folder.resolve().name)}/?\1""")
    return _PYTHON.sub(lambda code: path.sub(f'"{repo_id}"', code[0]), card)


def _without_places(recipe: str) -> str:
    """Shorten absolute paths to their last part, which keeps folders of this machine private."""
    return yaml.safe_dump(_shortened(yaml.safe_load(recipe)), sort_keys=False, allow_unicode=True)


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value
