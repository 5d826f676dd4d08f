"""Emotions of a stream, and the command that listens."""

import io
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.made_media import write_sound
from model.tiny_models import text_model
from model.tiny_processors import text_processor
from redifu.cli import main
from redifu.inference import listening
from redifu.inference.recogniser import Recogniser
from redifu.transcription import live_turns
from redifu.transcription.live_turns import HeardTurn, LiveTurns
from redifu.transcription.timed_words import Word
from redifu.transcription.turns_from_words import SpokenTurn
from transcription.loud_stream import LevelVoices, LevelWords, LoudActivity, Models, loud, quiet

MODEL, PROCESSOR = text_model("bert", visual_size=None), text_processor(max_text_tokens=16)
CALL = np.concatenate([quiet(0.512), loud(1.6, level=0.3), quiet(0.8), loud(1.6, level=0.9)])


@pytest.fixture(autouse=True)
def loud_is_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_turns, "VoiceActivity", LoudActivity)


@pytest.fixture
def model_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model, and stand-ins for the models that hear; their options are kept."""
    Recogniser(MODEL, PROCESSOR).model.save_pretrained(tmp_path / "model")
    PROCESSOR.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(live_turns, "LiveModels", lambda **options: Models())
    return str(tmp_path / "model")


def turns() -> LiveTurns:
    return LiveTurns(LevelWords(), LevelVoices())


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=8))
def test_bytes_give_the_same_samples_wherever_they_are_cut(data: bytes, places: list[int]) -> None:
    edges = [0, *sorted(places), 400]
    samples = listening.PcmSamples()
    parts = [samples(data[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
    whole = np.frombuffer(data[: len(data) // 2 * 2], "<i2") / 32768
    np.testing.assert_array_equal(np.concatenate(parts), whole.astype(np.float32))


def test_each_turn_gets_the_answer_of_a_session() -> None:
    chunks = listening.unpaced(np.array_split(CALL, 20))
    frames = list(listening.listen(chunks, turns(), Recogniser(MODEL, PROCESSOR).session()))
    session = Recogniser(MODEL, PROCESSOR).session()
    assert [frame["text"] for frame in frames] == ["w30 w30 w30 w30.", "w90 w90 w90 w90."]
    for frame in frames:
        answer = session.add({"speaker": frame["speaker"], "text": frame["text"]})
        assert {name: frame[name] for name in answer} == answer
        assert frame["type"] == "utterance"


@pytest.mark.parametrize(("streams", "listens"), [(("text",), False), (("text", "audio"), True)])
def test_a_model_that_listens_gets_the_sound(streams: tuple[str, ...], listens: bool) -> None:
    spoken = SpokenTurn("speaker 1", 1.0, 2.0, (Word("no", 1.0, 2.0, 0.9),), 0.0)
    model = SimpleNamespace(config=SimpleNamespace(modalities=streams))
    given = listening.utterance_of(
        HeardTurn(spoken, loud(1.0)),
        SimpleNamespace(model=model),  # type: ignore[arg-type]
    )
    assert (given["speaker"], given["text"]) == ("speaker 1", "no")
    assert ("audio" in given) == listens
    assert not listens or len(given["audio"]["array"]) == given["audio"]["sampling_rate"] == 16000


def test_a_recording_at_the_speed_of_speech_takes_its_time() -> None:
    began = time.monotonic()
    chunks = list(listening.paced(np.split(quiet(0.4), 4)))
    assert 0.4 <= time.monotonic() - began < 2
    assert [due - chunks[0][0] for due, _ in chunks] == pytest.approx([0, 0.1, 0.2, 0.3])


def lines_of(capsys: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_command_listens_to_a_file_and_to_stdin(
    model_folder: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av", reason="reading sound needs the extra `media`")
    path = write_sound(tmp_path / "call.wav", CALL)
    assert main(["listen", model_folder, str(path)]) == 0
    of_file = lines_of(capsys)
    stdin = io.TextIOWrapper(io.BytesIO((CALL * 32767).astype("<i2").tobytes()))
    monkeypatch.setattr("sys.stdin", stdin)
    assert main(["listen", model_folder, "-", "--speakers", "1"]) == 0
    of_stdin = lines_of(capsys)
    assert [line["text"] for line in of_file] == ["w30 w30 w30 w30.", "w90 w90 w90 w90."]
    assert [line["text"] for line in of_stdin] == [line["text"] for line in of_file]
    assert [line["speaker"] for line in of_file] == ["speaker 1", "speaker 2"]
    assert [line["speaker"] for line in of_stdin] == ["speaker 1", "speaker 1"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere.wav"], "nowhere.wav: no such file"),
        (["notes.txt"], "notes.txt: "),
        (["-", "--speakers", "0"], "argument --speakers: invalid number_of_speakers value: '0'"),
    ],
)
def test_a_mistake_is_one_line(
    model_folder: str,
    tmp_path: Path,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    complaint: str,
) -> None:
    pytest.importorskip("av", reason="reading sound needs the extra `media`")
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("Ana: hello")
    try:
        status: Any = main(["listen", model_folder, *arguments])
    except SystemExit as ended:
        status = ended.code
    errors = capsys.readouterr().err
    assert status == 2
    assert complaint in errors and errors.count("\n") == 1
