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
# The rest of a folder stays: the logs and the optimiser of a run, code, and what is pickled.
_PUBLISHED = ("*.json", "*.yaml", "*.md", "*.txt", "*.model", "*.jinja", "*.png", "model*.safetensors", FILE)
# Bytes of an export: a single ONNX file holds no more.
LARGEST_EXPORT = 2_000_000_000
# The base of all errors of huggingface_hub's HTTP client, whichever client that is.
_NETWORK_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
_PYTHON = re.compile(r"(?<=```python\n).*?(?=```)", re.DOTALL)


def files_to_publish(folder: str | Path, repo_id: str) -> dict[str, Path | bytes]:
    """Collect what belongs into the repository of a model, without network.

    That is its weights, its export `model.onnx`, configuration, processor, metrics and recipe, the code of
    `redifu.model`, and the card: the folder's own README.md, whose Python code then names the repository
    where it named the folder, or one made of what the folder shows and `card.yaml` says.

    Args:
        folder: the folder of a trained model.
        repo_id: ORG/NAME on the Hub.

    Returns:
        Files on disk and content made here, by their path in the repository, in alphabetical order.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder holds no model that loads, `repo_id` has another form, or the export is larger
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
    """Upload files in one commit: an upload that breaks off leaves the repository as it was.

    Args:
        files: by path in the repository, as of `files_to_publish`.
        repo_id: ORG/NAME; made where it does not exist.
        private: whether only its owners may see it.

    Returns:
        The address of the commit.

    Raises:
        ValueError: the Hub cannot be reached or refuses the upload, or the repository exists and is public
            although `private` is asked for.
    """
    api = HfApi()
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    try:
        api.create_repo(repo_id, private=private or None, exist_ok=True)
        if private and not api.model_info(repo_id).private:
            raise ValueError(f"{repo_id} exists and is public: expected a private repository")
        message = "Upload model, processor, code and card"
        return api.create_commit(repo_id, operations, commit_message=message).commit_url
    except OfflineModeIsEnabled as error:
        raise ValueError(f"{repo_id}: {error}") from error
    except HfHubHTTPError as error:
        raise ValueError(f"{repo_id}: {_refusal(error)}") from error
    except _NETWORK_ERROR as error:
        raise ValueError(f"{repo_id}: the Hub cannot be reached: {error}") from error


def _refusal(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    said = error.server_message or f"status {status}"
    if status in (401, 403):
        return f"the Hub refuses the token ({said}): log in with `hf auth login`, or set HF_TOKEN"
    return f"the Hub refuses the upload: {said}"


def _naming_repository(card: str, repo_id: str, *, folder: Path) -> str:
    """Put the repository in the place of each path, in the Python code of a card, that ends as the folder."""
    # With a slash: a folder may have the name of a key or of a label.
    path = re.compile(rf"""(["'])[^"'\n]*/{re.escape(folder.resolve().name)}/?\1""")
    return _PYTHON.sub(lambda code: path.sub(f'"{repo_id}"', code[0]), card)


def _without_places(recipe: str) -> str:
    """Shorten absolute paths to their last part: where files lay on this machine is nobody's business."""
    return yaml.safe_dump(_shortened(yaml.safe_load(recipe)), sort_keys=False, allow_unicode=True)


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value
