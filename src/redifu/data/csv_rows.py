"""The rows of CSV text, read strictly: no quote may take in the rows that follow."""

import csv
import io
import re
from collections.abc import Sequence
from itertools import zip_longest

from redifu.conversation_values import shown, shown_names
from redifu.data.turn_lines import LineError, seconds

# Features are long cells. This limit belongs to the whole process, and Python's own is too small for them.
csv.field_size_limit(2**24)

# Excel writes semicolons where the comma is a decimal sign, and tabs as "Unicode text".
_DELIMITERS = (",", ";", "\t")
_QUOTES = "write quotes inside a cell twice, or save the table again from a spreadsheet"

# A spreadsheet takes a cell that begins so for a formula, unless an apostrophe stands before it.
_FORMULA = re.compile(r"(?='*[=+\-@\t\r])")
_DATA = re.compile(r"'(?='*[=+\-@\t\r])")

Row = tuple[int, list[str]]


def as_data(cell: str) -> str:
    """Put an apostrophe before a cell that a spreadsheet would run as a formula; `csv_rows` removes it."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def csv_rows(text: str) -> tuple[list[str], list[Row]]:
    """Read a table whose cells are separated by commas, semicolons or tabs, whichever the header has.

    An apostrophe before a cell that would be a formula is not part of it; see `as_data`.

    Returns:
        The header, [] for an empty text, and the rows that are not empty, each with its first line, counted
        from 1, and as many cells as the header.

    Raises:
        LineError: a quote is not closed or closes in a later row, a row has too many or too few cells, or
            two columns have one name.
    """
    # Excel's own way to tell the delimiter.
    told = re.match(r"sep=(.)\r?\n", text)
    delimiter = told[1] if told else _delimiter(text)
    rows = _strict_rows(text[told.end() :] if told else text, delimiter, first=2 if told else 1)
    if not rows:
        return [], []
    (line, header), *rows = rows
    if any("\0" in name for name in header):
        raise LineError(line, "expected text, got a NUL character; save the file as UTF-8")
    if repeated := [name for place, name in enumerate(header) if name and name in header[:place]]:
        raise LineError(
            line, f"expected a name of its own for each column, got {shown_names(repeated)} twice"
        )
    for line, cells in rows:
        if len(cells) != len(header):
            raise LineError(line, f"expected {len(header)} cells, got {len(cells)}")
    _check_quotes(header, rows, delimiter)
    if not _DATA.search(text):
        return header, rows
    return [_plain(name) for name in header], [(line, list(map(_plain, cells))) for line, cells in rows]


def _plain(cell: str) -> str:
    return cell[1:] if _DATA.match(cell) else cell


def _delimiter(text: str) -> str:
    header = next((line for line in io.StringIO(text, newline="") if line.strip()), "")
    return max(_DELIMITERS, key=lambda each: len(next(csv.reader([header], delimiter=each), [])))


def _strict_rows(text: str, delimiter: str, *, first: int) -> list[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    line = first
    try:
        for row in reader:
            if "".join(row).strip():
                rows.append((line, row))
            # Cells may contain line breaks, so a row starts after the end of the previous one.
            line = reader.line_num + first
    except csv.Error as error:
        raise LineError(line, f"not a CSV table: {error}; {_QUOTES}") from None
    return rows


def _check_quotes(header: Sequence[str], rows: Sequence[Row], delimiter: str) -> None:
    """Raise LineError for a quoted cell that holds a line break and then what looks like a row."""
    seen: list[set[str]] | None = None
    for (line, cells), following in zip_longest(rows, rows[1:]):
        # Nearly all rows are of one line.
        if following is not None and following[0] == line + 1:
            continue
        for place, cell in enumerate(cells):
            if "\n" not in cell and "\r" not in cell:
                continue
            if seen is None:
                seen = [set(column) for column in zip(*(cells for _, cells in rows), strict=True)]
            for later in cell.splitlines()[1:]:
                begin = [part.strip() for part in later.split(delimiter)]
                # Empty cells are no sign of a row: a line of a text can begin with a comma.
                if (
                    0 < place < len(begin)
                    and any(begin[:place])
                    and all(
                        _alike(part, own, known)
                        for part, own, known in zip(begin[:place], cells, seen, strict=False)
                    )
                ):
                    raise LineError(
                        line,
                        f"not a CSV table: a quote in the column {shown_names([header[place]])} takes in the "
                        f"row {shown(later)}; {_QUOTES}",
                    )


def _alike(part: str, own: str, known: set[str]) -> bool:
    """Whether a part of a line fits a column: another row has it, or it is a number as in this row."""
    return part in known or (_is_number(part) and _is_number(own))


def _is_number(cell: str) -> bool:
    try:
        seconds(cell)
    except ValueError:
        return False
    return True
