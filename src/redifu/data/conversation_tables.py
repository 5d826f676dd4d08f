"""Conversations of tables with one utterance per row, and of datasets."""

import ast
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow.types import is_nested, is_temporal

from redifu.conversation import FEATURES, STREAMS, Conversation
from redifu.conversation_values import RECOGNISED, shown, shown_names
from redifu.data.turn_lines import seconds

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
COLUMNS = ("dialogue_id", "turn", "split", "speaker", "label", "start", "end", "audio_channel", *STREAMS)

# The columns that every table of predictions has, and long ones.
_OWN = {"dialogue_id", "turn", "speaker", "text", *FEATURES}
_BYTES = re.compile(r"b(['\"]).*\1", re.DOTALL)

# Some copies of MELD were decoded as Latin-1, so their control characters are Windows-1252 bytes. The five
# bytes that Windows-1252 does not define are removed.
WINDOWS_1252 = {code: bytes([code]).decode("cp1252", "ignore") for code in range(0x80, 0xA0)}


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
    table = _decoded(_in_our_names(table, source=source), source=source)
    kept = [field.name for field in table.schema if field.name not in _OWN and not is_nested(field.type)]
    rows = _rows_to_conversations(table, source=source, split=split)
    read = validated(rows, source=source, check=check, folder=folder)
    return (replace(conversation, columns=kept) for conversation in read)


def checked(conversation: Conversation, check: Check | None, *, source: str) -> Conversation:
    """Return a conversation after `check` accepts it; add the source's name to its ValueError."""
    try:
        if check is not None:
            check(conversation)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    return conversation


def validated(
    values: Iterable[Any], *, source: str, check: Check | None, folder: str | Path
) -> Iterator[Conversation]:
    """Validate at least one conversation; see `read_conversations`."""
    index = None
    for index, value in enumerate(values):
        conversation = Conversation.from_dict(value, source=source, index=index, folder=folder)
        yield checked(conversation, check, source=source)
    if index is None:
        raise ValueError(f"{source}: expected at least one conversation, got none")


def _rows_to_conversations(table: pa.Table, *, source: str, split: str | None) -> Iterator[dict[str, Any]]:
    keys = _row_keys(table, source=source, split=split)
    # The same dialogue id in two splits denotes two dialogues, as in MELD.
    group = [name for name in ("split", "dialogue_id") if name in keys]
    table = table.drop_columns([name for name in ("split", "turn") if name in keys]).combine_chunks()
    for _, rows in keys.groupby(group, sort=False, dropna=False, observed=True):
        if "turn" in rows:
            rows = rows.sort_values("turn", kind="stable")
        cells = table.take(pa.array(rows.index)).to_pylist()
        utterances = [_utterance(row) for row in cells]
        if "turn" in rows:
            for utterance, turn in zip(utterances, rows["turn"].tolist(), strict=True):
                utterance["turn"] = int(turn) if turn == int(turn) else turn
        conversation = {"id": str(cells[0]["dialogue_id"]), "utterances": utterances}
        name = rows["split"].iloc[0] if "split" in rows else None
        yield conversation if pd.isna(name) else {**conversation, "split": str(name)}


def _in_our_names(table: pa.Table, *, source: str) -> pa.Table:
    """Rename the columns of MELD; name the dialogue of a table without dialogues."""
    if set(table.column_names) >= MELD_REQUIRED:
        for column in ("Utterance", "Speaker"):
            table = _with_column(table, column, lambda text: str(text).translate(WINDOWS_1252))
        given = {ours: meld for meld, ours in MELD_COLUMNS.items() if meld in table.column_names}
        table = _renamed(table, given)
    if "dialogue_id" not in table.column_names and {"speaker"} <= set(table.column_names) <= set(COLUMNS):
        table = table.append_column("dialogue_id", pa.array([Path(source).stem] * len(table)))
    return table


def _decoded(table: pa.Table, *, source: str) -> pa.Table:
    """Decode columns of bytes, and of the text b'...' that pandas writes for bytes."""
    for name in [field.name for field in table.schema if _may_hold_bytes(field.type)]:
        cells = [cell for cell in table[name].to_pylist() if cell is not None]
        if not cells or not all(isinstance(cell, bytes) or _BYTES.fullmatch(cell) for cell in cells):
            continue
        try:
            table = _with_column(table, name, _decoded_cell)
        except (ValueError, SyntaxError) as error:
            raise ValueError(f"{source}: {name}: expected text or bytes in UTF-8: {error}") from None
    return table


def _may_hold_bytes(kind: pa.DataType) -> bool:
    return any(
        is_kind(kind) for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary)
    )


def _decoded_cell(cell: str | bytes) -> str:
    content = ast.literal_eval(cell) if isinstance(cell, str) else cell
    return content.decode()


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
    names = [name for name in ("split", "dialogue_id", "turn") if name in names]
    for name in names:
        if is_nested(kind := table.schema.field(name).type) or (name == "turn" and is_temporal(kind)):
            raise ValueError(f"{source}: {name}: expected text or numbers, got a column of {kind!s:.60}")
    keys = table.select(names).to_pandas()
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
    _check_repeats(keys, source=source)
    return keys


def _check_repeats(keys: pd.DataFrame, *, source: str) -> None:
    """Raise ValueError where two dialogues with one id would be read as one."""
    if "turn" in keys and (again := keys.duplicated()).any():
        places = list(keys.astype(str).itertuples(index=False, name=None))
        later = int(again.argmax())
        rows = [keys.index[place] + 1 for place in (places.index(places[later]), later)]
        name, turn = (keys[column].iloc[later] for column in ("dialogue_id", "turn"))
        raise ValueError(
            f"{source}: rows {rows[0]} and {rows[1]}: dialogue {shown_names([str(name)])} has turn {turn:g} "
            "twice; give each dialogue an id of its own"
        )


def _utterance(row: dict[str, Any]) -> dict[str, Any]:
    # Float columns hold NaN for missing values, and NaN is the only value that differs from itself.
    given = {name: value for name, value in row.items() if value is not None and value == value}
    cells = {name: value for name, value in given.items() if name not in ("dialogue_id", *RECOGNISED)}
    return {name: _cell(name, value) for name, value in cells.items()}


def _cell(name: str, value: Any) -> Any:
    """Convert a cell to its JSON value; an invalid cell is left for validation to report."""
    if name in ("speaker", "text", "label"):
        return value if isinstance(value, dict | list) else str(value)
    with suppress(ValueError, RecursionError):
        if name in ("start", "end"):
            return seconds(str(value))
        if name == "audio_channel" and (number := float(value)).is_integer():
            return int(number)
        if name in FEATURES and isinstance(value, str):
            return json.loads(value)
    return value


def _with_column(table: pa.Table, name: str, change: Callable[[Any], Any]) -> pa.Table:
    values = [None if value is None else change(value) for value in table[name].to_pylist()]
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def _label_name(names: list[str], number: int) -> str | None:
    # datasets writes -1 for an unknown label.
    return names[number] if number >= 0 else None
