"""Counts of errors in what was found in a recording: words, speakers, emotions; with intervals.

Each recording gives counts, whose sums over recordings give the scores, so that a bootstrap over recordings
only draws other sums. Words are counted by jiwer and meeteval, time by pyannote.metrics. Texts are normalised
by transformers' EnglishTextNormalizer, without its table of British spellings.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jiwer
import numpy as np
from meeteval.io import SegLST
from meeteval.wer import cpwer, tcpwer
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate
from pyannote.metrics.identification import IdentificationErrorRate
from scipy.optimize import linear_sum_assignment
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from redifu.evaluation.metrics import bootstrap_sums, label_scores, percentile_interval

normalised: Callable[[str], str] = EnglishTextNormalizer({})

# Seconds around the time of a word in which tcpWER finds it.
WORD_COLLAR = 5.0
# Seconds left out at either side of the bounds of reference turns; pyannote counts both sides together.
SPEAKER_COLLAR = 0.25
RATES = (
    *("wer", "cpwer", "tcpwer", "der", "der_collar_no_overlap", "teer", "steer"),
    *("speakers_right", "speakers_within_one"),
)


class EmotionalTurn(NamedTuple):
    """A turn of a reference or a hypothesis; times in seconds, `emotion` None where nothing was found."""

    speaker: str
    start: float
    end: float
    text: str
    emotion: str | None


class Counts(NamedTuple):
    """What is counted in one recording.

    Attributes:
        rates: (len(RATES), 2), a numerator and a denominator of each rate.
        confusion: see `emotion_confusion`.
    """

    rates: np.ndarray
    confusion: np.ndarray


def count(reference: Sequence[EmotionalTurn], found: Sequence[EmotionalTurn], *, labels: list[str]) -> Counts:
    """Count the errors in a recording.

    Args:
        reference: the true turns, with at least one word.
        found: the turns that were found, possibly none.
        labels: the emotions.
    """
    numbers = [len({turn.speaker for turn in turns}) for turns in (reference, found)]
    wrong_by = abs(numbers[0] - numbers[1])
    rates = [
        *word_errors(reference, found),
        *speaker_errors(reference, found),
        *emotion_errors(reference, found),
        (wrong_by == 0, 1),
        (wrong_by <= 1, 1),
    ]
    return Counts(np.array(rates, dtype=float), emotion_confusion(reference, found, labels=labels))


def word_errors(
    reference: Sequence[EmotionalTurn], found: Sequence[EmotionalTurn]
) -> list[tuple[float, float]]:
    """Count (errors, words) for the WER of the text by start of turn, for cpWER and for tcpWER."""
    joined = (" ".join(filter(None, map(_words, _by_start(turns)))) for turns in (reference, found))
    plain = jiwer.process_words(*joined)
    errors = plain.substitutions + plain.deletions + plain.insertions
    counts: list[tuple[float, float]] = [(errors, errors - plain.insertions + plain.hits)]
    pair = [_seglst(turns) for turns in (reference, found)]
    for scored in (cpwer(*pair), tcpwer(*pair, collar=WORD_COLLAR)):
        counts.append((scored["recording"].errors, scored["recording"].length))
    return counts


def speaker_errors(
    reference: Sequence[EmotionalTurn], found: Sequence[EmotionalTurn]
) -> list[tuple[float, float]]:
    """Count (seconds in error, seconds of speech) of DER: all, and away from bounds and overlap."""
    pair = [_annotation(turns, lambda turn: turn.speaker) for turns in (reference, found)]
    lenient = DiarizationErrorRate(collar=2 * SPEAKER_COLLAR, skip_overlap=True)
    return [_seconds(metric, *pair) for metric in (DiarizationErrorRate(), lenient)]


def emotion_errors(
    reference: Sequence[EmotionalTurn], found: Sequence[EmotionalTurn]
) -> list[tuple[float, float]]:
    """Count (seconds in error, seconds of speech) of TEER and sTEER (arXiv 2308.07145).

    Errors of TEER are missed speech, false alarms and wrong emotions; sTEER also counts wrong speakers, where
    found speakers stand for the true ones as in DER.
    """
    speakers = [_annotation(turns, lambda turn: turn.speaker) for turns in (reference, found)]
    names = DiarizationErrorRate().optimal_mapping(*speakers, uem=_everything(*speakers))

    def true_speaker(turn: EmotionalTurn) -> Any:
        return names.get(turn.speaker, ("unmatched", turn.speaker))

    alone = [_annotation(turns, lambda turn: str(turn.emotion)) for turns in (reference, found)]
    both = [
        _annotation(reference, lambda turn: (turn.speaker, turn.emotion)),
        _annotation(found, lambda turn: (true_speaker(turn), turn.emotion)),
    ]
    return [_seconds(IdentificationErrorRate(), *pair) for pair in (alone, both)]


def emotion_confusion(
    reference: Sequence[EmotionalTurn], found: Sequence[EmotionalTurn], *, labels: list[str]
) -> np.ndarray:
    """Count the emotions of true and found turns that belong together.

    Each turn belongs to one of the other side at most, so that they have the most time in common.

    Returns:
        (labels + 1, labels + 1), rows true, columns found; the last stands for no turn or no emotion.
    """
    common = np.array(
        [[min(one.end, other.end) - max(one.start, other.start) for other in found] for one in reference]
    ).reshape(len(reference), len(found))
    pairs = [
        (row, column)
        for row, column in zip(*linear_sum_assignment(-common.clip(min=0)), strict=True)
        if common[row, column] > 0
    ]
    ids = {None: len(labels)} | {label: index for index, label in enumerate(labels)}
    confusion = np.zeros((len(labels) + 1, len(labels) + 1))
    for row, column in pairs:
        confusion[ids[reference[row].emotion], ids[found[column].emotion]] += 1
    for row in set(range(len(reference))) - {row for row, _ in pairs}:
        confusion[ids[reference[row].emotion], -1] += 1
    for column in set(range(len(found))) - {column for _, column in pairs}:
        confusion[-1, ids[found[column].emotion]] += 1
    return confusion


def weighted_f1(confusion: np.ndarray) -> np.ndarray:
    """Return the weighted F1 (0 to 100) over the labels, of (..., labels + 1, labels + 1) counts."""
    scores = label_scores(confusion)
    f1, support = (scores[name][..., :-1] for name in ("f1", "support"))
    return (f1 * support).sum(-1) / support.sum(-1).clip(min=1)


def scores_of(
    counts: Sequence[Counts], first: Sequence[Counts] | None = None, *, resamples: int = 1000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Return the scores of recordings.

    Args:
        counts: of each recording.
        first: of the same recordings, to compare with.
        resamples: bootstrap resamples of the recordings.
        seed: seed of the bootstrap.

    Returns:
        {metric: {"value", "interval": [low, high]}}: RATES (0 to 1), `weighted_f1` (0 to 100), and with
        `first` also `weighted_f1_lost`.
    """
    drawn = [_values(_draws(counts, resamples=resamples, seed=seed)), _values(_sums(counts))]
    if first is not None:
        before = [_values(_draws(first, resamples=resamples, seed=seed)), _values(_sums(first))]
        for own, other in zip(drawn, before, strict=True):
            own["weighted_f1_lost"] = other["weighted_f1"] - own["weighted_f1"]
    resampled, observed = drawn
    return {
        name: {"value": float(value), "interval": percentile_interval(resampled[name])}
        for name, value in observed.items()
    }


def _draws(counts: Sequence[Counts], *, resamples: int, seed: int) -> Counts:
    rows = (np.stack(each) for each in zip(*counts, strict=True))
    return Counts(*(bootstrap_sums(each, resamples=resamples, seed=seed) for each in rows))


def _sums(counts: Sequence[Counts]) -> Counts:
    return Counts(*(np.sum(each, axis=0) for each in zip(*counts, strict=True)))


def _values(sums: Counts) -> dict[str, np.ndarray]:
    rates = sums.rates[..., 0] / np.maximum(sums.rates[..., 1], 1e-9)
    values = {name: rates[..., index] for index, name in enumerate(RATES)}
    return values | {"weighted_f1": weighted_f1(sums.confusion)}


def _by_start(turns: Sequence[EmotionalTurn]) -> list[EmotionalTurn]:
    return sorted(turns, key=lambda turn: turn.start)


def _words(turn: EmotionalTurn) -> str:
    return normalised(turn.text)


def _seglst(turns: Sequence[EmotionalTurn]) -> SegLST:
    rows: Iterator[dict[str, Any]] = (
        {
            "session_id": "recording",
            "speaker": turn.speaker,
            "start_time": turn.start,
            "end_time": turn.end,
            "words": _words(turn),
        }
        for turn in turns
    )
    nobody = {"session_id": "recording", "speaker": "nobody", "start_time": 0, "end_time": 0, "words": ""}
    return SegLST(list(rows) or [nobody])


def _annotation(turns: Sequence[EmotionalTurn], label: Callable[[EmotionalTurn], Any]) -> Annotation:
    annotation = Annotation()
    for track, turn in enumerate(turns):  # tracks keep turns with the same times apart
        annotation[Segment(turn.start, turn.end), track] = label(turn)
    return annotation


def _everything(reference: Annotation, found: Annotation) -> Timeline:
    return Timeline([Segment(0, max(each.get_timeline().extent().end for each in (reference, found)))])


def _seconds(metric: Any, reference: Annotation, found: Annotation) -> tuple[float, float]:
    with warnings.catch_warnings(action="ignore"):
        parts = metric(reference, found, uem=_everything(reference, found), detailed=True)
    return parts["confusion"] + parts["missed detection"] + parts["false alarm"], parts["total"]
