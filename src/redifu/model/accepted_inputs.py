"""What may be given as one conversation: itself, the list of its utterances, one utterance, or one text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .configuration_redifu import MODALITIES

# All that an utterance may carry to be read.
STREAM_KEYS = ("text", "audio", "video", *(f"{name}_features" for name in MODALITIES))
_CONTENT = (*STREAM_KEYS, "audio_values", "pixel_values")
# A text or an utterance that stands alone needs no name.
UNNAMED_SPEAKER = "Speaker"
_OTHER_KEYS = {"id", "speaker", "start", "end", "label"}
_FILES = {
    ".json",
    ".jsonl",
    ".csv",
    ".parquet",
    ".txt",
    ".srt",
    ".vtt",
    ".wav",
    ".mp3",
    ".mp4",
    ".mkv",
    ".webm",
}
_EXPECTED = (
    'expected a conversation {"utterances": [{"speaker": ..., "text": ...}, ...]}, a list of utterances, '
    "one utterance or one text"
)


def is_one_input(given: Any) -> bool:
    """Say whether something is one conversation, utterance or text, and not several of them."""
    return isinstance(given, Mapping | str) or _are_utterances(given)


def as_conversation(given: Any) -> tuple[Mapping[str, Any], bool]:
    """Return what was given as a conversation, and whether it was one utterance or text alone.

    Raises:
        ValueError: it is none of these, has no utterances, or names a file; says what was expected.
    """
    if isinstance(given, str):
        return _of_one_utterance({"text": _text(given)}), True
    if isinstance(given, Mapping) and "utterances" not in given:
        return _of_one_utterance(given), True
    conversation = {"utterances": given} if _are_utterances(given) else given
    if not isinstance(conversation, Mapping):
        raise ValueError(f"{_EXPECTED}, got {type(given).__name__} {given!r:.80}")
    utterances = conversation["utterances"]
    if not isinstance(utterances, Sequence) or isinstance(utterances, str) or not len(utterances):
        raise ValueError(
            f"dialogue {conversation.get('id')} has no utterances: expected a list, got {utterances!r:.80}"
        )
    return conversation, False


def check_keys(utterance: Mapping[str, Any]) -> None:
    """Reject an utterance whose content stands under unknown keys only.

    Raises:
        ValueError: naming these keys and those that are read.
    """
    unknown = sorted(set(map(str, utterance)) - _OTHER_KEYS)
    if unknown and not any(key in utterance for key in _CONTENT):
        raise ValueError(
            f"expected one of the keys {', '.join(STREAM_KEYS)} in an utterance, got {', '.join(unknown):.80}"
        )


def has_content(utterance: Mapping[str, Any], key: str) -> bool:
    """Say whether an utterance of a conversation file has something under a key; a blank text is nothing."""
    value = utterance.get(key)
    return bool(value.strip()) if isinstance(value, str) else value is not None


def _are_utterances(given: Any) -> bool:
    """Say whether a list holds the utterances of one conversation."""
    first = given[0] if isinstance(given, Sequence) and len(given) else None
    return isinstance(first, Mapping) and "utterances" not in first


def _of_one_utterance(utterance: Mapping[str, Any]) -> dict[str, Any]:
    check_keys(utterance)
    if not any(key in utterance for key in _CONTENT):
        raise ValueError(f"{_EXPECTED}, got {dict(utterance)!r:.80}")
    return {"utterances": [{"speaker": UNNAMED_SPEAKER, **utterance}]}


def _text(given: str) -> str:
    """Return a text that is not blank and names no file."""
    if not given.strip():
        raise ValueError(f"{_EXPECTED}, got the blank text {given!r:.80}")
    path = Path(given)
    if path.suffix.lower() in _FILES and (len(given.split()) == 1 or path.is_file()):
        raise ValueError(
            f"{given} names a file, and a string is read as a text: use redifu.load(MODEL)({given!r}) instead"
        )
    return given
