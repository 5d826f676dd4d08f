"""What a conversation is: a plain dict, as in a conversation file, and the checks of its structure."""

import reprlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

FEATURES = ("text_features", "audio_features", "visual_features")
# All that an utterance may be recognised from; one of them is enough.
STREAMS = ("text", "audio", "video", *FEATURES)

# Models compute in float32, where anything beyond is infinite.
LARGEST_FEATURE = float(np.finfo(np.float32).max)

# Of what an error shows as it is: characters, and names in a row.
_LONGEST_NAME, _MOST_NAMES = 80, 20


def validate_conversation(
    conversation: Any, *, source: str, index: int = 0, line: int | None = None
) -> dict[str, Any]:
    """Check the structure of one conversation and give it an id.

    Args:
        conversation: {"id"?: str, "utterances": [{"speaker": str, "text"?: str, ...}, ...]}; `start` and
            `end` are seconds, features lists of numbers; None is as good as absent; other keys are kept.
        source: the file it came from, named in errors.
        index: its place in the file from 0; a missing id becomes "STEM-INDEX", STEM the file's name without
            its ending.
        line: where in the file it stands, named in errors where given.

    Returns:
        The same conversation, or a shallow copy where an id was added.

    Raises:
        ValueError: naming file, dialogue and utterance (counted from 0) of the first mistake.
    """
    place = source if line is None else f"{source}: line {line}"
    if not isinstance(conversation, dict):
        raise ValueError(f"{place}: conversation {index}: expected an object, got {shown(conversation)}")
    if conversation.get("id") is None:
        conversation = {**conversation, "id": f"{Path(source).stem}-{index}"}
    try:
        _check_string("id", conversation["id"])
    except ValueError as error:
        raise ValueError(f"{place}: conversation {index}: {error}") from None
    where = f"{place}: dialogue {shown_names([conversation['id']])}"
    utterances = conversation.get("utterances")
    if not isinstance(utterances, list) or not utterances:
        raise ValueError(f"{where}: expected a list of at least one utterance, got {shown(utterances)}")
    for turn, utterance in enumerate(utterances):
        try:
            validate_utterance(utterance)
        except ValueError as error:
            raise ValueError(f"{where}, utterance {turn}: {error}") from None
    return conversation


def validate_utterance(utterance: Any) -> None:
    """Check the structure of one utterance, {"speaker": str, "text"?: str, ...}.

    Raises:
        ValueError: naming the field of the first mistake.
    """
    if not isinstance(utterance, dict):
        raise ValueError(f"expected an object, got {shown(utterance)}")
    _check_string("speaker", utterance.get("speaker"))
    given = {name: value for name, value in utterance.items() if value is not None}
    # Real transcripts hold empty lines: where another stream is given, such a text only counts as missing.
    if isinstance(given.get("text"), str) and not given["text"].strip():
        del given["text"]
    if not any(name in given for name in STREAMS):
        raise ValueError(f"expected content, at least one of {', '.join(STREAMS)}; got none")
    for name in ("text", "audio", "video", "label"):
        if name in given:
            _check_string(name, given[name])
    for name in FEATURES:
        if name in given:
            _check_features(name, given[name])
    _check_span(given)


def shown_names(names: Iterable[str]) -> str:
    """Put names that somebody else chose into a line of an error, the first 20 of them.

    One that is long, or holds what a terminal would obey, is shown as a shortened literal.
    """
    given = list(names)
    plain = (each.isprintable() and len(each) <= _LONGEST_NAME for each in given[:_MOST_NAMES])
    parts = [each if ok else shown(each) for each, ok in zip(given, plain, strict=False)]
    return ", ".join([*parts, "..."] if len(given) > _MOST_NAMES else parts)


def shown(value: Any) -> str:
    """Put a value that somebody else chose into a line of an error, as a shortened literal."""
    return reprlib.repr(value)


def _check_string(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name}: expected a string that is not empty, got {shown(value)}")
    # JSON can write half of a surrogate pair, which no tokenizer and no file can take.
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"{name}: expected whole characters, got half of a surrogate pair in {shown(value)}")


def _check_features(name: str, features: Any) -> None:
    try:
        values = np.asarray(features)
    except ValueError:  # lists of different lengths inside
        values = np.asarray(None)
    if values.ndim != 1 or not values.size or values.dtype.kind not in "iuf":
        raise ValueError(f"{name}: expected a list of at least one number, got {shown(features)}")
    wrong = np.flatnonzero(~(np.abs(values) <= LARGEST_FEATURE))
    if wrong.size:
        raise ValueError(f"{name}: expected finite numbers, got {values[wrong[0]]} at position {wrong[0]}")


def _check_span(given: dict[str, Any]) -> None:
    for name in ("start", "end"):
        value = given.get(name, 0.0)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value <= sys.float_info.max:
            raise ValueError(f"{name}: expected seconds from 0, got {shown(value)}")
    if "start" in given and "end" in given and given["end"] <= given["start"]:
        raise ValueError(f"end: expected a time after start {given['start']}, got {given['end']}")
