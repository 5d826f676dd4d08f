"""Read the turns of subtitles: SRT, WebVTT and ASS."""

import html
import io
import re
import warnings
from collections.abc import Generator, Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from pysubs2 import SSAFile
from pysubs2.formats.subrip import SubripFormat
from pysubs2.formats.substation import SubstationFormat

from redifu.data.speaker_marks import SpeakerMarks, plain, speakers_among
from redifu.data.transcripts import UNKNOWN_SPEAKER
from redifu.data.turn_lines import CLOCK, LineError, Note, Turn, check_span, clock, shared_span

_TIMING = re.compile(rf"\s*{CLOCK}\s*-->\s*{CLOCK}(?:\s(?!.*-->).*)?")
# WebVTT blocks without a cue.
_VTT_BLOCKS = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")
_DRAWING = re.compile(r"\{[^{}]*\\p[1-9]")  # vectors in place of words in ASS
_ROLLING = 0.3  # captions roll if this share of the cues repeats lines of the cue before
_AT_ONCE = 0.1  # seconds: after a longer pause, the same words are said again


class _Cue(NamedTuple):
    """A cue as it stands in the file.

    Attributes:
        start: seconds.
        end: seconds.
        lines: with formatting.
        name: of an ASS line, or the identifier of a WebVTT cue.
        line: of the file, counted from 1.
    """

    start: float
    end: float
    lines: list[str]
    name: str | None
    line: int


class _Cues(SubripFormat):
    """Cues of SRT and WebVTT, with the times that tools write: hours and fractions may be missing."""

    # On either side of an arrow: a time among the words begins no cue.
    TIMESTAMP = re.compile(rf"(?:(?<=-->)|(?=[^>]*-->))\s*{CLOCK}")

    @staticmethod
    def timestamp_to_ms(groups: Any) -> int:
        return round(1000 * clock(*groups))


def turns_of_srt(lines: list[str], note: Note) -> Iterator[Turn]:
    """Yield the turns of SRT, in file order."""
    return _turns_of_cues(_each_line_once(_cues(_blocks(lines))), note)


def turns_of_vtt(lines: list[str], note: Note) -> Iterator[Turn]:
    """Yield the turns of WebVTT, in file order."""
    if not re.match(r"WEBVTT(\s|$)", lines[0]):
        raise LineError(1, f"expected WEBVTT, got {lines[0]!r:.80}")
    blocks = list(_blocks(lines))
    if any("-->" in line for line in blocks[0][1]):
        raise LineError(1, "expected an empty line between the header and the first cue")
    cues = _cues(block for block in blocks[1:] if not _VTT_BLOCKS.match(block[1][0]))
    return _turns_of_cues(_each_line_once(cues), note)


def turns_of_ass(lines: list[str], note: Note, *, kind: str) -> Iterator[Turn]:
    """Yield the turns of ASS or SSA, in file order."""
    cues = []
    for number, line in enumerate(lines, start=1):
        # Only these, so that no style and no picture of the file can fail.
        if not line.startswith("Dialogue:") or _DRAWING.search(line):
            continue
        found = SSAFile()
        try:
            with warnings.catch_warnings(action="ignore"):  # about margins and layers
                SubstationFormat.from_file(found, io.StringIO(line), kind)
        except ValueError as error:
            raise LineError(number, f"expected a line of {kind.upper()}: {error!s:.80}") from None
        (cue,) = found
        times = cue.start / 1000, cue.end / 1000
        cues.append(_Cue(*times, cue.plaintext.split("\n"), plain(cue.name) or None, number))
    return _turns_of_cues(cues, note)


def _blocks(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the runs of lines between empty ones, each with the number of its first line.

    A line of spaces is a line of a cue, as in automatic captions, unless the next cue follows.
    """
    block: list[str] = []
    for number, line in enumerate([*lines, ""], start=1):
        inside = line and block and not any("-->" in later for later in lines[number : number + 2])
        if line.strip() or inside:
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []


def _cues(blocks: Iterable[tuple[int, list[str]]]) -> list[_Cue]:
    names, numbers, kept = [], [], []
    for first, block in blocks:
        # The times are on the first line, or on the second after the cue's number or name.
        place = 0 if "-->" in block[0] else min(1, len(block) - 1)
        if _TIMING.fullmatch(block[place]) is None:
            expected = f"00:01:02.345 --> 00:01:04.000, got {block[place].strip()!r:.80}"
            raise LineError(first + place, f"expected cue times such as {expected}")
        if any("-->" in line for line in block[place + 1 :]):
            raise LineError(first + place, "expected an empty line between this cue and the next")
        names.append(plain(block[0]) if place else "")
        numbers.append(first + place)
        kept += ["0", *block[place:], ""]
    cues = SSAFile()
    # Numbers alone name cues here and end the file: pysubs2 takes other names for words of the cue before,
    # and a number that ends the last cue for the name of one that follows.
    _Cues.from_file(cues, io.StringIO("\n".join([*kept, "0"])), "srt", keep_html_tags=True)
    speakers = speakers_among(names)
    return [
        _Cue(cue.start / 1000, cue.end / 1000, cue.text.split(r"\N"), speakers.get(name), number)
        for name, number, cue in zip(names, numbers, cues, strict=True)
    ]


def _each_line_once(cues: list[_Cue]) -> list[_Cue]:
    """Remove from captions that roll what each cue repeats of the cue before it."""
    shown = [[text for line in cue.lines if (text := plain(line))] for cue in cues]
    # A cue without text shows nothing, and nothing rolls out of it.
    places = [place for place, texts in enumerate(shown) if texts]
    news = {
        later: texts
        for before, later in pairwise(places)
        if cues[before].name == cues[later].name
        and (texts := _news(shown[before], shown[later])) != shown[later]
        # What nobody adds to may be said again, unless it follows at once.
        and (texts or cues[later].start - cues[before].end <= _AT_ONCE)
    }
    grows = any(news.values())
    if len(news) < (max(2, _ROLLING * len(places)) if grows else max(2, len(places) / 2)):
        return cues
    # Escaped, because these lines hold no formatting any more.
    rolled = {place: [html.escape(line, quote=False) for line in texts] for place, texts in news.items()}
    return [cue._replace(lines=rolled.get(place, cue.lines)) for place, cue in enumerate(cues)]


def _news(before: list[str], lines: list[str]) -> list[str]:
    """Return the lines, or the end of a line, that did not stand at the end of the cue before."""
    for count in range(min(len(before), len(lines)), 0, -1):
        old, last = before[-count:], lines[count - 1]
        if old[:-1] == lines[: count - 1]:
            if old[-1] == last:
                return lines[count:]
            if last.startswith(f"{old[-1]} "):
                return [last[len(old[-1]) + 1 :], *lines[count:]]
    return lines


def _turns_of_cues(cues: list[_Cue], note: Note) -> Iterator[Turn]:
    marks, speaker = SpeakerMarks(cue.lines for cue in cues), UNKNOWN_SPEAKER
    for cue in cues:
        speaker = yield from _spoken(cue, marks, speaker=speaker)
    for line in marks.notes():
        note(line)


def _spoken(cue: _Cue, marks: SpeakerMarks, *, speaker: str) -> Generator[Turn, None, str]:
    """The turns of a cue, which share its time by their length; returns who speaks last."""
    check_span(Turn(cue.start, cue.end, speaker, None, cue.line))
    spoken = []
    for named, text in marks.parts(cue.lines, cue.name):
        speaker = marks.speaker(named, speaker)
        if text:
            spoken.append((speaker, text))
    yield from shared_span(spoken, start=cue.start, end=cue.end, line=cue.line)
    return speaker
