"""Transcripts: who said what in the text that other tools export, and when where they say so."""

import logging
from pathlib import Path

import pytest

from redifu.data.readers import conversations_from_text, read_conversations
from redifu.data.turns import read_turns

OTTER = """\
Weekly meeting
Mon, Mar 3, 2025

Ana Lee  0:03  
I got the job!
In another country.

Speaker 2  0:03
No.

Ana Lee  1:02:03
So we move, all of us.

Transcribed by https://otter.ai
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def said(path: Path) -> list[tuple[str, str | None]]:
    (read,) = read_conversations(path)
    return [(one.speaker, one.text) for one in read.utterances]


def test_a_transcript_of_otter_is_turns(tmp_path: Path) -> None:
    path = write(tmp_path / "otter.txt", OTTER)
    turns = read_turns(path)
    assert [(turn.speaker, turn.text, turn.line) for turn in turns] == [
        ("Ana Lee", "I got the job! In another country.", 4),
        ("Speaker 2", "No.", 8),
        ("Ana Lee", "So we move, all of us.", 11),
    ]
    # Two that begin at once share the time until the next one by their length: 34 and 3 characters.
    assert turns[0].start == 3 and turns[1].end == turns[2].start == 3723
    assert turns[0].end == turns[1].start == pytest.approx(3 + 3720 * 34 / 37)
    assert turns[2].end == 3723 + 0.5 * 6
    (read,) = read_conversations(path)
    assert [(one.speaker, one.text, one.start, one.end) for one in read.utterances] == [
        (turn.speaker, turn.text, turn.start, turn.end) for turn in turns
    ]


@pytest.mark.parametrize(
    "heading", ["Ana Lee  0:03", "Ana Lee\t00:03", "Ana Lee (00:03):", "Ana Lee [0:00:03]"]
)
def test_the_line_above_the_words_has_many_forms(tmp_path: Path, heading: str) -> None:
    path = write(tmp_path / "a.txt", f"{heading}\nWe met: you\n\nand I.\nBen  0:08\nYes (10:30).\n")
    assert [turn[:4] for turn in read_turns(path)] == [
        (3.0, 8.0, "Ana Lee", "We met: you and I."),
        (8.0, 9.0, "Ben", "Yes (10:30)."),
    ]


@pytest.mark.parametrize("line", ["0:03 Ana: Hi.", "[00:00:03] Ana: Hi.", "(0:03) Ana: Hi."])
def test_a_time_may_stand_before_the_name(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "a.txt", f"{line}\n0:08 Ben: Yes, I do.\n")
    assert [turn[:4] for turn in read_turns(path)] == [
        (3.0, 8.0, "Ana", "Hi."),
        (8.0, 9.5, "Ben", "Yes, I do."),
    ]
    assert said(path) == [("Ana", "Hi."), ("Ben", "Yes, I do.")]


def test_a_mark_needs_no_space_before_a_digit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "Ana:2 of us went.\nBen:no\n10:30 Ana:3 at 10:30.\nSpeaker 1: 2:1\n")
    assert said(path) == [
        ("Ana", "2 of us went."),
        ("Ben", "no"),
        ("Ana", "3 at 10:30."),
        ("Speaker 1", "2:1"),
    ]


@pytest.mark.parametrize("line", ["we met at 10:30", "10:30", "it was 3:2 for us", "https://example.org"])
def test_a_time_or_an_address_is_no_mark(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "a.txt", f"Ana: Hi.\n{line}\n")
    with pytest.raises(ValueError, match="line 2: expected 'Speaker: text'"):
        said(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[Ana] Hi.\n\n[Ben] Yes: 2.\n", [("Ana", "Hi."), ("Ben", "Yes: 2.")]),
        ("[Ana]: Hi.\n[Ben]:Yes.\n", [("Ana", "Hi."), ("Ben", "Yes.")]),
        ("[ana] Hi.\n[ben] Yes.\n[ana] Go.", [("ana", "Hi."), ("ben", "Yes."), ("ana", "Go.")]),
        ("[0:03] [Ana] Hi.\n[0:08] [Ben] Yes.", [("Ana", "Hi."), ("Ben", "Yes.")]),
        ("[0:03] Ana: Hi.\n[0:08] Ben: Yes.", [("Ana", "Hi."), ("Ben", "Yes.")]),
        ("[14.03.25, 20:15:09] Ana: Hi.\n[14.03.25, 20:16:09] Ben: Yes.", [("Ana", "Hi."), ("Ben", "Yes.")]),
    ],
)
def test_names_may_stand_in_brackets(tmp_path: Path, text: str, expected: list[tuple[str, str]]) -> None:
    assert said(write(tmp_path / "a.txt", text)) == expected
    # Pasted, it is not taken for JSON.
    (pasted,) = conversations_from_text(text)
    assert [(one.speaker, one.text) for one in pasted.utterances] == expected


@pytest.mark.parametrize("text", ["[laughs] Hi.\n[sighs] Yes.", "[Ana] Hi.\nYes.", "[1] Hi.\n[2] Yes."])
def test_noises_and_numbers_in_brackets_are_no_names(text: str) -> None:
    with pytest.raises(ValueError, match="expected 'Speaker: text'"):
        list(conversations_from_text(text))


# Chats


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "android.txt",
            [("Ana", "I cannot believe you did that!"), ("Ben", "Sorry really"), ("Ana", "<Media omitted>")],
        ),
        (
            "ios.txt",
            [("Ana", "I cannot believe you did that!"), ("Ben", "Sorry :("), ("Ana", "image omitted")],
        ),
    ],
)
def test_messages_have_their_authors(test_data: Path, name: str, expected: list[tuple[str, str]]) -> None:
    assert said(test_data / "cases" / "names" / name) == expected


def test_what_is_no_line_of_a_speaker_is_named(test_data: Path) -> None:
    path = test_data / "cases" / "names" / "plain.txt"
    with pytest.raises(ValueError) as error:
        list(read_conversations(path))
    assert str(error.value) == f"{path}: line 3: expected 'Speaker: text', got 'https://example.org: look'"


STAMPS = [
    "3/14/25, 8:15 PM - ",
    "3/14/25, 8:15\u202fPM - ",
    "14/03/2025, 20:15 - ",
    "[14.03.25, 20:15:09] ",
    "\u200e[2025-03-14, 20.15.09] ",
    "[3/14/25, 8:15:09 p.m.] ",
]


@pytest.mark.parametrize("stamp", STAMPS)
def test_a_chat_may_have_notices_and_messages_of_several_lines(
    tmp_path: Path, stamp: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = f"{stamp}Messages are encrypted.\nTap to learn more\n"
    text += f"{stamp}+49 170 1: Hi: you\nnote: come\n10:30 Ben: no\n"
    path = write(tmp_path / "chat.txt", f"{text}{stamp}Ben: \n{stamp}Ben: https://example.org\n")
    with caplog.at_level(logging.WARNING):
        assert said(path) == [
            ("+49 170 1", "Hi: you note: come 10:30 Ben: no"),
            ("Ben", "https://example.org"),
        ]
    assert [record.message for record in caplog.records] == [
        f"{path}: left out: messages without an author (1)"
    ]
    with pytest.raises(ValueError, match="line 3: expected a time such as"):
        read_turns(path)
