import csv
import json
import unicodedata
from collections.abc import Callable, Iterable
from datetime import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redifu.conversation import FEATURES, Conversation
from redifu.data.conversation_tables import COLUMNS as READ_COLUMNS
from redifu.data.readers import conversation_from_line, conversations_from_dataset, read_conversations

TALK: list[dict[str, Any]] = [
    {
        "id": "b",
        "utterances": [
            {"speaker": "None", "text": "NA", "start": 0.5, "end": 1.25, "label": "joy"},
            {"speaker": "Ana", "text": 'a "b", c\nd', "text_features": [0.5, -1.0], "mood": "own"},
        ],
    },
    {"id": "007", "utterances": [{"speaker": "Ana", "audio": "clips/0.wav", "audio_features": [1.0]}]},
]
COLUMNS = ["dialogue_id", "turn", "speaker", "text", "audio", "start", "end", "label"]
COLUMNS += ["text_features", "audio_features", "mood"]


def as_given(conversations: Iterable[Conversation]) -> list[dict[str, Any]]:
    """What the conversations hold as JSON; their fields must hold the same."""
    written = []
    for each in conversations:
        written.append(each.to_dict())
        assert each.id == written[-1]["id"]
        for one, value in zip(each.utterances, written[-1]["utterances"], strict=True):
            for name in ("speaker", "text", "audio", "video", "start", "end", "label"):
                assert getattr(one, name) == value.get(name), name
            for name in FEATURES:
                values = getattr(one, name)
                expected = None if value.get(name) is None else np.float32(value[name]).tolist()
                assert (None if values is None else values.tolist()) == expected, name
    return written


def rows_of(conversations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row an utterance; turns are 0, 10, 20, so that they sort otherwise as strings than as numbers."""
    return [
        {"dialogue_id": conversation["id"], "turn": 2 + 10 * turn, **utterance}
        for conversation in conversations
        for turn, utterance in enumerate(conversation["utterances"])
    ]


def numbered(conversations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversations with the turns of `rows_of`, which utterances of a table keep."""
    return [
        {
            **each,
            "utterances": [{**one, "turn": 2 + 10 * turn} for turn, one in enumerate(each["utterances"])],
        }
        for each in conversations
    ]


def write_csv(path: Path, rows: list[dict[str, Any]], columns: list[str] = COLUMNS) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in rows:
            cells = {name: json.dumps(v) if isinstance(v, list) else v for name, v in row.items()}
            writer.writerow(cells)
    return path


def write(path: Path, conversations: list[dict[str, Any]]) -> Path:
    """The same conversations in the format of the ending."""
    if path.suffix == ".json":
        path.write_text(json.dumps(conversations), "utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(each) + "\n\n" for each in conversations), "utf-8")
    elif path.suffix == ".csv":
        write_csv(path, rows_of(conversations))
    else:
        pd.DataFrame(rows_of(conversations), columns=COLUMNS).to_parquet(path)
    return path


@pytest.mark.parametrize("name", ["talk.json", "talk.jsonl", "talk.csv", "talk.parquet", "TALK.JSON"])
def test_every_format_gives_the_same_conversations(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name.lower(), TALK).rename(tmp_path / name)
    for source in (path, str(path)):
        conversations = list(read_conversations(source))
        in_table = path.suffix in (".csv", ".parquet")
        assert as_given(conversations) == (numbered(TALK) if in_table else TALK)
        assert {each.folder for each in conversations} == {tmp_path}


def test_a_json_file_may_hold_one_object_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"utterances": TALK[0]["utterances"]}), "utf-8-sig")
    assert as_given(read_conversations(path)) == [{**TALK[0], "id": "one-0"}]


def test_ids_of_json_lines_count_objects_not_lines(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    line = json.dumps({"utterances": TALK[0]["utterances"]})
    path.write_text(f"\n{line}\n\n{line}\n", "utf-8")
    assert [each.id for each in read_conversations(path)] == ["talk-0", "talk-1"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("[", "stdin: line 7: not JSON: "),
        ("[]", "stdin: line 7: conversation 3: expected an object"),
        ('{"id": "d"}', "stdin: line 7: dialogue d: expected a non-empty list"),
        (json.dumps({**TALK[0], "id": "d"}), "stdin: line 7: d does not fit"),
    ],
)
def test_a_wrong_line_is_named_by_its_number(line: str, complaint: str) -> None:
    def check(conversation: Conversation) -> None:
        raise ValueError(f"{conversation.id} does not fit")

    with pytest.raises(ValueError) as error:
        conversation_from_line(line, source="stdin", number=7, index=3, check=check)
    assert str(error.value).startswith(complaint)


def test_a_line_without_an_id_is_named_after_its_place() -> None:
    line = json.dumps({"utterances": TALK[0]["utterances"]})
    assert conversation_from_line(line, source="stdin", number=7, index=3).id == "stdin-3"


def test_json_lines_are_read_one_by_one(tmp_path: Path) -> None:
    # The mistake at the end of the file is met only after all that stands before it.
    path = tmp_path / "long.jsonl"
    path.write_text((json.dumps(TALK[0]) + "\n") * 10_000 + "oops\n", "utf-8")
    reader = read_conversations(path)
    assert next(reader).to_dict() == TALK[0]
    with pytest.raises(ValueError, match="long.jsonl: line 10001: not JSON"):
        list(reader)


def test_one_conversation_is_checked_before_the_next_is_read(tmp_path: Path) -> None:
    seen: list[Conversation] = []
    reader = read_conversations(write(tmp_path / "talk.jsonl", TALK), check=seen.append)
    first = next(reader)
    assert first.to_dict() == TALK[0]
    assert [each is first for each in seen] == [True]


@pytest.mark.parametrize("ending", ["json", "jsonl", "csv", "parquet"])
def test_a_check_that_fails_gets_the_name_of_the_file(tmp_path: Path, ending: str) -> None:
    def check(conversation: Conversation) -> None:
        raise ValueError(f"dialogue {conversation.id}, utterance 1: no")

    path = write(tmp_path / f"talk.{ending}", TALK)
    with pytest.raises(ValueError) as error:
        list(read_conversations(path, check=check))
    assert str(error.value) == f"{path}: dialogue b, utterance 1: no"


# Bad input


@pytest.mark.parametrize("ending", ["json", "jsonl", "csv", "parquet"])
def test_a_missing_file_is_named_at_once(tmp_path: Path, ending: str) -> None:
    with pytest.raises(FileNotFoundError) as error:
        read_conversations(tmp_path / f"none.{ending}")
    assert str(error.value) == f"{tmp_path / f'none.{ending}'}: no such file"


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        (
            "a.json",
            b'{"utterances": [\n{"speaker" "Ana"}]}',
            "line 2: not JSON: Expecting ':' delimiter at column",
        ),
        ("a.json", b"[\n\n\xff]", "line 3: not JSON: the text is not UTF-8"),
        ("a.json", b"[" * 100_000, "line 1: not JSON: "),
        ("a.json", b"[" + b"9" * 5000 + b"]", "line 1: not JSON: "),
        ("a.json", b"", "expected at least one conversation, got none"),
        ("a.json", b" \n", "expected at least one conversation, got none"),
        ("a.json", b"[]", "expected at least one conversation, got none"),
        ("a.json", b'"hello"', "conversation 0: expected an object, got 'hello'"),
        ("a.jsonl", b"\n", "expected at least one conversation, got none"),
        ("a.jsonl", b"\n\nspeaker: Ana\n", "line 3: not JSON: Expecting value at column 1"),
        ("a.jsonl", b"\n\xff\n", "line 2: not JSON: the text is not UTF-8"),
        ("a.jsonl", b'{"utterances": []}', "dialogue a-0: expected a non-empty list of utterances, got []"),
        ("a.csv", b"", "not a CSV table: No columns to parse from file"),
        ("a.csv", b"dialogue_id,speaker,text\n1,A\xff,b\n", "line 2: the text is neither UTF-8 nor UTF-16"),
        ("a.csv", b"dialogue_id,speaker,text\n1,A,b\n1,A,Oh, no\n", "line 3: expected 3 cells, got 4"),
        (
            "a.csv",
            b"dialogue_id,speaker,text\n1,A,Oh, no\n",
            "line 2: expected 3 cells, got 4",
        ),
        ("a.csv", b"dialogue_id,speaker,text\n", "expected at least one conversation, got none"),
        ("a.csv", b"dialogue_id,text\n1,b\n", "missing columns: speaker; found: dialogue_id, text"),
        ("a.csv", b"name,text\n1,b\n", "missing columns: dialogue_id, speaker; found: name, text"),
        (
            "a.csv",
            b"dialogue_id,speaker,text\n1,A,b\n,A,b\n",
            "row 2: dialogue_id: expected a value, got an empty cell",
        ),
        ("a.csv", b"dialogue_id,turn,speaker,text\n1,two,A,b\n", "row 1: turn: expected a number, got 'two'"),
        (
            "a.csv",
            b"dialogue_id,speaker,text\n1,A,b\n1,,b\n",
            "dialogue 1, utterance 1: speaker: expected a non-empty string",
        ),
        (
            "a.csv",
            b"dialogue_id,speaker,text\n1,A,\n",
            "dialogue 1, utterance 0: expected at least one of text, audio",
        ),
        (
            "a.csv",
            b"dialogue_id,speaker,text,start\n1,A,b,x\n",
            "dialogue 1, utterance 0: start: expected a number of seconds",
        ),
        (
            "a.csv",
            b"dialogue_id,speaker,text_features\n1,A,0.5 1\n",
            "dialogue 1, utterance 0: text_features: expected a",
        ),
        (
            "a.csv",
            b"dialogue_id,speaker,text_features\n1,A,[NaN]\n",
            "dialogue 1, utterance 0: text_features: expected f",
        ),
        (
            "a.csv",
            b"dialogue_id,speaker,text_features\n1,A," + b"[" * 100_000,
            "dialogue 1, utterance 0: text_features: expected a non-empty list of numbers, got '[[[[",
        ),
        ("a.txt", b"", "expected at least one conversation, got none"),
        ("a.txt", b"Ana: hi\nand so on\n", "line 2: expected 'Speaker: text', got 'and so on'"),
        ("a.txt", b"https://example.org: look", "line 1: expected 'Speaker: text', got 'https"),
        ("a.txt", b"\nAna: caf\xe9", "line 2: the text is neither UTF-8 nor UTF-16"),
        ("a.json", b'{"segments": []}', "dialogue a-0: expected a non-empty list of utterances, got []"),
        (
            "a.json",
            b'{"segments": [{"text": "hi", "start": 1, "end": 1}]}',
            "dialogue a-0, utterance 0: end: expected a time after start 1",
        ),
        ("a.json", b'{"segments": [1]}', "dialogue a-0, utterance 0: expected an object, got 1"),
        ("a.csv", b"\x1b[31m", "missing columns: dialogue_id, speaker; found: '\\x1b[31m'"),
        ("a.parquet", b"PAR1", "not a Parquet file: "),
        (
            "a.md",
            b"Ana: hi",
            "expected a file name ending in one of .json, .jsonl, .txt, .csv, .parquet, got '.md'",
        ),
    ],
)
def test_a_bad_file_gets_one_clear_line(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        list(read_conversations(path))
    assert str(error.value).startswith(f"{path}: {complaint}")
    assert str(error.value).isprintable()


@pytest.mark.parametrize("ending", ["json", "jsonl"])
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_features_that_are_not_finite_are_refused(tmp_path: Path, ending: str, number: str) -> None:
    path = tmp_path / f"talk.{ending}"
    path.write_text(f'{{"id": "d", "utterances": [{{"speaker": "A", "audio_features": [0.5, {number}]}}]}}')
    with pytest.raises(ValueError, match="dialogue d, utterance 0: audio_features: expected finite numbers"):
        list(read_conversations(path))


def test_a_folder_without_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="neither a `Dataset` directory nor a `DatasetDict`"):
        read_conversations(tmp_path)


# Transcripts


def test_a_transcript_is_one_conversation(tmp_path: Path) -> None:
    path = tmp_path / "dinner.txt"
    path.write_text("Ana: Hi: you?\n\n  小明：你好 \r\n", "utf-8-sig")
    said = [{"speaker": "Ana", "text": "Hi: you?"}, {"speaker": "小明", "text": "你好"}]
    assert as_given(read_conversations(path)) == [{"id": "dinner", "utterances": said}]


SEGMENTS = [
    {"start": 0.5, "end": 1.0, "text": " Hi  there.", "speaker": "SPEAKER_00", "words": []},
    {"start": 1.0, "end": 2.0, "text": " Hello."},
    {"start": 2.0, "end": 2.5, "text": " "},
]
SAID = [
    {"speaker": "SPEAKER_00", "text": "Hi there.", "start": 0.5, "end": 1.0},
    {"speaker": "unknown", "text": "Hello.", "start": 1.0, "end": 2.0},
]


@pytest.mark.parametrize(
    ("name", "content", "ids"),
    [
        ("a.json", {"segments": SEGMENTS, "word_segments": [], "language": "en"}, ["a-0"]),
        ("a.json", SEGMENTS, ["a-0"]),
        ("a.json", [{"segments": SEGMENTS}, {"id": "b", "segments": SEGMENTS}], ["a-0", "b"]),
        ("a.jsonl", {"id": "b", "segments": SEGMENTS}, ["b"]),
    ],
)
def test_segments_of_whisperx_are_utterances(tmp_path: Path, name: str, content: Any, ids: list[str]) -> None:
    path = tmp_path / name
    path.write_text(json.dumps(content), "utf-8")
    assert as_given(read_conversations(path)) == [{"id": each, "utterances": SAID} for each in ids]


# Tables


def test_rows_are_grouped_by_first_appearance_and_sorted_by_turn(tmp_path: Path) -> None:
    order = [("z", 10), ("a", 1), ("z", 9), ("a", 0), ("z", 100)]
    rows = [{"dialogue_id": d, "turn": t, "speaker": "A", "text": f"{d}{t}"} for d, t in order]
    path = write_csv(tmp_path / "talk.csv", rows, ["dialogue_id", "turn", "speaker", "text"])
    read = [[each.id, *(u.text for u in each.utterances)] for each in read_conversations(path)]
    assert read == [["z", "z9", "z10", "z100"], ["a", "a0", "a1"]]


def test_without_turns_the_rows_keep_their_order(tmp_path: Path) -> None:
    rows = [{"dialogue_id": 1, "speaker": "A", "text": text} for text in "zaq"]
    path = write_csv(tmp_path / "talk.csv", rows, ["dialogue_id", "speaker", "text"])
    assert [u.text for u in next(read_conversations(path)).utterances] == list("zaq")


def test_a_split_selects_rows_and_separates_dialogues(tmp_path: Path) -> None:
    columns = ["split", "dialogue_id", "speaker", "text"]
    rows = [{"split": s, "dialogue_id": 0, "speaker": "A", "text": s} for s in ("train", "dev", "train")]
    path = write_csv(tmp_path / "talk.csv", rows, columns)
    texts = [[u.text for u in each.utterances] for each in read_conversations(path)]
    assert texts == [["train", "train"], ["dev"]]
    assert [len(each.utterances) for each in read_conversations(path, split="train")] == [2]
    with pytest.raises(ValueError, match=r"talk.csv: unknown split 'test'; expected one of train, dev"):
        list(read_conversations(path, split="test"))


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_a_split_selects_conversations_of_a_json_file(tmp_path: Path, ending: str) -> None:
    utterances = TALK[0]["utterances"]
    talks = [{"split": split, "utterances": utterances} for split in ("train", "dev", "train")]
    path = write(tmp_path / f"talk.{ending}", talks)
    # An id that follows from the place in the file is the same whatever is selected.
    assert [each.id for each in read_conversations(path, split="train")] == ["talk-0", "talk-2"]
    assert len(list(read_conversations(path))) == 3
    with pytest.raises(ValueError, match=r"unknown split 'test'; expected one of train, dev"):
        list(read_conversations(path, split="test"))


def test_a_split_that_cannot_be_chosen_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="talk.json: unknown split 'dev'; no conversation has a split"):
        list(read_conversations(write(tmp_path / "talk.json", TALK), split="dev"))
    with pytest.raises(ValueError, match="missing columns: split; found: dialogue_id, turn"):
        list(read_conversations(write(tmp_path / "talk.csv", TALK), split="dev"))


def test_a_table_without_dialogues_is_one_conversation(tmp_path: Path) -> None:
    path = tmp_path / "dinner.csv"
    path.write_text("speaker,text\nAna,Hi.\nBen,Hello.\n", "utf-8")
    said = [{"speaker": "Ana", "text": "Hi."}, {"speaker": "Ben", "text": "Hello."}]
    assert as_given(read_conversations(path)) == [{"id": "dinner", "utterances": said}]


def test_a_table_without_dialogues_may_have_turns_and_splits(tmp_path: Path) -> None:
    path = tmp_path / "dinner.csv"
    path.write_text("split,turn,speaker,text\na,2,Ana,3\na,1,Ben,2\nb,1,Ana,1\n", "utf-8")
    read = [(each.id, [one.text for one in each.utterances]) for each in read_conversations(path)]
    assert read == [("dinner", ["2", "3"]), ("dinner", ["1"])]


def test_dialogues_under_a_name_of_its_own_are_not_joined_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "calls.csv"
    path.write_text("call,speaker,text\n1,Ana,Hi.\n2,Ben,Hello.\n", "utf-8")
    with pytest.raises(ValueError, match=r"missing columns: dialogue_id; found: call, speaker, text; map"):
        list(read_conversations(path))
    named = read_conversations(path, columns={"dialogue_id": "call"})
    assert [each.id for each in named] == ["1", "2"]


OWN_NAMES = {"dialogue_id": "call", "speaker": "who", "text": "Utterance", "label": "feels", "turn": "no"}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_columns_map_the_names_of_a_table(tmp_path: Path, ending: str) -> None:
    import datasets

    path = write(tmp_path / f"talk.{ending}", TALK)
    read = partial(pd.read_csv, keep_default_na=False) if ending == "csv" else pd.read_parquet
    frame = read(path)
    frame = frame.rename(columns=OWN_NAMES).assign(text="not this one")
    own = tmp_path / f"own.{ending}"
    frame.to_csv(own, index=False) if ending == "csv" else frame.to_parquet(own)
    expected = as_given(read_conversations(path))
    assert as_given(read_conversations(own, columns=OWN_NAMES)) == expected
    if ending == "parquet":
        dataset = datasets.Dataset.from_pandas(frame)
        assert as_given(conversations_from_dataset(dataset, columns=OWN_NAMES)) == numbered(TALK)


def test_columns_may_swap_names(tmp_path: Path) -> None:
    path = tmp_path / "swapped.csv"
    path.write_text("text,speaker\nAna,Hi.\n", "utf-8")
    (read,) = read_conversations(path, columns={"text": "speaker", "speaker": "text"})
    assert as_given([read])[0]["utterances"] == [{"speaker": "Ana", "text": "Hi."}]


@pytest.mark.parametrize(
    ("name", "columns", "complaint"),
    [
        ("a.csv", {"text": "Words"}, "missing columns: Words; found: speaker, text"),
        (
            "a.csv",
            {"words": "text"},
            f"unknown names: words; expected: {', '.join(READ_COLUMNS)}",
        ),
        ("a.csv", {"text": "text", "label": "text"}, "expected distinct columns, got text, text"),
        ("a.json", {"text": "Words"}, "columns can be mapped only in tables, got a .json file"),
    ],
)
def test_columns_that_cannot_be_mapped_are_refused(
    tmp_path: Path, name: str, columns: dict[str, str], complaint: str
) -> None:
    path = tmp_path / name
    path.write_text("speaker,text\nAna,Hi.\n", "utf-8")
    with pytest.raises(ValueError) as error:
        list(read_conversations(path, columns=columns))
    assert str(error.value) == f"{path}: {complaint}"


@pytest.mark.parametrize(
    ("cell", "expected"),
    [("2", 2.0), ("1:02", 62.0), ("01:02:03", 3723.0), ("0:00:01.25", 1.25), ("00:00:01,5", 1.5)],
)
def test_times_of_a_table_may_be_clock_times(tmp_path: Path, cell: str, expected: float) -> None:
    path = tmp_path / "clock.csv"
    path.write_text(f'speaker,text,start,end\nAna,Hi.,"{cell}",9:00:00\n', "utf-8")
    (read,) = read_conversations(path)
    said = {"speaker": "Ana", "text": "Hi.", "start": expected, "end": 32400.0}
    assert as_given([read])[0]["utterances"] == [said]


def test_times_of_a_parquet_file_may_be_times_of_a_clock(tmp_path: Path) -> None:
    times = {"start": [time(0, 0, 1, 500_000)], "end": [time(1, 1, 1)]}
    pd.DataFrame({"speaker": ["Ana"], "text": ["Hi."], **times}).to_parquet(tmp_path / "timed.parquet")
    (read,) = read_conversations(tmp_path / "timed.parquet")
    (utterance,) = as_given([read])[0]["utterances"]
    assert [utterance[name] for name in ("start", "end")] == [1.5, 3661.0]


def test_a_dataset_reads_as_the_table_it_holds(tmp_path: Path) -> None:
    import datasets

    table = datasets.Dataset.from_pandas(pd.DataFrame(rows_of(TALK), columns=COLUMNS))
    assert as_given(conversations_from_dataset(table)) == numbered(TALK)
    # A selection is kept as indices, which reading must follow.
    assert as_given(conversations_from_dataset(table.select([2]))) == numbered(TALK)[1:]
    both = datasets.DatasetDict(train=table, test=table.select([2]))
    both.save_to_disk(tmp_path / "both")
    table.save_to_disk(tmp_path / "one")
    for name, split, expected in (("one", None, numbered(TALK)), ("both", "test", numbered(TALK)[1:])):
        conversations = list(read_conversations(tmp_path / name, split=split))
        assert conversations[-1].folder == tmp_path / name
        assert as_given(conversations) == expected
    with pytest.raises(ValueError, match="both: expected one of the splits train, test, got None"):
        read_conversations(tmp_path / "both")


def test_class_labels_of_a_dataset_become_their_names() -> None:
    import datasets

    rows = {"dialogue_id": [3, 3, 3], "speaker": ["A"] * 3, "text": list("abc"), "label": [1, None, -1]}
    features = datasets.Features(
        dialogue_id=datasets.Value("int64"),
        speaker=datasets.Value("string"),
        text=datasets.Value("string"),
        label=datasets.ClassLabel(names=["anger", "joy"]),
    )
    (read,) = conversations_from_dataset(datasets.Dataset.from_dict(rows, features=features))
    assert read.id == "3"
    assert [u.label for u in read.utterances] == ["joy", None, None]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_texts_of_bytes_are_decoded(tmp_path: Path, ending: str) -> None:
    texts = ["caf\u00e9 b'x'", 'it\'s "b"', "two\nlines", None]
    said = {"text": texts, "speaker": ["Zo\u00eb"] * 4, "label": ["joy"] * 4, "note": ["b'a'", "b"] * 2}
    encoded = {
        name: [None if each is None else each.encode() for each in column]
        if name in ("text", "speaker")
        else column
        for name, column in said.items()
    }
    frame = pd.DataFrame({**encoded, "dialogue_id": "d", "audio": "a.wav"})
    path = tmp_path / f"talk.{ending}"
    frame.to_csv(path, index=False) if ending == "csv" else frame.to_parquet(path)
    (read,) = read_conversations(path)
    assert [one.text for one in read.utterances] == texts
    assert {one.speaker for one in read.utterances} == {"Zo\u00eb"}
    # A column that holds other cells as well means what it says.
    assert [one.given["note"] for one in read.utterances] == said["note"]


def test_bytes_of_another_encoding_are_named(tmp_path: Path) -> None:
    path = tmp_path / "talk.csv"
    path.write_text("speaker,text\nAna,b'caf\\xe9'\n", "utf-8")
    with pytest.raises(ValueError) as error:
        list(read_conversations(path))
    assert str(error.value).startswith(f"{path}: text: expected text or bytes in UTF-8: ")


@pytest.mark.parametrize(
    ("name", "cell", "complaint"),
    [
        ("dialogue_id", {"a": 1}, "dialogue_id: expected text or numbers, got a column of struct<a: int64>"),
        ("turn", [1, 2], "turn: expected text or numbers, got a column of list<"),
        ("turn", pd.Timedelta(1, "s"), "turn: expected text or numbers, got a column of duration["),
        ("split", {"a": 1}, "split: expected text or numbers, got a column of struct<a: int64>"),
        ("speaker", {"a": 1}, "dialogue d, utterance 0: speaker: expected a non-empty string, got {'a': 1}"),
        ("text", [1, 2], "dialogue d, utterance 0: text: expected a non-empty string, got [1, 2]"),
        ("label", [1], "dialogue d, utterance 0: label: expected a non-empty string, got [1]"),
        ("start", {"a": 1}, "dialogue d, utterance 0: start: expected a number of seconds"),
        ("end", pd.Timestamp(0), "dialogue d, utterance 0: end: expected a number of seconds"),
        ("audio", [1], "dialogue d, utterance 0: audio: expected a non-empty string, got [1]"),
        ("text_features", {"a": 1}, "dialogue d, utterance 0: text_features: expected a non-empty list"),
    ],
)
def test_a_column_of_another_type_gets_one_line(tmp_path: Path, name: str, cell: Any, complaint: str) -> None:
    row = {"dialogue_id": "d", "turn": 0, "speaker": "Ana", "text": "Hi.", name: cell}
    path = tmp_path / "talk.parquet"
    pd.DataFrame([row]).to_parquet(path)
    with pytest.raises(ValueError) as error:
        list(read_conversations(path))
    assert str(error.value).startswith(f"{path}: {complaint}")
    assert str(error.value).isprintable()


@pytest.mark.parametrize("cell", [{"a": 1}, [1], pd.Timedelta(1, "s"), pd.Timestamp(0), b"x", 1.5, True])
def test_other_columns_may_have_any_type(tmp_path: Path, cell: Any) -> None:
    row = {"dialogue_id": "d", "turn": 0, "speaker": "Ana", "text": "Hi.", "mood": cell, "missing": cell}
    path = tmp_path / "talk.parquet"
    pd.DataFrame([row]).to_parquet(path)
    (read,) = read_conversations(path)
    assert {"mood", "missing"} <= read.utterances[0].given.keys()
    assert ("mood" in read.columns) == (not isinstance(cell, dict | list))


def test_categories_are_read_as_their_names(tmp_path: Path) -> None:
    said = {"dialogue_id": ["b", "a"], "speaker": ["Ana", "Ben"], "text": ["Hi.", "Yes."]}
    frame = pd.DataFrame(said).astype("category")
    frame["dialogue_id"] = frame["dialogue_id"].cat.add_categories(["unused"])
    frame.to_parquet(tmp_path / "talk.parquet")
    assert [each.id for each in read_conversations(tmp_path / "talk.parquet")] == ["b", "a"]


@pytest.mark.parametrize(
    "manifest",
    [
        "[" * 100_000,
        "[]",
        '{"shards": []}',
        '{"shards": [{"file": 5}]}',
        '{"shards": [{"file": "../part.parquet"}]}',
        '{"shards": [{"file": "none.parquet"}]}',
        '{"shards": [{"file": "part.parquet"}, {"file": "other.parquet"}]}',
        '{"shards": {"file": "part.parquet"}}',
        "\x00",
    ],
)
def test_an_odd_manifest_gets_one_line(tmp_path: Path, manifest: str) -> None:
    folder = tmp_path / "features"
    folder.mkdir()
    row = {"dialogue_id": ["d"], "speaker": ["Ana"], "text": ["Hi."]}
    for path in (folder / "part.parquet", tmp_path / "part.parquet"):
        pd.DataFrame(row).to_parquet(path)
    pd.DataFrame({**row, "text": [1]}).to_parquet(folder / "other.parquet")
    (folder / "manifest.json").write_text(manifest, "utf-8")
    with pytest.raises(ValueError) as error:
        list(read_conversations(folder))
    assert str(error.value).startswith(str(folder))
    assert str(error.value).isprintable()


# MELD

MELD_HEADER = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
)


def control_characters(conversations: list[Conversation]) -> list[str]:
    strings = [text for each in conversations for u in each.utterances for text in (u.text, u.speaker)]
    return [text for text in strings if any(unicodedata.category(character) == "Cc" for character in text)]


@pytest.mark.parametrize(
    ("split", "dialogues", "utterances"), [("train", 1038, 9989), ("dev", 114, 1109), ("test", 280, 2610)]
)
def test_meld_is_read_whole(test_data: Path, split: str, dialogues: int, utterances: int) -> None:
    path = test_data / "data" / "meld" / f"{split}.csv"
    read = list(read_conversations(path))
    assert len(read) == dialogues
    assert sum(len(each.utterances) for each in read) == utterances
    assert not control_characters(read)
    with path.open(encoding="utf-8", newline="") as file:
        rows = {(row["Dialogue_ID"], int(row["Utterance_ID"])): row for row in csv.DictReader(file)}
    turns: dict[str, list[int]] = {each.id: [] for each in read}
    for dialogue, turn in sorted(rows):
        turns[dialogue].append(turn)
    for each in read:
        for turn, utterance in zip(turns[each.id], each.utterances, strict=True):
            row = rows[each.id, turn]
            assert (utterance.speaker, utterance.text) == (row["Speaker"], row["Utterance"])
            assert (utterance.label, utterance.given["sentiment"]) == (row["Emotion"], row["Sentiment"])
            assert utterance.start is None and "start" not in utterance.given
            assert utterance.end is None and "end" not in utterance.given


def test_the_control_characters_of_meld_are_repaired(tmp_path: Path) -> None:
    path = tmp_path / "meld.csv"
    words = '"I\x92m \x93here\x94\x85 a\x81b caf\xe9",Fran\x9aa'
    row = f'1,{words},joy,positive,5,0,4,7,"00:20:57,256","00:21:00,049"'
    path.write_text(f"{MELD_HEADER}\n{row}\n", "utf-8")
    (read,) = read_conversations(path)
    (utterance,) = read.utterances
    assert (read.id, utterance.text, utterance.speaker) == ("5", "I’m “here”… ab café", "Franša")
    assert not control_characters([read])


def test_columns_of_meld_win_over_columns_that_have_our_names_already(tmp_path: Path) -> None:
    path = tmp_path / "meld.csv"
    rows = [
        "Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID,turn,text",
        "b,Ana,joy,0,1,0,x",
        "a,Ben,fear,0,0,1,y",
    ]
    path.write_text("\n".join(rows), encoding="utf-8")
    (dialogue,) = read_conversations(path)
    assert [(one.text, one.label) for one in dialogue.utterances] == [("a", "fear"), ("b", "joy")]


def test_meld_may_come_without_labels(tmp_path: Path) -> None:
    path = tmp_path / "meld.csv"
    path.write_text("Utterance,Speaker,Dialogue_ID,Utterance_ID\nb,Ross,0,1\na,Joey,0,0\n", "utf-8")
    expected = [{"text": "a", "speaker": "Joey", "turn": 0}, {"text": "b", "speaker": "Ross", "turn": 1}]
    assert as_given(read_conversations(path)) == [{"id": "0", "utterances": expected}]


def test_mosi_features_are_read(test_data: Path) -> None:
    path = test_data / "data" / "mosi" / "utterances.parquet"
    train, test = (list(read_conversations(path, split=split)) for split in ("train", "test"))
    assert [(len(part), sum(len(each.utterances) for each in part)) for part in (train, test)] == [
        (62, 1447),
        (31, 752),
    ]
    assert {each.id for each in read_conversations(path)} == {each.id for each in train + test}
    table = pd.read_parquet(path).set_index(["dialogue_id", "turn"]).sort_index()
    for each in test[:3]:
        for utterance, (_, row) in zip(each.utterances, table.loc[each.id].iterrows(), strict=True):
            assert utterance.label == str(row["label"])
            for name, size in (("text_features", 100), ("audio_features", 73), ("visual_features", 100)):
                assert utterance.given[name] == row[name].tolist()
                values = getattr(utterance, name)
                assert values.shape == (size,) and np.array_equal(values, row[name])


# Properties

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
NAMES = st.text(st.characters(categories=["L", "N"]), min_size=1).map(partial(unicodedata.normalize, "NFC"))
NUMBERS = st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=3)


@st.composite
def table_rows(draw: Callable[..., Any]) -> list[dict[str, Any]]:
    ids = draw(st.lists(TEXT, min_size=1, max_size=3, unique=True))
    rows = []
    for identifier in ids:
        for turn in draw(st.lists(st.integers(-5, 200), min_size=1, max_size=4, unique=True)):
            streams = {"text": draw(TEXT), "text_features": draw(st.none() | NUMBERS)}
            rows.append({"dialogue_id": identifier, "turn": turn, "speaker": draw(NAMES), **streams})
    return draw(st.permutations(rows))


@settings(max_examples=40, deadline=None)
@given(rows=table_rows())
def test_any_table_gives_every_row_once_in_its_place(
    rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    columns = ["dialogue_id", "turn", "speaker", "text", "text_features"]
    path = write_csv(tmp_path_factory.getbasetemp() / "any.csv", rows, columns)
    expected: dict[str, list[dict[str, Any]]] = {row["dialogue_id"]: [] for row in rows}
    for row in sorted(rows, key=lambda row: row["turn"]):
        kept = {name: row[name] for name in columns[1:] if row[name] is not None}
        expected[row["dialogue_id"]].append(kept)
    read = [(each["id"], each["utterances"]) for each in as_given(read_conversations(path))]
    assert read == list(expected.items())


def test_an_empty_cell_of_a_column_of_floats_is_absent(tmp_path: Path) -> None:
    rows = [{"dialogue_id": "d", "turn": turn, "speaker": "Ana", "text": "Hi"} for turn in range(2)]
    frame = pd.DataFrame(rows).assign(age=[31.0, float("nan")])
    frame.to_parquet(tmp_path / "ages.parquet")
    frame.to_csv(tmp_path / "ages.csv", index=False)
    for name in ("ages.parquet", "ages.csv"):
        (conversation,) = read_conversations(tmp_path / name)
        assert ["age" in one.given for one in conversation.utterances] == [True, False]


def test_columns_named_like_what_speech_recognition_finds_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "talk.csv"
    path.write_text("speaker,text,dialogue_id,words,overlap\nAna,So.,d,two words,7\n", encoding="utf-8")
    (ana,) = next(read_conversations(path)).utterances
    assert (ana.words, ana.overlap, ana.given) == (None, None, {"speaker": "Ana", "text": "So."})
