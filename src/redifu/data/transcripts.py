"""Read transcripts: lines of `Speaker: text`, and the JSON segments of whisperX."""

import re
from collections.abc import Sequence
from typing import Any

# The speaker before the first speaker mark, or if none was recognised.
UNKNOWN_SPEAKER = "unknown"

# A colon inside a time or a URL does not end a name.
_LINE = re.compile(r"\s*([^:\uff1a]{1,40}?)\s*[:\uff1a](?![0-9/])\s*(\S.*)")


def utterances_of_transcript(lines: Sequence[str], *, source: str) -> list[dict[str, Any]]:
    """Read one utterance per `Speaker: text` line; empty lines are skipped.

    Raises:
        ValueError: a line has another form; names the source and the line.
    """
    utterances = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        mark = _LINE.match(line)
        if mark is None or not any(character.isalpha() for character in mark[1]):
            raise ValueError(f"{source}: line {number}: expected 'Speaker: text', got {line!r:.60}")
        utterances.append({"speaker": mark[1], "text": mark[2].strip()})
    return utterances


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
