"""Conversations from a recording and a file of its turns."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from redifu.conversation import MEDIA, Conversation, Utterance
from redifu.data.turns import Turn, place_of, read_turns
from redifu.media.decoding import streams_of


class Recording(NamedTuple):
    """What a media file holds.

    Attributes:
        has_audio: whether it has sound.
        has_video: whether it has moving pictures.
        duration: seconds, None where the file does not say.
    """

    has_audio: bool
    has_video: bool
    duration: float | None


def prepare_recording(recording: str | Path, turns: str | Path, *, folder: str | Path) -> Conversation:
    """Make a conversation of a recording and its turns.

    Every turn becomes an utterance that points to its span of the recording. A turn that ends after the
    recording is cut at its end; one that begins after it is refused, for it belongs to another recording.

    Args:
        recording: a sound or video file, anything FFmpeg reads.
        turns: a file as of `read_turns`.
        folder: where the conversation will be written; the paths in it are relative to this.

    Returns:
        The conversation, with the recording's name without its ending as id.

    Raises:
        FileNotFoundError: one of the two is not there.
        ValueError: naming the file and, where known, the line; or PyAV is not installed.
    """
    given = read_turns(turns)
    media = probe_recording(recording)
    path = relative_path(Path(recording), Path(folder))
    streams = {name: path for name, has in (("audio", media.has_audio), ("video", media.has_video)) if has}
    utterances = [_utterance(turn, streams) for turn in _within(given, media.duration, source=str(turns))]
    value = {"id": Path(recording).stem, "utterances": utterances}
    return Conversation.from_dict(value, source=str(turns), folder=folder)


def probe_recording(path: str | Path) -> Recording:
    """Look into a media file without decoding it.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it is no media file, or has neither sound nor moving pictures; or PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        # As a mistake, which the command line says in one line.
        raise ValueError("reading recordings needs PyAV: pip install 'redifu[media]'") from error

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        # Tags in an old encoding say nothing about the streams.
        with av.open(str(path), metadata_errors="ignore") as container:
            has_audio, has_video = (bool(streams_of(container, kind)) for kind in ("audio", "video"))
            duration = None if container.duration is None else container.duration / av.time_base
    except av.FFmpegError as error:
        raise ValueError(f"{path}: not a recording that can be read: {error.strerror}") from None
    if not has_audio and not has_video:
        raise ValueError(f"{path}: expected sound or moving pictures, got neither")
    return Recording(has_audio, has_video, duration)


def relative_path(path: Path, folder: Path) -> str:
    """Return `path` as a conversation file in `folder` names it, with slashes everywhere."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def relocated(conversation: Conversation, utterance: Utterance, folder: Path) -> Utterance:
    """Return an utterance of a conversation whose paths begin in `folder`."""
    paths = {key: path for key in MEDIA.values() if isinstance(path := getattr(utterance, key), str)}
    places = {key: relative_path(conversation.folder / path, folder) for key, path in paths.items()}
    return utterance.changed(**places) if places else utterance


def _within(turns: Sequence[Turn], duration: float | None, *, source: str) -> list[Turn]:
    if duration is None:
        return list(turns)
    for turn in turns:
        if turn.start >= duration:
            raise ValueError(
                f"{source}: {place_of(turn.line, source)}: expected a start before the end of the recording "
                f"at {duration:g} seconds, got {turn.start:g}"
            )
    return [turn._replace(end=min(turn.end, duration)) for turn in turns]


def _utterance(turn: Turn, streams: dict[str, str]) -> dict[str, Any]:
    said = {} if turn.text is None else {"text": turn.text}
    # To the microsecond: sums of binary fractions are noise beyond.
    span = {"start": round(turn.start, 6), "end": round(turn.end, 6)}
    return {"speaker": turn.speaker, **said, **streams, **span}
