"""The ladder gives each rung what it may know, with a stand-in for recognition and a stand-in model."""

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("meeteval", reason="counting needs the extra `dev`")

from redifu.conversation import Conversation
from script_modules import load_script

script = load_script("evidence/recordings_ladder")

GIVEN = [
    {"speaker": "Ana", "text": "You came!", "audio": "a.flac", "start": 0.0, "end": 1.8, "label": "joy"},
    {"speaker": "Ben", "text": "Go away.", "audio": "a.flac", "start": 2.0, "end": 4.0, "label": "anger"},
]


class StandInRecogniser:
    """Knows the emotion of each text."""

    labels = ["anger", "joy"]
    emotions = {"You came!": "joy", "Go away.": "anger", "Go a way.": "joy"}

    def predict(self, conversations):
        for conversation in conversations:
            yield (
                conversation,
                [SimpleNamespace(emotion=self.emotions[each.text]) for each in conversation.utterances],
            )


def heard(path, *, turns=None):
    """Mishear a word, and find the true speakers under other names; all are there if turns are given."""
    assert turns in (None, path.with_suffix(".rttm"))
    names = ("Ana", "Ben") if turns else ("speaker 1", "speaker 2")
    spans = [
        SimpleNamespace(speaker=name, start=each["start"], end=each["end"])
        for name, each in zip(names, GIVEN, strict=True)
    ]
    texts = ("You came!", "Go a way.")
    utterances = [
        {"speaker": span.speaker, "text": text, "audio": path.name, "start": span.start, "end": span.end}
        for span, text in zip(spans, texts, strict=True)
    ]
    return Conversation.from_dict({"id": "a", "utterances": utterances})


def unheard(path, *, turns=None):
    return Conversation(id="a", utterances=[])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.flac").touch()
    (tmp_path / "a.json").write_text(json.dumps({"id": "a", "utterances": GIVEN}), encoding="utf-8")
    return tmp_path


def rungs_of(folder, rungs, transcribe):
    counts = script.climb(folder, rungs, recogniser=StandInRecogniser(), transcribe=transcribe)
    return {rung: script.scores_of(each, counts["a"]) for rung, each in counts.items()}


def test_each_rung_pays_for_what_it_does_not_know(folder):
    scores = rungs_of(folder, "abcde", heard)
    value = {rung: {name: score["value"] for name, score in each.items()} for rung, each in scores.items()}
    assert value["a"]["weighted_f1"] == value["c"]["weighted_f1"] == 100
    # "away" of four words became two: one replaced, one too many.
    for rung in "bde":
        assert value[rung]["wer"] == value[rung]["cpwer"] == 0.5
        # Anger was never found, and of two found as joy one is.
        assert value[rung]["weighted_f1"] == pytest.approx(100 * (0 + 2 / 3) / 2)
        assert value[rung]["weighted_f1_lost"] == pytest.approx(100 * 2 / 3)
        assert value[rung]["teer"] == pytest.approx(2 / 3.8)
    for rung in "abcde":
        assert value[rung]["der"] == 0
        assert value[rung]["speakers_right"] == 1
    assert value["c"]["wer"] == 0
    lines = list(script.table_of(scores))
    assert len(lines) == 2 + 5
    assert {line.count("|") for line in lines} == {len(script.HEADER) + 2}
    assert "| (b) recognised words on given turns | 50.0 (50.0 to 50.0) |" in lines[3]


def test_a_recording_without_words_is_all_missed(folder):
    scores = rungs_of(folder, "acd", unheard)
    assert scores["d"]["wer"]["value"] == scores["d"]["der"]["value"] == 1
    assert scores["d"]["weighted_f1"]["value"] == 0
    # All given words are one speaker's: Ana's 1.8 s are right, Ben's 2 s are not.
    assert scores["c"]["der"]["value"] == pytest.approx(1.8 / 3.8)


def test_given_words_share_the_time_of_their_turn():
    (utterance, _) = Conversation.from_dict({"utterances": GIVEN}).utterances
    words = script.spread_words(utterance)
    assert [word.text for word in words] == ["You", "came!"]
    assert [(word.start, word.end) for word in words] == [
        (0.0, pytest.approx(0.675)),
        (pytest.approx(0.675), pytest.approx(1.8)),
    ]


def test_the_most_frequent_label_stands_beside_the_rungs(folder):
    # The first of labels as frequent is joy: right on 1.8 of 3.8 s.
    (counts,) = script.most_frequent(folder, labels=StandInRecogniser.labels)
    scores = script.scores_of([counts])
    assert scores["weighted_f1"]["value"] == pytest.approx(100 * (2 / 3 + 0) / 2)
    assert scores["teer"]["value"] == scores["steer"]["value"] == pytest.approx(2 / 3.8)
    assert scores["wer"]["value"] == scores["der"]["value"] == 0


def test_a_folder_without_recordings_is_rejected(tmp_path):
    with pytest.raises(ValueError, match=r"expected NAME\.flac"):
        script.climb(tmp_path, "a", recogniser=StandInRecogniser(), transcribe=heard)
