"""Checks of single values of a conversation, with one-line errors."""

import reprlib
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from redifu.media.quality import QUALITY

# What speech recognition tells about an utterance besides its text, speaker and times.
RECOGNISED = ("words", "text_confidence", "overlap")
# Models compute in float32, where larger values are infinite.
LARGEST_FEATURE = float(np.finfo(np.float32).max)

# Far beyond what anybody says in one turn, and the names and paths of anybody: what is longer is a mistake.
LONGEST_TEXT, LONGEST_NAME = 100_000, 4_096

# Limits for user-supplied names in errors: characters per name, and number of names.
_LONGEST_NAME, _MOST_NAMES = 80, 20
_SHARE, _SECONDS = (1.0, "a number from 0 to 1"), (sys.float_info.max, "a number of seconds from 0 up")
_VARIATIONS = {chr(code) for code in range(0xFE00, 0xFE10)}  # choose between pictures of one character


def shown_names(names: Iterable[str]) -> str:
    """Format the first 20 user-supplied names for a one-line error.

    Names that are long or contain unprintable characters are shown as shortened literals.
    """
    given = list(names)
    plain = (each.isprintable() and len(each) <= _LONGEST_NAME for each in given[:_MOST_NAMES])
    parts = [each if ok else shown(each) for each, ok in zip(given, plain, strict=False)]
    return ", ".join([*parts, "..."] if len(given) > _MOST_NAMES else parts)


def shown(value: Any) -> str:
    """Format a user-supplied value as a shortened literal for a one-line error."""
    return reprlib.repr(value)


def checked_string(name: str, value: Any) -> str:
    """Return a string that is not blank and valid Unicode."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name}: expected a non-empty string, got {shown(value)}")
    if len(value) > (most := LONGEST_TEXT if name == "text" else LONGEST_NAME):
        raise ValueError(f"{name}: expected at most {most:,} characters, got {len(value):,}")
    # JSON can hold an unpaired surrogate, which tokenizers and files cannot encode.
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"{name}: expected valid Unicode, got an unpaired surrogate in {shown(value)}")
    return value


def normal_speaker(value: Any) -> str:
    """Return a speaker's name in normal form; see `Utterance`."""
    name = checked_string("speaker", value)
    if not name.isascii():
        name = "".join(
            each for each in name if each not in _VARIATIONS and unicodedata.category(each) != "Cf"
        )
        name = unicodedata.normalize("NFC", name)
    return checked_string("speaker", " ".join(name.split()))


def checked_features(name: str, features: Any) -> np.ndarray:
    """Return a (size,) float32 array of finite numbers."""
    try:
        values = np.asarray(features)
    except ValueError:  # nested lists of different lengths
        values = np.asarray(None)
    if values.ndim != 1 or not values.size or values.dtype.kind not in "iuf":
        raise ValueError(f"{name}: expected a non-empty list of numbers, got {shown(features)}")
    wrong = np.flatnonzero(~(np.abs(values) <= LARGEST_FEATURE))
    if wrong.size:
        raise ValueError(f"{name}: expected finite numbers, got {values[wrong[0]]} at position {wrong[0]}")
    return values.astype(np.float32)


def recognised(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return what speech recognition said of an utterance."""
    found = {name: given for name in RECOGNISED if (given := value.get(name)) is not None}
    for name, given in found.items():
        found[name] = _words(given) if name == "words" else _number(name, given, *_SHARE)
    return found


def _words(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"words: expected a list of objects, got {shown(value)}")
    return [_word(position, word) for position, word in enumerate(value)]


def _word(position: int, word: Any) -> dict[str, Any]:
    try:
        if not isinstance(word, Mapping):
            raise ValueError(f"expected an object, got {shown(word)}")
        text = checked_string("word", word.get("word"))
        start, end = (_number(name, word.get(name), *_SECONDS) for name in ("start", "end"))
        if end < start:
            raise ValueError(f"end: expected a time not before start {start}, got {end}")
        probability = _number("probability", word.get("probability"), *_SHARE)
    except ValueError as error:
        raise ValueError(f"words: word {position}: {error}") from None
    return {"word": text, "start": start, "end": end, "probability": probability}


def _number(name: str, value: Any, most: float, expected: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= most:
        raise ValueError(f"{name}: expected {expected}, got {shown(value)}")
    return value


def checked_span(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the start and end of an utterance, in seconds."""
    given = {name: seconds for name in ("start", "end") if (seconds := value.get(name)) is not None}
    span = {name: _number(name, seconds, *_SECONDS) for name, seconds in given.items()}
    if len(span) == 2 and span["end"] <= span["start"]:
        raise ValueError(f"end: expected a time after start {span['start']}, got {span['end']}")
    return span


def checked_channel(value: Any) -> int:
    """Return the number of a channel, from 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"audio_channel: expected the number of a channel, from 1 up, got {shown(value)}")
    return value


def readings(value: Mapping[str, Any]) -> dict[str, Any]:
    """Read quality and missing streams from a table of features; ignore invalid values."""
    quality: dict[str, dict[str, float]] = {}
    for stream, measures in QUALITY.items():
        values = value.get(f"{stream}_quality")
        if isinstance(values, Sequence) and not isinstance(values, str) and len(values) == len(measures):
            known = {
                name: float(number)
                for name, number in zip(measures, values, strict=True)
                if isinstance(number, float | int) and abs(number) <= LARGEST_FEATURE  # False of NaN
            }
            quality |= {stream: known} if known else {}
    reasons = value.get("missing")
    missing = {}
    if isinstance(reasons, Mapping):
        missing = {name: reasons[name] for name in QUALITY if isinstance(reasons.get(name), str)}
    read: dict[str, Any] = {"quality": quality} if quality else {}
    return {**read, "missing": missing} if missing else read
