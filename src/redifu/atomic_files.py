"""Write files and folders that appear under their final name only when complete and on disk.

Until then they have a random hidden name in the same folder, readable only by the owner. After an error, they
are removed and existing files stay unchanged. A killed process may leave a hidden file, never a partial one.
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
    """Check an output path, if it is not None, before the work starts.

    Raises:
        ValueError: the extension is not in `endings`, or the folder does not exist.
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
    """Yield an empty file to write to; it replaces `path` when the context ends without an error."""
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
    """Yield an open text file that replaces `path` when the context ends without an error."""
    # Unknown keys may contain an unpaired surrogate; escaped, JSON can read it back.
    with (
        replacing(path) as partial,
        partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        yield file


def replace_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing_text(path) as file:
        file.write(text)


def replace_json(path: Path, content: Any) -> None:
    """Write an indented JSON file atomically."""
    replace_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes `folder` when the context ends without an error.

    Raises:
        FileExistsError: `folder` already exists; it cannot be replaced atomically.
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
    """Rename a folder once its content is on disk, so a crash leaves no empty file under the new name."""
    for path in [*source.rglob("*"), source]:
        _flush(path)
    source.rename(target)
    _flush(target.parent)


def _flush(path: Path) -> None:
    """Wait until a file or a folder's entries are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    """Return the umask of the process, which can be read only by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
