"""Who says what in a stream of sound, turn by turn, as people speak."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from redifu.transcription.known_voices import LONGEST, KnownVoices
from redifu.transcription.speakers import VoiceModel
from redifu.transcription.speech_recognition import SAMPLING_RATE, SpeechModel, load_speech_model
from redifu.transcription.timed_words import Word
from redifu.transcription.turns_from_words import (
    SHORTEST_SECONDS,
    SpokenTurn,
    ends_sentence,
    turns_from_words,
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
# Frames of speech after which sentences are looked for that are over, and from one look to the next. The end
# of a sentence is moved to the quietest of some frames around it.
_FIRST_LOOK, _NEXT_LOOK, _NEAR = round(1.2 / _SECONDS), round(0.8 / _SECONDS), 2
# Frames of the quiet place at which speech without a sentence is cut.
_QUIET = 6


class HeardTurn(NamedTuple):
    """A turn and its sound.

    Attributes:
        spoken: the turn, with times in seconds since the start of the stream; speakers are "speaker 1" and
            so on in the order in which their voices were first heard.
        waveform: (samples,) float32, 16 kHz, from its start to its end.
    """

    spoken: SpokenTurn
    waveform: np.ndarray


class LiveModels:
    """The models that hear live streams; loaded once for all of them."""

    def __init__(self, *, speech_model: str = "tiny.en", language: str | None = None):
        """Load the models.

        Args:
            speech_model: see `load_speech_model`.
            language: code of the spoken language, such as "en"; None to detect it.

        Raises:
            ImportError: the extra `speech` is not installed.
            ValueError: the speech model does not exist, is damaged, or does not know the language.
        """
        self.speech = load_speech_model(speech_model, language=language)
        self.speakers = VoiceModel()


class LiveTurns:
    """Hears one stream. What it finds does not depend on how the stream is cut into chunks.

    A turn ends at a pause of 0.5 s; at a pause of 0.2 s after a sentence, or after 8 s of speech; and after
    15 s in any case. In speech without a pause, sentences that are over are noticed once the next has begun.
    Memory is bounded: it keeps the sound of the turn that is under way, and the mean voice of each speaker.
    """

    def __init__(self, speech: SpeechModel, speakers: VoiceModel, *, most_speakers: int | None = None):
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
        # At the last short pause, or the last look, and the number of frames since.
        self._words: list[Word] = []
        self._since = 0

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
        self._since += 1
        probability = self._activity.probability(frame)
        if probability >= _SPEECH:
            self._speaks, self._silence = True, 0
        elif not self._speaks:
            self._drop(len(self._frames) - _MARGIN)
            return
        elif self._silence or probability < _STILL_SPEECH:
            self._silence += 1
        if self._silence == _SHORT_PAUSE:
            self._words = self._recognise(len(self._frames))
            if self._is_whole():
                yield from self._end(len(self._frames))
        elif self._silence == _LONG_PAUSE:
            yield from self._end(self._spoken_frames())
        elif len(self._frames) >= _LONGEST:
            half = len(self._frames) // 2
            cut = self._quietest(half, len(self._frames), _QUIET)
            self._words = self._recognise(cut)
            yield from self._end(cut, speaks=True)
        elif not self._silence and len(self._frames) >= _FIRST_LOOK and self._since >= _NEXT_LOOK:
            yield from self._look()

    def _look(self) -> Iterator[HeardTurn]:
        """End the sentences after which somebody has begun another one."""
        words = self._recognise(len(self._frames))
        over = [
            number
            for number, (word, following) in enumerate(pairwise(words), start=1)
            if _is_apart(word, following)
            or (ends_sentence(word.text) and word.end - words[0].start >= SHORTEST_SECONDS)
        ]
        if over:
            # The first word of a sentence often begins before its time says so.
            near = round(words[over[-1] - 1].end / _SECONDS) - self._passed
            cut = self._quietest(max(near - _NEAR, 1), min(near + _NEAR, len(self._frames)), 1)
            self._words = words[: over[-1]]
            yield from self._end(cut, speaks=True)

    def _spoken_frames(self) -> int:
        """Return the number of frames up to the last speech, with the margin."""
        return len(self._frames) - max(self._silence - _MARGIN, 0)

    def _is_whole(self) -> bool:
        """Return whether a short pause is the end of a turn."""
        over = not self._words or ends_sentence(self._words[-1].text)
        return over or len(self._frames) >= _LONG_SPEECH

    def _recognise(self, count: int) -> list[Word]:
        self._since = 0
        start = self._passed * _SECONDS
        sound = np.concatenate(self._frames[:count])
        words = self._speech.recognise(sound, [(0.0, len(sound) / SAMPLING_RATE)])
        return [word._replace(start=word.start + start, end=word.end + start) for word in words]

    def _end(self, count: int, *, speaks: bool = False) -> Iterator[HeardTurn]:
        """Yield the turns of the first frames, and forget these frames."""
        first, sound = self._passed * _SECONDS, np.concatenate(self._frames[:count])
        words, self._words = self._words, []
        self._drop(count)
        self._speaks, self._silence = speaks, self._silence if speaks else 0
        for turn in (turn for sentences in _apart(words) for turn in turns_from_words(sentences, [])):
            begin, end = (round((time - first) * SAMPLING_RATE) for time in (turn.start, turn.end))
            number = self._known.speaker(self._voice(sound, begin, end), turn.end - turn.start)
            yield HeardTurn(turn._replace(speaker=f"speaker {number + 1}"), sound[begin:end])

    def _voice(self, sound: np.ndarray, begin: int, end: int) -> np.ndarray:
        """Return the voice in the middle of a turn, and around it if it is very short."""
        middle = (begin + end) // 2
        half = min(max(end - begin, SAMPLING_RATE // 5), round(LONGEST * SAMPLING_RATE)) // 2
        return self._speakers.voice(sound[max(middle - half, 0) : middle + half])

    def _quietest(self, first: int, last: int, length: int) -> int:
        """Return the number of frames up to the middle of the quietest frames from first to last."""
        levels = [float(np.square(frame).mean()) for frame in self._frames[first:last]]
        return first + int(np.convolve(levels, np.ones(length), "valid").argmin()) + length // 2

    def _drop(self, count: int) -> None:
        if count > 0:
            del self._frames[:count]
            self._passed += count


def _apart(words: list[Word]) -> Iterator[list[Word]]:
    """Divide words at short pauses after sentences, where the next speaker may have begun."""
    first = 0
    for place, (word, following) in enumerate(pairwise(words), start=1):
        if _is_apart(word, following):
            yield words[first:place]
            first = place
    yield words[first:]


def _is_apart(word: Word, following: Word) -> bool:
    return ends_sentence(word.text) and following.start - word.end >= _SHORT_PAUSE * _SECONDS
