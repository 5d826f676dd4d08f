"""Transcripts: pasted lines `Speaker: text`, and the segments that whisperX writes as JSON."""

import re
from collections.abc import Sequence
from typing import Any

# Whoever speaks before the first mark of a speaker, or where none was recognised.
UNKNOWN_SPEAKER = "unknown"

# A colon inside a time or an address ends no name.
_LINE = re.compile(r"\s*([^:\uff1a]{1,40}?)\s*[:\uff1a](?![0-9/])\s*(\S.*)")


def utterances_of_transcript(lines: Sequence[str], *, source: str) -> list[dict[str, Any]]:
    """Read lines `Speaker: text`, one utterance a line; empty lines are skipped.

    Raises:
        ValueError: naming the source and the line.
    """
    utterances = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        mark = _LINE.match(line)
        if mark is None or not any(character.isalpha() for character in mark[1]):
            raise ValueError(f"{source}: line {number}: expected Speaker: text, got {line!r:.60}")
        utterances.append({"speaker": mark[1], "text": mark[2].strip()})
    return utterances


def conversation_of(value: Any) -> Any:
    """Make a conversation of whisperX's JSON: an object with "segments", or a bare list of segments.

    A segment without a speaker is said by "unknown", and one without text is left out. Any other value is
    returned as it is.
    """
    if isinstance(value, list) and value and all(map(_is_segment, value)):
        value = {"segments": value}
    if not isinstance(value, dict) or "utterances" in value or not isinstance(value.get("segments"), list):
        return value
    others = {name: value[name] for name in ("id", "split") if name in value}
    utterances = [utterance_of_segment(each) for each in value["segments"]]
    return {**others, "utterances": [each for each in utterances if each != {}]}


def utterance_of_segment(segment: Any) -> Any:
    """Return the utterance of a segment of whisperX, {} for one without text; all else as it is."""
    if not _is_segment(segment):
        return segment
    text = " ".join(segment["text"].split())
    speaker = UNKNOWN_SPEAKER if segment.get("speaker") is None else segment["speaker"]
    return (
        {"speaker": speaker, "text": text, "start": segment["start"], "end": segment["end"]} if text else {}
    )


def _is_segment(value: Any) -> bool:
    return isinstance(value, dict) and {"start", "end"} <= value.keys() and isinstance(value.get("text"), str)
