"""Conversations from recordings: which streams there are, and which span each utterance has."""

import io
import json
import os
import struct
import sys
import wave
from pathlib import Path

import pytest
from PIL import Image

from media.crashing_decoder import let_decoder_crash
from redifu.conversation import Conversation
from redifu.data.readers import read_conversations
from redifu.data.recordings import prepare_recording, probe_recording
from redifu.data.writers import write_conversations
from redifu.media import decoder_process

pytest.importorskip("av", reason="PyAV is not installed: it comes with the extra media")

SRT = "00:00:00,500 --> 00:00:01,000\nAna: Hi.\n\n00:00:00,750 --> 00:00:02,500\nBen: Hello.\n"


def write_sound(path: Path, *, seconds: float = 2.0) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(int(seconds * 8000) * 2))
    return path


def test_turns_become_utterances_that_point_to_the_recording(tmp_path: Path) -> None:
    (tmp_path / "sound").mkdir()
    (tmp_path / "talks").mkdir()
    sound = write_sound(tmp_path / "sound" / "dinner.wav")
    turns = tmp_path / "dinner.srt"
    turns.write_text(SRT, "utf-8")
    folder = tmp_path / "talks"
    conversation = prepare_recording(sound, turns, folder=folder)
    audio = "../sound/dinner.wav"
    # They overlap, as people do; the second is cut at the end of the recording.
    assert conversation.to_dict() == {
        "id": "dinner",
        "utterances": [
            {"speaker": "Ana", "text": "Hi.", "audio": audio, "start": 0.5, "end": 1.0},
            {"speaker": "Ben", "text": "Hello.", "audio": audio, "start": 0.75, "end": 2.0},
        ],
    }
    write_conversations(folder / "a.json", [conversation])
    assert list(read_conversations(folder / "a.json")) == [conversation]
    assert Path(conversation.medium_of(conversation.utterances[0], "audio")).resolve() == sound.resolve()


def test_a_recording_is_prepared_with_the_segments_of_whisperx(tmp_path: Path) -> None:
    sound, turns = write_sound(tmp_path / "a.wav", seconds=2), tmp_path / "a.json"
    turns.write_text('{"segments": [{"start": 0.5, "end": 1, "text": " Hi.", "speaker": "Ana"}]}', "utf-8")
    (utterance,) = prepare_recording(sound, turns, folder=tmp_path).utterances
    assert utterance.given == {"speaker": "Ana", "text": "Hi.", "audio": "a.wav", "start": 0.5, "end": 1.0}
    turns.write_text('[{"start": 2.5, "end": 3, "text": "Hi."}]', "utf-8")
    with pytest.raises(ValueError, match="a.json: segment 1: expected a start before the recording ends"):
        prepare_recording(sound, turns, folder=tmp_path)


def test_a_turn_beyond_the_recording_is_refused(tmp_path: Path) -> None:
    turns = tmp_path / "dinner.srt"
    turns.write_text(SRT, "utf-8")
    with pytest.raises(ValueError) as error:
        prepare_recording(write_sound(tmp_path / "a.wav", seconds=0.75), turns, folder=tmp_path)
    expected = "line 4: expected a start before the recording ends at 0.75 seconds, got 0.75"
    assert str(error.value) == f"{turns}: {expected}"


@pytest.mark.parametrize(
    ("name", "has_audio", "has_video", "duration"),
    [
        ("two_speakers.wav", True, False, 30.0),
        ("speech.flac", True, False, 11.0),
        ("talking_face.mp4", True, True, 8.0),
        ("face_without_audio_stream.mp4", False, True, 4.575),
    ],
)
def test_real_recordings_are_probed(
    test_data: Path, name: str, has_audio: bool, has_video: bool, duration: float
) -> None:
    probed = probe_recording(test_data / "fixtures" / name)
    assert probed == (has_audio, has_video, pytest.approx(duration, abs=0.01))


def test_real_turns_without_text_are_prepared(test_data: Path, tmp_path: Path) -> None:
    fixtures = test_data / "fixtures"
    conversation = prepare_recording(
        fixtures / "two_speakers.wav", fixtures / "two_speakers.rttm", folder=tmp_path
    )
    utterances = conversation.to_dict()["utterances"]
    assert len(utterances) == 10
    assert {each["speaker"] for each in utterances} == {"speaker90", "speaker91"}
    assert all(set(each) == {"speaker", "audio", "start", "end"} for each in utterances)
    assert (utterances[0]["start"], utterances[0]["end"]) == (6.69, 7.12)


def test_a_cover_is_no_video(test_data: Path, tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    fields = (3, 9, b"image/png", 0, 8, 8, 24, 0, len(picture.getvalue()))
    block = struct.pack(">II9sIIIIII", *fields) + picture.getvalue()
    flac = (test_data / "fixtures" / "speech.flac").read_bytes()
    first = 4 + 4 + int.from_bytes(flac[5:8])  # the stream's own description must come first
    header = bytes([6]) + len(block).to_bytes(3)
    path = tmp_path / "song.flac"
    # Whether a block is the last one is said by its first bit.
    assert not flac[4] & 0x80
    path.write_bytes(flac[:first] + header + block + flac[first:])
    assert probe_recording(path)[:2] == (True, False)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.mp4", b"", "cannot be read as a recording"),
        ("a.mp4", b"\0" * 4096, "cannot be read as a recording"),
        ("a.srt", b"1\n" + SRT.encode(), "expected an audio or video stream, found neither"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        probe_recording(path)
    assert str(error.value).startswith(f"{path}: {complaint}")
    with pytest.raises(FileNotFoundError, match="none.wav: no such file"):
        probe_recording(tmp_path / "none.wav")


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "av.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "av")
    monkeypatch.setattr(decoder_process, "_idle", [])
    with pytest.raises(ValueError, match=r"requires PyAV: pip install 'redifu\[media\]'"):
        probe_recording(write_sound(tmp_path / "a.wav"))


def test_a_crash_of_the_decoder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_decoder_crash(tmp_path, monkeypatch)
    with pytest.raises(ValueError, match=r"crash\.wav: the process that decoded it crashed$"):
        probe_recording(write_sound(tmp_path / "crash.wav"))
    assert probe_recording(write_sound(tmp_path / "a.wav")).has_audio


def test_several_conversations_are_a_list_or_lines(tmp_path: Path) -> None:
    talks = [{"id": name, "utterances": [{"speaker": "Ana", "text": "né"}]} for name in "ab"]
    for name in ("a.json", "a.jsonl"):
        write_conversations(tmp_path / name, map(Conversation.from_dict, talks))
        assert [each.to_dict() for each in read_conversations(tmp_path / name)] == talks
    assert isinstance(json.loads((tmp_path / "a.json").read_text("utf-8")), list)
    with pytest.raises(ValueError, match="expected a file name ending in .json or .jsonl, got '.csv'"):
        write_conversations(tmp_path / "a.csv", [])


def test_no_turn_is_cut_by_a_guess(tmp_path: Path, test_data: Path) -> None:
    folder = test_data / "cases" / "duration"
    probed = probe_recording(folder / "hold_q5.mp3")
    assert probed == (True, False, pytest.approx(74.2, abs=0.1))  # FFmpeg guesses 42.9
    conversation = prepare_recording(folder / "hold_q5.mp3", folder / "hold_turns.csv", folder=tmp_path)
    assert [(one.start, one.end) for one in conversation.utterances] == [
        *((0.0, 3.9), (3.9, 7.3)),
        *((57.7, 61.6), (62.2, 65.6)),
    ]
    assert probe_recording(folder / "adts.aac").duration == pytest.approx(18.53, abs=0.01)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_a_pipe_is_no_recording(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    for path, reason in ((tmp_path / "a.wav", "Not a regular file"), (tmp_path, "Is a directory")):
        with pytest.raises(ValueError, match=f"cannot be read as a recording: {reason}"):
            probe_recording(path)
