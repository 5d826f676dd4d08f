import csv
import json
import math
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redifu.conversation import Conversation, Prediction
from redifu.data.readers import read_conversations
from redifu.data.tables import read_csv_table
from redifu.data.writers import prediction_writer, with_predictions, write_conversations
from redifu.inference.predictions import predictions_of

LABELS = ["neutral", "joy", "sadness, deep"]
TALK = {
    "id": "dinner-3",
    "scene": 4,
    "utterances": [
        {"speaker": "Ana", "text": 'You "came",\nat last', "label": "joy", "mood": [1, None]},
        {"speaker": "Ben", "text": None, "audio_features": [0.5]},
    ],
}
PROBABILITIES = np.array([[0.1, 0.7, 0.2], [math.nan] * 3], dtype=np.float32)


DINNER = Conversation.from_dict(TALK)
SAID = predictions_of(DINNER, [{"probabilities": row} for row in PROBABILITIES], LABELS)


def write(path: Path, predicted: list[tuple[Conversation, list[Prediction]]]) -> Path:
    with prediction_writer(path, LABELS) as write_one:
        for conversation, predictions in predicted:
            write_one(conversation, predictions)
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_json_lines_hold_the_input_with_emotion_and_scores(tmp_path: Path) -> None:
    other = Conversation.from_dict({**TALK, "id": "é"})
    path = write(tmp_path / "out.jsonl", [(DINNER, SAID), (other, SAID)])
    first, second = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    scores = {"neutral": 0.1, "joy": 0.7, "sadness, deep": 0.2}
    assert first == {
        **TALK,
        "utterances": [
            {**TALK["utterances"][0], "emotion": "joy", "scores": scores},
            {**TALK["utterances"][1], "emotion": None, "scores": None},
        ],
    }
    assert second == {**first, "id": "é"}
    assert "é" in path.read_text("utf-8"), "letters are written as they are"
    assert "emotion" not in TALK["utterances"][0], "the input is not changed"
    assert "emotion" not in DINNER.utterances[0].given


def test_csv_holds_one_row_an_utterance(tmp_path: Path) -> None:
    path = write(tmp_path / "out.csv", [(DINNER, SAID)])
    assert path.read_bytes().decode() == (
        'dialogue_id,turn,speaker,text,emotion,probability,p_neutral,p_joy,"p_sadness, deep"\r\n'
        'dinner-3,0,Ana,"You ""came"",\nat last",joy,0.7,0.1,0.7,0.2\r\n'
        "dinner-3,1,Ben,,,,,,\r\n"
    )


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_nothing_half_written_takes_the_name(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"out.{ending}"
    path.write_text("the last good one")
    with pytest.raises(KeyError), prediction_writer(path, LABELS) as write_one:
        write_one(DINNER, SAID)
        raise KeyError
    assert path.read_text() == "the last good one"
    assert list(tmp_path.iterdir()) == [path]
    with prediction_writer(path, LABELS) as write_one:
        write_one(DINNER, SAID)
        assert path.read_text() == "the last good one", "until the end it stands where it is"
    assert "joy" in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_has_the_usual_permissions(tmp_path: Path) -> None:
    path = write(tmp_path / "out.csv", [])
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(os.stat(path).st_mode) == stat.S_IMODE(os.stat(plain).st_mode)


def test_conversations_are_written_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)  # so that the unfinished file has a name
    with prediction_writer(tmp_path / "out.jsonl", LABELS) as write_one:
        for _ in range(1000):
            write_one(DINNER, SAID)
        (partial,) = tmp_path.iterdir()
        assert partial.stat().st_size > 100_000


@pytest.mark.parametrize("name", ["out.txt", "out", "out.json"])
def test_another_ending_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="expected a file name ending in .csv or .jsonl"):
        write(tmp_path / name, [])
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="out.csv: the folder .*none does not exist"):
        write(tmp_path / "none" / "out.csv", [])


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("said", [SAID[:1], [*SAID, SAID[0]], []])
def test_predictions_must_fit_the_conversation(tmp_path: Path, ending: str, said: list[Prediction]) -> None:
    with pytest.raises(ValueError):
        with_predictions(DINNER, said)
    with pytest.raises(ValueError):
        write(tmp_path / f"out.{ending}", [(DINNER, said)])
    assert not list(tmp_path.iterdir())


def test_explanations_are_written_where_they_were_asked_for() -> None:
    explained = [
        replace(each, explanation={"text": share}) for each, share in zip(SAID, (1.0, 0.5), strict=True)
    ]
    written = with_predictions(DINNER, explained)["utterances"]
    assert [one["explanation"] for one in written] == [{"text": 1.0}, {"text": 0.5}]
    mixed = with_predictions(DINNER, [explained[0], SAID[1]])["utterances"]
    assert [one["explanation"] for one in mixed] == [{"text": 1.0}, None]
    assert all("explanation" not in one for one in with_predictions(DINNER, SAID)["utterances"])


def test_what_was_computed_is_not_written_and_what_was_changed_is(tmp_path: Path) -> None:
    heard, changed = (list(DINNER.utterances) for _ in range(2))
    heard[1] = heard[1].with_fields(audio_features=np.ones(9, np.float32), missing={"audio": "it hissed"})
    changed[0] = changed[0].changed(audio="copy.wav", label=None)
    path = tmp_path / "talk.json"
    write_conversations(path, [replace(DINNER, utterances=heard)])
    assert json.loads(path.read_text("utf-8")) == TALK
    write_conversations(path, [replace(DINNER, utterances=changed)])
    first, second = TALK["utterances"]
    expected = {**TALK, "utterances": [{**first, "audio": "copy.wav", "label": None}, second]}
    assert json.loads(path.read_text("utf-8")) == expected


# Properties

STRINGS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
EXTRAS = st.dictionaries(st.text(max_size=3).map("extra ".__add__), JSON, max_size=2)
UTTERANCES = st.builds(
    lambda extras, **known: {**extras, **known},
    EXTRAS,
    speaker=STRINGS,
    text=STRINGS,
    label=st.none() | STRINGS,
    audio_features=st.none() | st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=3),
)
CONVERSATIONS = st.builds(
    lambda extras, **known: {**extras, **known},
    EXTRAS,
    id=STRINGS,
    utterances=st.lists(UTTERANCES, min_size=1, max_size=3),
)


@settings(max_examples=40, deadline=None)
@given(conversations=st.lists(CONVERSATIONS, min_size=1, max_size=3), data=st.data())
def test_written_lines_read_back_and_agree_with_the_table(
    conversations: list[dict[str, Any]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "in.json").write_text(json.dumps(conversations), "utf-8")
    read = list(read_conversations(folder / "in.json"))
    assert [each.to_dict() for each in read] == conversations
    shares = st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3)
    missing = st.just([math.nan] * 3)
    probabilities = [
        np.array([data.draw(shares | missing) for _ in each.utterances], dtype=np.float32) for each in read
    ]
    answers = [[{"probabilities": row} for row in rows] for rows in probabilities]
    predicted = [(each, predictions_of(each, rows, LABELS)) for each, rows in zip(read, answers, strict=True)]

    again = [each.to_dict() for each in read_conversations(write(folder / "out.jsonl", predicted))]
    without = [
        {
            **each,
            "utterances": [
                {k: v for k, v in u.items() if k not in ("emotion", "scores")} for u in each["utterances"]
            ],
        }
        for each in again
    ]
    assert without == conversations

    rows = [
        {name: cell or "" for name, cell in row.items()}
        for row in read_csv_table(write(folder / "out.csv", predicted)).to_pylist()
    ]
    utterances = [(each, turn, u) for each in again for turn, u in enumerate(each["utterances"])]
    for row, (each, turn, utterance), numbers in zip(
        rows, utterances, np.concatenate(probabilities), strict=True
    ):
        assert (row["dialogue_id"], row["turn"]) == (each["id"], str(turn))
        assert (row["speaker"], row["text"]) == (utterance["speaker"], utterance["text"])
        assert row["emotion"] == (utterance["emotion"] or "")
        if math.isnan(numbers[0]):
            assert utterance["scores"] is None
            assert {row["probability"], *(row[f"p_{label}"] for label in LABELS)} == {""}
        else:
            written = [utterance["scores"][label] for label in LABELS]
            assert written == [float(row[f"p_{label}"]) for label in LABELS]
            assert np.array_equal(np.array(written, dtype=np.float32), numbers), "nothing is rounded"
            assert float(row["probability"]) == max(written) == utterance["scores"][utterance["emotion"]]
