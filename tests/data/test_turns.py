"""Turns: what each kind of file says, and one line for what is wrong with it."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redifu.data.transcripts import UNKNOWN_SPEAKER
from redifu.data.turns import Turn, read_turns

ENDINGS = [".rttm", ".srt", ".vtt", ".ass", ".json", ".csv", ".txt"]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def cue(*lines: str, times: str = "00:00:01,000 --> 00:00:03,000") -> str:
    return "\n".join(["1", times, *lines, "", ""])


def spoken(path: Path) -> list[tuple[str, str | None]]:
    return [(turn.speaker, turn.text) for turn in read_turns(path)]


def test_rttm_gives_turns_without_text(tmp_path: Path) -> None:
    text = (
        ";; made by hand\n"
        "SPKR-INFO a 1 <NA> <NA> <NA> adult_female Ana <NA> <NA>\n"
        "SPEAKER a 1 2.50 0.75 <NA> <NA> Ana <NA> <NA>\n\n"
        "SPEAKER a 1 1.00 2.00 <NA> <NA> Ben <NA>\n"
    )
    assert read_turns(write(tmp_path / "a.rttm", text)) == [
        Turn(1.0, 3.0, "Ben", None, 5),
        Turn(2.5, 3.25, "Ana", None, 3),
    ]


def test_csv_gives_turns_with_text_in_any_order_of_columns(tmp_path: Path) -> None:
    text = 'Text,speaker,mood,END,start\n"I, too.\nYes.",Ana,calm,3,1.5\n,Ben,,9,8e0\n\n"<i>",Ben,,2,0\n'
    assert read_turns(write(tmp_path / "a.csv", text)) == [
        Turn(0.0, 2.0, "Ben", "<i>", 6),
        Turn(1.5, 3.0, "Ana", "I, too. Yes.", 2),
        Turn(8.0, 9.0, "Ben", None, 4),
    ]
    assert read_turns(write(tmp_path / "b.csv", "start,end,speaker\n0,1,Ana\n"))[0].text is None


def test_times_of_a_csv_may_be_clock_times(tmp_path: Path) -> None:
    text = 'start,end,speaker\n0:01.5,00:00:02,Ana\n1:02:03,"1:02:04,25",Ben\n'
    turns = read_turns(write(tmp_path / "a.csv", text))
    assert [turn[:2] for turn in turns] == [(1.5, 2.0), (3723.0, 3724.25)]


def test_srt_gives_cues_sorted_by_time(tmp_path: Path) -> None:
    text = cue("Late.", times="01:00:00,500 --> 01:00:01,000 X1:10 X2:20") + cue("Early.", "Still.")
    assert read_turns(write(tmp_path / "a.srt", text)) == [
        Turn(1.0, 3.0, UNKNOWN_SPEAKER, "Early. Still.", 6),
        Turn(3600.5, 3601.0, UNKNOWN_SPEAKER, "Late.", 2),
    ]


def test_vtt_may_leave_out_hours_and_hold_blocks_that_are_no_cues(tmp_path: Path) -> None:
    text = (
        "WEBVTT - a talk\nKind: captions\n\nSTYLE\n::cue { color: red }\n\nNOTE\nof nobody\n\n"
        "REGION\nid:a\n\nopening\n00:01.5 --> 00:02.250 align:start\n<00:00:01.700>Hi <c.loud>you</c>\n\n"
        "01:02:03.004 --> 01:02:04.000\nA &lt; B &amp; C\n"
    )
    assert read_turns(write(tmp_path / "a.vtt", text)) == [
        Turn(1.5, 2.25, UNKNOWN_SPEAKER, "Hi you", 14),
        Turn(3723.004, 3724.0, UNKNOWN_SPEAKER, "A < B & C", 17),
    ]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["<v Ana>Hi.</v>"], [("Ana", "Hi.")]),
        (["<v.loud Ana Lee>Hi.", "You?"], [("Ana Lee", "Hi. You?")]),
        (["<v Ana>Hi.</v> <v Ben>Hello."], [("Ana", "Hi."), ("Ben", "Hello.")]),
        (["Ana: Hi."], [("Ana", "Hi.")]),
        (["<b>Ana:</b> Hi."], [("Ana", "Hi.")]),
        (["Ana:", "Hi."], [("Ana", "Hi.")]),
        (["Ana: Hi.", "Ben: Hello."], [("Ana", "Hi."), ("Ben", "Hello.")]),
        (["[SPEAKER_00]: Hi."], [("SPEAKER_00", "Hi.")]),
        (["小明：你好"], [("小明", "你好")]),
        (["Dr. Ana Lee: Hi."], [("Dr. Ana Lee", "Hi.")]),
        (["- Hi.", "- Hello."], [("speaker 1", "Hi."), ("speaker 2", "Hello.")]),
        (["– Ana: Hi.", "—Hello.", "You?"], [("Ana", "Hi."), ("speaker 2", "Hello. You?")]),
        # What only looks like a mark.
        (["He said: go."], [(UNKNOWN_SPEAKER, "He said: go.")]),
        (["At 10:30 then"], [(UNKNOWN_SPEAKER, "At 10:30 then")]),
        (["10: the number"], [(UNKNOWN_SPEAKER, "10: the number")]),
        (["-- and so on"], [(UNKNOWN_SPEAKER, "-- and so on")]),
        (["-5 degrees"], [(UNKNOWN_SPEAKER, "-5 degrees")]),
        (["I <3 you"], [(UNKNOWN_SPEAKER, "I <3 you")]),
        ([r"{\an8}<font color='red'>Hi.</font>"], [(UNKNOWN_SPEAKER, "Hi.")]),
    ],
)
@pytest.mark.parametrize("ending", [".srt", ".vtt"])
def test_marks_of_speakers(
    tmp_path: Path, ending: str, lines: list[str], expected: list[tuple[str, str]]
) -> None:
    header = "WEBVTT\n\n" if ending == ".vtt" else ""
    assert spoken(write(tmp_path / f"a{ending}", header + cue(*lines))) == expected


ASS = """\
[Script Info]
ScriptType: v4.00+

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Comment: 0,0:00:00.00,0:00:01.00,Default,,0,0,0,,nobody says this
Dialogue: 0,0:00:01.50,0:00:02.25,Default,Ana,0,0,0,,{\\i1}Hi,{\\i0} you?\\NYes.
Dialogue: 0,0:00:03.00,0:00:04.00,Default,,0,0,0,,{\\p1}m 0 0 l 100 0{\\p0}
Dialogue: 0,0:00:05.00,0:00:06.00,Default,,0,0,0,,Still me.
Dialogue: 0,0:00:07.00,0:00:09.00,Default,,0,0,0,,- Yes.\\N- Certainly!!!
"""


@pytest.mark.parametrize("ending", [".ass", ".ssa"])
def test_ass_names_its_speakers(tmp_path: Path, ending: str) -> None:
    assert read_turns(write(tmp_path / f"a{ending}", ASS)) == [
        Turn(1.5, 2.25, "Ana", "Hi, you? Yes.", 7),
        Turn(5.0, 6.0, "Ana", "Still me.", 9),
        Turn(7.0, 7.5, "speaker 1", "Yes.", 10),
        Turn(7.5, 9.0, "speaker 2", "Certainly!!!", 10),
    ]


def test_json_gives_the_segments_of_whisperx(tmp_path: Path) -> None:
    segments = [
        {"start": 2.5, "end": 4, "text": " Hello.", "words": []},
        {"start": 1, "end": 2.25, "text": " Hi  you. ", "speaker": "SPEAKER_00"},
        {"start": 2.25, "end": 2.25, "text": ""},
    ]
    for content in (segments, {"segments": segments, "language": "en"}):
        assert read_turns(write(tmp_path / "a.json", json.dumps(content))) == [
            Turn(1.0, 2.25, "SPEAKER_00", "Hi you.", 2),
            Turn(2.5, 4.0, UNKNOWN_SPEAKER, "Hello.", 1),
        ]


def test_numbers_among_the_words_of_a_cue_stay(tmp_path: Path) -> None:
    text = "1\n00:01 --> 00:02\nHow many?\n42\n\n2\n00:03 --> 00:04\n7\n\nname\n00:05 --> 00:06\nSo.\n1984"
    for name, header in (("a.srt", ""), ("a.vtt", "WEBVTT\n\n")):
        said = [turn.text for turn in read_turns(write(tmp_path / name, header + text))]
        assert said == ["How many? 42", "7", "So. 1984"]


def test_times_among_the_words_of_a_cue_begin_no_cue(tmp_path: Path) -> None:
    text = "WEBVTT\n\n00:00:01.000 --> 00:00:02.000\nOn<00:00:01.200><c> the</c><00:00:01.500><c> dot</c>\n"
    text += "from 00:00:03.000 to 00:00:04.000\n"
    assert [turn[:4] for turn in read_turns(write(tmp_path / "a.vtt", text))] == [
        (1.0, 2.0, UNKNOWN_SPEAKER, "On the dot from 00:00:03.000 to 00:00:04.000")
    ]


def test_a_cue_without_mark_goes_on_with_the_speaker_before(tmp_path: Path) -> None:
    text = cue("Hm.") + cue("Ana: Hi.") + cue("There.") + cue("Ben:") + cue("Yes.")
    said = [(UNKNOWN_SPEAKER, "Hm."), ("Ana", "Hi."), ("Ana", "There."), ("Ben", "Yes.")]
    assert spoken(write(tmp_path / "a.srt", text)) == said


def test_the_speakers_of_a_cue_share_its_time_by_the_length_of_what_they_say(tmp_path: Path) -> None:
    turns = read_turns(write(tmp_path / "a.srt", cue("- Yes.", "- Certainly!!!")))
    assert [(turn.start, turn.end) for turn in turns] == [(1.0, 1.5), (1.5, 3.0)]


def test_cues_without_text_are_left_out(tmp_path: Path) -> None:
    empty = cue() + cue("<i></i>") + cue(" ")
    assert spoken(write(tmp_path / "a.srt", empty + cue("Hi."))) == [(UNKNOWN_SPEAKER, "Hi.")]
    with pytest.raises(ValueError, match=r"a.srt: expected at least one turn, got none"):
        read_turns(write(tmp_path / "a.srt", empty))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_marks_of_encoding_and_line_ends_change_nothing(
    tmp_path: Path, ending: str, encoding: str, line_end: str
) -> None:
    text = {
        ".rttm": "SPEAKER a 1 1.0 2.0 <NA> <NA> Åsa <NA> <NA>\n",
        ".srt": cue("Åsa: Hi.", "Oh\u2028dear."),
        ".vtt": "WEBVTT\n\n" + cue("Åsa: Hi.", "Oh\u2028dear."),
        ".ass": "[Events]\nDialogue: 0,0:00:01.00,0:00:03.00,Default,Åsa,0,0,0,,Hi.\\NOh\u2028dear.\n",
        ".json": '[{"start": 1, "end": 3, "text": "Hi. Oh\u2028dear.",\n"speaker": "Åsa"}]',
        ".csv": "start,end,speaker,text\n1,3,Åsa,Hi. Oh dear.\n",
        ".txt": "Åsa  0:01\nHi.\nOh\u2028dear. Yes.\n",
    }[ending]
    path = write(tmp_path / f"a{ending}", text.replace("\n", line_end).encode(encoding))
    said = {".rttm": None, ".txt": "Hi. Oh dear. Yes."}.get(ending, "Hi. Oh dear.")
    assert [turn[:4] for turn in read_turns(path)] == [(1.0, 3.0, "Åsa", said)]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        (
            "a.md",
            "Ana: hi",
            "expected a file name ending in one of .rttm, .srt, .vtt, .ass, .ssa, .json, .csv, .txt, got '.m",
        ),
        ("a.txt", "0:01 Ana: hi\nBen: yes", "line 2: expected a time such as 'Ben  0:03' above the words"),
        ("a.txt", "Ana  0:05\nHi.\nBen  0:04\nYes.", "line 3: expected a time from 5 s up, got 4"),
        ("a.txt", "Ana  0:05\n\n", "expected at least one turn, got none"),
        ("a.rttm", "", "expected at least one turn, got none"),
        (
            "a.rttm",
            "\nSPEAKER a 1 0.5 Ana",
            "line 2: expected SPEAKER and 7 to 9 more fields, got 'SPEAKER a",
        ),
        ("a.rttm", "speaker a 1 1 1 <NA> <NA> Ana <NA>", "line 1: expected SPEAKER and 7 to 9 more fields"),
        ("a.rttm", "SPEAKER a 1 x 1 <NA> <NA> Ana <NA>", "line 1: expected seconds or H:M:S, got 'x'"),
        ("a.rttm", "SPEAKER a 1 -1 1 <NA> <NA> Ana <NA>", "line 1: expected a start of at least 0 seconds"),
        ("a.rttm", "SPEAKER a 1 nan 1 <NA> <NA> Ana <NA>", "line 1: expected a start of at least 0 seconds"),
        ("a.rttm", "SPEAKER a 1 1 0 <NA> <NA> Ana <NA>", "line 1: expected an end after the start 1, got 1"),
        ("a.rttm", "SPEAKER a 1 1 1 <NA> <NA> <NA> <NA>", "line 1: expected a speaker name"),
        (
            "a.rttm",
            "SPEAKER a 1 1 1 <NA> <NA> Ana <NA>\nSPEAKER b 1 1 1 <NA> <NA> Ana <NA>",
            "line 2: expected turns from one recording, got 'a' and 'b'",
        ),
        ("a.csv", "", "line 1: missing columns: start, end, speaker; found: none"),
        ("a.csv", "begin;end;speaker", "line 1: missing columns: start; found: begin, end, speaker"),
        ("a.csv", "start,\x1b[31m", "line 1: missing columns: end, speaker; found: start, '\\x1b[31m'"),
        ("a.csv", "start,end,speaker\n", "expected at least one turn, got none"),
        ("a.csv", "start,end,speaker\n0,1,Ana,hi", "line 2: expected 3 cells, got 4"),
        ("a.csv", "start,end,speaker\n0,1,", "line 2: expected a speaker name, got ''"),
        ("a.csv", "start,end,speaker\n0,1,Ana\n1,0:0x,Ana", "line 3: expected seconds or H:M:S, got '0:0x'"),
        ("a.csv", "start,end,speaker\n0,inf,Ana", "line 2: expected an end after the start 0, got inf"),
        ("a.csv", 'start,end,speaker\n0,1,"A"na', "line 2: not a CSV table: "),
        ("a.srt", cue("a") + "no times", "line 5: expected cue times such as 00:01:02.345"),
        ("a.srt", "1\n00:00:01,000 -> 00:00:02,000\na", "line 2: expected cue times such as 00:01:02.345"),
        (
            "a.srt",
            cue("a", times="0:61:01,000 --> 2:00:00,000"),
            "line 2: expected cue times such as 00:01:02.345",
        ),
        (
            "a.srt",
            cue("a", times="00:00:02,000 --> 00:00:02,000"),
            "line 2: expected an end after the start 2",
        ),
        ("a.srt", "1\n00:01 --> 00:02\na\n2\n00:02 --> 00:03\nb", "line 2: expected an empty line between"),
        ("a.vtt", cue("a"), "line 1: expected WEBVTT, got '1'"),
        ("a.vtt", "", "line 1: expected WEBVTT, got ''"),
        ("a.vtt", "WEBVTT\n00:01.000 --> 00:02.000\na", "line 1: expected an empty line between the header"),
        ("a.vtt", "WEBVTT\n\n" + cue("a") + "lost words", "line 7: expected cue times such as"),
        (
            "a.ass",
            "[Events]\nDialogue: 0,soon,0:00:01.00,,,,,,,Hi",
            "line 2: expected a line of ASS: Failed to",
        ),
        ("a.ass", "Dialogue: 0,0:00:01.00,0:00:01.00,,,,,,,Hi", "line 1: expected an end after the start 1"),
        ("a.ass", "[Events]\n", "expected at least one turn, got none"),
        ("a.json", "{", "not JSON: Expecting property name"),
        ("a.json", '{"words": []}', "expected a list of segments, got None"),
        ("a.json", "[]", "expected at least one turn, got none"),
        ("a.json", '[{"text": "Hi"}]', "segment 1: expected start, end and text, got {'text': 'Hi'}"),
        (
            "a.json",
            '[{"text": "Hi", "start": 1, "end": null}]',
            "segment 1: expected seconds or H:M:S, got 'None'",
        ),
        (
            "a.json",
            '[{"text": "Hi", "start": 1, "end": 1}]',
            "segment 1: expected an end after the start 1, got 1",
        ),
        ("a.srt", cue("caf\xe9").encode("cp1252"), "line 3: the text is neither UTF-8 nor UTF-16"),
        ("a.srt", cue("a").encode("utf-16-le"), "line 1: expected text, got a NUL character"),
    ],
)
def test_a_bad_file_gets_one_clear_line(
    tmp_path: Path, name: str, content: str | bytes, complaint: str
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(ValueError) as error:
        read_turns(path)
    assert str(error.value).startswith(f"{path}: {complaint}")
    assert str(error.value).isprintable()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none.srt: no such file"):
        read_turns(tmp_path / "none.srt")


# What a file of turns is made of, so that chance finds the way beyond the first check.
PIECES = st.sampled_from(
    [
        "WEBVTT",
        "\n",
        "\n\n",
        "\r\n",
        "1",
        "00:01.5 --> 00:02,5",
        " --> ",
        "<v Ana>",
        "Ana:",
        "- ",
        "&#0;",
        " ",
    ]
    + [
        "SPEAKER a 1 1 2 <NA> <NA> Ana <NA>",
        "start,end,speaker,text\n",
        "0,1,Ana,hi",
        '"',
        ",",
        "1e999",
        "<NA>",
        "Dialogue: 0,0:00:01.00,0:00:03.00,,Ana,,,,,",
        "\\N",
        "{\\p1}",
        '[{"start": 1, "end": 2, "text": "Hi"}]',
        "[",
    ]
)


@pytest.mark.parametrize("ending", ENDINGS)
@given(content=st.binary(max_size=200) | st.lists(PIECES | st.text(max_size=5)).map("".join))
@settings(max_examples=150, deadline=None)
def test_whatever_the_file_holds_it_is_turns_or_a_value_error(
    tmp_path_factory: pytest.TempPathFactory, ending: str, content: bytes | str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{ending}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    try:
        turns = read_turns(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}: ")
        return
    assert turns == sorted(turns, key=lambda turn: turn[:2])
    assert all(0 <= turn.start < turn.end and turn.speaker.strip() and turn.text != "" for turn in turns)
