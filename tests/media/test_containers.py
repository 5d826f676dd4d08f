"""What is opened: files and nothing else, whatever their names and contents say."""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from media.made_media import tone, write_sound
from redifu.media.containers import MediaError, opened
from redifu.media.decoding import Span, read_frames, read_sound


@pytest.fixture
def port() -> Iterator[int]:
    """A port of this machine; the test fails if anything connects to it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def outcome(source: str | Path | bytes) -> object:
    ((_, heard),) = read_sound(source, [Span()], sampling_rate=16000)
    ((_, seen),) = read_frames(source, [Span()], frames_per_second=5)
    assert isinstance(seen, MediaError)
    return str(heard) if isinstance(heard, MediaError) else len(heard)


ADDRESSES = (
    *("http://127.0.0.1:{port}/a.wav", "https://127.0.0.1:{port}/a.wav", "tcp://127.0.0.1:{port}"),
    *("rtsp://127.0.0.1:{port}/a", "rtmp://127.0.0.1:{port}/a", "ftp://127.0.0.1:{port}/a.wav"),
    *("concat:{path}", "subfile:,,start,0,end,0,,:{path}", "file:{path}", "cache:{path}", "crypto:{path}"),
    *("async:{path}", "data:audio/wav;base64,UklGRg==", "pipe:0", "fd:0", ""),
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_path_is_never_an_address(tmp_path: Path, port: int, address: str) -> None:
    path = write_sound(tmp_path / "a.wav", tone(0.5))
    assert outcome(address.format(port=port, path=path)) == "cannot be opened: No such file or directory"


@pytest.mark.parametrize(
    "name", ["2024-08-20T13:28:35Z.wav", "http:a.wav", "a%03d.wav", "-i.wav", "a,b|c?d#e.wav", "pipe:0"]
)
def test_any_name_is_the_name_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    shutil.move(write_sound(tmp_path / "a.wav", tone(0.5)), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert outcome(name) == outcome(Path(name)) == outcome(tmp_path / name) == 8000


def test_names_that_no_file_can_have_are_said(tmp_path: Path) -> None:
    assert outcome("a\0.wav") == "cannot be opened: embedded null byte"
    assert outcome("a" * 5000) == "cannot be opened: File name too long"


LISTS = {
    "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n{file}\n#EXTINF:1,\nhttp://127.0.0.1:{port}/b.ts\n",
    "a.ffconcat": "ffconcat version 1.0\nfile {file}\nfile http://127.0.0.1:{port}/b.wav\n",
    "a.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n",
    "a.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT9S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period>'
    '<AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="1"><BaseURL>'
    "http://127.0.0.1:{port}/b.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "a.pls": "[playlist]\nFile1={file}\n",
    "a.ram": "http://127.0.0.1:{port}/b.rm\n",
    "a.mov": "RTSPtextrtsp://127.0.0.1:{port}/b\r\n",
}


@pytest.mark.parametrize("name", [*LISTS, "list.wav"])
def test_a_list_of_files_opens_none_of_them(tmp_path: Path, port: int, name: str) -> None:
    write_sound(tmp_path / "b.wav", tone(0.5))
    content = LISTS.get(name, LISTS["a.ffconcat"]).format(port=port, file="b.wav")
    (tmp_path / name).write_text(content)
    for source in (tmp_path / name, content.encode()):
        assert str(outcome(source)).startswith(
            ("cannot be opened: Invalid data", "expected an audio or video")
        )


def make_pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (make_pipe, "Not a regular file"),
        (lambda path: Path("/dev/zero"), "Not a regular file"),
        (lambda path: path.parent, "Is a directory"),
    ],
)
def test_only_regular_files_are_opened(tmp_path: Path, make: Callable[[Path], Path], reason: str) -> None:
    assert outcome(make(tmp_path / "a.wav")) == f"cannot be opened: {reason}"


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link.wav").symlink_to(write_sound(tmp_path / "a.wav", tone(0.5)))
    assert outcome(tmp_path / "link.wav") == 8000


def test_every_format_that_is_listed_is_one_of_ffmpeg() -> None:
    av = pytest.importorskip("av", reason="the extra media is not installed")
    from redifu.media.containers import FORMATS, GUESSED

    known = {name for each in av.formats_available for name in each.split(",")}
    listed = FORMATS.split()
    assert len(set(listed)) == len(listed) and set(GUESSED) <= set(listed) <= known
    assert not set(listed) & {"hls", "dash", "concat", "image2", "imf", "sdp", "rtsp", "vobsub", "lavfi"}


def test_opened_is_closed_again(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", tone(0.5))
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for _ in range(3):
        with opened(path) as container:
            assert container.format.name == "wav"
    assert before is None or len(os.listdir("/proc/self/fd")) == before
