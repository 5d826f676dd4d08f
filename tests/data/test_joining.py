"""Predictions join back on the rows they are of: ids, turns, splits, names and other columns."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redifu.conversation import Conversation
from redifu.data.readers import read_conversations
from redifu.data.writers import prediction_writer
from redifu.inference.predictions import predictions_of
from redifu.model import ReDiFuFeatureExtractor

LABELS = ["neutral", "joy"]


def predicted(source: Path, output: Path) -> Path:
    """Write predictions that say which utterance they are of by their probability."""
    with prediction_writer(output, LABELS) as write:
        for each in read_conversations(source):
            shares = [np.float32([0.5 + n / 100, 0.5 - n / 100]) for n in range(len(each.utterances))]
            write(each, predictions_of(each, [{"probabilities": share} for share in shares], LABELS))
    return output


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("name", "keys", "texts"),
    [
        ("gaps.csv", ("dialogue_id", "turn", "speaker", "clip"), ("text", "text")),
        ("splits.csv", ("split", "dialogue_id", "turn", "speaker"), ("text", "text")),
        ("meld_gap.csv", ("Sr No.", "Season", "Episode", "StartTime", "EndTime"), ("Utterance", "text")),
    ],
)
def test_predictions_join_back_on_the_input(
    test_data: Path, tmp_path: Path, name: str, keys: tuple[str, ...], texts: tuple[str, str]
) -> None:
    source = test_data / "cases" / "turn-numbers" / name
    given, written = rows_of(source), rows_of(predicted(source, tmp_path / "out.csv"))
    assert len({tuple(row[key] for key in keys) for row in given}) == len(given) == len(written)
    joined = {tuple(row[key] for key in keys): row[texts[1]] for row in written}
    assert joined == {tuple(row[key] for key in keys): row[texts[0]] for row in given}


def test_turns_of_meld_are_its_utterance_ids(test_data: Path, tmp_path: Path) -> None:
    source = test_data / "cases" / "turn-numbers" / "meld_gap.csv"
    rows = rows_of(predicted(source, tmp_path / "out.csv"))
    assert [(row["dialogue_id"], row["turn"], row["label"]) for row in rows] == [
        ("0", "0", "joy"),
        ("0", "2", "surprise"),
        ("0", "5", "sadness"),
    ]


TABLE = """\
split,dialogue_id,turn,speaker,text,clip,emotion,audio_features
train,d,6,Ana,six,c6,mine,[0.5]
dev,d,6,Ana,other,c,mine,[0.5]
train,d,1,Ben,one,,mine,[0.5]
train,d,03,Ana,three,c3,mine,[0.5]
"""


def test_a_table_of_predictions_has_the_turns_and_columns_of_the_input(tmp_path: Path) -> None:
    (tmp_path / "talk.csv").write_text(TABLE, "utf-8")
    table = predicted(tmp_path / "talk.csv", tmp_path / "out.csv")
    names = ["dialogue_id", "turn", "speaker", "text", "emotion", "probability", "p_neutral", "p_joy"]
    rows = rows_of(table)
    assert list(rows[0]) == [*names, "split", "clip"]
    assert [[row[name] for name in ("split", "dialogue_id", "turn", "text", "clip")] for row in rows] == [
        ["train", "d", "1", "one", ""],
        ["train", "d", "3", "three", "c3"],
        ["train", "d", "6", "six", "c6"],
        ["dev", "d", "6", "other", "c"],
    ]
    assert {row["emotion"] for row in rows} == {"neutral"}
    lines = predicted(tmp_path / "talk.csv", tmp_path / "out.jsonl").read_text("utf-8").splitlines()
    values = [json.loads(line) for line in lines]
    said = [
        (each["id"], each["split"], one["turn"], one.get("clip"))
        for each in values
        for one in each["utterances"]
    ]
    assert said == [
        ("d", "train", 1, None),
        ("d", "train", 3, "c3"),
        ("d", "train", 6, "c6"),
        ("d", "dev", 6, "c"),
    ]
    # The same rows by way of JSON lines.
    assert [row["turn"] for row in rows_of(predicted(tmp_path / "out.jsonl", tmp_path / "again.csv"))] == [
        row["turn"] for row in rows
    ]


@pytest.mark.parametrize("turns", [[None, None], [True, 2], [3, 3], ["1", "2"], [{}, 1]])
def test_turns_that_are_no_numbers_of_their_own_are_counted_from_zero(turns: list[Any]) -> None:
    said = [{"speaker": "Ana", "text": "Hi.", "turn": turn} for turn in turns]
    assert list(Conversation.from_dict({"utterances": said}).turns) == [0, 1]


def test_an_empty_table_of_predictions_has_its_header(tmp_path: Path) -> None:
    with prediction_writer(tmp_path / "out.csv", LABELS):
        pass
    expected = "dialogue_id,turn,speaker,text,emotion,probability,p_neutral,p_joy\n"
    assert (tmp_path / "out.csv").read_text("utf-8") == expected


# Two dialogues with one id


def test_rows_that_would_be_interleaved_are_named(test_data: Path) -> None:
    path = test_data / "cases" / "same-ids" / "joined.csv"
    with pytest.raises(ValueError) as error:
        list(read_conversations(path))
    complaint = "rows 1 and 3: dialogue 1 has turn 0 twice; give each dialogue an id of its own"
    assert str(error.value) == f"{path}: {complaint}"


def test_one_id_in_two_splits_is_two_dialogues_and_in_one_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "talk.csv"
    path.write_text("split,dialogue_id,turn,speaker,text\na,d,0,Ana,1\nb,d,0,Ana,2\n,d,0,Ana,3\n", "utf-8")
    assert [[one.text for one in each.utterances] for each in read_conversations(path)] == [
        ["1"],
        ["2"],
        ["3"],
    ]
    path.write_text("split,dialogue_id,turn,speaker,text\na,d,0,Ana,1\nb,d,0,Ana,2\nb,d,0.0,Ana,3\n", "utf-8")
    with pytest.raises(ValueError, match="rows 2 and 3: dialogue d has turn 0 twice"):
        list(read_conversations(path, split="b"))


def test_two_objects_with_one_id_are_two_dialogues(test_data: Path) -> None:
    first, second = read_conversations(test_data / "cases" / "same-ids" / "calls.jsonl")
    assert (first.id, second.id) == ("call-1", "call-1")
    assert {one.given["clip"][:3] for one in first.utterances} == {"mon"}
    assert {one.given["clip"][:3] for one in second.utterances} == {"tue"}


def test_features_of_two_dialogues_with_one_id_are_not_mixed(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed: it comes with the extra media")
    from redifu.data.extraction import extract_conversations

    talk = Conversation.from_dict({"id": "d", "utterances": [{"speaker": "Ana", "audio": "none.wav"}]})
    extractor = ReDiFuFeatureExtractor(audio_backend="log_mel")
    with pytest.raises(ValueError, match="an id of its own for each dialogue of a split, got twice: d"):
        extract_conversations([talk, talk], tmp_path, extractor=extractor)


# Names


@pytest.mark.parametrize("name", ["same", "nfd", "space", "nbsp", "lrm"])
def test_a_name_in_several_spellings_is_one_speaker(test_data: Path, tmp_path: Path, name: str) -> None:
    path = test_data / "cases" / "names" / f"{name}.json"
    (read,) = read_conversations(path)
    given = [one["speaker"] for one in json.loads(path.read_text("utf-8"))["utterances"]]
    assert {one.speaker for one in read.utterances} == {"Zoë Müller", "Tom"}
    assert [one["speaker"] for one in read.to_inputs()["utterances"]] == [
        one.speaker for one in read.utterances
    ]
    assert [row["speaker"] for row in rows_of(predicted(path, tmp_path / "out.csv"))] == given
    assert [one["speaker"] for one in read.to_dict()["utterances"]] == given


SPELLINGS = [
    "Zoë M",
    "Zoe\u0308 M",
    " Zoë  M ",
    "Zoë\u00a0M",
    "\u200eZoë M\u200f",
    "Zo\u200bë M",
    "Z\u00adoë\tM\ufeff",
    "\u2068Zoë\u3000M\u2069\ufe0e",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_a_name_are_the_same(spelling: str) -> None:
    said = [{"speaker": each, "text": "Hi."} for each in ("Zoë M", spelling, "zoë m", "Zoe M")]
    read = Conversation.from_dict({"utterances": said})
    assert [one.speaker for one in read.utterances] == ["Zoë M", "Zoë M", "zoë m", "Zoe M"]
    assert read.utterances[1].given["speaker"] == spelling


@pytest.mark.parametrize("name", ["\u200e", " \u00a0", "\ufeff\ufe0f"])
def test_a_name_that_nobody_sees_is_none(name: str) -> None:
    with pytest.raises(ValueError, match="utterance 0: speaker: expected a non-empty string"):
        Conversation.from_dict({"utterances": [{"speaker": name, "text": "Hi."}]})


# Formulas


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+49 170", "'+49 170"),
        ("- Yes.", "'- Yes."),
        ("@ana", "'@ana"),
        ("\t=1", "'\t=1"),
        ("'=1", "''=1"),
        ("''-x", "'''-x"),
        ("'tis", "'tis"),
        ("a=1", "a=1"),
        ("'", "'"),
    ],
)
def test_a_cell_is_no_formula_and_reads_back_the_same(tmp_path: Path, cell: str, written: str) -> None:
    said = [{"speaker": cell, "text": cell}]
    (tmp_path / "talk.json").write_text(json.dumps({"id": cell, "utterances": said}), "utf-8")
    table = predicted(tmp_path / "talk.json", tmp_path / "out.csv")
    (row,) = rows_of(table)
    assert (row["dialogue_id"], row["speaker"], row["text"]) == (written,) * 3
    (read,) = read_conversations(table)
    assert (read.id, read.utterances[0].given["speaker"], read.utterances[0].text) == (cell,) * 3
