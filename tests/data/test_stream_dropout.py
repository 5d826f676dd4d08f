"""Streams are hidden as often as asked, and an utterance is never left with nothing."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from redifu.conversation import Conversation, Utterance
from redifu.data.stream_dropout import hide_sides, hide_streams
from training.toy import toy_conversations

KEYS = ("text_features", "audio_features")


def streams(utterance: Utterance) -> set[str]:
    return {key for key in KEYS if getattr(utterance, key) is not None}


def contents(conversation: Conversation) -> list[dict[str, Any]]:
    """What a processor would be given of each utterance, as numbers."""
    given = [utterance.to_inputs() for utterance in conversation.utterances]
    return [{key: np.asarray(value).tolist() for key, value in each.items()} for each in given]


def hide(*utterances: dict[str, Any], seed: int = 0, **options: Any) -> Conversation:
    conversation = Conversation.from_dict({"id": "one", "utterances": utterances})
    return hide_streams(conversation, keys=KEYS, generator=np.random.default_rng(seed), **options)


def test_hiding_never_takes_the_last_stream() -> None:
    generator = np.random.default_rng(0)
    for conversation in map(Conversation.from_dict, toy_conversations(50, seed=0)):
        hidden = hide_streams(conversation, keys=KEYS, probability=0.999, generator=generator)
        assert len(hidden.utterances) == len(conversation.utterances)
        assert {len(streams(utterance)) for utterance in hidden.utterances} == {1}


def test_each_stream_is_hidden_as_often_as_asked_and_stays_as_often() -> None:
    utterance = {
        "speaker": "Ana",
        "text_features": [1.0],
        "audio_features": [1.0],
        "text": "Hi",
        "audio": "a.wav",
    }
    hidden = hide(*[utterance] * 20_000, probability=0.3)
    shares = Counter(frozenset(streams(each)) for each in hidden.utterances)
    # Both would go with a probability of 0.09; then one of them, each equally often, stays.
    assert shares[frozenset(KEYS)] / 20_000 == pytest.approx(0.49, abs=0.01)
    assert [shares[frozenset([key])] / 20_000 for key in KEYS] == pytest.approx([0.255, 0.255], abs=0.01)


def test_hiding_changes_neither_the_conversation_nor_what_is_no_stream() -> None:
    conversation = Conversation.from_dict(toy_conversations(1, seed=1)[0])
    before, written = contents(conversation), conversation.to_dict()
    hidden = hide_streams(conversation, keys=KEYS, probability=0.9, generator=np.random.default_rng(0))
    assert contents(conversation) == before != contents(hidden)
    for given, shown in zip(before, contents(hidden), strict=True):
        kept = {key: value for key, value in given.items() if key not in KEYS}
        assert kept == {key: value for key, value in shown.items() if key not in KEYS}
    assert hidden.to_dict() == conversation.to_dict() == written, "what is hidden is written all the same"


def test_sides_are_hidden_in_whole_conversations_and_texts_are_not() -> None:
    sides = {"audio": "a.wav", "audio_features": [1.0], "video": "a.mp4", "visual_features": [1.0]}
    utterances = [
        {"speaker": "Ana", "text": "Hi", **sides},
        {"speaker": "Ben", "text_features": [1.0], **sides},
    ]
    mute = {"speaker": "Ana", **sides}
    conversation = Conversation.from_dict({"id": "one", "utterances": [*utterances, mute]})
    generator, seen = np.random.default_rng(0), Counter[tuple[str, ...]]()
    for _ in range(2000):
        hidden = hide_sides(conversation, probability=0.3, generator=generator)
        first, second, third = (
            tuple(key for key in sides if getattr(one, key) is not None) for one in hidden.utterances
        )
        assert first == second and third == tuple(sides)
        assert hidden.utterances[0].text == "Hi" and hidden.utterances[1].text_features is not None
        seen[first] += 1
    sound, pictures = ("audio", "audio_features"), ("video", "visual_features")
    shares = {shown: count / 2000 for shown, count in seen.items()}
    expected = {(*sound, *pictures): 0.49, sound: 0.21, pictures: 0.21, (): 0.09}
    assert shares == pytest.approx(expected, abs=0.03)


def test_a_stream_the_model_does_not_read_saves_no_other() -> None:
    utterance = {"speaker": "Ana", "text_features": [1.0], "visual_features": [1.0]}
    for seed in range(20):
        hidden = hide(utterance, seed=seed, probability=0.999)
        assert contents(hidden) == [utterance]


def test_a_spared_stream_stays_and_lets_the_others_go() -> None:
    utterances = [
        {"speaker": "Ana", "text_features": [1.0], "audio_features": [1.0]},
        {"speaker": "Ana", "audio_features": [1.0]},
    ]
    hidden = hide(*utterances, probability=1.0, spared=["text_features"])
    # Only where there is no text, something else is the last one.
    assert [streams(each) for each in hidden.utterances] == [{"text_features"}, {"audio_features"}]
