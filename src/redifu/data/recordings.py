"""Create conversations from a recording and a file of its turns."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from redifu.conversation import MEDIA, Conversation, Utterance
from redifu.data.turns import Turn, place_of, read_turns
from redifu.media.containers import MediaError, Recording, recording_in
from redifu.media.decoder_process import decode_apart
from redifu.media.sound import channels_of

logger = logging.getLogger(__name__)

# Called with the step of the work on a recording, how much of it is done, and how much there is if known.
Report = Callable[[str, float, float | None], None]


def prepare_recording(recording: str | Path, turns: str | Path, *, folder: str | Path) -> Conversation:
    """Create a conversation from a recording and its turns.

    Every turn becomes an utterance that refers to its span of the recording. A turn that ends after the
    recording is cut there. A turn that starts after the recording is an error: the files do not match.

    Args:
        recording: an audio or video file in any format that FFmpeg reads.
        turns: a file that `read_turns` accepts.
        folder: where the conversation will be written; its paths are relative to this folder.

    Returns:
        The conversation; its id is the recording's file name without the extension.

    Raises:
        FileNotFoundError: one of the files does not exist.
        ValueError: a file is invalid, with the file and, if known, line; or PyAV is not installed.
    """
    given = read_turns(turns)
    media = probe_recording(recording)
    path = relative_path(Path(recording), Path(folder))
    streams = {name: path for name, has in (("audio", media.has_audio), ("video", media.has_video)) if has}
    duration = media.duration
    if duration is not None and any(turn.end > duration for turn in given):
        # Only what was measured cuts a turn, because a header can be wrong.
        duration = _recording_in(recording, measured=True).duration
    given = _within(_with_real_channels(given, recording), duration, source=str(turns))
    utterances = [_utterance(turn, streams) for turn in given]
    value = {"id": Path(recording).stem, "utterances": utterances}
    return Conversation.from_dict(value, source=str(turns), folder=folder)


def probe_recording(path: str | Path) -> Recording:
    """Find the streams and duration of a media file without decoding it.

    Of formats without a duration, such as MP3 without a header, the whole file is read to find it.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not a media file or has no audio or video; or PyAV is not installed.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file")
    return _recording_in(path)


def _recording_in(path: str | Path, *, measured: bool = False) -> Recording:
    """Call `recording_in`; every error is a ValueError, which the command line reports in one line."""
    try:
        [recording] = decode_apart(recording_in, path, measured=measured)
        return recording
    except ImportError as error:
        raise ValueError("reading recordings requires PyAV: pip install 'redifu[media]'") from error
    except MediaError as error:
        reason = str(error).replace("cannot be opened", "cannot be read as a recording")
        raise ValueError(f"{path}: {reason}") from None


def relative_path(path: Path, folder: Path) -> str:
    """Return `path` relative to `folder`, with forward slashes on every platform."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def relocated(conversation: Conversation, utterance: Utterance, folder: Path) -> Utterance:
    """Return an utterance of a conversation with its media paths relative to `folder`."""
    paths = {key: path for key in MEDIA.values() if isinstance(path := getattr(utterance, key), str)}
    places = {key: relative_path(conversation.folder / path, folder) for key, path in paths.items()}
    return utterance.changed(**places) if places else utterance


def _within(turns: Sequence[Turn], duration: float | None, *, source: str) -> list[Turn]:
    if duration is None:
        return list(turns)
    for turn in turns:
        if turn.start >= duration:
            raise ValueError(
                f"{source}: {place_of(turn.line, source)}: expected a start before the recording ends "
                f"at {duration:g} seconds, got {turn.start:g}"
            )
    return [turn._replace(end=min(turn.end, duration)) for turn in turns]


def _with_real_channels(turns: list[Turn], recording: str | Path) -> list[Turn]:
    """Forget the channels of turns if the recording has fewer."""
    named = max((turn.channel or 0 for turn in turns), default=0)
    if not named:
        return turns
    try:
        count = channels_of(recording)
    except MediaError:  # reading the utterances will say so
        return turns
    if named <= count:
        return turns
    logger.warning(f"{recording}: the turns name channel {named}, but there are {count}: their mean is used")
    return [turn._replace(channel=None) for turn in turns]


def _utterance(turn: Turn, streams: dict[str, Any]) -> dict[str, Any]:
    said = {} if turn.text is None else {"text": turn.text}
    if turn.channel is not None and "audio" in streams:
        streams = {**streams, "audio_channel": turn.channel}
    # Rounded to microseconds to hide floating-point error.
    span = {"start": round(turn.start, 6), "end": round(turn.end, 6)}
    return {"speaker": turn.speaker, **said, **streams, **span}
