"""Conversations from JSON, JSON lines, transcripts, tables and datasets, checked one by one as read."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from redifu.conversation import FEATURES, STREAMS, Conversation, shown, shown_names
from redifu.data.transcripts import conversation_of, utterances_of_transcript
from redifu.data.turns import read_lines, seconds

MANIFEST = "manifest.json"  # of a folder of extracted features, which names its shards

Check = Callable[[Conversation], None]

# The columns of MELD's own CSV files. Its StartTime and EndTime are places in an episode that is not
# given, so they do not become start and end.
MELD_COLUMNS = {
    "Utterance": "text",
    "Speaker": "speaker",
    "Emotion": "label",
    "Sentiment": "sentiment",
    "Dialogue_ID": "dialogue_id",
    "Utterance_ID": "turn",
}
MELD_REQUIRED = {"Utterance", "Speaker", "Dialogue_ID", "Utterance_ID"}

# The columns that mean something here; a table may have others, which utterances keep.
COLUMNS = ("dialogue_id", "turn", "split", "speaker", "label", "start", "end", *STREAMS)

# Some copies of MELD were decoded as Latin-1: their control characters are the bytes of Windows-1252. The
# five that it does not define stand for nothing and go.
WINDOWS_1252 = {code: bytes([code]).decode("cp1252", "ignore") for code in range(0x80, 0xA0)}


def read_conversations(
    path: str | Path,
    *,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    check: Check | None = None,
) -> Iterator[Conversation]:
    """Read the conversations of a file, lazily where the format allows.

    Args:
        path: .json (one object or a list), .jsonl (one object a line, read line by line), .txt (a transcript:
            `Speaker: text`, one utterance a line), .csv or .parquet (one utterance a row: dialogue_id, turn,
            speaker, ...; or MELD's own columns), or a folder whose rows are the same, of `redifu extract` or
            of a saved Dataset or DatasetDict. The JSON of whisperX, an object with segments, is read, too.
        split: a value of the column `split` or, in JSON, of the conversations' key "split", or the split of a
            DatasetDict to read; None reads all.
        columns: names of a table's columns by ours, {"text": "Utterance"}; those not named keep their names.
        check: called with each conversation; its ValueError gets the file's name.

    Returns:
        Checked conversations, each with an id, in the order of the file; a table's utterances sorted by turn.
        Relative paths of media begin in the file's folder.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: naming the file and, where known, line, dialogue and utterance; while reading, too.
    """
    path = Path(path)
    source, folder = str(path), path if path.is_dir() else path.parent
    of_table = partial(
        conversations_from_table, source=source, split=split, columns=columns, check=check, folder=folder
    )
    if not path.exists():
        raise FileNotFoundError(f"{source}: no such file")
    if (path / MANIFEST).is_file():
        return of_table(_read_shards(path))
    if path.is_dir():
        import datasets  # only here: it takes a second to import

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
        raise ValueError(f"{source}: columns can only be renamed in a table, got {ending}")
    conversations: Iterable[Any] = _OBJECTS[ending](path)
    if split is not None:
        conversations = _of_split(conversations, source=source, split=split)
    return _validated(conversations, source=source, check=check, folder=folder)


def conversation_from_line(
    line: str | bytes, *, source: str, number: int, index: int, check: Check | None = None
) -> Conversation:
    """Read the conversation of a JSON line.

    Args:
        line: one JSON object.
        source: where it comes from, named in errors and in the id of a conversation without one.
        number: the line's number there from 1, named in errors.
        index: the conversation's number there from 0, for its id.
        check: as of `read_conversations`.

    Returns:
        The checked conversation, with an id.

    Raises:
        ValueError: naming the source and the line, and where known the dialogue and the utterance.
    """
    value = conversation_of(parse_json(line, source=source, first_line=number))
    conversation = Conversation.from_dict(value, source=source, index=index, line=number)
    return checked(conversation, check, source=f"{source}: line {number}")


def conversations_from_text(
    text: str, *, source: str = "text", check: Check | None = None
) -> Iterator[Conversation]:
    """Read what somebody pasted: JSON as in a .json file, or a transcript as in a .txt file.

    Args:
        text: the content of such a file.
        source: its name in errors.
        check: see `read_conversations`.

    Returns:
        Checked conversations, each with an id.

    Raises:
        ValueError: naming the line or, where known, dialogue and utterance; while reading, too.
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
    """Read a datasets Dataset of one utterance a row, with the columns of a table.

    Args:
        dataset: a Dataset, or a DatasetDict to choose `split` from; class labels become their names.
        source: its name in errors.
        split: a split of a DatasetDict, or a value of the column `split`.
        columns: see `read_conversations`.
        check: see `read_conversations`.
        folder: where relative paths of media begin.

    Returns:
        Checked conversations in order of first appearance, their utterances sorted by turn.

    Raises:
        ValueError: naming the source and, where known, dialogue and utterance; while reading, too.
    """
    if isinstance(dataset, dict):
        if split not in dataset:
            raise ValueError(f"{source}: expected a split, one of {shown_names(dataset)}, got {split!r}")
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
    """Read an Arrow table of one utterance a row; see `conversations_from_dataset`.

    A table with no columns but ours, and no dialogue_id, is one conversation, named after its source.
    """
    if columns:
        _check_columns(columns, table.column_names, source=source)
        table = _renamed(table, columns)
    rows = _rows_to_conversations(table, source=source, split=split)
    return _validated(rows, source=source, check=check, folder=folder)


def checked(conversation: Conversation, check: Check | None, *, source: str) -> Conversation:
    """Return a conversation that `check` takes; its ValueError gets the source's name."""
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
    """The objects of a split; one without id is numbered by its place among all."""
    found: dict[str, None] = {}
    for index, each in enumerate(objects):
        if not isinstance(each, dict):
            yield each  # for the check of the conversation to name
            continue
        if each.get("split") is not None:
            found[str(each["split"])] = None
        if each.get("split") == split:
            yield each if each.get("id") is not None else {**each, "id": f"{Path(source).stem}-{index}"}
    if split not in found:
        one_of = f"one of {shown_names(found)}" if found else "but no conversation has any"
        raise ValueError(f"{source}: expected a split, {one_of}, got {split!r}")


def _objects_of_json(path: Path) -> Iterator[Any]:
    text = path.read_bytes()
    if text.strip():
        yield from _conversations_of(parse_json(text, source=str(path)))


def _conversations_of(value: Any) -> list[Any]:
    """Return the conversations of a JSON file: one object, or a list of them."""
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


def read_csv_table(path: Path) -> pa.Table:
    """Read the cells of a CSV file as strings, empty ones as null.

    Raises:
        ValueError: naming the file, for what is no table.
    """
    try:
        # All cells as strings: pandas would take a speaker named "None" for a missing one and "007" for 7.
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""], encoding="utf-8-sig")
    except ValueError as error:
        raise ValueError(f"{path}: not a CSV table: {' '.join(str(error).split())}") from error
    if not isinstance(frame.index, pd.RangeIndex):
        raise ValueError(f"{path}: not a CSV table: expected {len(frame.columns)} cells a row, got more")
    return pa.Table.from_pandas(frame, preserve_index=False)


def _read_parquet(path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(path).read()
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: not a Parquet file: {' '.join(str(error).split())}") from error


def _read_shards(folder: Path) -> pa.Table:
    try:
        shards = [shard["file"] for shard in json.loads((folder / MANIFEST).read_bytes())["shards"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / MANIFEST}: not the manifest of extracted features: {error}") from None
    return pa.concat_tables([_read_parquet(folder / name) for name in shards])


_OBJECTS = {".json": _objects_of_json, ".jsonl": _objects_of_jsonl, ".txt": _objects_of_txt}
_TABLES = {".csv": read_csv_table, ".parquet": _read_parquet}


def _rows_to_conversations(table: pa.Table, *, source: str, split: str | None) -> Iterator[dict[str, Any]]:
    if set(table.column_names) >= MELD_REQUIRED:
        for column in ("Utterance", "Speaker"):
            table = _with_column(table, column, lambda text: str(text).translate(WINDOWS_1252))
        given = {ours: meld for meld, ours in MELD_COLUMNS.items() if meld in table.column_names}
        table = _renamed(table, given)
    if "dialogue_id" not in table.column_names and {"speaker"} <= set(table.column_names) <= set(COLUMNS):
        table = table.append_column("dialogue_id", pa.array([Path(source).stem] * len(table)))
    keys = _row_keys(table, source=source, split=split)
    # The same dialogue id in two splits means two dialogues, as in MELD.
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
    """Give columns our names; a column that already has one of these gives way."""
    ours = {theirs: name for name, theirs in columns.items()}
    kept = [name for name in table.column_names if name in ours or name not in columns]
    return table.select(kept).rename_columns([ours.get(name, name) for name in kept])


def _check_columns(columns: Mapping[str, str], names: list[str], *, source: str) -> None:
    theirs = list(columns.values())
    if unknown := [name for name in columns if name not in COLUMNS]:
        raise ValueError(f"{source}: expected columns for {', '.join(COLUMNS)}, got {shown_names(unknown)}")
    if missing := [name for name in theirs if name not in names]:
        got = shown_names(names) or "none"
        raise ValueError(f"{source}: expected the columns {shown_names(missing)}, got {got}")
    if len(set(theirs)) < len(theirs):
        raise ValueError(f"{source}: expected a column for each name, got {shown_names(theirs)}")


def _row_keys(table: pa.Table, *, source: str, split: str | None) -> pd.DataFrame:
    """What groups and sorts the rows of a table, indexed by their place in it."""
    names = table.column_names
    needed = ["dialogue_id", "speaker"] + (["split"] if split is not None else [])
    missing = [name for name in needed if name not in names]
    if missing:
        raise ValueError(
            f"{source}: expected the columns {', '.join(missing)}, got {shown_names(names) or 'none'}; "
            "columns with other names can be mapped (--columns text=Utterance,speaker=Speaker)"
        )
    keys = table.select([name for name in ("split", "dialogue_id", "turn") if name in names]).to_pandas()
    if split is not None:
        splits = keys["split"].dropna().astype(str)
        keys = keys.loc[splits.index[splits == split]]
        if keys.empty:
            one_of = f"one of {shown_names(splits.unique())}" if len(splits) else "but the column is empty"
            raise ValueError(f"{source}: expected a split, {one_of}, got {split!r}")
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
    # A table of floats writes what is missing as NaN, which is the one value that differs from itself.
    given = {name: value for name, value in row.items() if value is not None and value == value}
    cells = {name: value for name, value in given.items() if name != "dialogue_id"}
    return {name: _cell(name, value) for name, value in cells.items()}


def _cell(name: str, value: Any) -> Any:
    """A cell as JSON would hold it; one that cannot be is left for the check of the conversation to name."""
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
    # datasets writes -1 for a label that is not known.
    return names[number] if number >= 0 else None
