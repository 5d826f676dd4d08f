"""Emotions of a stream of sound, utterance by utterance, as people speak."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from redifu.inference.session import ConversationSession
from redifu.media.containers import MediaError
from redifu.media.decoding import sound_chunks
from redifu.transcription.live_turns import HeardTurn, LiveTurns
from redifu.transcription.speech_recognition import SAMPLING_RATE

_CHUNK = 0.1  # seconds


class PcmSamples:
    """Turns bytes of 16-bit little-endian PCM into samples, whichever way they are cut."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._odd = b""

    def __call__(self, data: bytes) -> np.ndarray:
        """Return (samples,) float32; half a sample at the end waits for its other half."""
        data = self._odd + data
        whole = len(data) // 2 * 2
        self._odd = data[whole:]
        return np.frombuffer(data[:whole], "<i2").astype(np.float32) / 32768


def file_chunks(recording: str | Path) -> Iterator[np.ndarray]:
    """Yield the sound of a recording in chunks of 0.1 s.

    Raises:
        ValueError: the file has no sound, or it cannot be decoded.
    """
    try:
        yield from sound_chunks(recording, sampling_rate=SAMPLING_RATE, seconds=_CHUNK)
    except MediaError as error:
        raise ValueError(f"{recording}: {error}") from None


def pcm_chunks(stream: BinaryIO) -> Iterator[np.ndarray]:
    """Yield 16-bit little-endian mono PCM at 16 kHz in chunks of 0.1 s."""
    samples = PcmSamples()
    while data := stream.read(round(2 * _CHUNK * SAMPLING_RATE)):
        yield samples(data)


def paced(chunks: Iterable[np.ndarray]) -> Iterator[tuple[float, np.ndarray]]:
    """Yield chunks at the speed of speech, each with the time at which its last sample is spoken."""
    due = time.monotonic()
    for chunk in chunks:
        due += len(chunk) / SAMPLING_RATE
        time.sleep(max(due - time.monotonic(), 0.0))
        yield due, chunk


def unpaced(chunks: Iterable[np.ndarray]) -> Iterator[tuple[float, np.ndarray]]:
    """Yield chunks as they come, each with the time at which it came."""
    for chunk in chunks:
        yield time.monotonic(), chunk


def listen(
    chunks: Iterable[tuple[float, np.ndarray]], turns: LiveTurns, session: ConversationSession
) -> Iterator[dict[str, Any]]:
    """Recognise the emotion of every turn of a stream as soon as it ends.

    Args:
        chunks: (samples,) float32 each, mono at 16 kHz, with the time of `time.monotonic` at which its last
            sample came. The latency is exact if they come at the speed of speech.
        turns: a stream that has heard nothing.
        session: a conversation that has just begun.

    Yields:
        For each utterance, what `frame_of` returns.
    """
    came = time.monotonic()
    for came, chunk in chunks:
        yield from _answers(turns.feed(chunk), came, turns, session)
    yield from _answers(turns.finish(), came, turns, session)


def _answers(
    heard: Iterable[HeardTurn], came: float, turns: LiveTurns, session: ConversationSession
) -> Iterator[dict[str, Any]]:
    for turn in heard:
        answer = session.add(utterance_of(turn, session))
        yield frame_of(turn, answer, latency=time.monotonic() - came + turns.seconds - turn.spoken.end)


def utterance_of(turn: HeardTurn, session: ConversationSession) -> dict[str, Any]:
    """Return a turn as `ConversationSession.add` takes it, with its sound if the model listens."""
    utterance: dict[str, Any] = {"speaker": turn.spoken.speaker, "text": turn.spoken.text}
    if "audio" in session.model.config.modalities:
        utterance["audio"] = {"array": turn.waveform, "sampling_rate": SAMPLING_RATE}
    return utterance


def frame_of(turn: HeardTurn, answer: dict[str, Any], *, latency: float) -> dict[str, Any]:
    """Return what a client gets of an utterance.

    Args:
        turn: what was heard.
        answer: emotion and scores, both None if the model can use none of its streams.
        latency: seconds from the end of the turn.
    """
    return {
        "type": "utterance",
        "start": round(turn.spoken.start, 3),
        "end": round(turn.spoken.end, 3),
        "speaker": turn.spoken.speaker,
        "text": turn.spoken.text,
        **answer,
        "latency": round(latency, 3),
    }
