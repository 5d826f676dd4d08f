"""Speakers are found among voices whose speaker is known, and speech is cut where it is quiet."""

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="recognising speakers needs the extra `speech`")

from redifu.transcription.speakers import (  # noqa: E402
    SAMPLING_RATE,
    HeardVoices,
    VoiceModel,
    loud_spans,
    number_of_speakers,
    speaker_voices,
)

SIZE, TURN = 32, 6  # numbers of a voice, and windows of a turn


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def conversation(order, *, spread=0.7, seed=0):
    """Return what is heard of turns of 4.5 s by the speakers in `order`, with pauses of 1 s."""
    random = np.random.default_rng(seed)
    speakers = np.linalg.qr(random.standard_normal((SIZE, max(order) + 1)))[0].T
    noise = unit(random.standard_normal((len(order), TURN, SIZE)))
    voices = unit(speakers[list(order)][:, None] + spread * noise).reshape(-1, SIZE).astype(np.float32)
    starts = 5.5 * np.arange(len(order))
    speech = np.stack([starts, starts + 4.5], axis=1)
    windows = (starts[:, None] + 0.6 * np.arange(TURN)).reshape(-1)
    return HeardVoices(speech, np.stack([windows, windows + 1.5], axis=1), voices)


def found(heard, speakers=(1, None)):
    return VoiceModel.segments(None, heard, speakers)


def turns(segments):
    """Return who speaks, a name a turn; a turn is never divided."""
    return [segment.speaker for segment in segments]


@pytest.mark.parametrize("order", [(0, 1) * 4, (0, 1, 2, 1, 0, 2, 2, 0, 1), (0, 1, 2, 3) * 3])
def test_speakers_are_found_and_told_apart(order):
    segments = found([conversation(order)])
    assert len(segments) == len(order)
    pairs = set(zip(order, turns(segments), strict=True))
    assert len(pairs) == len(set(order)) == len(set(turns(segments)))


def test_one_speaker_is_a_possible_answer():
    voices = conversation((0,) * 6, spread=0.5)
    assert set(turns(found([voices]))) == {"0"}
    assert number_of_speakers(voices.voices) == 1


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("order", [(0,) * 8, (0, 1) * 4, (0, 1, 2) * 4])
def test_a_given_number_of_speakers_is_obeyed(order, count):
    heard = conversation(order)
    seconds = np.full(len(heard.voices), 1.5)
    assert len(speaker_voices(heard.voices, seconds, (count, count))) == count


@pytest.mark.parametrize(("limits", "expected"), [((1, 2), 2), ((2, 4), 3), ((4, 6), 4), ((1, None), 3)])
def test_a_range_of_speakers_is_obeyed(limits, expected):
    heard = conversation((0, 1, 2) * 4)
    assert len(speaker_voices(heard.voices, np.full(len(heard.voices), 1.5), limits)) == expected


def test_a_strange_sound_takes_no_place_of_a_speaker():
    heard = conversation((0, 1) * 6)
    heard.voices[8] = unit(np.random.default_rng(9).standard_normal(SIZE))
    order = turns(found([heard], (2, 2)))
    assert len(set(order[::2])) == len(set(order[1::2])) == 1 and set(order) == {"0", "1"}


def test_parts_and_their_order_do_not_matter():
    heard = conversation((0, 1, 2) * 4)
    half = len(heard.voices) // 2
    parts = [
        HeardVoices(heard.speech[:6], heard.windows[:half], heard.voices[:half]),
        HeardVoices(heard.speech[6:], heard.windows[half:], heard.voices[half:]),
    ]
    whole = found([heard])
    assert found(parts) == whole
    backwards = found(parts[::-1])
    assert [segment[:2] for segment in backwards] == [segment[:2] for segment in whole]
    assert len(set(zip(turns(whole), turns(backwards), strict=True))) == 3


def test_many_voices_are_told_apart_by_some_of_them(monkeypatch):
    monkeypatch.setattr("redifu.transcription.speakers.MOST_VOICES", 60)
    order = (0, 1, 2) * 20
    segments = found([conversation(order)])
    assert len(set(zip(order, turns(segments), strict=True))) == 3


def test_one_window_is_one_speaker():
    heard = conversation((0,))
    assert turns(found([HeardVoices(heard.speech, heard.windows[:1], heard.voices[:1])])) == ["0"]


def sound(*levels, seconds=1.0):
    """Return noise with a level in decibels for every second."""
    random = np.random.default_rng(0)
    count = round(seconds * SAMPLING_RATE)
    parts = [random.standard_normal(count) * 10 ** (level / 20) for level in levels]
    return np.concatenate(parts).astype(np.float32)


def test_spans_reach_to_where_speech_is_heard():
    waveform = sound(-70, -70, -30, -30, -70, -70)
    assert loud_spans(waveform, [(2.2, 3.8)]) == pytest.approx(np.array([[200, 400]]), abs=2)


def test_spans_are_cut_at_pauses():
    waveform = np.concatenate([sound(-70, -30), sound(-70, seconds=0.5), sound(-30, -70)])
    assert loud_spans(waveform, [(1.0, 3.5)]) == pytest.approx(np.array([[100, 200], [250, 350]]), abs=2)


def test_spans_keep_short_pauses():
    waveform = np.concatenate([sound(-70, -30), sound(-70, seconds=0.2), sound(-30, -70)])
    assert loud_spans(waveform, [(1.0, 3.2)]) == pytest.approx(np.array([[100, 320]]), abs=2)


def test_speech_in_noise_is_kept():
    spans = loud_spans(sound(-32, -30, -30, -32), [(1.0, 3.0)])
    assert (spans[:, 1] - spans[:, 0]).sum() >= 190


@pytest.mark.parametrize("speech", [[], [(0.0, 1.0)]])
def test_silence_may_be_speech_to_the_detector(speech):
    assert loud_spans(np.zeros(SAMPLING_RATE, np.float32), speech).tolist() == ([[0, 100]] if speech else [])
    assert loud_spans(np.zeros(0, np.float32), []).shape == (0, 2)
