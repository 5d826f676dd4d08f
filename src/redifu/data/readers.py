"""Read conversations from JSON, JSON lines, transcripts, tables and datasets, and validate each one."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from redifu.conversation import Conversation
from redifu.conversation_values import shown_names
from redifu.data.conversation_tables import (
    Check,
    checked,
    conversations_from_dataset,
    conversations_from_table,
    validated,
)
from redifu.data.tables import MANIFEST, read_csv_table, read_parquet, read_shards
from redifu.data.transcripts import conversation_of, utterances_of_transcript
from redifu.data.turn_lines import read_lines

# Transcripts can begin with a bracket, too: of a name or a time.
_JSON = re.compile(r"\s*(?:\{|\[\s*(?:[\[\]{\"]|$))")


def read_conversations(
    path: str | Path,
    *,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    check: Check | None = None,
) -> Iterator[Conversation]:
    """Read the conversations in a file, lazily if the format allows it.

    Args:
        path: .json (one object or a list), .jsonl (one object per line, read line by line), .txt (a
            transcript with one `Speaker: text` per line), .csv or .parquet (one utterance per row, with the
            columns dialogue_id, turn, speaker, ..., or MELD's columns), or a folder with such rows: from
            `redifu extract` or a saved Dataset or DatasetDict. whisperX JSON ("segments") is also read.
        split: a value of the column `split` (in JSON: of the conversation's key "split"), or the split of a
            DatasetDict; None reads all.
        columns: a table's column names by our names, {"text": "Utterance"}; other columns keep their names.
        check: called with each conversation; the file name is added to its ValueError.

    Returns:
        Validated conversations, each with an id, in file order; utterances in a table are sorted by turn.
        Relative media paths are relative to the file's folder.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: invalid input, possibly during iteration; names file, line, dialogue, utterance if known.
    """
    path = Path(path)
    source, folder = str(path), path if path.is_dir() else path.parent
    of_table = partial(
        conversations_from_table, source=source, split=split, columns=columns, check=check, folder=folder
    )
    if not path.exists():
        raise FileNotFoundError(f"{source}: no such file")
    if (path / MANIFEST).is_file():
        return of_table(read_shards(path))
    if path.is_dir():
        import datasets  # imported here because it takes a second

        return conversations_from_dataset(
            datasets.load_from_disk(source),
            source=source,
            split=split,
            columns=columns,
            check=check,
            folder=folder,
        )
    ending = path.suffix.lower()
    if ending in _TABLES:
        return of_table(_TABLES[ending](path))
    if ending not in _OBJECTS:
        endings = ", ".join([*_OBJECTS, *_TABLES])
        raise ValueError(f"{source}: expected a file name ending in one of {endings}, got {ending!r}")
    if columns:
        raise ValueError(f"{source}: columns can be mapped only in tables, got a {ending} file")
    conversations: Iterable[Any] = _OBJECTS[ending](path)
    if split is not None:
        conversations = _of_split(conversations, source=source, split=split)
    return validated(conversations, source=source, check=check, folder=folder)


def is_recording(given: Any) -> bool:
    """Return whether this is the path of a file that holds no conversations, by the ending of its name."""
    return (
        isinstance(given, str | Path)
        and Path(given).is_file()
        and Path(given).suffix.lower() not in (*_OBJECTS, *_TABLES)
    )


def conversation_from_line(
    line: str | bytes, *, source: str, number: int, index: int, check: Check | None = None
) -> Conversation:
    """Read one conversation from a JSON line.

    Args:
        line: one JSON object.
        source: the name of the input, used in errors and in the id of a conversation without one.
        number: line number from 1, used in errors.
        index: index of the conversation from 0, used in a default id.
        check: see `read_conversations`.

    Returns:
        The validated conversation, with an id.

    Raises:
        ValueError: the line is invalid; names the source, line and, if known, dialogue and utterance.
    """
    value = conversation_of(parse_json(line, source=source, first_line=number))
    conversation = Conversation.from_dict(value, source=source, index=index, line=number)
    return checked(conversation, check, source=f"{source}: line {number}")


def conversations_from_text(
    text: str, *, source: str = "text", check: Check | None = None
) -> Iterator[Conversation]:
    """Read pasted text: JSON as in a .json file, or a transcript as in a .txt file.

    Args:
        text: the JSON or transcript.
        source: the name to use in errors.
        check: see `read_conversations`.

    Returns:
        Validated conversations, each with an id.

    Raises:
        ValueError: invalid text, possibly during iteration; names the line or dialogue and utterance.
    """
    if _JSON.match(text):
        values = _conversations_of(parse_json(text, source=source))
    else:
        values = [{"utterances": utterances_of_transcript(text.split("\n"), source=source)}]
    return validated(values, source=source, check=check, folder="")


def _of_split(objects: Iterable[Any], *, source: str, split: str) -> Iterator[Any]:
    """Yield the objects of a split; default ids count the objects of all splits."""
    found: dict[str, None] = {}
    for index, each in enumerate(objects):
        if not isinstance(each, dict):
            yield each  # validation of the conversation reports it
            continue
        if each.get("split") is not None:
            found[str(each["split"])] = None
        if each.get("split") == split:
            yield each if each.get("id") is not None else {**each, "id": f"{Path(source).stem}-{index}"}
    if split not in found:
        one_of = f"expected one of {shown_names(found)}" if found else "no conversation has a split"
        raise ValueError(f"{source}: unknown split {split!r}; {one_of}")


def _objects_of_json(path: Path) -> Iterator[Any]:
    text = path.read_bytes()
    if text.strip():
        yield from _conversations_of(parse_json(text, source=str(path)))


def _conversations_of(value: Any) -> list[Any]:
    """Return the conversations in a JSON file, which holds one object or a list."""
    content = conversation_of(value)
    return [conversation_of(each) for each in content] if isinstance(content, list) else [content]


def _objects_of_jsonl(path: Path) -> Iterator[Any]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield conversation_of(parse_json(line, source=str(path), first_line=number))


def _objects_of_txt(path: Path) -> Iterator[Any]:
    if utterances := utterances_of_transcript(read_lines(path), source=str(path)):
        yield {"id": path.stem, "utterances": utterances}


def parse_json(text: str | bytes, *, source: str, first_line: int = 1) -> Any:
    """Read a JSON value.

    Raises:
        ValueError: it is none; naming the source and the line, counted from `first_line`.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line, reason = error.lineno, f"{error.msg} at column {error.colno}"
    except UnicodeDecodeError as error:
        line, reason = error.object.count(b"\n", 0, error.start) + 1, "the text is not UTF-8"
    except (ValueError, RecursionError) as error:  # a number or a nesting beyond Python's limits
        line, reason = 1, str(error)
    raise ValueError(f"{source}: line {first_line + line - 1}: not JSON: {reason}")


_OBJECTS = {".json": _objects_of_json, ".jsonl": _objects_of_jsonl, ".txt": _objects_of_txt}
_TABLES = {".csv": read_csv_table, ".parquet": read_parquet}
