"""Turns, and the lines, clock times and errors of the text files that hold them."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

CLOCK = r"(?:([0-9]{1,4}):)?([0-5]?[0-9]):([0-5]?[0-9])(?:[.,]([0-9]{1,9}))?"


# Called with one line about what the file leaves open.
Note = Callable[[str], None]


class Turn(NamedTuple):
    """A turn of a speaker and its first line in the file.

    Attributes:
        start: seconds.
        end: seconds, after `start`.
        speaker: a name, never empty.
        text: None where nobody wrote down what was said.
        line: counted from 1; of JSON, the number of the segment.
        channel: of the recording, from 1, if the file tells the speakers' channels apart.
    """

    start: float
    end: float
    speaker: str
    text: str | None
    line: int
    channel: int | None = None


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or UTF-16 with a byte order mark, with its line endings.

    Raises:
        ValueError: the file has another encoding; names the file and line.
    """
    content = path.read_bytes()
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}: line {line}: the text is neither UTF-8 nor UTF-16 with a byte order mark; "
            "save the file as UTF-8 (in Excel: CSV UTF-8)"
        ) from None


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file like `read_text`, with any line ending.

    Raises:
        ValueError: the file has another encoding; names the file and line.
    """
    # Not splitlines(), which also splits at characters that may occur within a line.
    lines = read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for place, each in enumerate(lines, start=1):
        if "\0" in each:
            raise ValueError(f"{path}: line {place}: expected text, got a NUL character")
    return lines


def seconds(text: str) -> float:
    """Read seconds from a number, M:S or H:M:S, with or without a fraction.

    Raises:
        ValueError: the text has another form.
    """
    found = re.fullmatch(CLOCK, text.strip())
    return clock(*found.groups()) if found else float(text)


class LineError(ValueError):
    """What is wrong with a line, or with the whole (0); the name of the file is added further up."""

    def __init__(self, line: int, message: str):
        """Keep the line's number, counted from 1."""
        super().__init__(message)
        self.line = line


def check_span(turn: Turn) -> None:
    """Raise LineError unless a turn has a start and a later end, both finite."""
    if not 0 <= turn.start < math.inf:
        raise LineError(turn.line, f"expected a start of at least 0 seconds, got {turn.start:g}")
    if not turn.start < turn.end < math.inf:
        raise LineError(turn.line, f"expected an end after the start {turn.start:g}, got {turn.end:g}")


def shared_span(spoken: Sequence[tuple[str, str]], *, start: float, end: float, line: int) -> Iterator[Turn]:
    """Yield a turn for each speaker and text, which share a span by the length of the texts."""
    total, done = sum(len(text) for _, text in spoken), 0
    for name, text in spoken:
        begins, done = start + (end - start) * done / total, done + len(text)
        until = start + (end - start) * done / total if done < total else end
        yield Turn(begins, until, name, text, line)


def clock(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> float:
    """Return the seconds of the groups of `CLOCK`."""
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction or 0}")


def seconds_of(text: str, *, line: int) -> float:
    """Read seconds like `seconds`, or raise LineError."""
    try:
        return seconds(text)
    except ValueError:
        raise LineError(line, f"expected seconds or H:M:S, got {text!r:.80}") from None


def name_of(text: str, *, line: int) -> str:
    """Return a speaker's name with single spaces, or raise LineError."""
    name = " ".join(text.split())
    if name in ("", "<NA>"):
        raise LineError(line, f"expected a speaker name, got {text!r}")
    return name
