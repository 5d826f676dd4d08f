"""One way from JSON to a conversation and back: nothing is lost, and each mistake is named in its place."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from redifu.conversation import FEATURES, STREAMS, Conversation, Prediction, Utterance
from redifu.conversation_values import shown_names
from redifu.data.writers import with_predictions
from redifu.media.decoding import Span
from redifu.media.quality import QUALITY


def conversation(**changes: Any) -> dict[str, Any]:
    """Two utterances, the second changed; a change to None takes the key away."""
    second = {"speaker": "Ben", "text": "Yes.", **changes}
    second = {name: value for name, value in second.items() if value is not None}
    return {"id": "dinner-3", "utterances": [{"speaker": "Ana", "text": "You came!"}, second]}


def second_of(value: dict[str, Any]) -> Utterance:
    return Conversation.from_dict(value, source="x.json").utterances[1]


def test_a_sound_conversation_has_its_fields_and_comes_back_untouched() -> None:
    given = conversation(audio="a.wav", start=0, end=1.5, label="joy", mood={"own": [1]})
    given |= {"scene": 4, "split": "dev"}
    read = Conversation.from_dict(given, source="x.json", folder="talks")
    assert (read.id, read.split, read.folder, read.speakers) == ("dinner-3", "dev", Path("talks"), ())
    ben = read.utterances[1]
    assert (ben.speaker, ben.text, ben.audio, ben.label) == ("Ben", "Yes.", "a.wav", "joy")
    assert (ben.start, ben.end, ben.span) == (0, 1.5, Span(start=0.0, end=1.5))
    assert (ben.video, ben.text_features, ben.quality, ben.missing) == (None, None, {}, {})
    assert read.utterances[0].span == Span(start=0.0, end=None)
    assert read.to_dict() == given


@pytest.mark.parametrize("stream", STREAMS)
def test_one_stream_is_enough(stream: str) -> None:
    content = {stream: [0.5] if stream in FEATURES else "one"}
    given = {"id": "a", "utterances": [{"speaker": "Ana", **dict.fromkeys(STREAMS), **content}]}
    read = Conversation.from_dict(given, source="x.json")
    assert {name for name in STREAMS if getattr(read.utterances[0], name) is not None} == {stream}
    assert read.to_dict() == given


def test_an_empty_text_beside_another_stream_counts_as_missing() -> None:
    given = conversation(text=" ", audio_features=[1.0])
    assert second_of(given).text is None
    assert Conversation.from_dict(given, source="x.json").to_dict() == given


WORD = {"word": "Yes.", "start": 0.5, "end": 0.5, "probability": 1}
HEARD = {"words": [WORD, {**WORD, "word": "ja", "probability": 0.25}], "text_confidence": 0, "overlap": 0.5}


def test_what_was_recognised_is_read_and_comes_back_untouched() -> None:
    given = conversation(**HEARD)
    read = Conversation.from_dict(given, source="x.json")
    ana, ben = read.utterances
    assert (ben.words, ben.text_confidence, ben.overlap) == (HEARD["words"], 0, 0.5)
    assert (ana.words, ana.text_confidence, ana.overlap) == (None, None, None)
    assert json.dumps(read.to_dict()) == json.dumps(given)
    assert second_of(conversation(words=[])).words == []
    assert ben.to_inputs() == {"speaker": "Ben", "text": "Yes."}


def test_features_become_arrays_and_are_written_as_they_were_given() -> None:
    given = conversation(audio_features=[1, 0.1, -2.5])
    features = second_of(given).audio_features
    assert features is not None and features.dtype == np.float32
    assert features.tolist() == [1, np.float32(0.1), -2.5]
    assert Conversation.from_dict(given).to_dict()["utterances"][1]["audio_features"] == [1, 0.1, -2.5]


@pytest.mark.parametrize("given_id", [{}, {"id": None}])
def test_a_missing_id_is_the_name_of_the_file_and_the_place_in_it(given_id: dict) -> None:
    given = {**given_id, "utterances": conversation()["utterances"]}
    read = Conversation.from_dict(given, source="some/where/dinner.v2.json", index=7)
    assert read.id == "dinner.v2-7"
    assert read.to_dict() == {"id": "dinner.v2-7", "utterances": given["utterances"]}
    assert given.get("id") is None, "the caller's conversation is not changed"


def test_keys_come_back_with_their_nulls_in_their_order() -> None:
    utterances = [
        {"mood": None, "text": "No.", "video": None, "speaker": "Ana", "label": None, "a": {"b": [None]}},
        {"start": None, "speaker": "Ben", "quality": None, "text": "Yes."},
    ]
    given = {"scene": None, "utterances": utterances, "split": None, "id": "d", "given": 1, "folder": "x"}
    assert json.dumps(Conversation.from_dict(given).to_dict()) == json.dumps(given)
    nameless = {"utterances": utterances, "scene": 4}
    assert list(Conversation.from_dict(nameless).to_dict()) == ["utterances", "scene", "id"]


def test_keys_of_users_that_look_reserved_are_kept_and_change_nothing() -> None:
    taken = {"missing": 4, "_speakers": 5, "audio_quality": "loud", "visual_quality": [1.0], "quality": 7}
    taken |= {"given": 1, "audio_values": "none", "pixel_values": 0, "span": [], "_folder": "x"}
    given = {**conversation(audio="a.wav", **taken), "speakers": 3, "_folder": 4, "folder": 5, "pieces": 6}
    read = Conversation.from_dict(given, source="x.json")
    assert json.dumps(read.to_dict()) == json.dumps(given)
    ben = read.utterances[1]
    assert (ben.missing, ben.quality, ben.audio_values, ben.pixel_values) == ({}, {}, None, None)
    assert ben.to_inputs() == {"speaker": "Ben", "text": "Yes.", "audio": "a.wav"}
    assert (read.folder, read.speakers, read.medium_of(ben, "audio")) == (Path(), (), "a.wav")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
READINGS = [*(f"{stream}_quality" for stream in QUALITY), "missing", "quality", "given", "_folder", "folder"]
KEYS = st.sampled_from([*READINGS, "speakers", "_speakers", "turn", "pixel_values"]) | st.text()


@settings(max_examples=60, deadline=None)
@drawn(keys=st.dictionaries(KEYS, JSON, max_size=5), data=st.data())
def test_whatever_a_user_writes_beside_comes_back(keys: dict[str, Any], data: st.DataObject) -> None:
    def among(known: dict[str, Any]) -> dict[str, Any]:
        """The keys of a user and known ones, in any order."""
        return dict(data.draw(st.permutations(list((keys | known).items()))))

    nothing = dict.fromkeys(("start", "end", "label", "audio", "video", *FEATURES))
    utterances = [among(nothing | {"speaker": name, "text": "So."}) for name in ("Ana", "Ben")]
    given = among({"id": "d", "utterances": utterances})
    assert json.dumps(Conversation.from_dict(given).to_dict()) == json.dumps(given)


def test_quality_and_reasons_of_a_table_of_features_are_read() -> None:
    nan = math.nan
    given = conversation(audio="a.wav", video="a.mp4", audio_quality=[20, 0.0, nan, 1.5])
    given["utterances"][1] |= {
        "visual_quality": [nan] * 4,
        "missing": {"visual": "it is dark", "audio": None},
    }
    ben = second_of(given)
    assert ben.quality == {"audio": {"snr": 20.0, "clipping": 0.0, "duration": 1.5}}
    assert ben.missing == {"visual": "it is dark"}


def test_a_medium_is_named_unless_it_needs_no_reading() -> None:
    given = conversation(audio="a.wav", video="/b.mp4", missing={"visual": "it is dark"})
    read = Conversation.from_dict(given, source="x.json", folder="talks")
    ana, ben = read.utterances
    assert read.medium_of(ana, "audio") is None
    assert read.medium_of(ben, "audio") == str(Path("talks/a.wav"))
    assert read.medium_of(ben, "visual") is None
    assert read.medium_of(ben.with_fields(missing={}), "visual") == "/b.mp4"
    for name in ("audio_features", "audio_values"):
        assert read.medium_of(ben.with_fields(**{name: np.zeros(2, np.float32)}), "audio") is None


@pytest.mark.parametrize("channel", [0, -1, True, 1.5, "left"])
def test_a_channel_is_a_number_from_1(channel: object) -> None:
    with pytest.raises(ValueError, match="utterance 0: audio_channel: expected the number of a channel"):
        Conversation.from_dict(
            {"utterances": [{"speaker": "Ana", "audio": "a.wav", "audio_channel": channel}]}
        )


def test_what_is_computed_is_not_written_and_what_is_changed_is() -> None:
    read = Conversation.from_dict(conversation(label="joy", mood="own", audio="a.wav"))
    ben = read.utterances[1]
    given = dict(ben.given)
    computed = ben.with_fields(text=None, audio_features=np.ones(3, np.float32), missing={"audio": "hiss"})
    assert (computed.text, computed.missing, computed.label) == (None, {"audio": "hiss"}, "joy")
    assert computed.given == given
    changed = ben.changed(audio="b.wav", label=None)
    assert (changed.audio, changed.label, changed.text) == ("b.wav", None, "Yes.")
    assert changed.given == {**given, "audio": "b.wav", "label": None}
    assert list(changed.given) == list(given), "a changed key stays in its place"
    assert ben.given == given and ben.audio == "a.wav", "the utterance itself is left as it is"
    assert computed.changed(end=2.0).given == {**given, "end": 2.0}


def test_media_that_are_no_paths_are_taken_only_where_they_are_allowed() -> None:
    sound = {"array": np.zeros(4, np.float32), "sampling_rate": 16000}
    given = conversation(audio=sound, video=b"film")
    ben = Conversation.from_dict(given, allow_media_objects=True).utterances[1]
    assert ben.audio is sound and ben.video == b"film"
    with pytest.raises(ValueError, match="audio: expected a non-empty string, got {'array'"):
        Conversation.from_dict(given)
    with pytest.raises(ValueError, match="audio: expected a non-empty string, got ''"):
        Conversation.from_dict(conversation(audio=""), allow_media_objects=True)


def test_predictions_are_written_beside_what_was_given() -> None:
    given = {"utterances": conversation(mood=4, **HEARD)["utterances"], "scene": None, "id": "d"}
    read = Conversation.from_dict(given)
    rows = np.array([[0.25, 0.75], [math.nan] * 2], np.float32)
    said = [
        Prediction(
            turn=turn,
            speaker=one.speaker,
            text=one.text,
            start=None,
            end=None,
            labels="ab",
            probabilities=row,
        )
        for turn, (one, row) in enumerate(zip(read.utterances, rows, strict=True))
    ]
    assert [(each.emotion, each.probability) for each in said] == [("b", 0.75), (None, None)]
    assert [each.scores for each in said] == [{"a": 0.25, "b": 0.75}, None]
    unsure = replace(said[0], unsure=True, reasons=["not sure"])
    assert (unsure.emotion, unsure.probability, unsure.scores) == (None, 0.75, said[0].scores)
    (withheld, _) = with_predictions(read, [unsure, said[1]])["utterances"]
    assert (withheld["emotion"], withheld["scores"], withheld["reasons"]) == (
        None,
        said[0].scores,
        ["not sure"],
    )
    written = with_predictions(read, said)
    assert list(written) == list(given)
    answers = [{"emotion": "b", "scores": {"a": 0.25, "b": 0.75}}, {"emotion": None, "scores": None}]
    for one, old, answer in zip(written["utterances"], given["utterances"], answers, strict=True):
        assert one == {**old, **answer}


# Pieces of long dialogues


def long_conversation(length: int) -> Conversation:
    utterances = [{"speaker": "Ana", "text": str(turn), "note": turn} for turn in range(length)]
    return Conversation.from_dict({"id": "d1", "utterances": utterances})


@pytest.mark.parametrize("most", [1, 2, 3, 4, 7, 10])
def test_pieces_lose_nothing(most: int) -> None:
    for length in range(1, 45):
        dialogue = long_conversation(length)
        pieces = dialogue.pieces(most)
        kept = [each for piece, keep in pieces for each in piece.utterances[keep]]
        assert kept == dialogue.utterances
        assert all(0 < len(piece.utterances) <= most for piece, _ in pieces)
        assert all(piece.id == "d1" for piece, _ in pieces)
        assert (len(pieces) == 1) == (length <= most)


def test_pieces_have_context_on_both_sides() -> None:
    pieces = long_conversation(40).pieces(12)
    assert len(pieces) > 2
    for (_, before), (piece, after) in pairwise(pieces):
        assert before.stop < 12 and after.start > 0
        assert len(piece.utterances[: after.start]) >= 2
    assert all(keep.stop < len(piece.utterances) for piece, keep in pieces[:-1])


def test_a_piece_knows_the_speakers_of_the_whole_dialogue() -> None:
    names = ["Ana", *["Ben"] * 8, "Cy", "Ana"]
    dialogue = Conversation.from_dict(
        {"utterances": [{"speaker": name, "text": "no"} for name in names]}, folder="talks"
    )
    pieces = dialogue.pieces(4)
    assert {(tuple(piece.speakers), piece.folder) for piece, _ in pieces} == {
        (("Ana", "Ben", "Cy"), Path("talks"))
    }
    assert dialogue.pieces(len(names)) == [(dialogue, slice(0, len(names)))]


# Mistakes


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"speaker": None}, "speaker: expected a non-empty string, got None"),
        ({"speaker": ""}, "speaker: expected a non-empty string, got ''"),
        ({"speaker": 3}, "speaker: expected a non-empty string, got 3"),
        ({"text": None}, "expected at least one of text, audio, video, text_features, "),
        ({"text": "  "}, "expected at least one of text, audio, video, text_features, "),
        ({"text": ["Yes."]}, "text: expected a non-empty string, got ['Yes.']"),
        ({"text": "\ud83d"}, "text: expected valid Unicode, got an unpaired surrogate"),
        ({"audio": 5}, "audio: expected a non-empty string, got 5"),
        ({"video": ""}, "video: expected a non-empty string, got ''"),
        ({"label": 1}, "label: expected a non-empty string, got 1"),
        ({"text_features": []}, "text_features: expected a non-empty list of numbers, got []"),
        ({"text_features": 0.5}, "text_features: expected a non-empty list of numbers, got 0.5"),
        ({"text_features": [[1.0]]}, "text_features: expected a non-empty list of numbers, got [[1.0]]"),
        ({"text_features": [[1.0], [1.0, 2.0]]}, "text_features: expected a non-empty list of numbers"),
        ({"audio_features": [1.0, "2"]}, "audio_features: expected a non-empty list of numbers"),
        ({"audio_features": [1.0, None]}, "audio_features: expected a non-empty list of numbers"),
        ({"audio_features": [True]}, "audio_features: expected a non-empty list of numbers, got [True]"),
        (
            {"visual_features": [1.0, math.nan]},
            "visual_features: expected finite numbers, got nan at position 1",
        ),
        (
            {"visual_features": [-math.inf]},
            "visual_features: expected finite numbers, got -inf at position 0",
        ),
        ({"visual_features": [0, 1e39]}, "visual_features: expected finite numbers, got 1e+39 at position 1"),
        ({"start": -1.0}, "start: expected a number of seconds from 0 up, got -1.0"),
        ({"start": math.nan}, "start: expected a number of seconds from 0 up, got nan"),
        ({"end": math.inf}, "end: expected a number of seconds from 0 up, got inf"),
        ({"end": "00:20:57"}, "end: expected a number of seconds from 0 up, got '00:20:57'"),
        ({"end": 10**400}, "end: expected a number of seconds from 0 up, got 1000000000000"),
        ({"end": True}, "end: expected a number of seconds from 0 up, got True"),
        ({"start": 2.0, "end": 2.0}, "end: expected a time after start 2.0, got 2.0"),
        ({"overlap": 1.5}, "overlap: expected a number from 0 to 1, got 1.5"),
        ({"overlap": True}, "overlap: expected a number from 0 to 1, got True"),
        ({"text_confidence": math.nan}, "text_confidence: expected a number from 0 to 1, got nan"),
        ({"text_confidence": "high"}, "text_confidence: expected a number from 0 to 1, got 'high'"),
        ({"words": "Yes."}, "words: expected a list of objects, got 'Yes.'"),
        ({"words": [WORD, "no"]}, "words: word 1: expected an object, got 'no'"),
        ({"words": [{**WORD, "word": " "}]}, "words: word 0: word: expected a non-empty string, got ' '"),
        (
            {"words": [{**WORD, "start": None}]},
            "words: word 0: start: expected a number of seconds from 0 up, got None",
        ),
        ({"words": [{**WORD, "end": 0.4}]}, "words: word 0: end: expected a time not before start 0.5, got "),
        (
            {"words": [{**WORD, "probability": -0.1}]},
            "words: word 0: probability: expected a number from 0 to 1, got -0.1",
        ),
    ],
)
def test_a_mistake_is_named_with_file_dialogue_and_utterance(changes: dict, complaint: str) -> None:
    with pytest.raises(ValueError) as error:
        Conversation.from_dict(conversation(**changes), source="talk.json")
    assert str(error.value).startswith(f"talk.json: dialogue dinner-3, utterance 1: {complaint}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["a"], "talk.json: conversation 2: expected an object, got ['a']"),
        (None, "talk.json: conversation 2: expected an object, got None"),
        ({"id": 3}, "talk.json: conversation 2: id: expected a non-empty string, got 3"),
        ({"id": "a"}, "talk.json: dialogue a: expected a non-empty list of utterances, got None"),
        ({"utterances": []}, "talk.json: dialogue talk-2: expected a non-empty list of utterances, got []"),
        ({"utterances": {}}, "talk.json: dialogue talk-2: expected a non-empty list of utterances, got {}"),
        (
            {"id": "a\x1b[31m\nb"},
            "talk.json: dialogue 'a\\x1b[31m\\nb': expected a non-empty list of utterances, got None",
        ),
        ({"utterances": ["Hi"]}, "talk.json: dialogue talk-2, utterance 0: expected an object, got 'Hi'"),
    ],
)
def test_what_is_no_conversation_is_refused(given: Any, complaint: str) -> None:
    with pytest.raises(ValueError) as error:
        Conversation.from_dict(given, source="talk.json", index=2)
    assert str(error.value) == complaint


def test_a_long_wrong_value_is_shown_in_short() -> None:
    with pytest.raises(ValueError) as error:
        Conversation.from_dict(conversation(text_features=["x" * 1000] * 1000), source="talk.json")
    assert len(str(error.value)) < 300


def test_of_many_or_long_names_some_are_shown() -> None:
    assert shown_names(["a", "b c"]) == "a, b c"
    assert shown_names(map(str, range(21))).endswith("18, 19, ...")
    assert len(shown_names(["x" * 1000])) < 50


@pytest.mark.parametrize(
    ("name", "most"), [("text", 100_000), ("speaker", 4096), ("label", 4096), ("audio", 4096)]
)
def test_a_text_or_a_name_is_not_endless(name: str, most: int) -> None:
    given = {"speaker": "Ana", "text": "no", name: "x" * most}
    Conversation.from_dict({"id": "d", "utterances": [given]})
    given[name] += "x"
    complaint = f"dialogue d, utterance 0: {name}: expected at most {most:,} characters, got {most + 1:,}"
    with pytest.raises(ValueError, match=complaint):
        Conversation.from_dict({"id": "d", "utterances": [given]})


def test_a_conversation_is_not_of_everybody() -> None:
    given = [{"speaker": f"{number}", "text": "no"} for number in range(100_000)]
    Conversation.from_dict({"id": "d", "utterances": given[:1000]})
    with pytest.raises(ValueError, match="dialogue d: expected at most 1,000 speakers, got 100,000"):
        Conversation.from_dict({"id": "d", "utterances": given})
