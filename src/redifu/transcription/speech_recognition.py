"""Recognise the words of a waveform with a Whisper model."""

from dataclasses import asdict
from typing import Any

import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.vad import VadOptions, get_speech_timestamps

from redifu.transcription.timed_words import Word
from redifu.transcription.weights import speech_model_files

SAMPLING_RATE = 16000
# Silence is never recognised, because Whisper invents words in it. Pauses within speech are kept.
_VOICE = VadOptions(
    threshold=0.5, min_speech_duration_ms=100, min_silence_duration_ms=1000, speech_pad_ms=300
)
# Text that compresses better repeats itself; nobody says more words in a second.
_LARGEST_COMPRESSION, _MOST_WORDS_PER_SECOND = 2.4, 6.0
# Segments that Whisper itself doubts on both counts are noise or music.
_LIKELY_SILENCE, _LEAST_LOG_PROBABILITY = 0.6, -1.0
# One hypothesis at temperature 0: the same words every time, in half the time of the default five.
_DECODING = {"beam_size": 1, "temperature": 0.0, "condition_on_previous_text": False}


class SpeechModel:
    """A Whisper model that recognises the words of speech.

    Attributes:
        name: as it was loaded.
        digest: names the weights and the settings; the same digest gives the same words.
    """

    def __init__(self, name: str, *, language: str | None = None):
        """Load a model; see `load_speech_model`."""
        found, weights = speech_model_files(name)
        where = {"files": found} if isinstance(found, dict) else {}
        path = name if where else str(found)
        self.model = WhisperModel(path, device="cpu", compute_type="int8", **where)
        self.name = name
        self.language = _language_of(self.model, name, language)
        self.digest = f"{weights} {language} {sorted(_DECODING.items())} {sorted(asdict(_VOICE).items())}"

    def spans_of_speech(self, waveform: np.ndarray) -> list[tuple[float, float]]:
        """Find speech, by Silero's voice activity detector.

        Args:
            waveform: (samples,) float32, mono, 16 kHz.

        Returns:
            Start and end in seconds, sorted.
        """
        spans = get_speech_timestamps(waveform, _VOICE)
        return [(span["start"] / SAMPLING_RATE, span["end"] / SAMPLING_RATE) for span in spans]

    def recognise(self, waveform: np.ndarray) -> list[Word]:
        """Recognise the words of a waveform.

        Args:
            waveform: (samples,) float32, mono, 16 kHz; up to some minutes.

        Returns:
            The words by time; none for silence, noise, music and repetitions that the model invents.
        """
        if not self.spans_of_speech(waveform):
            return []
        segments, _ = self.model.transcribe(
            waveform,
            language=self.language,
            word_timestamps=True,
            vad_filter=True,
            vad_parameters=_VOICE,
            **_DECODING,
        )
        duration = len(waveform) / SAMPLING_RATE
        words = [word for segment in segments if _is_speech(segment) for word in segment.words or ()]
        timed = [
            Word(
                word.word.strip(),
                min(word.start, duration),
                min(max(word.start, word.end), duration),
                word.probability,
            )
            for word in words
            if word.word.strip()
        ]
        return sorted(timed, key=lambda word: word.start)


def load_speech_model(name: str = "tiny.en", *, language: str | None = None) -> SpeechModel:
    """Load a Whisper model.

    Args:
        name: "tiny.en" or "base", which the extra `speech` installs; a folder in CTranslate2's format; or
            ORG/NAME on the Hugging Face Hub.
        language: code of the language, such as "en"; None for the model's own, or to detect it.

    Raises:
        ImportError: the package with the weights is not installed.
        ValueError: there is no such model, it is damaged, or it does not know the language.
    """
    return SpeechModel(name, language=language)


def _language_of(model: Any, name: str, language: str | None) -> str | None:
    known = model.supported_languages
    if language is not None and language not in known:
        base = "; the model base knows 99 languages" if len(known) == 1 else ""
        raise ValueError(f"{name}: expected one of its languages, {', '.join(known)}; got {language!r}{base}")
    return language


def _is_speech(segment: Any) -> bool:
    doubted = segment.no_speech_prob > _LIKELY_SILENCE and segment.avg_logprob < _LEAST_LOG_PROBABILITY
    rate = len(segment.words or ()) / max(segment.end - segment.start, 0.1)
    loops = segment.compression_ratio > _LARGEST_COMPRESSION and rate > _MOST_WORDS_PER_SECOND
    return not doubted and not loops
