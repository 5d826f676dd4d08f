"""Streams are hidden as often as asked, and an utterance is never left with nothing."""

from collections import Counter
from copy import deepcopy

import numpy as np
import pytest

from redifu.data.stream_dropout import hide_streams
from training.toy import toy_conversations

KEYS = ("text_features", "audio_features")


def streams(utterance: dict) -> set[str]:
    return {key for key in KEYS if utterance.get(key) is not None}


def test_hiding_never_takes_the_last_stream() -> None:
    generator = np.random.default_rng(0)
    for conversation in toy_conversations(50, seed=0):
        hidden = hide_streams(conversation, keys=KEYS, probability=0.999, generator=generator)
        assert [len(streams(utterance)) for utterance in hidden["utterances"]] == [1] * len(
            hidden["utterances"]
        )


def test_each_stream_is_hidden_as_often_as_asked_and_stays_as_often() -> None:
    generator = np.random.default_rng(0)
    utterance = {
        "speaker": "Ana",
        "text_features": [1.0],
        "audio_features": [1.0],
        "text": "Hi",
        "audio": "a.wav",
    }
    conversation = {"id": "one", "utterances": [utterance] * 20_000}
    hidden = hide_streams(conversation, keys=KEYS, probability=0.3, generator=generator)
    shares = Counter(frozenset(streams(each)) for each in hidden["utterances"])
    # Both would go with a probability of 0.09; then one of them, each equally often, stays.
    assert shares[frozenset(KEYS)] / 20_000 == pytest.approx(0.49, abs=0.01)
    assert [shares[frozenset([key])] / 20_000 for key in KEYS] == pytest.approx([0.255, 0.255], abs=0.01)


def test_hiding_changes_neither_the_conversation_nor_what_is_no_stream() -> None:
    conversation = toy_conversations(1, seed=1)[0]
    before = deepcopy(conversation)
    hidden = hide_streams(conversation, keys=KEYS, probability=0.9, generator=np.random.default_rng(0))
    assert conversation == before
    for given, shown in zip(conversation["utterances"], hidden["utterances"], strict=True):
        assert (shown["speaker"], shown["label"]) == (given["speaker"], given["label"])


def test_a_stream_the_model_does_not_read_saves_no_other() -> None:
    utterance = {"speaker": "Ana", "text_features": [1.0], "visual_features": [1.0]}
    for seed in range(20):
        hidden = hide_streams(
            {"id": "one", "utterances": [utterance]},
            keys=KEYS,
            probability=0.999,
            generator=np.random.default_rng(seed),
        )
        assert hidden["utterances"] == [utterance]


def test_a_spared_stream_stays_and_lets_the_others_go() -> None:
    utterances = [
        {"speaker": "Ana", "text_features": [1.0], "audio_features": [1.0]},
        {"speaker": "Ana", "audio_features": [1.0]},
    ]
    hidden = hide_streams(
        {"id": "one", "utterances": utterances},
        keys=KEYS,
        probability=1.0,
        generator=np.random.default_rng(0),
        spared=["text_features"],
    )
    # Only where there is no text, something else is the last one.
    assert [streams(each) for each in hidden["utterances"]] == [{"text_features"}, {"audio_features"}]
