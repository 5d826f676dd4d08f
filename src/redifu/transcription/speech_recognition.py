"""Recognise the words of a recording with a Whisper model, through faster-whisper."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from redifu.optional_packages import optional_package
from redifu.transcription.timed_words import Word
from redifu.transcription.weights import speech_model_files

SAMPLING_RATE = 16000
# Spans of speech: pauses of this length separate them, and each is widened by the margin.
_PAUSE_MS, _MARGIN_MS = 300, 200
# Whisper invents words in silence, so it hears only speech, in spans that are cut at 15 s. Whole half minutes of
# one sentence again and again (composed recordings of dev) gave 38 % wrong words, these spans 7 %.
_HEARD = {"min_silence_duration_ms": 500, "speech_pad_ms": 200, "max_speech_duration_s": 15}
# One hypothesis, without a second attempt at a higher temperature: the same words every time.
_DECODING = {"beam_size": 1, "temperature": 0.0, "condition_on_previous_text": False}
# Text that compresses better repeats itself. People do so, too, but do not say more words in a second.
_LARGEST_COMPRESSION, _MOST_WORDS_PER_SECOND = 2.4, 6.0
# Below this mean probability, words are noise. Measured with tiny.en and base: speech, acted and real, has 0.49
# and more; noises, given to the models as if they were speech, have up to 0.39.
_LOWEST_CONFIDENCE = 0.4


def load_speech_model(name: str | Path = "tiny.en", *, language: str | None = None) -> "SpeechModel":
    """Load a Whisper model, in 8-bit integers on the CPU.

    Args:
        name: `tiny.en` (English) or `base` (99 languages), which the extra `speech` installs; or a folder or
            Hub id of a model in CTranslate2's format.
        language: a code such as "en" or "de"; None detects the language.

    Raises:
        ImportError: faster-whisper or the package with the weights is not installed.
        ValueError: there is no such model, it is damaged or not the expected one, or it does not know the
            language.
    """
    faster_whisper = optional_package("faster_whisper", extra="speech")
    files, weights = speech_model_files(str(name))
    path, content = (str(files), None) if isinstance(files, Path) else (str(name), files)
    try:
        whisper = faster_whisper.WhisperModel(path, device="cpu", compute_type="int8", files=content)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{name}: not a Whisper model in CTranslate2's format: {error}") from error
    if language is not None and language not in whisper.supported_languages:
        if not whisper.model.is_multilingual:
            raise ValueError(
                f"the speech model {name} knows English only, got language {language!r}: "
                "use a multilingual model such as base"
            )
        raise ValueError(f"unknown language {language!r}: expected a code such as en, de or fr")
    return SpeechModel(whisper, name=str(name), weights=weights, language=language)


class SpeechModel:
    """A loaded Whisper model.

    Attributes:
        name: as given to `load_speech_model`.
        digest: identifies the weights, the language and the settings, for keys of caches.
    """

    def __init__(self, whisper: Any, *, name: str, weights: str, language: str | None) -> None:
        """Wrap a faster-whisper model; see `load_speech_model`."""
        self.name = name
        settings = (weights, language, _PAUSE_MS, _MARGIN_MS, _HEARD, _DECODING, _LOWEST_CONFIDENCE)
        self.digest = hashlib.sha256(repr(settings).encode()).hexdigest()
        self._whisper = whisper
        self._language = language

    def spans_of_speech(self, waveform: np.ndarray, *, threshold: float = 0.5) -> list[tuple[float, float]]:
        """Find where somebody speaks, with Silero's voice activity detector.

        Args:
            waveform: (samples,) float32, mono at 16 kHz.
            threshold: the probability of speech from which it is found.

        Returns:
            Sorted spans in seconds that do not overlap; pauses shorter than 0.3 s lie inside.
        """
        vad = optional_package("faster_whisper.vad", extra="speech")
        options = vad.VadOptions(
            threshold=threshold, min_silence_duration_ms=_PAUSE_MS, speech_pad_ms=_MARGIN_MS
        )
        return [
            (span["start"] / SAMPLING_RATE, span["end"] / SAMPLING_RATE)
            for span in vad.get_speech_timestamps(waveform, options)
        ]

    def recognise(self, waveform: np.ndarray) -> list[Word]:
        """Recognise the words of a recording.

        Args:
            waveform: (samples,) float32, mono at 16 kHz, up to about ten minutes.

        Returns:
            Words sorted by time; none where nobody speaks.
        """
        if not self.spans_of_speech(waveform):
            return []
        segments, _ = self._whisper.transcribe(
            waveform,
            language=self._language,
            word_timestamps=True,
            vad_filter=True,
            vad_parameters=_HEARD,
            **_DECODING,
        )
        duration = len(waveform) / SAMPLING_RATE
        words = [
            Word(word.word.strip(), min(word.start, duration), min(word.end, duration), word.probability)
            for segment in segments
            if is_said(segment)
            for word in segment.words
            if word.word.strip()
        ]
        return sorted(words, key=lambda word: (word.start, word.end))


def is_said(segment: Any) -> bool:
    """Return whether the words of a segment of faster-whisper are neither a loop nor heard in noise."""
    words: Sequence[Any] = segment.words or ()
    if not words:
        return False
    rate = len(words) / max(segment.end - segment.start, 0.1)
    loops = segment.compression_ratio > _LARGEST_COMPRESSION and rate > _MOST_WORDS_PER_SECOND
    return not loops and sum(word.probability for word in words) / len(words) >= _LOWEST_CONFIDENCE
