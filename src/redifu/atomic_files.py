"""Files and folders that take their name only when they are complete and on disk.

Until then they have a random hidden name beside it, and only their owner can read them. An error removes them
and leaves what stood under the name. A kill can leave a hidden file behind, never half a file under the name.
"""

import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp, mkstemp
from typing import Any, TextIO

_PREFIX, _SUFFIX = ".", ".partial"


def check_output(path: str | Path | None, endings: Collection[str]) -> None:
    """Check the name of a file, if there is one, before the work that fills it.

    Raises:
        ValueError: the name has another ending, or its folder does not exist.
    """
    if path is None:
        return
    path = Path(path)
    if path.suffix.lower() not in endings:
        expected = " or ".join(sorted(endings))
        raise ValueError(f"{path}: expected a file name ending in {expected}, got {path.suffix!r}")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: the folder {path.parent} does not exist")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give an empty file to write to; it becomes `path` when the context ends without an error."""
    descriptor, name = mkstemp(_SUFFIX, _PREFIX, path.parent)
    os.close(descriptor)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o666 & ~_umask())
        _flush(partial)
        partial.replace(path)
        _flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_text(path: Path) -> Iterator[TextIO]:
    """Open a text file that becomes `path` when the context ends without an error."""
    # Half of a surrogate pair can stand in a key that nobody checks; written so, JSON reads it back.
    with (
        replacing(path) as partial,
        partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        yield file


def replace_text(path: Path, text: str) -> None:
    """Write a text file in one step."""
    with replacing_text(path) as file:
        file.write(text)


def replace_json(path: Path, content: Any) -> None:
    """Write a JSON file in one step, for people to read."""
    replace_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to fill; it becomes `folder` when the context ends without an error.

    Raises:
        FileExistsError: `folder` exists: replacing it could not be done in one step.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} already exists")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(mkdtemp(_SUFFIX, _PREFIX, folder.parent))
    try:
        yield partial
        partial.chmod(0o777 & ~_umask())
        move_folder(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def move_folder(source: Path, target: Path) -> None:
    """Rename a folder once all its content is on disk: no crash leaves an empty file under the new name."""
    for path in [*source.rglob("*"), source]:
        _flush(path)
    source.rename(target)
    _flush(target.parent)


def _flush(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    """Return the process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
