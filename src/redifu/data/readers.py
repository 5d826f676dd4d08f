"""Read conversations from JSON, JSON lines, transcripts, tables and datasets, and validate each one."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from redifu.conversation import FEATURES, STREAMS, Conversation, shown, shown_names
from redifu.data.tables import MANIFEST, read_csv_table, read_parquet, read_shards
from redifu.data.transcripts import conversation_of, utterances_of_transcript
from redifu.data.turn_lines import read_lines, seconds

Check = Callable[[Conversation], None]

# The columns of MELD's CSV files. StartTime and EndTime refer to the full episode, which is not distributed,
# so they do not become start and end.
MELD_COLUMNS = {
    "Utterance": "text",
    "Speaker": "speaker",
    "Emotion": "label",
    "Sentiment": "sentiment",
    "Dialogue_ID": "dialogue_id",
    "Utterance_ID": "turn",
}
MELD_REQUIRED = {"Utterance", "Speaker", "Dialogue_ID", "Utterance_ID"}

# The columns that are interpreted; utterances keep other columns of a table.
COLUMNS = ("dialogue_id", "turn", "split", "speaker", "label", "start", "end", *STREAMS)

# Some copies of MELD were decoded as Latin-1, so their control characters are Windows-1252 bytes. The five
# bytes that Windows-1252 does not define are removed.
WINDOWS_1252 = {code: bytes([code]).decode("cp1252", "ignore") for code in range(0x80, 0xA0)}


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
    return _validated(conversations, source=source, check=check, folder=folder)


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
    if text.lstrip().startswith(("{", "[")):
        values = _conversations_of(parse_json(text, source=source))
    else:
        values = [{"utterances": utterances_of_transcript(text.split("\n"), source=source)}]
    return _validated(values, source=source, check=check, folder="")


def conversations_from_dataset(
    dataset: Any,
    *,
    source: str = "dataset",
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    check: Check | None = None,
    folder: str | Path = "",
) -> Iterator[Conversation]:
    """Read a `datasets` Dataset with one utterance per row and the columns of a table.

    Args:
        dataset: a Dataset, or a DatasetDict that contains `split`; class labels are converted to their names.
        source: the name to use in errors.
        split: a split of a DatasetDict, or a value of the column `split`.
        columns: see `read_conversations`.
        check: see `read_conversations`.
        folder: base of relative media paths.

    Returns:
        Validated conversations in order of first appearance, with utterances sorted by turn.

    Raises:
        ValueError: invalid data, possibly during iteration; names source, dialogue, utterance if known.
    """
    if isinstance(dataset, dict):
        if split not in dataset:
            raise ValueError(f"{source}: expected one of the splits {shown_names(dataset)}, got {split!r}")
        dataset, split = dataset[split], None
    table = dataset.with_format("arrow")[:]
    for column, feature in dataset.features.items():
        if hasattr(feature, "int2str"):
            table = _with_column(table, column, partial(_label_name, feature.names))
    return conversations_from_table(
        table, source=source, split=split, columns=columns, check=check, folder=folder
    )


def conversations_from_table(
    table: pa.Table,
    *,
    source: str,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    check: Check | None = None,
    folder: str | Path = "",
) -> Iterator[Conversation]:
    """Read an Arrow table with one utterance per row; see `conversations_from_dataset`.

    A table without dialogue_id that has only `COLUMNS` is one conversation, named after its source.
    """
    if columns:
        _check_columns(columns, table.column_names, source=source)
        table = _renamed(table, columns)
    rows = _rows_to_conversations(table, source=source, split=split)
    return _validated(rows, source=source, check=check, folder=folder)


def checked(conversation: Conversation, check: Check | None, *, source: str) -> Conversation:
    """Return a conversation after `check` accepts it; add the source's name to its ValueError."""
    try:
        if check is not None:
            check(conversation)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    return conversation


def _validated(
    values: Iterable[Any], *, source: str, check: Check | None, folder: str | Path
) -> Iterator[Conversation]:
    index = None
    for index, value in enumerate(values):
        conversation = Conversation.from_dict(value, source=source, index=index, folder=folder)
        yield checked(conversation, check, source=source)
    if index is None:
        raise ValueError(f"{source}: expected at least one conversation, got none")


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


def _rows_to_conversations(table: pa.Table, *, source: str, split: str | None) -> Iterator[dict[str, Any]]:
    if set(table.column_names) >= MELD_REQUIRED:
        for column in ("Utterance", "Speaker"):
            table = _with_column(table, column, lambda text: str(text).translate(WINDOWS_1252))
        given = {ours: meld for meld, ours in MELD_COLUMNS.items() if meld in table.column_names}
        table = _renamed(table, given)
    if "dialogue_id" not in table.column_names and {"speaker"} <= set(table.column_names) <= set(COLUMNS):
        table = table.append_column("dialogue_id", pa.array([Path(source).stem] * len(table)))
    keys = _row_keys(table, source=source, split=split)
    # The same dialogue id in two splits denotes two dialogues, as in MELD.
    group = [name for name in ("split", "dialogue_id") if name in keys]
    table = table.drop_columns([name for name in ("split", "turn") if name in keys]).combine_chunks()
    for _, rows in keys.groupby(group, sort=False, dropna=False):
        if "turn" in rows:
            rows = rows.sort_values("turn", kind="stable")
        cells = table.take(pa.array(rows.index)).to_pylist()
        conversation = {"id": str(cells[0]["dialogue_id"]), "utterances": [_utterance(row) for row in cells]}
        name = rows["split"].iloc[0] if "split" in rows else None
        yield conversation if pd.isna(name) else {**conversation, "split": str(name)}


def _renamed(table: pa.Table, columns: Mapping[str, str]) -> pa.Table:
    """Rename columns to our names; drop other columns that already have one of these names."""
    ours = {theirs: name for name, theirs in columns.items()}
    kept = [name for name in table.column_names if name in ours or name not in columns]
    return table.select(kept).rename_columns([ours.get(name, name) for name in kept])


def _check_columns(columns: Mapping[str, str], names: list[str], *, source: str) -> None:
    theirs = list(columns.values())
    if unknown := [name for name in columns if name not in COLUMNS]:
        raise ValueError(f"{source}: unknown names: {shown_names(unknown)}; expected: {', '.join(COLUMNS)}")
    if missing := [name for name in theirs if name not in names]:
        got = shown_names(names) or "none"
        raise ValueError(f"{source}: missing columns: {shown_names(missing)}; found: {got}")
    if len(set(theirs)) < len(theirs):
        raise ValueError(f"{source}: expected distinct columns, got {shown_names(theirs)}")


def _row_keys(table: pa.Table, *, source: str, split: str | None) -> pd.DataFrame:
    """Return the columns that group and sort the rows of a table, indexed by row."""
    names = table.column_names
    needed = ["dialogue_id", "speaker"] + (["split"] if split is not None else [])
    missing = [name for name in needed if name not in names]
    if missing:
        raise ValueError(
            f"{source}: missing columns: {', '.join(missing)}; found: {shown_names(names) or 'none'}; "
            "map columns with other names by --columns text=Utterance,speaker=Speaker"
        )
    keys = table.select([name for name in ("split", "dialogue_id", "turn") if name in names]).to_pandas()
    if split is not None:
        splits = keys["split"].dropna().astype(str)
        keys = keys.loc[splits.index[splits == split]]
        if keys.empty:
            one_of = f"expected one of {shown_names(splits.unique())}" if len(splits) else "column is empty"
            raise ValueError(f"{source}: unknown split {split!r}; {one_of}")
    given = keys.copy()
    if "turn" in keys:
        keys["turn"] = pd.to_numeric(keys["turn"], errors="coerce")
    for name in ("dialogue_id", "turn"):
        if name in keys and keys[name].isna().any():
            row = keys.index[keys[name].isna()][0]
            kind = "a number" if name == "turn" else "a value"
            got = "an empty cell" if pd.isna(given[name][row]) else shown(given[name][row])
            raise ValueError(f"{source}: row {row + 1}: {name}: expected {kind}, got {got}")
    return keys


def _utterance(row: dict[str, Any]) -> dict[str, Any]:
    # Float columns hold NaN for missing values, and NaN is the only value that differs from itself.
    given = {name: value for name, value in row.items() if value is not None and value == value}
    cells = {name: value for name, value in given.items() if name != "dialogue_id"}
    return {name: _cell(name, value) for name, value in cells.items()}


def _cell(name: str, value: Any) -> Any:
    """Convert a cell to its JSON value; an invalid cell is left for validation to report."""
    if name in ("speaker", "text", "label"):
        return str(value)
    with suppress(ValueError, RecursionError):
        if name in ("start", "end"):
            return seconds(str(value))
        if name in FEATURES and isinstance(value, str):
            return json.loads(value)
    return value


def _with_column(table: pa.Table, name: str, change: Callable[[Any], Any]) -> pa.Table:
    values = [None if value is None else change(value) for value in table[name].to_pylist()]
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def _label_name(names: list[str], number: int) -> str | None:
    # datasets writes -1 for an unknown label.
    return names[number] if number >= 0 else None
