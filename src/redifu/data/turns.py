"""Who speaks when, and what: turns of a recording from RTTM, subtitles, CSV and whisperX's JSON."""

import json
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from redifu.conversation_values import shown, shown_names
from redifu.data.csv_rows import csv_rows
from redifu.data.subtitles import turns_of_ass, turns_of_srt, turns_of_vtt
from redifu.data.transcripts import turns_of_transcript, utterance_of_segment
from redifu.data.turn_lines import LineError, Note, Turn, check_span, name_of, read_lines, seconds_of

logger = logging.getLogger(__name__)

# The objects of an RTTM file that are no turns of a speaker.
_OTHER_RTTM = {
    *("SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT"),
    *("IP", "SU", "CB", "A/P", "SPKR-INFO"),
}


def read_turns(path: str | Path) -> list[Turn]:
    """Read the turns of a recording.

    In subtitles, `<v Ana>`, `Ana: `, `[SPEAKER_00]`, `>>` and a dash begin a part of a cue with a speaker of
    its own, and the parts share the time of the cue by their length. Names in front of a colon have at most
    four words, which begin with a capital letter unless the name recurs over cues; identifiers of cues that
    recur are names as well. A dash without a name stands for "speaker 1", "speaker 2" by its place in the
    cue, and `>>` for the other one of two speakers. In ASS, the field Name is the speaker of a line. Whatever
    has no mark goes on with the speaker before it, "unknown" at first. Lines of rolling captions are read
    once, from when they first appear. Cues without text are left out, and so is all formatting. What a file
    leaves open is logged as a warning.

    Args:
        path: .rttm (its SPEAKER lines, without text; their channels if these differ), .srt, .vtt, .ass, .ssa,
            .json of whisperX (segments without a speaker are said by "unknown"), .csv with the columns start,
            end (seconds or H:M:S), speaker and perhaps text, or .txt with lines such as `Ana  0:03` above the
            words, as Otter exports it, or `0:03 Ana: words` (a turn ends where the next begins); in UTF-8, or
            in UTF-16 with a byte order mark.

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
    turns: list[Turn] = []
    notes: list[str] = []
    try:
        for turn in _FORMATS[ending](lines, notes.append):
            check_span(turn)
            turns.append(turn)
    except LineError as error:
        place = f"{place_of(error.line, path)}: " if error.line else ""
        raise ValueError(f"{path}: {place}{error}") from None
    if not turns:
        raise ValueError(f"{path}: expected at least one turn, got none")
    for note in notes:
        logger.warning(f"{path}: {note}")
    return sorted(turns, key=lambda turn: (turn.start, turn.end))


def place_of(line: int, path: str | Path) -> str:
    """Say where a turn stands in its file: "line 3", or "segment 3" of JSON."""
    return f"{'segment' if Path(path).suffix.lower() == '.json' else 'line'} {line}"


def _turns_of_rttm(lines: list[str], note: Note) -> Iterator[Turn]:
    recording = None
    turns: list[Turn] = []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or fields[0].startswith(";") or fields[0] in _OTHER_RTTM:
            continue
        if fields[0] != "SPEAKER" or not 8 <= len(fields) <= 10:
            raise LineError(number, f"expected SPEAKER and 7 to 9 more fields, got {line.strip()!r:.80}")
        recording = recording or fields[1]
        if fields[1] != recording:
            got = f"{shown(recording)} and {shown(fields[1])}"
            raise LineError(number, f"expected turns from one recording, got {got}")
        start, duration = (seconds_of(field, line=number) for field in fields[3:5])
        channel = int(fields[2]) if fields[2].isdecimal() and int(fields[2]) else None
        turns.append(Turn(start, start + duration, name_of(fields[7], line=number), None, number, channel))
    # Most tools write the channel 1 for whatever they heard.
    several = len({turn.channel for turn in turns}) > 1
    yield from turns if several else (turn._replace(channel=None) for turn in turns)


def _turns_of_csv(lines: list[str], note: Note) -> Iterator[Turn]:
    header, rows = csv_rows("\n".join(lines))
    names = [name.strip().lower() for name in header]
    if missing := [name for name in ("start", "end", "speaker") if name not in names]:
        raise LineError(1, f"missing columns: {', '.join(missing)}; found: {shown_names(names) or 'none'}")
    for line, row in rows:
        cells = dict(zip(names, row, strict=True))
        start, end = (seconds_of(cells[name], line=line) for name in ("start", "end"))
        text = " ".join(cells.get("text", "").split())
        yield Turn(start, end, name_of(cells["speaker"], line=line), text or None, line)


def _turns_of_json(lines: list[str], note: Note) -> Iterator[Turn]:
    try:
        given = json.loads("\n".join(lines))
    except (ValueError, RecursionError) as error:
        raise LineError(0, f"not JSON: {error}") from None
    segments = given.get("segments") if isinstance(given, dict) else given
    if not isinstance(segments, list):
        raise LineError(0, f"expected a list of segments, got {shown(segments)}")
    for number, segment in enumerate(segments, start=1):
        said = utterance_of_segment(segment)
        if said is segment:
            raise LineError(number, f"expected start, end and text, got {shown(segment)}")
        if said:
            start, end = (seconds_of(str(said[name]), line=number) for name in ("start", "end"))
            yield Turn(start, end, name_of(str(said["speaker"]), line=number), said["text"], number)


_FORMATS: dict[str, Callable[[list[str], Note], Iterator[Turn]]] = {
    ".rttm": _turns_of_rttm,
    ".srt": turns_of_srt,
    ".vtt": turns_of_vtt,
    ".ass": partial(turns_of_ass, kind="ass"),
    ".ssa": partial(turns_of_ass, kind="ssa"),
    ".json": _turns_of_json,
    ".csv": _turns_of_csv,
    ".txt": lambda lines, note: turns_of_transcript(lines),
}
