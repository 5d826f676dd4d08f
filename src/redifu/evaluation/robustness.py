"""Robustness of one model to missing, noisy and permuted streams.

A result has rows of condition, severity, metric and value. Metrics are weighted_f1, macro_f1, accuracy and
f1_LABEL (0 to 100), nll, ece (0 to 1), gain_over_text (points of weighted F1 above text only on clean data),
harm (percentage of utterances that text only gets right and the model gets wrong) and, if the model estimates
them, reliability_audio and reliability_visual (0 to 1, mean over the utterances that have the stream). In
addition to the grid's conditions, "calibration" has the clean data's share, confidence and accuracy (0 to 1)
for each bin; its severity is the number of the bin.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import ArrayLike

from redifu.atomic_files import replace_text
from redifu.conversation import Conversation
from redifu.evaluation.corruptions import CORRUPTIONS, SUBSETS, Condition, Grid, corrupt
from redifu.evaluation.metrics import (
    calibration_bins,
    dialogue_confusions,
    expected_calibration_error,
    label_scores,
    negative_log_likelihood,
    overall_scores,
)
from redifu.evaluation.scoring import reference_ids
from redifu.inference.feature_cache import FeatureCache
from redifu.inference.predictions import predict_conversations
from redifu.model.configuration_redifu import MODALITIES
from redifu.model.losses import IGNORED_LABEL

logger = logging.getLogger(__name__)

BATCH_UTTERANCES = 1024
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ConditionPredictions:
    """Predictions of a model under one condition.

    Attributes:
        condition: name of the condition.
        severity: its severity, as written in the rows.
        probabilities: (draws, labelled utterances, labels) float32; uniform for an utterance that has nothing
            left that the model can read.
        reliability: by stream, the mean over draws and the utterances that have it.
    """

    condition: str
    severity: str
    probabilities: np.ndarray
    reliability: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RobustnessPredictions:
    """Predictions of a model for labelled utterances under all conditions of a grid.

    Attributes:
        labels: label names, in the order of their ids.
        references: (utterances,) true label ids.
        dialogues: (utterances,) number of each utterance's dialogue.
        conditions: the clean one first.
    """

    labels: Sequence[str]
    references: np.ndarray
    dialogues: np.ndarray
    conditions: Sequence[ConditionPredictions]

    def of(self, condition: str, severity: str) -> np.ndarray | None:
        """Return (draws, utterances, labels) for a condition, or None if it was not predicted."""
        found = [each for each in self.conditions if (each.condition, each.severity) == (condition, severity)]
        return found[0].probabilities if found else None

    @property
    def text_only(self) -> np.ndarray | None:
        """The model's (utterances, labels) from text alone, or None if not predicted."""
        of_text = self.of(SUBSETS, "t")
        return None if of_text is None else of_text[0]


@dataclass(frozen=True, kw_only=True)
class RobustnessResult:
    """The predictions under a grid, and the rows of their scores."""

    rows: list[Row]
    predictions: RobustnessPredictions


def evaluate_robustness(
    model: Any,
    processor: Any,
    conversations: Iterable[Conversation],
    grid: Grid,
    *,
    text_only: ArrayLike | None = None,
) -> RobustnessResult:
    """Score a model under every condition of a grid.

    Args:
        model: a ReDiFuForEmotionRecognition.
        processor: its ReDiFuProcessor.
        conversations: labelled conversations; their media are read once and kept in memory.
        grid: the conditions.
        text_only: (labelled utterances, labels) probabilities of a text-only model on the clean data, for
            gain and harm; None uses this model's from text alone, if it has text and another stream.

    Raises:
        ValueError: a label is unknown to the model, or no utterance has a label.
    """
    predictions = predict_robustness(model, processor, conversations, grid)
    rows = robustness_rows(predictions, text_only=text_only)
    return RobustnessResult(rows=rows, predictions=predictions)


def predict_robustness(
    model: Any, processor: Any, conversations: Iterable[Conversation], grid: Grid
) -> RobustnessPredictions:
    """Predict under every condition; the arguments are those of `evaluate_robustness`."""
    given = list(conversations)
    streams = FeatureCache(model, processor)
    prepared = [streams.read(each) for each in given]
    ids = [reference_ids(each, model.config.labels) for each in prepared]
    labelled = [np.flatnonzero(each != IGNORED_LABEL) for each in ids]
    if not sum(map(len, labelled)):
        raise ValueError("expected at least one labelled utterance, got none")
    sounds = None
    if any(CORRUPTIONS[name].of_sounds for name in grid.conditions if name != SUBSETS):
        sounds = _with_sounds(streams, given, prepared)
    conditions = []
    for point in _points(grid, model.config.modalities):
        of_sounds = point.name in CORRUPTIONS and CORRUPTIONS[point.name].of_sounds
        if of_sounds and sounds is None:
            continue
        predict = _Predictor(streams, labelled)
        for draw in range(point.draws):
            source = sounds if of_sounds and sounds is not None else prepared
            corrupted = corrupt(source, point, draw=draw, grid_seed=grid.seed, keys=streams.keys)
            predict.add([streams.read(each) for each in corrupted] if of_sounds else corrupted)
        conditions.append(predict.result(point))
    return RobustnessPredictions(
        labels=list(model.config.labels),
        references=np.concatenate([each[rows] for each, rows in zip(ids, labelled, strict=True)]),
        dialogues=np.repeat(np.arange(len(labelled)), [len(rows) for rows in labelled]),
        conditions=conditions,
    )


def robustness_rows(predictions: RobustnessPredictions, *, text_only: ArrayLike | None = None) -> list[Row]:
    """Score predictions: rows of condition, severity, metric and value, means over the draws.

    Args:
        predictions: predictions of one model.
        text_only: see `evaluate_robustness`.

    Raises:
        ValueError: `text_only` does not have the same utterances and labels.
    """
    reference = predictions.text_only if text_only is None else np.asarray(text_only)
    expected = predictions.conditions[0].probabilities.shape[1:]
    if reference is not None and reference.shape != expected:
        raise ValueError(f"text_only must be probabilities of shape {expected}, got {reference.shape}")
    rows = []
    for each in predictions.conditions:
        scores = [_scores(predictions, draw, reference) for draw in each.probabilities]
        means = {name: float(np.mean([score[name] for score in scores])) for name in scores[0]}
        means |= {f"reliability_{name}": value for name, value in each.reliability.items()}
        rows += [_row(each.condition, each.severity, name, value) for name, value in means.items()]
    bins = calibration_bins(predictions.conditions[0].probabilities[0], predictions.references)
    for name, values in bins.items():
        rows += [
            _row("calibration", str(number), name, value) for number, value in enumerate(values, start=1)
        ]
    return rows


def tidy_rows(rows: Iterable[Row], *, dataset: str, model: str, seed: str) -> list[Row]:
    """Add the data set, the model and the seed to each row."""
    return [{"dataset": dataset, "model": model, "seed": seed, **row} for row in rows]


def write_robustness(path: Path, rows: Iterable[Row], *, data: Path, run: Path) -> list[Row]:
    """Write rows as CSV, named after the data, the model's folder and its seed, and return them so."""
    named = tidy_rows(rows, dataset=data.stem, model=run.name, seed=seed_of(run))
    replace_text(path, pd.DataFrame(named).to_csv(index=False))
    return named


def seed_of(folder: str | Path) -> str:
    """Return the seed in the recipe of a run's folder, "" without a recipe."""
    path = Path(folder, "recipe.yaml")
    if not path.is_file():
        return ""
    return str(yaml.safe_load(path.read_text(encoding="utf-8"))["training"]["seed"])


def _row(condition: str, severity: str, metric: str, value: float) -> Row:
    return {"condition": condition, "severity": severity, "metric": metric, "value": float(value)}


def _scores(
    predictions: RobustnessPredictions, probabilities: np.ndarray, text_only: np.ndarray | None
) -> dict[str, float]:
    """Score the probabilities (utterances, labels) of one draw."""
    references, labels = predictions.references, predictions.labels
    confusion = _confusion(probabilities, references)
    scores = {name: float(value) for name, value in overall_scores(confusion).items()}
    scores["nll"] = float(negative_log_likelihood(probabilities, references).mean())
    scores["ece"] = expected_calibration_error(probabilities, references)
    if text_only is not None:
        from_text = overall_scores(_confusion(text_only, references))["weighted_f1"]
        scores["gain_over_text"] = scores["weighted_f1"] - float(from_text)
        harmed = (text_only.argmax(1) == references) & (probabilities.argmax(1) != references)
        scores["harm"] = 100 * float(harmed.mean())
    per_label = label_scores(confusion)["f1"]
    return scores | {f"f1_{label}": float(value) for label, value in zip(labels, per_label, strict=True)}


def _confusion(probabilities: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Count (labels, labels), rows true."""
    return dialogue_confusions(
        probabilities.argmax(1),
        references,
        dialogues=np.zeros(len(references)),
        num_labels=probabilities.shape[1],
    )[0]


def _points(grid: Grid, streams: Sequence[str]) -> Iterator[Condition]:
    """Yield the points of a grid; add text alone if the grid lacks it and the model has other streams."""
    yield from grid.points(streams)
    if SUBSETS not in grid.conditions and "text" in streams and len(streams) > 1:
        yield Condition(name=SUBSETS, severity="t")


def _with_sounds(
    streams: FeatureCache, given: Sequence[Conversation], prepared: Sequence[Conversation]
) -> list[Conversation] | None:
    """Return the conversations with waveforms; None if the model reads none or there are none."""
    if streams.extractor.audio_backend is not None:
        heard = [streams.with_sounds(*pair) for pair in zip(given, prepared, strict=True)]
        if any(one.audio is not None for each in heard for one in each.utterances):
            return heard
    logger.warning("waveform noise is skipped: the model reads no waveforms, or the data has none")
    return None


class _Predictor:
    """Predicts the draws of one condition, and averages the model's estimates of reliability."""

    def __init__(self, streams: FeatureCache, labelled: Sequence[np.ndarray]):
        self.streams = streams
        self.labelled = labelled
        self.draws: list[np.ndarray] = []
        # By stream: sum, and number of utterances that have it.
        self.reliability = {name: [0.0, 0] for name in MODALITIES if name != "text"}

    def add(self, conversations: Sequence[Conversation]) -> None:
        """Predict one draw."""
        predicted = predict_conversations(
            self.streams.model,
            self.streams,
            conversations,
            batch_utterances=BATCH_UTTERANCES,
            lookahead_utterances=sum(len(each.utterances) for each in conversations),
        )
        rows = []
        for (_, predictions), places in zip(predicted, self.labelled, strict=True):
            rows += [predictions[place].probabilities for place in places]
            for prediction in predictions:
                self._count(prediction.reliability or {})
        drawn = np.stack(rows)
        # Every condition and every model is scored on the same utterances.
        self.draws.append(np.where(np.isnan(drawn), np.float32(1 / drawn.shape[1]), drawn))

    def result(self, point: Condition) -> ConditionPredictions:
        """Return all draws."""
        return ConditionPredictions(
            condition=point.name,
            severity=point.severity,
            probabilities=np.stack(self.draws),
            reliability={
                name: total / number for name, (total, number) in self.reliability.items() if number
            },
        )

    def _count(self, reliability: Mapping[str, float]) -> None:
        for name, sums in self.reliability.items():
            if name in reliability:
                sums[0] += reliability[name]
                sums[1] += 1
