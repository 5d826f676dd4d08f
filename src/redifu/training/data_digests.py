"""Digests of the data that a run was begun with, so that it does not go on with others."""

import hashlib
import json
from pathlib import Path

from redifu.atomic_files import replace_json
from redifu.data.extraction import CACHE
from redifu.data.tables import file_digest
from redifu.training.recipe import SOURCES, Recipe

DIGESTS = "data.json"


def keep_digests(recipe: Recipe, folder: Path) -> None:
    """Write the digests of the data of a recipe, with expanded paths, to the folder of a run."""
    replace_json(folder / DIGESTS, _digests(recipe))


def check_digests(recipe: Recipe, folder: Path) -> None:
    """Check that the data of a recipe are those that a run was begun with.

    Data that are gone, and runs of earlier versions, which have no digests, are not checked. The media that a
    conversation file names are not part of its digest.

    Raises:
        ValueError: data have changed.
    """
    try:
        begun = json.loads((folder / DIGESTS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    for name, digest in _digests(recipe).items():
        if begun.get(name, digest) != digest:
            source = recipe.data.source(name)
            raise ValueError(
                f"{folder} is a run with other data ({source.path if source else name} has changed since): "
                "choose another training.output, or delete the folder to start again"
            )


def _digests(recipe: Recipe) -> dict[str, str]:
    sources = {name: source for name in SOURCES if (source := recipe.data.source(name)) is not None}
    places = {name: Path(source.path) for name, source in sources.items()}
    return {name: _digest(place) for name, place in places.items() if place.exists()}


def _digest(place: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of the files of a folder."""
    if place.is_file():
        return file_digest(place)
    files = {path.relative_to(place): path for path in place.rglob("*") if path.is_file()}
    used = {name.as_posix(): path for name, path in files.items() if CACHE not in name.parts}
    lines = [f"{name} {_digest(used[name])}\n" for name in sorted(used)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
