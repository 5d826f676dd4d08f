"""Who speaks when, and what: turns of a recording from RTTM, subtitles, CSV and whisperX's JSON."""

import csv
import html
import io
import json
import math
import re
import warnings
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pysubs2 import SSAEvent, SSAFile
from pysubs2.formats.subrip import SubripFormat
from pysubs2.formats.substation import SubstationFormat

from redifu.conversation import shown, shown_names
from redifu.data.transcripts import UNKNOWN_SPEAKER, utterance_of_segment

_CLOCK = r"(?:([0-9]{1,4}):)?([0-5]?[0-9]):([0-5]?[0-9])(?:[.,]([0-9]{1,9}))?"
_TIMING = re.compile(rf"\s*{_CLOCK}\s*-->\s*{_CLOCK}(?:\s(?!.*-->).*)?")
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>", re.IGNORECASE)
# Two dashes mark an unfinished sentence, and a dash before a digit is a minus sign.
_DASH = re.compile(r"[-\u2010-\u2015]\s*(?=[^\s\d-])")
# Karaoke times and SubRip formatting, which some players also accept in braces.
_TAGS = re.compile(r"</?[A-Za-z][^<>]*>|<[0-9:.]+>|\{\\[^{}]*\}")
_NAME = re.compile(r"\s*([^:\uff1a<>]{1,40})(?::(?=\s|$)|\uff1a)\s*")
_MOST_WORDS_OF_A_NAME = 4
# WebVTT blocks without a cue.
_VTT_BLOCKS = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")
_DRAWING = re.compile(r"\{[^{}]*\\p[1-9]")  # vectors in place of words in ASS
# The objects of an RTTM file that are no turns of a speaker.
_OTHER_RTTM = {
    *("SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT"),
    *("IP", "SU", "CB", "A/P", "SPKR-INFO"),
}


class Turn(NamedTuple):
    """A turn of a speaker and its first line in the file.

    Attributes:
        start: seconds.
        end: seconds, after `start`.
        speaker: a name, never empty.
        text: None where nobody wrote down what was said.
        line: counted from 1; of JSON, the number of the segment.
    """

    start: float
    end: float
    speaker: str
    text: str | None
    line: int


def read_turns(path: str | Path) -> list[Turn]:
    """Read the turns of a recording.

    In subtitles, `<v Ana>`, `Ana: ` and a dash begin a part of a cue with a speaker of its own, and the parts
    share the time of the cue by their length. A name in front of a colon has at most four words, none of
    which begins with a small letter. A dash without a name stands for "speaker 1", "speaker 2" by its place
    in the cue. In ASS, the field Name is the speaker of a line. Whatever has no mark goes on with the speaker
    before it, "unknown" at first. Cues without text are left out, and so is all formatting.

    Args:
        path: .rttm (its SPEAKER lines, without text), .srt, .vtt, .ass, .ssa, .json of whisperX (segments
            without a speaker are said by "unknown"), or .csv with the columns start, end (seconds or H:M:S),
            speaker and perhaps text; in UTF-8, or in UTF-16 with a byte order mark.

    Returns:
        At least one turn, sorted by start and then by end; turns may overlap.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is invalid; names the file and, if known, the line.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if ending not in _FORMATS:
        raise ValueError(
            f"{path}: expected a file name ending in one of {', '.join(_FORMATS)}, got {path.suffix!r}"
        )
    lines = read_lines(path)
    turns = []
    try:
        for turn in _FORMATS[ending](lines):
            _check_span(turn)
            turns.append(turn)
    except _LineError as error:
        place = f"{place_of(error.line, path)}: " if error.line else ""
        raise ValueError(f"{path}: {place}{error}") from None
    if not turns:
        raise ValueError(f"{path}: expected at least one turn, got none")
    return sorted(turns, key=lambda turn: (turn.start, turn.end))


def place_of(line: int, path: str | Path) -> str:
    """Say where a turn stands in its file: "line 3", or "segment 3" of JSON."""
    return f"{'segment' if Path(path).suffix.lower() == '.json' else 'line'} {line}"


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file in UTF-8, or UTF-16 with a byte order mark, with any line ending.

    Raises:
        ValueError: the file has another encoding; names the file and line.
    """
    content = path.read_bytes()
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}: line {line}: the text is neither UTF-8 nor UTF-16 with a byte order mark"
        ) from None
    # Not splitlines(), which also splits at characters that may occur within a line.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for place, each in enumerate(lines, start=1):
        if "\0" in each:
            raise ValueError(f"{path}: line {place}: expected text, got a NUL character")
    return lines


def seconds(text: str) -> float:
    """Read seconds from a number, M:S or H:M:S, with or without a fraction.

    Raises:
        ValueError: the text has another form.
    """
    clock = re.fullmatch(_CLOCK, text.strip())
    return _clock(*clock.groups()) if clock else float(text)


class _LineError(ValueError):
    """What is wrong with a line, or with the whole (0); the name of the file is added further up."""

    def __init__(self, line: int, message: str):
        super().__init__(message)
        self.line = line


def _check_span(turn: Turn) -> None:
    if not 0 <= turn.start < math.inf:
        raise _LineError(turn.line, f"expected a start of at least 0 seconds, got {turn.start:g}")
    if not turn.start < turn.end < math.inf:
        raise _LineError(turn.line, f"expected an end after the start {turn.start:g}, got {turn.end:g}")


def _turns_of_rttm(lines: list[str]) -> Iterator[Turn]:
    recording = None
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or fields[0].startswith(";") or fields[0] in _OTHER_RTTM:
            continue
        if fields[0] != "SPEAKER" or not 8 <= len(fields) <= 10:
            raise _LineError(number, f"expected SPEAKER and 7 to 9 more fields, got {line.strip()!r:.80}")
        recording = recording or fields[1]
        if fields[1] != recording:
            got = f"{shown(recording)} and {shown(fields[1])}"
            raise _LineError(number, f"expected turns from one recording, got {got}")
        start, duration = (_seconds(field, line=number) for field in fields[3:5])
        yield Turn(start, start + duration, _name(fields[7], line=number), None, number)


def _turns_of_csv(lines: list[str]) -> Iterator[Turn]:
    rows = csv.reader(io.StringIO("\n".join(lines), newline=""), strict=True)
    try:
        header = [cell.strip().lower() for cell in next(rows, [])]
        missing = [name for name in ("start", "end", "speaker") if name not in header]
        if missing:
            raise _LineError(
                1, f"missing columns: {', '.join(missing)}; found: {shown_names(header) or 'none'}"
            )
        line = rows.line_num + 1
        for row in rows:
            if any(cell.strip() for cell in row):
                yield _turn_of_row(header, row, line=line)
            # Cells may contain line breaks, so a row starts after the end of the previous one.
            line = rows.line_num + 1
    except csv.Error as error:
        raise _LineError(rows.line_num, f"not a CSV table: {error}") from None


def _turn_of_row(header: list[str], row: list[str], *, line: int) -> Turn:
    if len(row) != len(header):
        raise _LineError(line, f"expected {len(header)} cells, got {len(row)}")
    cells = dict(zip(header, row, strict=True))
    start, end = (_seconds(cells[name], line=line) for name in ("start", "end"))
    text = " ".join(cells.get("text", "").split())
    return Turn(start, end, _name(cells["speaker"], line=line), text or None, line)


class _Cues(SubripFormat):
    """Cues of SRT and WebVTT, with the times that tools write: hours and fractions may be missing."""

    # On either side of an arrow: a time among the words begins no cue.
    TIMESTAMP = re.compile(rf"(?:(?<=-->)|(?=[^>]*-->))\s*{_CLOCK}")

    @staticmethod
    def timestamp_to_ms(groups: Any) -> int:
        return round(1000 * _clock(*groups))


def _turns_of_srt(lines: list[str]) -> Iterator[Turn]:
    return _turns_of_cues(_blocks(lines))


def _turns_of_vtt(lines: list[str]) -> Iterator[Turn]:
    if not re.match(r"WEBVTT(\s|$)", lines[0]):
        raise _LineError(1, f"expected WEBVTT, got {lines[0]!r:.80}")
    blocks = list(_blocks(lines))
    if any("-->" in line for line in blocks[0][1]):
        raise _LineError(1, "expected an empty line between the header and the first cue")
    return _turns_of_cues(block for block in blocks[1:] if not _VTT_BLOCKS.match(block[1][0]))


def _blocks(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield runs of non-empty lines, each with the number of its first line."""
    block: list[str] = []
    for number, line in enumerate([*lines, ""], start=1):
        if line.strip():
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []


def _turns_of_cues(blocks: Iterator[tuple[int, list[str]]]) -> Iterator[Turn]:
    numbers, kept = [], []
    for first, block in blocks:
        # The times are on the first line, or on the second after the cue's number or name.
        place = 0 if "-->" in block[0] else min(1, len(block) - 1)
        if _TIMING.fullmatch(block[place]) is None:
            expected = f"00:01:02.345 --> 00:01:04.000, got {block[place].strip()!r:.80}"
            raise _LineError(first + place, f"expected cue times such as {expected}")
        if any("-->" in line for line in block[place + 1 :]):
            raise _LineError(first + place, "expected an empty line between this cue and the next")
        numbers.append(first + place)
        kept += ["0", *block[place:], ""]
    cues, speaker = SSAFile(), UNKNOWN_SPEAKER
    # Numbers alone name cues here and end the file: pysubs2 takes other names for words of the cue before,
    # and a number that ends the last cue for the name of one that follows.
    _Cues.from_file(cues, io.StringIO("\n".join([*kept, "0"])), "srt", keep_html_tags=True)
    for number, cue in zip(numbers, cues, strict=True):
        parts = _parts(cue.text.split(r"\N"))
        speaker = yield from _spoken(cue, parts, speaker=speaker, line=number)


def _turns_of_ass(lines: list[str], *, kind: str) -> Iterator[Turn]:
    speaker = UNKNOWN_SPEAKER
    for number, line in enumerate(lines, start=1):
        # Only these, so that no style and no picture of the file can fail.
        if not line.startswith("Dialogue:") or _DRAWING.search(line):
            continue
        found = SSAFile()
        try:
            with warnings.catch_warnings(action="ignore"):  # about margins and layers
                SubstationFormat.from_file(found, io.StringIO(line), kind)
        except ValueError as error:
            raise _LineError(number, f"expected a line of {kind.upper()}: {error!s:.80}") from None
        (cue,) = found
        parts = _parts(cue.plaintext.split("\n"), name=_plain(cue.name) or None)
        speaker = yield from _spoken(cue, parts, speaker=speaker, line=number)


def _turns_of_json(lines: list[str]) -> Iterator[Turn]:
    try:
        given = json.loads("\n".join(lines))
    except (ValueError, RecursionError) as error:
        raise _LineError(0, f"not JSON: {error}") from None
    segments = given.get("segments") if isinstance(given, dict) else given
    if not isinstance(segments, list):
        raise _LineError(0, f"expected a list of segments, got {shown(segments)}")
    for number, segment in enumerate(segments, start=1):
        said = utterance_of_segment(segment)
        if said is segment:
            raise _LineError(number, f"expected start, end and text, got {shown(segment)}")
        if said:
            start, end = (_seconds(str(said[name]), line=number) for name in ("start", "end"))
            yield Turn(start, end, _name(str(said["speaker"]), line=number), said["text"], number)


def _spoken(
    cue: SSAEvent, parts: list[tuple[str | None, str]], *, speaker: str, line: int
) -> Generator[Turn, None, str]:
    """The turns of a cue, which share its time by their length; returns who speaks last."""
    start, end = cue.start / 1000, cue.end / 1000
    _check_span(Turn(start, end, speaker, None, line))
    spoken = []
    for named, text in parts:
        speaker = named or speaker
        if text:
            spoken.append((speaker, text))
    total, done = sum(len(text) for _, text in spoken), 0
    for name, text in spoken:
        begins, done = start + (end - start) * done / total, done + len(text)
        until = start + (end - start) * done / total if done < total else end
        yield Turn(begins, until, name, text, line)
    return speaker


def _parts(lines: list[str], name: str | None = None) -> list[tuple[str | None, str]]:
    """The parts of a cue, each with the speaker that a mark names and its text, which may be empty."""
    parts: list[tuple[str | None, str]] = [(name, "")]
    dashes = 0
    for line in lines:
        # Split by a pattern with one group: text, name, text, name, text.
        opening, *voices = _VOICE.split(line)
        if opening.strip():
            plain = _plain(opening)
            dash = _DASH.match(plain)
            dashes += dash is not None
            name, text = _named(plain[dash.end() :] if dash else plain)
            if name is None and dash:
                name = f"speaker {dashes}"
            parts.append((name, text))
        pairs = zip(voices[::2], voices[1::2], strict=True)
        parts += [(_plain(name) or None, _plain(text)) for name, text in pairs]
    return _joined(parts)


def _joined(parts: list[tuple[str | None, str]]) -> list[tuple[str | None, str]]:
    """Append parts without a speaker mark to the part before them."""
    joined = parts[:1]
    for name, text in parts[1:]:
        if name is None:
            before, begun = joined[-1]
            joined[-1] = (before, f"{begun} {text}".strip())
        else:
            joined.append((name, text))
    return joined


def _named(text: str) -> tuple[str | None, str]:
    """Split `Ana: text` into name and text; the name is None if the prefix does not look like a name."""
    if mark := _NAME.match(text):
        name = mark[1].strip("[]() ")
        words = name.split()
        letters = any(character.isalpha() for character in name)
        if letters and len(words) <= _MOST_WORDS_OF_A_NAME and not any(word[0].islower() for word in words):
            return name, text[mark.end() :].strip()
    return None, text


def _plain(text: str) -> str:
    """Remove formatting and collapse whitespace."""
    return " ".join(html.unescape(_TAGS.sub("", text)).split())


def _clock(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction or 0}")


def _seconds(text: str, *, line: int) -> float:
    try:
        return seconds(text)
    except ValueError:
        raise _LineError(line, f"expected seconds or H:M:S, got {text!r:.80}") from None


def _name(text: str, *, line: int) -> str:
    name = " ".join(text.split())
    if name in ("", "<NA>"):
        raise _LineError(line, f"expected a speaker name, got {text!r}")
    return name


_FORMATS: dict[str, Callable[[list[str]], Iterator[Turn]]] = {
    ".rttm": _turns_of_rttm,
    ".srt": _turns_of_srt,
    ".vtt": _turns_of_vtt,
    ".ass": partial(_turns_of_ass, kind="ass"),
    ".ssa": partial(_turns_of_ass, kind="ssa"),
    ".json": _turns_of_json,
    ".csv": _turns_of_csv,
}
