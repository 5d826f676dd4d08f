"""What is known of an utterance says why it cannot be judged, or not well."""

from types import SimpleNamespace

import pytest

from inference.stand_in_model import StandInModel, StandInProcessor, conversation
from redifu.conversation import Utterance
from redifu.inference.predictions import predict_conversations
from redifu.inference.reasons import reasons_of

STREAMS = ("text", "audio", "visual")


def said(**fields):
    return Utterance(**{"speaker": "Ana", "text": "oh", **fields})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, []),
        ({"start": 2.0, "end": 2.4}, ["too short"]),
        ({"start": 2.0, "end": 2.5}, []),
        ({"start": 2.0}, []),
        ({"quality": {"audio": {"duration": 0.4}}}, ["too short"]),
        # The times of the utterance count, not those of what could be read of it.
        ({"start": 2.0, "end": 4.0, "quality": {"audio": {"duration": 0.4}}}, []),
        ({"quality": {"audio": {"snr": 7.9}}}, ["noisy"]),
        ({"quality": {"audio": {"snr": 8.0}}}, []),
        ({"text": None}, ["no words"]),
        ({"text": None, "text_features": [1.0]}, []),
        ({"missing": {"visual": "no face"}}, ["visual: no face"]),
        ({"text": None, "start": 0.0, "end": 0.1}, ["too short", "no words"]),
    ],
)
def test_reasons(fields, expected):
    assert reasons_of(said(**fields), STREAMS) == expected


@pytest.mark.parametrize(("overlap", "expected"), [(None, []), (0.5, []), (0.51, ["overlapped"])])
def test_a_turn_in_which_others_speak_more_than_half_of_the_time_is_overlapped(overlap, expected):
    fields = {name: getattr(said(), name) for name in ("text", "text_features", "start", "end", "quality")}
    utterance = SimpleNamespace(**fields, missing={}, overlap=overlap)
    assert reasons_of(utterance, STREAMS) == expected


def test_what_the_model_does_not_read_is_no_reason():
    fields = {"quality": {"audio": {"snr": 0.0}}, "missing": {"audio": "silent", "visual": "no face"}}
    assert reasons_of(said(**fields), ["text"]) == []
    assert reasons_of(said(text=None), ["audio"]) == []


def test_a_stream_that_does_not_fit_the_speaker_is_named():
    (reason,) = reasons_of(said(), STREAMS, unlike=["audio"])
    assert reason == "audio: does not sound like the speaker's other utterances"


def test_predictions_have_the_reasons_of_their_utterances():
    given = [conversation("long", ["ah"] * 20), conversation("gap", ["ah", None, "oh"])]
    (_, first), (_, second) = predict_conversations(StandInModel(), StandInProcessor(), given)
    assert [each.reasons for each in first] == [[]] * 20
    assert [each.reasons for each in second] == [[], ["no words", "no usable stream"], []]
