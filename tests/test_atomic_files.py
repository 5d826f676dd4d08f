"""A file or a folder takes its name when it is complete, and an error leaves what stood there."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from redifu.atomic_files import (
    check_output,
    new_folder,
    only_writer,
    replace_json,
    replacing,
    replacing_text,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture
def umask() -> Iterator[int]:
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture(params=["unnamed", "named"])
def filesystem(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One where files need no name, and one where they do."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE")
    return request.param


def test_a_file_is_its_owners_until_it_takes_its_name(tmp_path: Path, umask: int, filesystem: str) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    with replacing_text(path) as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
        assert {mode(each) for each in tmp_path.glob(".*")} == ({0o600} if filesystem == "named" else set())
    assert (path.read_text(), mode(path)) == ("new", 0o666 & ~umask)
    assert os.umask(umask) == umask
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("filesystem")
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    with pytest.raises(KeyError), replacing_text(path) as file:
        file.write("half")
        raise KeyError
    with pytest.raises(TypeError):
        replace_json(path, {"x": object()})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "out.json").write_text("old")
    code = """
import os, signal, sys
from pathlib import Path
from redifu.atomic_files import replacing_text
with replacing_text(Path("out.json")) as file:
    file.write("private")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    assert done.returncode == -signal.SIGKILL
    assert [each.name for each in tmp_path.iterdir()] == ["out.json"]
    assert (tmp_path / "out.json").read_text() == "old"


@pytest.mark.usefixtures("filesystem")
def test_an_error_of_the_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"No space left on device: '.*/out\.json'"):
        replace_json(tmp_path / "out.json", {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_has_one_writer_at_a_time(tmp_path: Path) -> None:
    with only_writer(tmp_path / "run"):
        (tmp_path / "run" / "begun").write_text("")
        with pytest.raises(BlockingIOError), only_writer(tmp_path / "run"):
            pass
    with only_writer(tmp_path / "run"):
        pass
    assert (tmp_path / "run" / "begun").exists()
    with only_writer(tmp_path / "empty"):
        pass
    assert not (tmp_path / "empty").exists()


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 250)  # no room for anything beside the name
    with replacing(path) as first, replacing(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"


def test_what_stands_under_the_name_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, flushed = tmp_path / "out", []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        place = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        flushed.append(("folder" if place == tmp_path else "file", path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    with replacing(path) as partial:
        partial.write_text("content")
    assert flushed == [("file", False), ("folder", True)]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path, umask: int) -> None:
    with pytest.raises(KeyError), new_folder(tmp_path / "run" / "one") as folder:
        (folder / "half").write_text("")
        raise KeyError
    assert list((tmp_path / "run").iterdir()) == []
    with new_folder(tmp_path / "run" / "one") as folder:
        (folder / "whole").write_text("")
        assert mode(folder) == 0o700
    assert mode(tmp_path / "run" / "one") == 0o777 & ~umask
    assert [each.name for each in (tmp_path / "run" / "one").iterdir()] == ["whole"]
    with pytest.raises(FileExistsError, match="already exists"), new_folder(tmp_path / "run"):
        pass


def test_json_ends_in_a_newline_and_is_readable(tmp_path: Path) -> None:
    replace_json(tmp_path / "out.json", {"name": "Zoë"})
    text = (tmp_path / "out.json").read_text(encoding="utf-8")
    assert text.endswith("}\n") and "Zoë" in text
    assert json.loads(text) == {"name": "Zoë"}


@pytest.mark.parametrize(
    ("name", "complaint"), [("out.txt", "ending in .csv or .json"), ("none/a.csv", "none does not exist")]
)
def test_a_name_that_cannot_be_written_is_refused(tmp_path: Path, name: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_output(tmp_path / name, (".json", ".csv"))
    check_output(tmp_path / "out.CSV", (".json", ".csv"))
