"""Subtitles of many tools: each line once, and said by whom its mark names."""

import logging
import re
from pathlib import Path

import pytest

from redifu.data.transcripts import UNKNOWN_SPEAKER
from redifu.data.turns import read_turns

SAID = [
    "I told you twice already.",
    "That is wonderful news!",
    "Please stop shouting at me.",
    "Fine, I will wait outside.",
]
SPANS = [(0.5, 4.4), (5.0, 8.4), (9.0, 12.5), (13.0, 15.8)]

# The two speakers of each file, who speak in turn.
MARKS = {
    "brackets_nocolon.srt": ("SPEAKER_00", "SPEAKER_01"),
    "chevron_names.srt": ("Priya", "Tom"),
    "chevrons.srt": ("speaker 1", "speaker 2"),
    "clock.srt": ("Priya", "Tom"),
    "cueid.vtt": ("Speaker 1", "Speaker 2"),
    "dr.srt": ("Dr. Okafor-Smith", "Tom"),
    "lower.srt": ("priya", "tom"),
    "nemo.srt": ("speaker_0", "speaker_1"),
    "number.srt": ("1", "2"),
    "particle.srt": ("Anna van der Berg", "Tom"),
    "teams.vtt": ("Priya N.", "Tom"),
    "whispercpp.srt": ("speaker 0", "speaker 1"),
    "whispercpp_q.srt": (UNKNOWN_SPEAKER, "speaker 1"),
    "whisperx.srt": ("SPEAKER_00", "SPEAKER_01"),
    "zoom.vtt": ("Priya N.", "Tom O'Neill"),
}


def srt(path: Path, *cues: str) -> Path:
    """Cues of a second each, with a pause of a second between them."""
    blocks = [f"{n}\n00:00:{2 * n:02},0 --> 00:00:{2 * n + 1:02},0\n{cue}\n" for n, cue in enumerate(cues)]
    path.write_text("\n".join(blocks), "utf-8")
    return path


def rolling(path: Path, *cues: str) -> Path:
    """Cues of a second each without a pause."""
    blocks = [f"00:{n:02}.0 --> 00:{n + 1:02}.0\n{cue}\n" for n, cue in enumerate(cues)]
    path.write_text("WEBVTT\n\n" + "\n".join(blocks), "utf-8")
    return path


def spoken(path: Path) -> list[tuple[str, str | None]]:
    return [(turn.speaker, turn.text) for turn in read_turns(path)]


def lines(path: Path) -> list[tuple[float, str | None]]:
    return [(turn.start, turn.text) for turn in read_turns(path)]


@pytest.mark.parametrize("name", MARKS)
def test_a_mark_of_any_tool_names_the_speaker(test_data: Path, name: str) -> None:
    turns = read_turns(test_data / "cases" / "speaker-marks" / name)
    assert [turn.text for turn in turns] == SAID
    assert [turn.speaker for turn in turns] == [*MARKS[name], *MARKS[name]]
    assert [turn[:2] for turn in turns] == SPANS


def test_every_case_of_marks_is_read(test_data: Path) -> None:
    assert {path.name for path in (test_data / "cases" / "speaker-marks").iterdir()} == set(MARKS)


CAPTIONS = [
    (0.5, "i told you twice already"),
    (2.5, "the landlord never came back"),
    (5.0, "that is wonderful news i am so happy"),
    (9.0, "please stop shouting at me"),
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("auto.vtt", CAPTIONS),
        ("auto.srt", CAPTIONS[:3]),
        (
            "rollup.srt",
            [
                (0.5, "I TOLD YOU TWICE"),
                (2.5, "ALREADY THE LANDLORD"),
                (4.4, "NEVER CAME BACK"),
                (6.0, "THAT IS WONDERFUL NEWS"),
            ],
        ),
    ],
)
def test_a_line_of_automatic_captions_is_said_once(
    test_data: Path, name: str, expected: list[tuple[float, str]]
) -> None:
    assert lines(test_data / "cases" / "captions" / name) == expected


@pytest.mark.parametrize(
    ("cues", "expected"),
    [
        (["speaker_0: Hi.", "spk1: Hello."], [("speaker_0", "Hi."), ("spk1", "Hello.")]),
        (["[Speaker 2] Hi.", "(speaker 0) Yes."], [("Speaker 2", "Hi."), ("speaker 0", "Yes.")]),
        (["(speaker ?) Hi.", "(speaker 1) Yes."], [(UNKNOWN_SPEAKER, "Hi."), ("speaker 1", "Yes.")]),
        (["[Ana] Hi.", "[Ben] Yes.", "[Ana] Go."], [("Ana", "Hi."), ("Ben", "Yes."), ("Ana", "Go.")]),
        (["[00:03] Ana: Hi.", "10:31 PM - Ben: Yes."], [("Ana", "Hi."), ("Ben", "Yes.")]),
        (["PRIYA (O.S.): Hi.", "Priya: Yes."], [("PRIYA", "Hi."), ("Priya", "Yes.")]),
        (["Speaker (1): Hi.", "Speaker (2): Yes."], [("Speaker (1)", "Hi."), ("Speaker (2)", "Yes.")]),
        (["&gt;&gt; Ana: Hi.", ">> Yes."], [("Ana", "Hi."), (UNKNOWN_SPEAKER, "Yes.")]),
        (
            [">> You came. >> I did.", "Really."],
            [
                *zip(["speaker 1", "speaker 2"], ["You came.", "I did."], strict=True),
                ("speaker 2", "Really."),
            ],
        ),
        # A prefix that recurs, and others once it is known that every cue has one.
        (
            ["ana: Hi.", "ben: Yes.", "ana: Go.", "eva: No."],
            [("ana", "Hi."), ("ben", "Yes."), ("ana", "Go."), ("eva", "No.")],
        ),
        (["1: Hi.", "2: Yes.", "1: Go."], [("1", "Hi."), ("2", "Yes."), ("1", "Go.")]),
        # What only looks like a mark.
        (
            ["[laughs] Hi.", "Yes.", "[laughs] Go."],
            [(UNKNOWN_SPEAKER, t) for t in ("[laughs] Hi.", "Yes.", "[laughs] Go.")],
        ),
        (
            ["[SPEAKER_00] Hi.", "[SPEAKER_01] So", "[laughs] Go.", *["[SPEAKER_01] No."] * 7],
            [
                *[("SPEAKER_00", "Hi."), ("SPEAKER_01", "So"), ("SPEAKER_01", "[laughs] Go.")],
                *[("SPEAKER_01", "No.")] * 7,
            ],
        ),
        (
            ["[Ana] Hi.", "[Ben] Yes\n[laughs] and no.", "[Ana] Go."],
            [("Ana", "Hi."), ("Ben", "Yes [laughs] and no."), ("Ana", "Go.")],
        ),
        (
            ["It said: go.", "Yes.", "He said: no."],
            [(UNKNOWN_SPEAKER, t) for t in ("It said: go.", "Yes.", "He said: no.")],
        ),
        (["At 10:30 then.", "5 >>4 no"], [(UNKNOWN_SPEAKER, t) for t in ("At 10:30 then.", "5 >>4 no")]),
    ],
)
def test_marks_are_judged_by_the_whole_file(
    tmp_path: Path, cues: list[str], expected: list[tuple[str, str]]
) -> None:
    assert spoken(srt(tmp_path / "a.srt", *cues)) == expected


@pytest.mark.parametrize(
    ("identifiers", "expected"),
    [
        (["Ana", "Ben", "Ana"], ["Ana", "Ben", "Ana"]),
        (["SPEAKER_00", "SPEAKER_01", "SPEAKER_02"], ["SPEAKER_00", "SPEAKER_01", "SPEAKER_02"]),
        (["intro", "middle", "end"], [UNKNOWN_SPEAKER] * 3),
        (["1", "1", "2"], [UNKNOWN_SPEAKER] * 3),
    ],
)
def test_identifiers_of_cues_that_recur_are_speakers(
    tmp_path: Path, identifiers: list[str], expected: list[str]
) -> None:
    cues = [f"{name}\n00:0{n}.0 --> 00:0{n + 1}.0\nHi {n}.\n" for n, name in enumerate(identifiers)]
    path = tmp_path / "a.vtt"
    path.write_text("WEBVTT\n\n" + "\n".join(cues), "utf-8")
    assert [turn.speaker for turn in read_turns(path)] == expected


def test_what_marks_leave_open_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read_turns(srt(tmp_path / "a.srt", ">> Hi.", ">> He said: go."))
        read_turns(srt(tmp_path / "b.srt", "Ana: Hi.", "Ben: Yes."))
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}/a.srt: '>>' says that the speaker changes, not who speaks: read as two speakers in turn",
        f"{tmp_path}/a.srt: read as text, not as names of speakers, before a colon: He said",
    ]


def test_lines_that_roll_are_said_once(tmp_path: Path) -> None:
    path = rolling(tmp_path / "a.vtt", "one", "one\ntwo", "two\nthree", "three", "three\nfour")
    assert lines(path) == [(0.0, "one"), (1.0, "two"), (2.0, "three"), (4.0, "four")]


def test_a_line_that_grows_is_said_once(tmp_path: Path) -> None:
    path = rolling(tmp_path / "a.vtt", "I", "I told", "I told you &lt;now&gt;", "never")
    assert lines(path) == [(0.0, "I"), (1.0, "told"), (2.0, "you <now>"), (3.0, "never")]


def test_what_is_said_twice_stays(tmp_path: Path) -> None:
    apart = srt(tmp_path / "a.srt", "No.", "No.", "No.", "Yes.")
    assert [text for _, text in lines(apart)] == ["No.", "No.", "No.", "Yes."]
    once = rolling(tmp_path / "a.vtt", "No.", "No.", "Why?", "Because.", "I see.")
    assert [text for _, text in lines(once)] == ["No.", "No.", "Why?", "Because.", "I see."]


def test_two_who_say_the_same_both_say_it(tmp_path: Path) -> None:
    path = tmp_path / "a.vtt"
    cues = [f"{name}\n00:0{n}.0 --> 00:0{n + 1}.0\nHi.\n" for n, name in enumerate(["Ana", "Ben", "Ana"])]
    path.write_text("WEBVTT\n\n" + "\n".join(cues), "utf-8")
    assert spoken(path) == [("Ana", "Hi."), ("Ben", "Hi."), ("Ana", "Hi.")]


def test_a_line_of_spaces_belongs_to_its_cue(tmp_path: Path) -> None:
    path = tmp_path / "a.vtt"
    path.write_text(
        "WEBVTT\n\n00:01.0 --> 00:02.0\n \nHi.\n\n00:03.0 --> 00:04.0\n \n\n00:05.0 --> 00:06.0\nYes.\n  \n"
        "00:07.0 --> 00:08.0\nGo.\n",
        "utf-8",
    )
    assert lines(path) == [(1.0, "Hi."), (5.0, "Yes."), (7.0, "Go.")]


def test_the_times_and_texts_are_those_of_pysubs2(test_data: Path) -> None:
    import pysubs2

    for path in sorted((test_data / "cases").glob("*/*.[sv][rt]t")):
        turns = read_turns(path)
        cues = [cue for cue in pysubs2.load(str(path)) if cue.plaintext.strip()]
        if path.parent.name == "captions":
            cues = [cue for cue in cues if cue.start / 1000 in {turn.start for turn in turns}]
        assert [turn[:2] for turn in turns] == [(cue.start / 1000, cue.end / 1000) for cue in cues]
        for turn, cue in zip(turns, cues, strict=True):
            assert turn.text is not None and turn.text in re.sub("<[^>]*>", "", cue.plaintext)
