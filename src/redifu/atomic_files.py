"""Write files and folders that appear under their final name only when complete and on disk.

Until then, a file has no name, so that a killed process leaves nothing. A folder, and a file where the
filesystem has no files without a name, has a random hidden one and can be read only by its owner. After an
error, they are removed and existing files stay unchanged.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from tempfile import mkdtemp, mkstemp
from typing import Any, TextIO

_PREFIX, _SUFFIX = ".", ".partial"
_DESCRIPTORS = "/proc/self/fd"


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
    """Yield an empty file to write to; it replaces `path` when the context ends without an error.

    Write to the yielded path in this process, without renaming or replacing it.

    Raises:
        OSError: the file cannot be written; the error names `path`.
    """
    with ExitStack() as cleaning:
        try:
            partial = _unfinished(path.parent, cleaning)
            yield partial
            partial.chmod(0o666 & ~_umask())
            _flush(partial)
            _give_name(partial, path)
            _flush(path.parent)
        except OSError as error:
            if error.errno is not None and error.filename is None:
                error.filename = str(path)
            raise


def _unfinished(folder: Path, cleaning: ExitStack) -> Path:
    """Make a file for the owner alone; `cleaning` removes it."""
    with suppress(OSError, AttributeError):  # other systems and some network filesystems lack these files
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
        cleaning.callback(os.close, descriptor)
        unnamed = Path(f"{_DESCRIPTORS}/{descriptor}")
        if unnamed.exists():
            return unnamed
    descriptor, name = mkstemp(_SUFFIX, _PREFIX, folder)
    os.close(descriptor)
    cleaning.callback(Path(name).unlink, missing_ok=True)
    return Path(name)


def _give_name(partial: Path, path: Path) -> None:
    if str(partial.parent) != _DESCRIPTORS:
        partial.replace(path)
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # A link replaces no file, a rename does. The descriptor makes link() follow /proc.
        name = f"{_PREFIX}{token_hex(8)}{_SUFFIX}"
        os.link(partial, name, dst_dir_fd=folder)
        os.replace(name, path.name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        os.close(folder)


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


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder that they also enter by this function; make it if it is missing.

    The lock ends with the process, however it ends. A folder that is still empty is removed.

    Raises:
        BlockingIOError: another process is in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass  # some network filesystems have no locks on folders
        yield
    finally:
        with suppress(OSError):
            folder.rmdir()
        os.close(descriptor)


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
