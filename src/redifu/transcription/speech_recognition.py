"""Recognise the words of a recording with a Whisper model, through faster-whisper."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from redifu.optional_packages import optional_package
from redifu.transcription.invented_words import spoken_tokens, without_invented_words
from redifu.transcription.timed_words import Word
from redifu.transcription.weights import speech_model_files

SAMPLING_RATE = 16000
# Spans of speech: pauses of this length separate them, and each is widened by the margin.
_PAUSE_MS, _MARGIN_MS = 300, 200
# Windows for the recogniser, in seconds: spans are joined up to a length, over pauses up to another.
# The encoder takes any length, and its time grows with it. It needs some empty frames after the speech:
# a model that does not see the end repeats the last sentence.
_WINDOW, _LONGEST_GAP, _EMPTY = 15.0, 2.0, 5.0
_SHORTEST = 0.05  # seconds of a span that can hold a word
_LONGEST_INPUT = 30.0  # seconds that Whisper's encoder takes
_BATCH = 8
_BEAM = 1
# A sentence has fewer tokens than this; the limit ends a loop early.
_TOKENS_PER_SECOND, _FEWEST_TOKENS = 15, 20
# Below this probability, a window is decoded in the most probable language of its batch and not in its own.
_SURE_LANGUAGE = 0.8
_PREPENDED, _APPENDED = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"


def load_speech_model(name: str | Path, *, language: str | None = None) -> "SpeechModel":
    """Load a Whisper model, in 8-bit integers on the CPU.

    Args:
        name: `tiny.en` (English) or `base` (99 languages), which the extra `speech` installs; or a folder or
            Hub id of a model in CTranslate2's format.
        language: a code such as "en" or "de"; None detects the language of each window of a recording.

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
    return SpeechModel(whisper, name=str(name), weights=weights, language=language)


class SpeechModel:
    """A loaded Whisper model.

    Attributes:
        name: as given to `load_speech_model`.
        digest: identifies the weights, the language and the settings, for keys of caches.
    """

    def __init__(self, whisper: Any, *, name: str, weights: str, language: str | None) -> None:
        """Wrap a faster-whisper model; see `load_speech_model`."""
        if language is not None and language not in whisper.supported_languages:
            if not whisper.model.is_multilingual:
                raise ValueError(
                    f"the speech model {name} knows English only, got language {language!r}: "
                    "use a multilingual model such as base"
                )
            raise ValueError(f"unknown language {language!r}: expected a code such as en, de or fr")
        self.name = name
        self._weights = weights
        settings = (weights, language, _PAUSE_MS, _MARGIN_MS, _WINDOW, _LONGEST_GAP, _EMPTY, _BATCH, _BEAM)
        self.digest = hashlib.sha256(repr(settings).encode()).hexdigest()
        self._whisper = whisper
        self._language = language if whisper.model.is_multilingual else "en"

    def for_language(self, language: str | None) -> "SpeechModel":
        """Return the same model for another language; see `load_speech_model`."""
        return SpeechModel(self._whisper, name=self.name, weights=self._weights, language=language)

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

    def recognise(self, waveform: np.ndarray, spans: Sequence[tuple[float, float]]) -> list[Word]:
        """Recognise the words in spans of a recording.

        Args:
            waveform: (samples,) float32, mono at 16 kHz, up to about ten minutes.
            spans: sorted spans of speech in seconds, such as those of `spans_of_speech`.

        Returns:
            Words sorted by time, inside of the spans' outer bounds.
        """
        # Windows of similar length share a batch, which is as long as its longest window.
        windows = sorted(joined_spans(waveform, spans), key=lambda window: window[1] - window[0])
        words = [
            word
            for first in range(0, len(windows), _BATCH)
            for word in self._words_of(waveform, windows[first : first + _BATCH])
        ]
        return sorted(words, key=lambda word: (word.start, word.end))

    def _words_of(self, waveform: np.ndarray, windows: list[tuple[float, float]]) -> list[Word]:
        """Recognise one batch of windows."""
        transcribe = optional_package("faster_whisper.transcribe", extra="speech")
        whisper = self._whisper
        lengths = [end - start for start, end in windows]
        encoded = whisper.encode(self._features(waveform, windows, max(lengths)))
        tokenizer, prompts = self._prompts(encoded, len(windows))
        results = whisper.model.generate(
            encoded,
            prompts,
            beam_size=_BEAM,
            max_length=round(_FEWEST_TOKENS + _TOKENS_PER_SECOND * max(lengths)),
            suppress_tokens=transcribe.get_suppressed_tokens(tokenizer, [-1]),
            return_no_speech_prob=True,
        )
        tokens = [
            spoken_tokens(
                result.sequences_ids[0],
                end_of_text=tokenizer.eot,
                first_timestamp=tokenizer.timestamp_begin,
                seconds=seconds,
            )
            for result, seconds in zip(results, lengths, strict=True)
        ]
        frames = [round(seconds * whisper.frames_per_second) for seconds in lengths]
        alignments = whisper.find_alignment(tokenizer, tokens, encoded, frames)
        words: list[Word] = []
        for window, aligned, result in zip(windows, alignments, results, strict=True):
            transcribe.merge_punctuations(aligned, _PREPENDED, _APPENDED)
            words += without_invented_words(_timed(aligned, *window), no_speech=result.no_speech_prob)
        return words

    def _features(
        self, waveform: np.ndarray, windows: list[tuple[float, float]], longest: float
    ) -> np.ndarray:
        """Return log-mel features, (windows, mel bands, frames), with empty frames after the speech."""
        whisper = self._whisper
        frames = round(min(longest + _EMPTY, _LONGEST_INPUT) * whisper.frames_per_second)
        features = np.zeros(
            (len(windows), whisper.feature_extractor.mel_filters.shape[0], frames), np.float32
        )
        for row, (start, end) in zip(features, windows, strict=True):
            speech = waveform[round(start * SAMPLING_RATE) : round(end * SAMPLING_RATE)]
            mel = whisper.feature_extractor(speech)[:, :-1]
            row[:, : mel.shape[1]] = mel[:, :frames]
        return features

    def _prompts(self, encoded: Any, count: int) -> tuple[Any, list[list[int]]]:
        """Return a tokenizer of the most probable language, and a prompt in each window's own language."""
        tokenization = optional_package("faster_whisper.tokenizer", extra="speech")
        whisper = self._whisper
        if self._language is None:
            languages = _languages([dict(found) for found in whisper.model.detect_language(encoded)])
        else:
            languages = [self._language] * count
        tokenizers = {
            language: tokenization.Tokenizer(
                whisper.hf_tokenizer, whisper.model.is_multilingual, task="transcribe", language=language
            )
            for language in languages
        }
        prompts = [whisper.get_prompt(tokenizers[language], []) for language in languages]
        return tokenizers[Counter(languages).most_common(1)[0][0]], prompts


def joined_spans(waveform: np.ndarray, spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Join neighbouring spans to windows of at most 15 s; longer spans are cut where they are quietest."""
    windows: list[tuple[float, float]] = []
    for begin, stop in spans:
        stop = min(stop, len(waveform) / SAMPLING_RATE)
        if stop - begin < _SHORTEST:
            continue
        for start, end in _cut(waveform, begin, stop):
            if windows and end - windows[-1][0] <= _WINDOW and start - windows[-1][1] <= _LONGEST_GAP:
                windows[-1] = (windows[-1][0], end)
            else:
                windows.append((start, end))
    return windows


def _cut(waveform: np.ndarray, start: float, end: float) -> list[tuple[float, float]]:
    """Cut a span into pieces that fit into a window, each in the quietest 0.2 s of its second half."""
    step, steps = SAMPLING_RATE // 100, 20
    pieces = []
    while end - start > _WINDOW:
        first = round((start + _WINDOW / 2) * SAMPLING_RATE)
        searched = waveform[first : first + round(_WINDOW / 2 * SAMPLING_RATE)]
        levels = np.square(searched[: len(searched) // step * step].reshape(-1, step)).mean(axis=1)
        quietest = int(np.convolve(levels, np.ones(steps), "valid").argmin())
        cut = (first + (quietest + steps / 2) * step) / SAMPLING_RATE
        pieces.append((start, cut))
        start = cut
    return [*pieces, (start, end)]


def _languages(found: list[dict[str, float]]) -> list[str]:
    """Return the language of each window, from the probabilities of the tokens `<|en|>` and so on."""
    total: Counter[str] = Counter()
    for probabilities in found:
        total.update(probabilities)
    common = total.most_common(1)[0][0]
    own = [max(probabilities, key=probabilities.__getitem__) for probabilities in found]
    return [
        (token if probabilities[token] >= _SURE_LANGUAGE else common)[2:-2]
        for token, probabilities in zip(own, found, strict=True)
    ]


def _timed(aligned: list[dict[str, Any]], start: float, end: float) -> list[Word]:
    """Return the words of a window, with times in the recording."""
    return [
        Word(
            word["word"].strip(),
            min(start + float(word["start"]), end),
            min(start + float(word["end"]), end),
            float(word["probability"]),
        )
        for word in aligned
        if word["word"].strip()
    ]
