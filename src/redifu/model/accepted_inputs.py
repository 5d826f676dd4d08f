"""Accepted forms of one conversation: a conversation, a list of utterances, one utterance, or one text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .configuration_redifu import MODALITIES

# The keys under which an utterance may hold content for a stream.
STREAM_KEYS = ("text", "audio", "video", *(f"{name}_features" for name in MODALITIES))
_CONTENT = (*STREAM_KEYS, "audio_values", "pixel_values")
# The speaker of a single text, or of a single utterance without a speaker.
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
    "one utterance or one string of text"
)


def is_one_input(given: Any) -> bool:
    """Return whether the input is one conversation, utterance or text, rather than several."""
    return isinstance(given, Mapping | str) or _are_utterances(given)


def as_conversation(given: Any) -> tuple[Mapping[str, Any], bool]:
    """Convert the input to a conversation; also return whether it was a single utterance or text.

    Raises:
        ValueError: the input has another form, has no utterances, or is a file name.
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
            f"dialogue {conversation.get('id')} has no utterances: expected a non-empty list, "
            f"got {utterances!r:.80}"
        )
    return conversation, False


def check_keys(utterance: Mapping[str, Any]) -> None:
    """Reject an utterance that has unknown keys and no content under a known one.

    Raises:
        ValueError: the message lists the unknown keys and the accepted ones.
    """
    unknown = sorted(set(map(str, utterance)) - _OTHER_KEYS)
    if unknown and not any(key in utterance for key in _CONTENT):
        raise ValueError(
            f"an utterance needs one of the keys {', '.join(STREAM_KEYS)}, got {', '.join(unknown):.80}"
        )


def has_content(utterance: Mapping[str, Any], key: str) -> bool:
    """Return whether an utterance has a value under a key; a blank string does not count."""
    value = utterance.get(key)
    return bool(value.strip()) if isinstance(value, str) else value is not None


def _are_utterances(given: Any) -> bool:
    """Return whether the input is a list of the utterances of one conversation."""
    first = given[0] if isinstance(given, Sequence) and len(given) else None
    return isinstance(first, Mapping) and "utterances" not in first


def _of_one_utterance(utterance: Mapping[str, Any]) -> dict[str, Any]:
    check_keys(utterance)
    if not any(key in utterance for key in _CONTENT):
        raise ValueError(f"{_EXPECTED}, got {dict(utterance)!r:.80}")
    return {"utterances": [{"speaker": UNNAMED_SPEAKER, **utterance}]}


def _text(given: str) -> str:
    """Return the text, which must not be blank or a file name."""
    if not given.strip():
        raise ValueError(f"{_EXPECTED}, got the blank string {given!r:.80}")
    path = Path(given)
    if path.suffix.lower() in _FILES and (len(given.split()) == 1 or path.is_file()):
        raise ValueError(
            f"{given} is a file name, but a string is read as text: use redifu.load(MODEL)({given!r}) instead"
        )
    return given
