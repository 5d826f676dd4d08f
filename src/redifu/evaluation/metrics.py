"""Emotion recognition metrics, with bootstrap intervals over dialogues.

Utterances of one dialogue are not independent, so whole dialogues are resampled. F1, accuracy and the
log-likelihood are functions of sums over utterances, so the sums of each dialogue are computed once, and a
resample only reweights them.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import ArrayLike

from redifu.evaluation.coverage import PERCENTS, area_under_risk_coverage, covered_at

CALIBRATION_BINS = 15
CONFIDENCE = 0.95

# A probability rounded to 0 in float32 would make the log-likelihood infinite, which JSON cannot represent.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)


def dialogue_confusions(
    predicted: ArrayLike, references: ArrayLike, *, dialogues: ArrayLike, num_labels: int
) -> np.ndarray:
    """Count one confusion matrix per dialogue.

    Args:
        predicted: (utterances,) label ids.
        references: (utterances,) true label ids.
        dialogues: (utterances,) the dialogue of each utterance, as any sortable values.
        num_labels: number of labels.

    Returns:
        (dialogues, num_labels, num_labels) counts, rows true, columns predicted; dialogues are sorted.
    """
    names, index = np.unique(np.asarray(dialogues), return_inverse=True)
    counts = np.zeros((len(names), num_labels, num_labels))
    np.add.at(counts, (index, np.asarray(references), np.asarray(predicted)), 1)
    return counts


def label_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Compute precision, recall and F1 (0 to 100) and support of every label.

    A score whose denominator is 0 is 0, as in scikit-learn.

    Args:
        confusion: (..., labels, labels) counts, rows true, columns predicted.

    Returns:
        `precision`, `recall`, `f1` and `support`, each (..., labels).
    """
    correct = np.diagonal(confusion, axis1=-2, axis2=-1)
    support, predicted = confusion.sum(-1), confusion.sum(-2)
    return {
        "precision": 100 * correct / predicted.clip(min=1),
        "recall": 100 * correct / support.clip(min=1),
        "f1": 200 * correct / (support + predicted).clip(min=1),
        "support": support,
    }


def overall_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Compute weighted F1, macro F1 and accuracy (0 to 100).

    The macro mean is over labels that occur as a true or predicted label, as in scikit-learn.

    Args:
        confusion: (..., labels, labels) counts, rows true, columns predicted.

    Returns:
        `weighted_f1`, `macro_f1` and `accuracy`, each (...).
    """
    f1, support = (label_scores(confusion)[name] for name in ("f1", "support"))
    occurs = (support + confusion.sum(-2)) > 0
    total = support.sum(-1).clip(min=1)
    return {
        "weighted_f1": (f1 * support).sum(-1) / total,
        "macro_f1": f1.sum(-1) / occurs.sum(-1).clip(min=1),
        "accuracy": 100 * np.trace(confusion, axis1=-2, axis2=-1) / total,
    }


def negative_log_likelihood(probabilities: np.ndarray, references: ArrayLike) -> np.ndarray:
    """Compute the negative natural logarithm of the true label's probability.

    Args:
        probabilities: (utterances, labels).
        references: (utterances,) true label ids.

    Returns:
        (utterances,), at most 87.4, the value for the smallest normal float32.
    """
    true = np.take_along_axis(probabilities, np.asarray(references)[:, None], axis=1)[:, 0]
    return -np.log(true.clip(min=SMALLEST_PROBABILITY))


def calibration_bins(
    probabilities: np.ndarray, references: ArrayLike, *, bins: int = CALIBRATION_BINS
) -> dict[str, np.ndarray]:
    """Group utterances by their top probability, in equal-width bins of (0, 1], closed on the right.

    Args:
        probabilities: (utterances, labels).
        references: (utterances,) true label ids.
        bins: number of bins.

    Returns:
        `share` of the utterances, mean top probability `confidence`, and `accuracy`, each (bins,) in 0 to 1
        and 0 in an empty bin.
    """
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == np.asarray(references)
    place = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    number, sure, right = (np.bincount(place, each, bins) for each in (None, confidence, correct))
    return {
        "share": number / len(confidence),
        "confidence": sure / number.clip(min=1),
        "accuracy": right / number.clip(min=1),
    }


def expected_calibration_error(
    probabilities: np.ndarray, references: ArrayLike, *, bins: int = CALIBRATION_BINS
) -> float:
    """Compute the mean gap between the top probability and the accuracy.

    Source: Guo et al. 2017 (arXiv 1706.04599), equation 3: the gaps in `calibration_bins`, weighted by
    number of utterances.

    Args:
        probabilities: (utterances, labels).
        references: (utterances,) true label ids.
        bins: number of bins of (0, 1].

    Returns:
        A number in 0 to 1.
    """
    binned = calibration_bins(probabilities, references, bins=bins)
    return float((binned["share"] * np.abs(binned["accuracy"] - binned["confidence"])).sum())


def bootstrap_sums(rows: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """Sum bootstrap resamples of rows; each resample draws as many rows as there are, with replacement.

    Args:
        rows: (dialogues, ...) contribution of each dialogue to the sum.
        resamples: number of resamples.
        seed: random seed; the same seed draws the same dialogues.

    Returns:
        (resamples, ...) sums.
    """
    generator = np.random.default_rng(seed)
    size = len(rows)
    flat = rows.reshape(size, -1)
    draws = (generator.integers(size, size=size) for _ in range(resamples))
    sums = [np.bincount(draw, minlength=size).astype(flat.dtype) @ flat for draw in draws]
    return np.stack(sums).reshape(resamples, *rows.shape[1:])


def percentile_interval(values: np.ndarray) -> list[float]:
    """Return the central 95 % of bootstrap values, (resamples,), as [low, high]."""
    tail = 50 * (1 - CONFIDENCE)
    return [float(value) for value in np.percentile(values, [tail, 100 - tail])]


def score_predictions(
    probabilities: ArrayLike,
    references: ArrayLike,
    *,
    dialogues: Sequence[Any],
    labels: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute all metrics of labelled utterances, as plain numbers that JSON can represent.

    Args:
        probabilities: (utterances, labels), whose rows sum to 1.
        references: (utterances,) true label ids.
        dialogues: (utterances,) the dialogue of each utterance; intervals resample these.
        labels: names of the labels, in the order of their ids.
        resamples: bootstrap resamples of the intervals.
        seed: seed of the bootstrap.

    Returns:
        `weighted_f1`, `macro_f1`, `accuracy` (0 to 100), `nll` (natural logarithm), `ece` and `aurc` (0 to
        1), `coverage` (a row for each share of the utterances, 1.0 to 0.1: the `threshold` of the top
        probability, and the `num_utterances`, `accuracy` and `weighted_f1` at or above it),
        `per_class` {label: {precision, recall, f1 (0 to 100), support}}, `confusion` (rows true),
        `num_utterances`, and `intervals` {metric: [low, high]}, 95 % percentiles.

    Raises:
        ValueError: shapes, label ids or probabilities are invalid.
    """
    probabilities, references = _checked(
        probabilities, references, dialogues=dialogues, num_labels=len(labels)
    )
    confusions = dialogue_confusions(
        probabilities.argmax(1), references, dialogues=dialogues, num_labels=len(labels)
    )
    log_loss = negative_log_likelihood(probabilities, references)
    confusion = confusions.sum(0)
    scores = label_scores(confusion)
    return {
        **{name: float(value) for name, value in overall_scores(confusion).items()},
        "nll": float(log_loss.mean()),
        "ece": expected_calibration_error(probabilities, references),
        "aurc": area_under_risk_coverage(probabilities.max(1), probabilities.argmax(1) == references),
        "coverage": _coverage(probabilities, references),
        "per_class": {
            label: {name: float(values[index]) for name, values in scores.items()}
            | {"support": int(scores["support"][index])}
            for index, label in enumerate(labels)
        },
        "confusion": confusion.astype(int).tolist(),
        "num_utterances": len(references),
        "intervals": _intervals(confusions, log_loss, dialogues=dialogues, resamples=resamples, seed=seed),
    }


def bootstrap_weighted_f1(
    system: ArrayLike,
    references: ArrayLike,
    *,
    dialogues: Sequence[Any],
    num_labels: int,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, np.ndarray]:
    """Return a system's weighted F1 (0 to 100), and that of each resample of the dialogues, (resamples,).

    Arguments and errors are those of `paired_bootstrap`; with several runs, the result is their mean.
    """
    runs = _confusions_of_runs(system, references, dialogues=dialogues, num_labels=num_labels)
    drawn = overall_scores(bootstrap_sums(runs, resamples=resamples, seed=seed))["weighted_f1"].mean(-1)
    return float(overall_scores(runs.sum(0))["weighted_f1"].mean()), drawn


def paired_bootstrap(
    first: ArrayLike,
    second: ArrayLike,
    references: ArrayLike,
    *,
    dialogues: Sequence[Any],
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare the weighted F1 of two systems on the same utterances, over the same resampled dialogues.

    Args:
        first: (utterances, labels) probabilities, or (runs, utterances, labels) for the mean over runs.
        second: the same for the other system; its number of runs may differ.
        references: (utterances,) true label ids.
        dialogues: (utterances,) the dialogue of each utterance.
        resamples: bootstrap resamples.
        seed: seed of the bootstrap.

    Returns:
        `difference` of weighted F1 (first minus second, in percentage points), its 95 % `interval`, and the
        two-sided `p_value` for no difference.

    Raises:
        ValueError: the systems differ in utterances or labels, or `score_predictions` would reject one.
    """
    # Both systems use the same seed, and so the same resampled dialogues.
    options: dict[str, Any] = {"num_labels": np.shape(first)[-1], "resamples": resamples, "seed": seed}
    (observed, drawn), (other, other_drawn) = (
        bootstrap_weighted_f1(system, references, dialogues=dialogues, **options)
        for system in (first, second)
    )
    differences = drawn - other_drawn
    # The + 1 keeps the p-value above 0, which no finite number of resamples can prove.
    tail = min((differences <= 0).sum(), (differences >= 0).sum()) + 1
    return {
        "difference": observed - other,
        "interval": percentile_interval(differences),
        "p_value": float(min(1.0, 2 * tail / (resamples + 1))),
    }


class EmotionRecognitionMetric(evaluate.Metric):
    """`score_predictions` as a metric of the `evaluate` library, without network or file access.

    Call `compute(predictions=probabilities, references=label ids, dialogues=dialogue ids)`, or `add_batch`
    with the same three arguments and then `compute()`. Like every `evaluate` metric, it is falsy while empty,
    so test it with `is not None`.
    """

    def __init__(self, labels: Sequence[str], *, resamples: int = 1000, seed: int = 0) -> None:
        """Set the labels, in the order of their ids, and the bootstrap options of the intervals."""
        super().__init__(keep_in_memory=True, seed=seed)
        self.labels = list(labels)
        self.resamples = resamples

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="F1, accuracy and calibration of emotion recognition, with intervals over dialogues.",
            citation="",
            inputs_description=(
                "predictions: probabilities (utterances, labels); references: true label ids; "
                "dialogues: the dialogue id of each utterance, str."
            ),
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.Value("float64")),
                    "references": datasets.Value("int64"),
                    "dialogues": datasets.Value("string"),
                }
            ),
        )

    def _build_data_dir(self) -> str:
        # The base class would create a cache folder even when everything stays in memory.
        return ""

    def _compute(
        self, *, predictions: ArrayLike, references: ArrayLike, dialogues: Sequence[str]
    ) -> dict[str, Any]:
        return score_predictions(
            predictions,
            references,
            dialogues=dialogues,
            labels=self.labels,
            resamples=self.resamples,
            seed=self.seed,
        )


def _confusions_of_runs(
    system: ArrayLike, references: ArrayLike, *, dialogues: Sequence[Any], num_labels: int
) -> np.ndarray:
    """Count (dialogues, runs, labels, labels) for one run, (utterances, labels), or several stacked runs."""
    runs = np.asarray(system, dtype=float)
    counts = []
    for run in runs if runs.ndim == 3 else [runs]:
        probabilities, true = _checked(run, references, dialogues=dialogues, num_labels=num_labels)
        counts.append(
            dialogue_confusions(probabilities.argmax(1), true, dialogues=dialogues, num_labels=num_labels)
        )
    return np.stack(counts, axis=1)


def _coverage(probabilities: np.ndarray, references: np.ndarray) -> list[dict[str, float]]:
    """Score the most confident utterances alone, for each share of them."""
    rows = []
    for percent in PERCENTS:
        threshold, covered = covered_at(probabilities.max(1), percent)
        predicted, true = probabilities[covered].argmax(1), references[covered]
        kind: dict[str, Any] = {"dialogues": np.zeros(len(true)), "num_labels": probabilities.shape[1]}
        scores = overall_scores(dialogue_confusions(predicted, true, **kind)[0])
        row = {"coverage": percent / 100, "threshold": threshold, "num_utterances": len(true)}
        rows.append(row | {name: float(scores[name]) for name in ("accuracy", "weighted_f1")})
    return rows


def _intervals(
    confusions: np.ndarray, log_loss: np.ndarray, *, dialogues: Sequence[Any], resamples: int, seed: int
) -> dict[str, list[float]]:
    # The calibration error gets no interval: it sums absolute values, which resampling biases upwards.
    index = np.unique(np.asarray(dialogues), return_inverse=True)[1]
    num_dialogues, num_labels = confusions.shape[:2]
    rows = np.column_stack([confusions.reshape(num_dialogues, -1), np.bincount(index, log_loss)])
    sums = bootstrap_sums(rows, resamples=resamples, seed=seed)
    drawn = sums[:, :-1].reshape(resamples, num_labels, num_labels)
    values = overall_scores(drawn) | {"nll": sums[:, -1] / drawn.sum((1, 2))}
    return {name: percentile_interval(value) for name, value in values.items()}


def _checked(
    probabilities: ArrayLike, references: ArrayLike, *, dialogues: Sequence[Any], num_labels: int
) -> tuple[np.ndarray, np.ndarray]:
    probabilities, references = np.asarray(probabilities, dtype=float), np.asarray(references)
    expected = (len(dialogues), num_labels)
    if not len(dialogues):
        raise ValueError("expected at least one labelled utterance, got none")
    if probabilities.shape != expected or references.shape != expected[:1]:
        raise ValueError(
            f"expected probabilities of shape {expected} and references of shape {expected[:1]}, "
            f"got {probabilities.shape} and {references.shape}"
        )
    if references.dtype.kind not in "iu" or references.min() < 0 or references.max() >= num_labels:
        raise ValueError(f"expected label ids in 0..{num_labels - 1}, got {np.unique(references).tolist()}")
    # Written so that NaN also fails.
    fits = (probabilities.min(1) >= 0) & (np.abs(probabilities.sum(1) - 1) < 1e-3)
    if not fits.all():
        row = int(fits.argmin())
        raise ValueError(
            f"expected probabilities that sum to 1, got {probabilities[row].tolist()} in row {row}"
        )
    return probabilities, references
