"""Rows of CSV: no quote takes in other rows, and spreadsheets of other countries are read."""

import csv
import io
from pathlib import Path

import pytest

from redifu.data.csv_rows import csv_rows
from redifu.data.readers import read_conversations
from redifu.data.turn_lines import LineError

HEADER = "dialogue_id,turn,speaker,text\n"


@pytest.mark.parametrize(("name", "line"), [("log.csv", 3), ("inches.csv", 4)])
def test_a_quote_that_takes_in_rows_is_named(test_data: Path, name: str, line: int) -> None:
    path = test_data / "cases" / "quotes" / name
    with pytest.raises(ValueError) as error:
        list(read_conversations(path))
    assert str(error.value).startswith(f"{path}: line {line}: not a CSV table: ")
    assert str(error.value).isprintable()


@pytest.mark.parametrize("name", ["log.csv", "inches.csv"])
def test_the_rows_are_all_there_once_their_quotes_are_doubled(
    test_data: Path, tmp_path: Path, name: str
) -> None:
    lines = (test_data / "cases" / "quotes" / name).read_text("utf-8").splitlines()
    rows = [line.split(",", 3) for line in lines]
    with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    (read,) = read_conversations(tmp_path / name)
    assert [one.text for one in read.utterances] == [row[3] for row in rows[1:]]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('d1,0,Ana,Hi.\nd1,1,Ben,"Sure\nd1,2,Ana,"fine" she said\n', 3),
        ('d1,0,Ana,"Hi\n', 2),
        # Strict parsers accept this one: the quote closes where a cell may end.
        ('d1,0,Ana,Hi.\nd1,1,Ben,"Sure\nd1,2,Ana,No.\nd1,3,Ben,okay"\n', 3),
        ('d1,0,Ana,"Well, yes"\nd1,1,Ben,"Sure\nd1,2,Ana,well, okay"\nd1,3,Ana,Go.\n', 3),
    ],
)
def test_a_quote_that_is_not_closed_is_named_by_the_line_where_it_opens(text: str, line: int) -> None:
    with pytest.raises(LineError, match="not a CSV table: ") as error:
        csv_rows(HEADER + text)
    assert error.value.line == line


@pytest.mark.parametrize(
    "cell",
    ["one\ntwo", "one, two\nthree, four", "1,2\n3,4,5,6", 'a "b"\n"c, d"', "d1\nd1,0", "\n", '27" wide'],
)
def test_a_cell_may_have_lines_and_quotes_of_its_own(cell: str) -> None:
    file = io.StringIO()
    csv.writer(file).writerows([["dialogue_id", "turn", "speaker", "text"], ["d1", "0", "Ana", cell]])
    assert csv_rows(file.getvalue())[1] == [(2, ["d1", "0", "Ana", cell])]


def test_a_line_that_begins_with_a_comma_is_no_row() -> None:
    header, rows = csv_rows('label,text,speaker\n,"Well\n, yes",Ana\njoy,No.,Ben\n')
    assert rows == [(2, ["", "Well\n, yes", "Ana"]), (4, ["joy", "No.", "Ben"])]


def test_rows_know_their_lines() -> None:
    text = 'a,b\r\n1,"x\ny"\r\n\r\n,\r\n2,z\r\n'
    assert csv_rows(text) == (["a", "b"], [(2, ["1", "x\ny"]), (6, ["2", "z"])])


@pytest.mark.parametrize(
    "text", ["a;b\n1;x, y\n", "a\tb\n1\tx, y\n", "sep=;\na;b\n1;x, y\n", 'a,b\n1,"x, y"\n']
)
def test_cells_may_be_separated_by_semicolons_or_tabs(text: str) -> None:
    header, ((_, cells),) = csv_rows(text)
    assert (header, cells) == (["a", "b"], ["1", "x, y"])


def test_columns_of_one_name_are_refused() -> None:
    with pytest.raises(LineError, match="expected a name of its own for each column, got a twice"):
        csv_rows("a,b,a\n1,2,3\n")


GERMAN = [("Jürgen", "Das ist ja großartig, danke!"), ("Zoë", "Warum schreist du, bitte?")]


@pytest.mark.parametrize("name", ["semicolon_utf8.csv", "tab.csv", "unicode_tab.csv", "utf16_comma.csv"])
def test_tables_of_excel_are_read(test_data: Path, name: str) -> None:
    (read,) = read_conversations(test_data / "cases" / "excel" / name)
    assert [(one.speaker, one.text) for one in read.utterances] == GERMAN


@pytest.mark.parametrize("name", ["cp1252.csv", "semicolon.csv"])
def test_a_table_in_an_old_encoding_is_told_how_to_be_saved(test_data: Path, name: str) -> None:
    path = test_data / "cases" / "excel" / name
    with pytest.raises(ValueError, match="line 2: the text is neither .* save the file as UTF-8") as error:
        list(read_conversations(path))
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_of_spreadsheets_are_read(tmp_path: Path, encoding: str, delimiter: str) -> None:
    path = tmp_path / "talk.csv"
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([("speaker", "text"), *GERMAN])
    (read,) = read_conversations(path)
    assert [(one.speaker, one.text) for one in read.utterances] == GERMAN
