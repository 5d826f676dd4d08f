"""Read the turns of subtitles: SRT, WebVTT and ASS."""

import io
import re
import warnings
from collections.abc import Generator, Iterator
from typing import Any

from pysubs2 import SSAEvent, SSAFile
from pysubs2.formats.subrip import SubripFormat
from pysubs2.formats.substation import SubstationFormat

from redifu.data.speaker_marks import parts_of, plain
from redifu.data.transcripts import UNKNOWN_SPEAKER
from redifu.data.turn_lines import CLOCK, LineError, Turn, check_span, clock

_TIMING = re.compile(rf"\s*{CLOCK}\s*-->\s*{CLOCK}(?:\s(?!.*-->).*)?")
# WebVTT blocks without a cue.
_VTT_BLOCKS = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")
_DRAWING = re.compile(r"\{[^{}]*\\p[1-9]")  # vectors in place of words in ASS


class _Cues(SubripFormat):
    """Cues of SRT and WebVTT, with the times that tools write: hours and fractions may be missing."""

    # On either side of an arrow: a time among the words begins no cue.
    TIMESTAMP = re.compile(rf"(?:(?<=-->)|(?=[^>]*-->))\s*{CLOCK}")

    @staticmethod
    def timestamp_to_ms(groups: Any) -> int:
        return round(1000 * clock(*groups))


def turns_of_srt(lines: list[str]) -> Iterator[Turn]:
    """Yield the turns of SRT, in file order."""
    return _turns_of_cues(_blocks(lines))


def turns_of_vtt(lines: list[str]) -> Iterator[Turn]:
    """Yield the turns of WebVTT, in file order."""
    if not re.match(r"WEBVTT(\s|$)", lines[0]):
        raise LineError(1, f"expected WEBVTT, got {lines[0]!r:.80}")
    blocks = list(_blocks(lines))
    if any("-->" in line for line in blocks[0][1]):
        raise LineError(1, "expected an empty line between the header and the first cue")
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
            raise LineError(first + place, f"expected cue times such as {expected}")
        if any("-->" in line for line in block[place + 1 :]):
            raise LineError(first + place, "expected an empty line between this cue and the next")
        numbers.append(first + place)
        kept += ["0", *block[place:], ""]
    cues, speaker = SSAFile(), UNKNOWN_SPEAKER
    # Numbers alone name cues here and end the file: pysubs2 takes other names for words of the cue before,
    # and a number that ends the last cue for the name of one that follows.
    _Cues.from_file(cues, io.StringIO("\n".join([*kept, "0"])), "srt", keep_html_tags=True)
    for number, cue in zip(numbers, cues, strict=True):
        parts = parts_of(cue.text.split(r"\N"))
        speaker = yield from _spoken(cue, parts, speaker=speaker, line=number)


def turns_of_ass(lines: list[str], *, kind: str) -> Iterator[Turn]:
    """Yield the turns of ASS or SSA, in file order."""
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
            raise LineError(number, f"expected a line of {kind.upper()}: {error!s:.80}") from None
        (cue,) = found
        parts = parts_of(cue.plaintext.split("\n"), name=plain(cue.name) or None)
        speaker = yield from _spoken(cue, parts, speaker=speaker, line=number)


def _spoken(
    cue: SSAEvent, parts: list[tuple[str | None, str]], *, speaker: str, line: int
) -> Generator[Turn, None, str]:
    """The turns of a cue, which share its time by their length; returns who speaks last."""
    start, end = cue.start / 1000, cue.end / 1000
    check_span(Turn(start, end, speaker, None, line))
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
