"""Read transcripts: lines of `Speaker: text`, exports of chats and of Otter, and segments of whisperX."""

import logging
import re
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise, zip_longest
from typing import Any, NamedTuple

from redifu.data.turn_lines import CLOCK, LineError, Turn, clock, shared_span

logger = logging.getLogger(__name__)

# The speaker before the first speaker mark, or if none was recognised.
UNKNOWN_SPEAKER = "unknown"

# A colon inside a time, a score or a URL does not end a name.
_LINE = re.compile(r"\s*([^:\uff1a]{1,40}?)\s*[:\uff1a](?!/|(?<=[0-9].)[0-9])\s*(\S.*)")
# Read where every line has this form.
_BRACKETED = re.compile(r"\s*\[\s*([^\[\]:\uff1a]{1,40}?)\s*\]\s*[:\uff1a]?\s*(\S.*)")
# The time before a name: "0:03 Ana: ", "[00:00:03] Ana: ".
_TIMED = re.compile(rf"\s*[\[(]?{CLOCK}[\])]?\s*(?:[AaPp]\.?[Mm]\.?)?(?:\s-\s)?\s*(?=\S)")
# The line above the words: "Ana  0:03" of Otter, "Ana (00:03):" of others.
_HEADING = re.compile(rf"\s*([^:\uff1a]{{1,60}}?)(?:\s{{2,}}|\t|\s*[\[(]){CLOCK}[\])]?:?\s*")
# A message of a phone: "3/14/25, 8:15 PM - Ana: " or "[14.03.25, 20:15:09] Ana: ".
_MESSAGE = re.compile(
    r"[\u200e\u200f\s]*\[?\d{1,4}[./-]\d{1,2}[./-]\d{1,4}\.?,?\s+\d{1,2}[:.]\d{2}(?:[:.]\d{2})?"
    r"(?:\s?[AaPp]\.?\s?[Mm]\.?)?\]?(?:\s*-)?\s+(?:([^:\uff1a]{1,60})[:\uff1a](?:\s+|$))?(.*)"
)
_OTTER = "Transcribed by https://otter.ai"
_SECONDS_OF_A_WORD = 0.5


class _Said(NamedTuple):
    """What one speaker says, from its line, counted from 1; `start` is None without a time."""

    line: int
    start: float | None
    speaker: str
    text: str


def utterances_of_transcript(lines: Sequence[str], *, source: str) -> list[dict[str, Any]]:
    """Read the utterances of a transcript; empty lines are skipped.

    Read are `Speaker: text` or `[Speaker] text`, perhaps after a time, one utterance a line; chats that a
    phone has exported, where a message may have several lines; and blocks of lines below `Speaker  0:03`,
    which give their utterances start and end.

    Raises:
        ValueError: a line has another form; names the source and the line.
    """
    try:
        said = _read(lines, source)
        if not said or not _has_headings(lines):
            return [{"speaker": each.speaker, "text": each.text} for each in said]
        turns = [turn._asdict() for turn in _timed(said)]
        return [{name: turn[name] for name in ("speaker", "text", "start", "end")} for turn in turns]
    except LineError as error:
        raise ValueError(f"{source}: line {error.line}: {error}") from None


def turns_of_transcript(lines: list[str]) -> Iterator[Turn]:
    """Yield the turns of a transcript with times.

    A turn ends where the next begins, and the last one after half a second for each of its words. Turns that
    begin at once share the time by the length of their texts.
    """
    yield from _timed(_read(lines, "transcript"))


def _read(lines: Sequence[str], source: str) -> list[_Said]:
    first = next((line for line in lines if line.strip()), "")
    if _MESSAGE.match(first):
        return _messages(lines, source)
    return _blocks(lines, source) if _has_headings(lines) else _lines(lines)


def _has_headings(lines: Sequence[str]) -> bool:
    """Whether a speaker with a time stands above the words, rather than a speaker before them."""
    matches = (_HEADING.fullmatch(line) or _LINE.match(line) for line in lines)
    first = next((mark for mark in matches if mark), None)
    return first is not None and first.re is _HEADING


def _lines(lines: Sequence[str]) -> list[_Said]:
    said = []
    form = _BRACKETED if _are_bracketed(lines) else _LINE
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        time, mark = _time_and_mark(line, form)
        if mark is None or not any(character.isalpha() for character in mark[1]):
            raise LineError(number, f"expected 'Speaker: text', got {line!r:.60}")
        start = clock(*time.groups()) if time else None
        said.append(_Said(number, start, mark[1], mark[2].strip()))
    return said


def _time_and_mark(line: str, form: re.Pattern[str]) -> tuple[re.Match[str] | None, re.Match[str] | None]:
    time = _TIMED.match(line)
    return time, form.match(line, time.end() if time else 0)


def _are_bracketed(lines: Sequence[str]) -> bool:
    """Whether every line begins with a name in brackets, and not with a noise such as "[laughs]"."""
    said = [line for line in lines if line.strip()]
    names = [mark[1] for line in said if (mark := _time_and_mark(line, _BRACKETED)[1])]
    recur = len(set(names)) < len(names)
    return len(names) == len(said) and (recur or not any(name[0].islower() for name in names))


def _blocks(lines: Sequence[str], source: str) -> list[_Said]:
    said: list[_Said] = []
    skipped = []
    for number, line in enumerate(lines, start=1):
        text = " ".join(line.split())
        if mark := _HEADING.fullmatch(line):
            name = " ".join(mark[1].split()) or UNKNOWN_SPEAKER
            said.append(_Said(number, clock(*mark.groups()[1:]), name, ""))
        elif said and text != _OTTER:
            said[-1] = said[-1]._replace(text=f"{said[-1].text} {text}".strip())
        elif text and text != _OTTER:
            skipped.append(text)
    if skipped:
        logger.warning(f"{source}: left out, before the first speaker: {' / '.join(skipped)!r:.80}")
    return [each for each in said if each.text]


def _messages(lines: Sequence[str], source: str) -> list[_Said]:
    said: list[_Said] = []
    notices = 0
    for number, line in enumerate(lines, start=1):
        if mark := _MESSAGE.match(line):
            notices += mark[1] is None
            # What the phone says itself has no author; its further lines belong to nobody, either.
            said.append(_Said(number, None, mark[1] or "", mark[2].strip()))
        elif line.strip():
            said[-1] = said[-1]._replace(text=f"{said[-1].text} {line.strip()}".strip())
    if notices:
        logger.warning(f"{source}: left out: messages without an author ({notices})")
    return [each for each in said if each.speaker and each.text]


def _timed(said: Sequence[_Said]) -> Iterator[Turn]:
    for each in said:
        if each.start is None:
            raise LineError(each.line, f"expected a time such as '{each.speaker}  0:03' above the words")
    for before, after in pairwise(said):
        if (after.start or 0) < (before.start or 0):
            raise LineError(after.line, f"expected a time from {before.start:g} s up, got {after.start:g}")
    groups = [list(group) for _, group in groupby(said, key=lambda each: each.start)]
    for group, following in zip_longest(groups, groups[1:]):
        start, words = group[0].start or 0.0, sum(len(each.text.split()) for each in group)
        end = start + _SECONDS_OF_A_WORD * words if following is None else following[0].start or 0.0
        shares = shared_span([(each.speaker, each.text) for each in group], start=start, end=end, line=0)
        yield from (turn._replace(line=each.line) for turn, each in zip(shares, group, strict=True))


def conversation_of(value: Any) -> Any:
    """Convert whisperX's JSON, an object with "segments" or a list of segments, to a conversation.

    A segment without a speaker gets the speaker "unknown"; a segment without text is omitted. Any other
    value is returned unchanged.
    """
    if isinstance(value, list) and value and all(map(_is_segment, value)):
        value = {"segments": value}
    if not isinstance(value, dict) or "utterances" in value or not isinstance(value.get("segments"), list):
        return value
    others = {name: value[name] for name in ("id", "split") if name in value}
    utterances = [utterance_of_segment(each) for each in value["segments"]]
    return {**others, "utterances": [each for each in utterances if each != {}]}


def utterance_of_segment(segment: Any) -> Any:
    """Convert a whisperX segment to an utterance ({} if it has no text); return other values unchanged."""
    if not _is_segment(segment):
        return segment
    text = " ".join(segment["text"].split())
    speaker = UNKNOWN_SPEAKER if segment.get("speaker") is None else segment["speaker"]
    return (
        {"speaker": speaker, "text": text, "start": segment["start"], "end": segment["end"]} if text else {}
    )


def _is_segment(value: Any) -> bool:
    return isinstance(value, dict) and {"start", "end"} <= value.keys() and isinstance(value.get("text"), str)
