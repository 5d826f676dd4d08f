"""Read the turns of a recording (who speaks when, and what) from RTTM, SRT, WebVTT and CSV files."""

import csv
import html
import io
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from redifu.conversation import shown, shown_names
from redifu.data.transcripts import UNKNOWN_SPEAKER

_CLOCK = r"(?:([0-9]{1,4}):)?([0-5]?[0-9]):([0-5]?[0-9])(?:[.,]([0-9]{1,9}))?"
_TIMING = re.compile(rf"\s*{_CLOCK}\s*-->\s*{_CLOCK}(?:\s.*)?")
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>", re.IGNORECASE)
# Two dashes mark an unfinished sentence, and a dash before a digit is a minus sign.
_DASH = re.compile(r"[-\u2010-\u2015]\s*(?=[^\s\d-])")
# Karaoke times and SubRip formatting, which some players also accept in braces.
_TAGS = re.compile(r"</?[A-Za-z][^<>]*>|<[0-9:.]+>|\{\\[^{}]*\}")
_NAME = re.compile(r"\s*([^:\uff1a<>]{1,40})(?::(?=\s|$)|\uff1a)\s*")
_MOST_WORDS_OF_A_NAME = 4
# WebVTT blocks without a cue.
_VTT_BLOCKS = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")
# RTTM objects that are not speaker turns.
_OTHER_RTTM = {
    *("SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT"),
    *("IP", "SU", "CB", "A/P", "SPKR-INFO"),
}


class Turn(NamedTuple):
    """A turn of a speaker and its first line in the file.

    Attributes:
        start: seconds.
        end: seconds, after `start`.
        speaker: a non-empty name.
        text: None without a transcript.
        line: line number from 1.
    """

    start: float
    end: float
    speaker: str
    text: str | None
    line: int


def read_turns(path: str | Path) -> list[Turn]:
    """Read the turns of a recording.

    In subtitles, `<v Ana>`, `Ana: ` and a dash start a new speaker within a cue; the time of the cue is
    divided in proportion to text length. A name before a colon has at most four words, none of which starts
    with a lowercase letter. A dash without a name means "speaker 1", "speaker 2", ..., counted within the
    cue. Text without a mark continues the previous speaker, who is "unknown" at the start. Cues without
    text and all formatting are removed.

    Args:
        path: .rttm (its SPEAKER lines, without text), .srt, .vtt, or .csv with the columns start, end (in
            seconds), speaker and optionally text; in UTF-8, or in UTF-16 with a byte order mark.

    Returns:
        At least one turn, sorted by start and then by end; turns may overlap.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is invalid; names the file and, if known, the line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(
            f"{path}: expected a file name ending in one of {', '.join(_FORMATS)}, got {path.suffix!r}"
        )
    lines = read_lines(path)
    turns = []
    try:
        for turn in _FORMATS[path.suffix.lower()](lines):
            _check_span(turn)
            turns.append(turn)
    except _LineError as error:
        raise ValueError(f"{path}: line {error.line}: {error}") from None
    if not turns:
        raise ValueError(f"{path}: expected at least one turn, got none")
    return sorted(turns, key=lambda turn: (turn.start, turn.end))


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
    """An error in a line; the caller adds the file name."""

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
    speaker = UNKNOWN_SPEAKER
    for first, block in blocks:
        # The times are on the first line, or on the second after the cue's number or name.
        place = 0 if "-->" in block[0] else min(1, len(block) - 1)
        start, end = _times(block[place], line=first + place)
        if any("-->" in line for line in block[place + 1 :]):
            raise _LineError(first + place, "expected an empty line between this cue and the next")
        _check_span(Turn(start, end, speaker, None, first + place))
        spoken = []
        for named, text in _parts(block[place + 1 :]):
            speaker = named or speaker
            if text:
                spoken.append((speaker, text))
        total, done = sum(len(text) for _, text in spoken), 0
        for name, text in spoken:
            begins, done = start + (end - start) * done / total, done + len(text)
            until = start + (end - start) * done / total if done < total else end
            yield Turn(begins, until, name, text, first + place)


def _parts(lines: list[str]) -> list[tuple[str | None, str]]:
    """Split a cue at speaker marks into (speaker, text); the text may be empty."""
    parts: list[tuple[str | None, str]] = [(None, "")]
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


def _times(text: str, *, line: int) -> tuple[float, float]:
    timing = _TIMING.fullmatch(text)
    if timing is None:
        expected = "00:01:02.345 --> 00:01:04.000"
        raise _LineError(line, f"expected cue times such as {expected}, got {text.strip()!r:.80}")
    return _clock(*timing.groups()[:4]), _clock(*timing.groups()[4:])


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
    ".csv": _turns_of_csv,
}
