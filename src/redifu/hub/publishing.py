"""Uploading the folder of a model to the Hugging Face Hub, in one commit."""

import json
import re
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

import yaml
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from transformers.utils import PROCESSOR_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from redifu.hub.card import GIVEN, METRICS, RECIPE, FoundCardData, GivenCardData, render_card
from redifu.inference.loading import is_hub_id, load_pretrained
from redifu.inference.onnx_runtime import FILE
from redifu.model.configuration_redifu import BACKBONE_CONFIGS
from redifu.model.remote_code import remote_code
from redifu.training.recipe import SOURCES

CARD = "README.md"
# With the weights and the tokenizer's vocabulary, all that belongs to a model. Everything else stays on this
# machine, whatever its name: data, notes, logs and optimiser state of a run, code and pickled files.
_PUBLISHED = (
    *("config.json", PROCESSOR_NAME, FILE, METRICS, RECIPE, GIVEN, CARD),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
)
# The keys of a recipe that hold places, by section.
_PLACES = {
    "model": (*(f"{name}_backbone" for name in BACKBONE_CONFIGS), "checkpoint"),
    "data": SOURCES,
    "training": ("output",),
}
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
        ValueError: the folder holds no model that loads, one of the files is a link to another place,
            `repo_id` is not ORG/NAME, or the export is larger than `LARGEST_EXPORT`.
    """
    folder = Path(folder)
    if not is_hub_id(repo_id):
        raise ValueError(f"the repository must be named ORG/NAME, got {repo_id!r}")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such model folder")
    model, processor = load_pretrained(folder)
    names = [*_PUBLISHED, *_weights(folder), *getattr(processor.tokenizer, "vocab_files_names", {}).values()]
    files: dict[str, Path | bytes] = {name: folder / name for name in names if (folder / name).is_file()}
    for name in files:
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{folder / name}: expected a file of the folder, got a link to another place")
    if FILE in files and (size := size_of(files[FILE])) > LARGEST_EXPORT:
        raise ValueError(f"{folder / FILE}: expected at most {LARGEST_EXPORT:,} bytes, got {size:,}")
    if RECIPE in files:
        files[RECIPE] = _without_places(folder / RECIPE)
    configs = {name: (folder / name).read_bytes() for name in ("config.json", PROCESSOR_NAME)}
    configs[PROCESSOR_NAME] = _without_detector(configs[PROCESSOR_NAME])
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


def _weights(folder: Path) -> list[str]:
    """Return the names of the weights as transformers chooses them: one file, or an index and its shards."""
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if (folder / SAFE_WEIGHTS_NAME).exists():
        return [SAFE_WEIGHTS_NAME]
    return [index.name, *json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()]


def _without_places(path: Path) -> bytes:
    """Shorten all paths of a recipe to their last part, which keeps the folders of this machine private.

    Raises:
        ValueError: the file is not a recipe.
    """
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        for section, keys in _PLACES.items():
            values = recipe.get(section) or {}
            values |= {key: _shortened(values[key]) for key in keys if values.get(key) is not None}
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: not a recipe: {' '.join(str(error).split())}") from None
    return yaml.safe_dump(_without_absolute(recipe), sort_keys=False, allow_unicode=True).encode()


def _without_detector(processor: bytes) -> bytes:
    """Shorten the path of the file that finds faces, which is not published."""
    content = json.loads(processor)
    extractor = content["feature_extractor"]
    if extractor.get("face_detector"):
        extractor["face_detector"] = _shortened(extractor["face_detector"])
    return json.dumps(content).encode()


def _shortened(place: Any) -> Any:
    """Return the name of a place, after the variable it begins with; a Hub id is no place."""
    if isinstance(place, dict):
        return {key: _shortened(value) if key == "path" else value for key, value in place.items()}
    if not isinstance(place, str) or (is_hub_id(place) and not Path(place).parent.exists()):
        return place
    name = PureWindowsPath(place).name  # knows both kinds of slash
    variable = re.match(r"\$(\w+|\{\w+\})(?=[/\\\\])", place)
    return f"{variable[0]}/{name}" if variable else name


def _without_absolute(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_absolute(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_absolute(each) for each in value]
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value
