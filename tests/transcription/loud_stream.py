"""Stand-ins for the models that hear a stream: speech is what is loud, and its level says which words."""

import numpy as np

from redifu.transcription.timed_words import Word

RATE = 16000


def loud(seconds: float, *, level: float = 0.5) -> np.ndarray:
    """A square wave of 1 kHz, which is as loud in every frame."""
    samples = np.arange(round(seconds * RATE))
    return np.where(samples // 8 % 2, level, -level).astype(np.float32)


def quiet(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


class LoudActivity:
    """Somebody speaks in loud frames."""

    def probability(self, frame):
        return float(np.abs(frame).max() > 0.05)


class LevelWords:
    """Hears a word in every 0.4 s that are loud to the end, named after their level, and a last full stop.

    Attributes:
        sentences: whether the last word of what it hears ends a sentence.
        seconds: the lengths of what it was given.
    """

    def __init__(self, *, sentences=True):
        self.sentences, self.seconds, self.languages = sentences, [], []

    def for_language(self, language):
        if language == "klingon":
            raise ValueError("unknown language 'klingon': expected a code such as en, de or fr")
        self.languages.append(language)
        return self

    def recognise(self, waveform, spans):
        assert spans == [(0.0, len(waveform) / RATE)]
        self.seconds.append(len(waveform) / RATE)
        places = np.flatnonzero(np.abs(waveform) > 0.05)
        if not len(places):
            return []
        starts = np.arange(places[0], places[-1] + 1 - round(0.39 * RATE), round(0.4 * RATE))
        words = [
            Word(f"w{100 * np.abs(waveform[at : at + 100]).max():.0f}", at / RATE, (at + 6000) / RATE, 0.9)
            for at in starts.tolist()
        ]
        if self.sentences and words:
            words[-1] = words[-1]._replace(text=words[-1].text + ".")
        return words


class LevelVoices:
    """The voice of a sound is a direction that its level chooses."""

    def voice(self, waveform):
        voice = np.zeros(100, np.float32)
        voice[round(99 * float(np.abs(waveform).max()))] = 1
        return voice


class Models:
    """What stands for `LiveModels`."""

    def __init__(self, **options):
        self.speech, self.speakers = LevelWords(**options), LevelVoices()
