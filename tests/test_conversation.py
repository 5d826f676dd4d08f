import math
from typing import Any

import pytest

from redifu.conversation import FEATURES, STREAMS, shown_names, validate_conversation


def conversation(**changes: Any) -> dict[str, Any]:
    """Two utterances, the second changed; a change to None takes the key away."""
    second = {"speaker": "Ben", "text": "Yes.", **changes}
    second = {name: value for name, value in second.items() if value is not None}
    return {"id": "dinner-3", "utterances": [{"speaker": "Ana", "text": "You came!"}, second]}


def test_a_sound_conversation_comes_back_untouched() -> None:
    given = conversation(audio="a.wav", start=0, end=1.5, label="joy", mood={"own": [1]})
    given["scene"] = 4
    assert validate_conversation(given, source="x.json") is given


@pytest.mark.parametrize("stream", STREAMS)
def test_one_stream_is_enough(stream: str) -> None:
    content = {stream: [0.5] if stream in FEATURES else "one"}
    given = {"id": "a", "utterances": [{"speaker": "Ana", **dict.fromkeys(STREAMS), **content}]}
    assert validate_conversation(given, source="x.json") is given


def test_an_empty_text_beside_another_stream_counts_as_missing() -> None:
    given = conversation(text=" ", audio_features=[1.0])
    assert validate_conversation(given, source="x.json") is given


@pytest.mark.parametrize("given_id", [{}, {"id": None}])
def test_a_missing_id_is_the_name_of_the_file_and_the_place_in_it(given_id: dict) -> None:
    given = {**given_id, "utterances": conversation()["utterances"]}
    result = validate_conversation(given, source="some/where/dinner.v2.json", index=7)
    assert result == {"id": "dinner.v2-7", "utterances": given["utterances"]}
    assert given.get("id") is None, "the caller's conversation is not changed"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"speaker": None}, "speaker: expected a string that is not empty, got None"),
        ({"speaker": ""}, "speaker: expected a string that is not empty, got ''"),
        ({"speaker": 3}, "speaker: expected a string that is not empty, got 3"),
        ({"text": None}, "expected content, at least one of text, audio, video, text_features, "),
        ({"text": "  "}, "expected content, at least one of text, audio, video, text_features, "),
        ({"text": ["Yes."]}, "text: expected a string that is not empty, got ['Yes.']"),
        ({"text": "\ud83d"}, "text: expected whole characters, got half of a surrogate pair"),
        ({"audio": 5}, "audio: expected a string that is not empty, got 5"),
        ({"video": ""}, "video: expected a string that is not empty, got ''"),
        ({"label": 1}, "label: expected a string that is not empty, got 1"),
        ({"text_features": []}, "text_features: expected a list of at least one number, got []"),
        ({"text_features": 0.5}, "text_features: expected a list of at least one number, got 0.5"),
        ({"text_features": [[1.0]]}, "text_features: expected a list of at least one number, got [[1.0]]"),
        ({"text_features": [[1.0], [1.0, 2.0]]}, "text_features: expected a list of at least one number"),
        ({"audio_features": [1.0, "2"]}, "audio_features: expected a list of at least one number"),
        ({"audio_features": [1.0, None]}, "audio_features: expected a list of at least one number"),
        ({"audio_features": [True]}, "audio_features: expected a list of at least one number, got [True]"),
        (
            {"visual_features": [1.0, math.nan]},
            "visual_features: expected finite numbers, got nan at position 1",
        ),
        (
            {"visual_features": [-math.inf]},
            "visual_features: expected finite numbers, got -inf at position 0",
        ),
        ({"visual_features": [0, 1e39]}, "visual_features: expected finite numbers, got 1e+39 at position 1"),
        ({"start": -1.0}, "start: expected seconds from 0, got -1.0"),
        ({"start": math.nan}, "start: expected seconds from 0, got nan"),
        ({"end": math.inf}, "end: expected seconds from 0, got inf"),
        ({"end": "00:20:57"}, "end: expected seconds from 0, got '00:20:57'"),
        ({"end": 10**400}, "end: expected seconds from 0, got 1000000000000"),
        ({"end": True}, "end: expected seconds from 0, got True"),
        ({"start": 2.0, "end": 2.0}, "end: expected a time after start 2.0, got 2.0"),
    ],
)
def test_a_mistake_is_named_with_file_dialogue_and_utterance(changes: dict, complaint: str) -> None:
    with pytest.raises(ValueError) as error:
        validate_conversation(conversation(**changes), source="talk.json")
    assert str(error.value).startswith(f"talk.json: dialogue dinner-3, utterance 1: {complaint}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["a"], "talk.json: conversation 2: expected an object, got ['a']"),
        (None, "talk.json: conversation 2: expected an object, got None"),
        ({"id": 3}, "talk.json: conversation 2: id: expected a string that is not empty, got 3"),
        ({"id": "a"}, "talk.json: dialogue a: expected a list of at least one utterance, got None"),
        ({"utterances": []}, "talk.json: dialogue talk-2: expected a list of at least one utterance, got []"),
        ({"utterances": {}}, "talk.json: dialogue talk-2: expected a list of at least one utterance, got {}"),
        (
            {"id": "a\x1b[31m\nb"},
            "talk.json: dialogue 'a\\x1b[31m\\nb': expected a list of at least one utterance, got None",
        ),
        ({"utterances": ["Hi"]}, "talk.json: dialogue talk-2, utterance 0: expected an object, got 'Hi'"),
    ],
)
def test_what_is_no_conversation_is_refused(given: Any, complaint: str) -> None:
    with pytest.raises(ValueError) as error:
        validate_conversation(given, source="talk.json", index=2)
    assert str(error.value) == complaint


def test_a_long_wrong_value_is_shown_in_short() -> None:
    with pytest.raises(ValueError) as error:
        validate_conversation(conversation(text_features=["x" * 1000] * 1000), source="talk.json")
    assert len(str(error.value)) < 300


def test_of_many_or_long_names_some_are_shown() -> None:
    assert shown_names(["a", "b c"]) == "a, b c"
    assert shown_names(map(str, range(21))).endswith("18, 19, ...")
    assert len(shown_names(["x" * 1000])) < 50
