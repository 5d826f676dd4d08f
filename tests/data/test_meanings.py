"""Good files made by construction are read as what they were made of."""

import csv
import io
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redifu.data.csv_rows import csv_rows
from redifu.data.readers import read_conversations
from redifu.data.turns import read_turns

NAMES = ["Ana", "Ben Okri", "Dr. Li", "Anna van der Berg", "Zoë", "小明"]
SENTENCES = [
    "Hi.",
    "I told you twice",
    "10 of them?",
    "So - yes!",
    "No, no",
    "why not",
    "It's 5 o'clock",
    "&amp; co",
]
# How a speaker is marked, and whether only tools mark speakers so and number them.
MARKS: dict[str, tuple[str, bool]] = {
    "colon": ("{}: ", False),
    "brackets and colon": ("[{}]: ", False),
    "chevrons": (">> {}: ", False),
    "voice": ("<v {}>", False),
    "time": ("10:30 {}: ", False),
    "bold": ("<b>{}:</b> ", False),
    "dash": ("- {}: ", False),
    "whisperx": ("[SPEAKER_0{}]: ", True),
    "whisper.cpp": ("(speaker {}) ", True),
    "nemo": ("speaker_{}: ", True),
}


def timed(number: int) -> str:
    return f"00:{number // 60:02}:{number % 60:02}.000 --> 00:{number // 60:02}:{number % 60:02}.500"


@pytest.mark.parametrize("ending", [".srt", ".vtt"])
@pytest.mark.parametrize("mark", MARKS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_marked_cues_are_said_by_whom_they_name(
    tmp_path_factory: pytest.TempPathFactory, mark: str, ending: str, data: st.DataObject
) -> None:
    form, by_number = MARKS[mark]
    names = ["0", "1", "2"] if by_number else NAMES
    said = data.draw(
        st.lists(st.tuples(st.sampled_from(names), st.sampled_from(SENTENCES)), min_size=2, max_size=6)
    )
    cues = [
        f"{number}\n{timed(number)}\n{form.format(name)}{text}\n" for number, (name, text) in enumerate(said)
    ]
    path = tmp_path_factory.getbasetemp() / f"marked{ending}"
    path.write_text(("WEBVTT\n\n" if ending == ".vtt" else "") + "\n".join(cues), "utf-8")
    turns = read_turns(path)
    assert [turn.text for turn in turns] == [text.replace("&amp;", "&") for _, text in said]
    assert [turn.start for turn in turns] == [float(number) for number in range(len(said))]
    whole = (form.strip(" :[]()<>") if by_number else "{}").format
    expected = [whole(name) for name, _ in said]
    assert [turn.speaker.strip("[]()") for turn in turns] == expected


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(st.integers(0, 999), min_size=4, max_size=9, unique=True), kept=st.integers(1, 2))
def test_captions_that_roll_say_each_line_once(
    tmp_path_factory: pytest.TempPathFactory, lines: list[int], kept: int
) -> None:
    texts = [f"line {number}" for number in lines]
    shown = [texts[max(place - kept, 0) : place + 1] for place in range(len(texts))]
    cues = [f"00:{n:02}.0 --> 00:{n + 1:02}.0\n" + "\n".join(each) + "\n" for n, each in enumerate(shown)]
    path = tmp_path_factory.getbasetemp() / "rolling.vtt"
    path.write_text("WEBVTT\n\n" + "\n".join(cues), "utf-8")
    assert [(turn.start, turn.text) for turn in read_turns(path)] == [
        (float(place), text) for place, text in enumerate(texts)
    ]


CELLS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=4),
    delimiter=st.sampled_from(",;\t"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
)
def test_rows_written_in_any_dialect_are_read_as_python_reads_them(
    rows: list[tuple[str, ...]], delimiter: str, quoting: Any
) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, quoting=quoting).writerows([("text", "speaker", "clip"), *rows])
    header, read = csv_rows(file.getvalue().replace("'", "’"))
    assert header == ["text", "speaker", "clip"]
    assert [cells for _, cells in read] == [[cell.replace("'", "’") for cell in row] for row in rows]


WRITERS: dict[str, Callable[[str], bytes]] = {
    "UTF-8": lambda text: text.encode(),
    "UTF-8 of Excel": lambda text: text.encode("utf-8-sig"),
    "Unicode text": lambda text: text.encode("utf-16"),
}


@pytest.mark.parametrize("encoding", WRITERS)
@settings(max_examples=20, deadline=None)
@given(
    said=st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(SENTENCES)), min_size=1, max_size=5),
    delimiter=st.sampled_from(",;\t"),
    first=st.integers(-3, 10**6),
    step=st.integers(1, 9),
    order=st.randoms(use_true_random=False),
)
def test_tables_of_any_program_give_the_same_dialogue(
    tmp_path_factory: pytest.TempPathFactory,
    encoding: str,
    said: list[tuple[str, str]],
    delimiter: str,
    first: int,
    step: int,
    order: Any,
) -> None:
    rows = [("d", first + step * place, *each) for place, each in enumerate(said)]
    shuffled = order.sample(rows, len(rows))
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter).writerows([("dialogue_id", "turn", "speaker", "text"), *shuffled])
    path = tmp_path_factory.getbasetemp() / "table.csv"
    path.write_bytes(WRITERS[encoding](file.getvalue()))
    (read,) = read_conversations(path)
    found = zip(read.turns, read.utterances, strict=True)
    assert [("d", turn, one.speaker, one.text) for turn, one in found] == rows
