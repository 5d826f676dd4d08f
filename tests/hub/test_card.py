"""The card says what the folder shows and what its user gave, and nothing else."""

import json
from pathlib import Path

import pytest

from hub.toy_models import write_features_model, write_text_model
from redifu.hub.card import GivenCardData
from redifu.hub.publishing import files_to_publish

GIVEN = """\
language: [en]
license: gpl-3.0
datasets: [declare-lab/MELD]
tags: [sitcom]
description: |
  Moods of a **sitcom**.
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_text_model(tmp_path_factory.mktemp("card") / "model")
    (folder / "card.yaml").write_text(GIVEN, encoding="utf-8")
    return folder


def card_of(folder: Path) -> str:
    content = files_to_publish(folder, "ana/mood")["README.md"]
    assert isinstance(content, bytes)
    return content.decode()


def test_the_whole_card(folder: Path) -> None:
    expected = Path(__file__).with_name("rendered_card.md").read_text(encoding="utf-8")
    assert card_of(folder) == expected


def test_a_bare_folder_gets_a_card_without_what_nobody_knows(tmp_path: Path) -> None:
    card = card_of(write_features_model(tmp_path / "model"))
    for absent in (
        "license",
        "language",
        "model-index",
        "base_model",
        "pipeline_tag",
        "## Results",
        "## Training",
        "None",
    ):
        assert absent not in card
    for name, size in (("text", 6), ("audio", 5), ("visual", 4)):
        assert f'"{name}_features": [0.0] * {size}' in card


def test_a_calibrated_model_is_said_to_be(tmp_path: Path) -> None:
    folder = write_text_model(tmp_path / "model")
    configuration = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(configuration | {"temperature": 1.25}), encoding="utf-8")
    assert "with a temperature of 1.250" in card_of(folder) and "not calibrated" not in card_of(folder)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("lisence: mit", r"expected some of the keys language, license, .*, got \{'lisence': 'mit'\}"),
        ("language: en", r"language must be a list of strings, got 'en'"),
        ("license: [mit]", r"license must be a string, got \['mit'\]"),
        ("- en", r"expected some of the keys"),
        ("{", r"not YAML"),
    ],
)
def test_a_mistake_in_what_is_given_is_named(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "card.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"card\.yaml: {complaint}"):
        GivenCardData.from_folder(tmp_path)
