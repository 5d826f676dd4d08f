"""Who says what in a stream of sound, turn by turn, as people speak."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from redifu.transcription.known_voices import KnownVoices
from redifu.transcription.speakers import SpeakerModel, segments_by_likeness
from redifu.transcription.speech_recognition import SAMPLING_RATE, SpeechModel
from redifu.transcription.timed_words import Word
from redifu.transcription.turns_from_words import (
    SHORTEST_SECONDS,
    SpokenTurn,
    ends_sentence,
    turns_of_named,
)
from redifu.transcription.voice_activity import FRAME, VoiceActivity

_SECONDS = FRAME / SAMPLING_RATE
# The probabilities at which speech begins and goes on.
_SPEECH, _STILL_SPEECH = 0.5, 0.35
# Frames before and after speech that are heard with it, and frames of a pause that ends a turn: a short
# one after a whole sentence, a long one in any case, and the short one again once the speech is this long.
_MARGIN, _SHORT_PAUSE, _LONG_PAUSE = 6, 6, 15
_LONG_SPEECH = round(8.0 / _SECONDS)
# Frames of speech without a pause, which is then cut where it is quietest in its second half.
_LONGEST = round(15.0 / _SECONDS)
# Frames of a window of which a voice is made, from one window to the next, and of the quiet place of a cut.
_WINDOW, _STEP, _QUIET = round(1.5 / _SECONDS), round(0.75 / _SECONDS), 6


class HeardTurn(NamedTuple):
    """A turn and its sound.

    Attributes:
        spoken: the turn, with times in seconds since the start of the stream; speakers are "speaker 1" and
            so on in the order in which their voices were first heard.
        waveform: (samples,) float32, 16 kHz, from its start to its end.
    """

    spoken: SpokenTurn
    waveform: np.ndarray


class LiveTurns:
    """Hears one stream. What it finds does not depend on how the stream is cut into chunks.

    A turn ends at a pause of 0.5 s; at a pause of 0.2 s after the end of a sentence, or after 8 s of speech;
    where the speaker changes; and, in speech without any pause, after 15 s. Memory is bounded: it keeps the
    sound of the turn that is under way, and the mean voice of each speaker.
    """

    def __init__(self, speech: SpeechModel, speakers: SpeakerModel, *, most_speakers: int | None = None):
        """Start a stream.

        Args:
            speech: recognises words.
            speakers: hears voices.
            most_speakers: the largest number of speakers; None if it is not known.

        Raises:
            ImportError: the extra `speech` is not installed.
        """
        self._speech, self._speakers = speech, speakers
        self._activity = VoiceActivity()
        self._known = KnownVoices(most_speakers)
        self._rest = np.zeros(0, np.float32)  # less than a frame
        # The frames of the speech that is under way, or the last ones of the silence, and the number of
        # frames before them.
        self._frames: list[np.ndarray] = []
        self._passed = 0
        self._speaks, self._silence = False, 0
        self._voices: list[np.ndarray] = []
        self._words: list[Word] = []  # at the last short pause

    @property
    def seconds(self) -> float:
        """The length of the stream so far."""
        return (self._passed + len(self._frames)) * _SECONDS + len(self._rest) / SAMPLING_RATE

    def feed(self, samples: np.ndarray) -> Iterator[HeardTurn]:
        """Hear the next samples.

        Args:
            samples: (samples,) float32, mono at 16 kHz, any number of them.

        Yields:
            The turns that end in them.
        """
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) // FRAME * FRAME
        self._rest = samples[whole:]
        for frame in samples[:whole].reshape(-1, FRAME):
            yield from self._hear(frame)

    def finish(self) -> Iterator[HeardTurn]:
        """End the stream, and yield the turn that was under way."""
        yield from self.feed(np.zeros(-len(self._rest) % FRAME, np.float32))
        if self._speaks:
            if self._silence < _SHORT_PAUSE:
                self._words = self._recognise(len(self._frames))
            yield from self._end(self._spoken_frames())

    def _hear(self, frame: np.ndarray) -> Iterator[HeardTurn]:
        self._frames.append(frame)
        probability = self._activity.probability(frame)
        if probability >= _SPEECH:
            self._speaks, self._silence = True, 0
        elif not self._speaks:
            self._drop(len(self._frames) - _MARGIN)
            return
        elif self._silence or probability < _STILL_SPEECH:
            self._silence += 1
        self._hear_voices()
        if self._silence == _SHORT_PAUSE:
            self._words = self._recognise(len(self._frames))
            if self._is_whole():
                yield from self._end(len(self._frames))
        elif self._silence == _LONG_PAUSE:
            yield from self._end(self._spoken_frames())
        elif len(self._frames) >= _LONGEST:
            cut = self._quiet_place()
            self._words = self._recognise(cut)
            yield from self._end(cut, speaks=True)
            self._hear_voices()

    def _spoken_frames(self) -> int:
        """Return the number of frames up to the last speech, with the margin."""
        return len(self._frames) - max(self._silence - _MARGIN, 0)

    def _is_whole(self) -> bool:
        """Return whether a short pause is the end of a turn."""
        if not self._words or len(self._frames) >= _LONG_SPEECH:
            return True
        seconds = self._words[-1].end - self._words[0].start
        return ends_sentence(self._words[-1].text) and seconds >= SHORTEST_SECONDS

    def _hear_voices(self) -> None:
        """Hear the voices of the windows that are over, while people go on speaking."""
        while (first := len(self._voices) * _STEP) + _WINDOW <= self._spoken_frames():
            self._voices.append(self._speakers.voice(np.concatenate(self._frames[first : first + _WINDOW])))

    def _recognise(self, count: int) -> list[Word]:
        start = self._passed * _SECONDS
        words = self._speech.recognise(np.concatenate(self._frames[:count]), [(0.0, count * _SECONDS)])
        return [word._replace(start=word.start + start, end=word.end + start) for word in words]

    def _end(self, count: int, *, speaks: bool = False) -> Iterator[HeardTurn]:
        """Yield the turns of the first frames, and forget these frames."""
        start, sound, heard = self._passed, np.concatenate(self._frames[:count]), self._voices
        words, self._words, self._voices = self._words, [], []
        self._drop(count)
        self._speaks, self._silence = speaks, self._silence if speaks else 0
        if not words:
            return
        first, last = start * _SECONDS, (start + count) * _SECONDS
        windows, voices = self._windows(sound, heard)
        likeness = self._known.likeness(voices, np.diff(windows[:, 1], prepend=0.0))
        segments = segments_by_likeness(np.array([[first, last]]), windows + first, likeness)
        segments = [each._replace(speaker=f"speaker {int(each.speaker) + 1}") for each in segments]
        for turn in turns_of_named(words, segments):
            begin, end = (round((time - first) * SAMPLING_RATE) for time in (turn.start, turn.end))
            yield HeardTurn(turn, sound[begin:end])

    def _windows(self, sound: np.ndarray, heard: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return the windows of a sound in seconds, the last of which ends with it, and their voices."""
        count = len(sound) // FRAME
        starts = [number * _STEP for number in range(len(heard)) if number * _STEP + _WINDOW < count]
        starts.append(max(count - _WINDOW, 0))
        voices = [*heard[: len(starts) - 1], self._speakers.voice(sound[starts[-1] * FRAME :])]
        windows = np.array([(first, min(first + _WINDOW, count)) for first in starts]) * _SECONDS
        return windows, np.stack(voices)

    def _quiet_place(self) -> int:
        """Return the number of frames up to the quietest place in the second half."""
        half = len(self._frames) // 2
        levels = [float(np.square(frame).mean()) for frame in self._frames[half:]]
        return half + int(np.convolve(levels, np.ones(_QUIET), "valid").argmin()) + _QUIET // 2

    def _drop(self, count: int) -> None:
        if count > 0:
            del self._frames[:count]
            self._passed += count
