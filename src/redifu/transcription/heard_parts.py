"""Hear a recording part by part, in bounded memory, and keep what was heard."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from redifu.atomic_files import replacing
from redifu.data.recordings import Report
from redifu.data.tables import file_digest
from redifu.media.decoding import sound_chunks
from redifu.transcription.speakers import HeardVoices, SpeakerModel
from redifu.transcription.speech_recognition import SAMPLING_RATE, SpeechModel
from redifu.transcription.timed_words import SpeakerSegment, Word

# Seconds of sound that are heard at a time, and the seconds at its end in which it is cut at a pause.
PART, END_OF_PART = 240.0, 30.0
SECONDS_OF_CHUNK = 30.0
# The level of the loudest thousandth of a part's samples, below which the part is amplified to another level:
# detectors of speech miss what is faint.
FAINT, AMPLIFIED = 0.01, 0.1
# Voices are gathered from fainter speech than words are recognised in.
VOICE_THRESHOLD = 0.2


class HeardPart(NamedTuple):
    """What was heard in a part of a recording; all times are from the start of the recording.

    Attributes:
        words: by time.
        voices: where somebody speaks, and how they sound.
    """

    words: list[Word]
    voices: HeardVoices


class PartReader:
    """Hears one recording, or returns what was heard before."""

    def __init__(
        self,
        recording: Path,
        speech: SpeechModel,
        speakers: SpeakerModel,
        *,
        duration: float | None,
        report: Report | None,
    ):
        """Read the recording once to know its content; see `Transcriber`."""
        self.recording, self.speech, self.speakers = recording, speech, speakers
        self.duration, self.report = duration, report
        self.folder = _folder_of(recording, speech.digest, speakers.digest)

    def read(self, channel: int | None) -> list[HeardPart]:
        """Hear all parts of a channel; None is the mean of all channels, with the voices of its speakers."""
        heard = []
        step = "recognising speech" + ("" if channel is None else f" in channel {channel + 1}")
        self._report(step, 0, self.duration)
        for number, (start, waveform) in enumerate(self._waveforms(channel)):
            file = self.folder / f"{'mono' if channel is None else channel}-{number:04d}.safetensors"
            part = _read(file)
            if part is None:
                part = self._hear(waveform, start, voices=channel is None)
                _write(file, part)
            heard.append(part)
            self._report(step, start + len(waveform) / SAMPLING_RATE, self.duration)
        return heard

    def segments(self, heard: Sequence[HeardPart], speakers: tuple[int, int | None]) -> list[SpeakerSegment]:
        """Find who speaks when in the parts of `read(None)`; `speakers` are the least and largest number."""
        if not any(part.words for part in heard):
            return []
        self._report("telling speakers apart", 0, None)
        voices = [part.voices for part in heard]
        if not self.speakers.hears_whole:
            return self.speakers.segments(voices, speakers, sound=self._sound)
        least, most = speakers
        file = self.folder / f"speakers-{least}-{most}.json"
        if not file.is_file():
            found = self.speakers.segments(voices, speakers, sound=self._sound)
            with replacing(file) as partial:
                partial.write_text(json.dumps(found))
        return [SpeakerSegment(*values) for values in json.loads(file.read_text())]

    def _report(self, step: str, done: float, total: float | None) -> None:
        if self.report is not None:
            self.report(step, done, total)

    def _sound(self) -> np.ndarray:
        return np.concatenate(list(sound_chunks(self.recording, sampling_rate=SAMPLING_RATE)))

    def _hear(self, waveform: np.ndarray, start: float, *, voices: bool) -> HeardPart:
        waveform = audible(waveform)
        spans = self.speech.spans_of_speech(waveform)
        words = [
            word._replace(start=word.start + start, end=word.end + start)
            for word in self.speech.recognise(waveform, spans)
        ]
        if not words or not voices:
            return HeardPart(words, HeardVoices.only_speech(spans if words else [], start=start))
        spans = self.speech.spans_of_speech(waveform, threshold=VOICE_THRESHOLD)
        return HeardPart(words, self.speakers.hear(waveform, spans, start=start))

    def _waveforms(self, channel: int | None) -> Iterator[tuple[float, np.ndarray]]:
        """Yield the parts, which end in a pause, each with its start in seconds."""
        start, waiting = 0, np.zeros(0, np.float32)
        for chunk in sound_chunks(
            self.recording, sampling_rate=SAMPLING_RATE, seconds=SECONDS_OF_CHUNK, channel=channel
        ):
            waiting = np.concatenate([waiting, chunk])
            if len(waiting) >= PART * SAMPLING_RATE:
                cut = self._pause(waiting)
                yield start / SAMPLING_RATE, waiting[:cut]
                start, waiting = start + cut, waiting[cut:]
        if len(waiting):
            yield start / SAMPLING_RATE, waiting

    def _pause(self, waveform: np.ndarray) -> int:
        """Return the sample in the middle of the longest pause near the end of a waveform."""
        first = len(waveform) - round(END_OF_PART * SAMPLING_RATE)
        spans = self.speech.spans_of_speech(waveform[first:])
        edges = [0.0, *(edge for span in spans for edge in span), END_OF_PART]
        begin, end = max(list(pairwise(edges))[::2], key=lambda pause: pause[1] - pause[0])
        return first + round((begin + end) / 2 * SAMPLING_RATE)


def audible(waveform: np.ndarray) -> np.ndarray:
    """Amplify a faint waveform; others, and silence, are returned as they are."""
    level = float(np.quantile(np.abs(waveform), 0.999))
    if not 0 < level < FAINT:
        return waveform
    return (waveform * (AMPLIFIED / level)).clip(-1, 1)


def _folder_of(recording: Path, *digests: str) -> Path:
    """Return the folder that keeps what these models heard in a file with this content."""
    key = hashlib.sha256(
        "\n".join([file_digest(recording), f"{PART} {END_OF_PART} {FAINT} {AMPLIFIED}", *digests]).encode()
    ).hexdigest()
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "redifu" / "heard" / key
    # What people say is private.
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _read(file: Path) -> HeardPart | None:
    if not file.is_file():
        return None
    with safe_open(file, "numpy") as content:
        words = [Word(*values) for values in json.loads(content.metadata()["words"])]
        arrays = {name: content.get_tensor(name) for name in HeardVoices._fields}
    return HeardPart(words, HeardVoices(**arrays))


def _write(file: Path, part: HeardPart) -> None:
    arrays = {name: np.ascontiguousarray(value) for name, value in part.voices._asdict().items()}
    with replacing(file) as partial:
        partial.write_bytes(save(arrays, metadata={"words": json.dumps(part.words)}))
