"""Reads and writes the results of many runs as tidy rows, and the predictions behind them.

A row has dataset, model, seed, condition, severity, metric and value; see `redifu.evaluation.robustness` for
conditions and metrics. Rows of the seed "all" pool all runs of a model: weighted_f1 and gain_over_text are
means over runs and draws, METRIC_low and METRIC_high the ends of their 95 % intervals (paired bootstrap over
dialogues). The model "majority" gives every utterance the most frequent label.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from redifu.atomic_files import replacing
from redifu.evaluation.metrics import bootstrap_weighted_f1, percentile_interval
from redifu.evaluation.robustness import ConditionPredictions, RobustnessPredictions, Row

COLUMNS = ["dataset", "model", "seed", "condition", "severity", "metric", "value"]
ALL_SEEDS = "all"
MAJORITY = "majority"


def pooled_rows(
    runs: Sequence[RobustnessPredictions],
    text_only: Sequence[ArrayLike],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> list[Row]:
    """Score all runs of a model together.

    Args:
        runs: predictions of several seeds under the same grid.
        text_only: (utterances, labels) probabilities of text-only runs on the clean data; without them there
            is no gain.
        resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.

    Returns:
        Rows with condition, severity, metric and value.

    Raises:
        ValueError: the runs differ in conditions, utterances or labels.
    """
    first = runs[0]
    for run in runs:
        if _points(run) != _points(first) or not np.array_equal(run.references, first.references):
            raise ValueError("runs of a model must be of the same utterances and conditions")

    def scored(system: np.ndarray) -> tuple[float, np.ndarray]:
        return bootstrap_weighted_f1(
            system,
            first.references,
            dialogues=first.dialogues.tolist(),
            num_labels=len(first.labels),
            resamples=resamples,
            seed=seed,
        )

    from_text = scored(np.stack(text_only)) if len(text_only) else None
    rows = []
    for place, (condition, severity) in enumerate(_points(first)):
        value, drawn = scored(np.concatenate([run.conditions[place].probabilities for run in runs]))
        measured = {"weighted_f1": (value, drawn)}
        if from_text is not None:
            measured["gain_over_text"] = (value - from_text[0], drawn - from_text[1])
        for metric, (mean, values) in measured.items():
            low, high = percentile_interval(values)
            for name, number in ((metric, mean), (f"{metric}_low", low), (f"{metric}_high", high)):
                rows.append({"condition": condition, "severity": severity, "metric": name, "value": number})
    return rows


def joined_folds(folds: Sequence[RobustnessPredictions]) -> RobustnessPredictions:
    """Return the predictions of several models for different dialogues as those of one run."""
    first, *rest = folds
    if any(_points(each) != _points(first) for each in rest):
        raise ValueError("folds must be predicted under the same conditions")
    starts = np.cumsum([0, *(each.dialogues.max() + 1 for each in folds[:-1])])
    conditions = []
    for place, condition in enumerate(first.conditions):
        parts = [each.conditions[place] for each in folds]
        probabilities = np.concatenate([part.probabilities for part in parts], axis=1)
        shares = [len(each.references) / sum(len(one.references) for one in folds) for each in folds]
        reliability = {
            name: sum(share * part.reliability[name] for share, part in zip(shares, parts, strict=True))
            for name in condition.reliability
        }
        conditions.append(replace(condition, probabilities=probabilities, reliability=reliability))
    return replace(
        first,
        references=np.concatenate([each.references for each in folds]),
        dialogues=np.concatenate([each.dialogues + start for each, start in zip(folds, starts, strict=True)]),
        conditions=conditions,
    )


def majority_predictions(known: RobustnessPredictions) -> RobustnessPredictions:
    """Return predictions on the clean data that give every utterance the shares of the true labels."""
    shares = np.bincount(known.references, minlength=len(known.labels)) / len(known.references)
    (clean, *_) = known.conditions
    probabilities = np.tile(shares.astype(np.float32), (1, len(known.references), 1))
    return replace(known, conditions=[replace(clean, probabilities=probabilities, reliability={})])


def write_rows(path: str | Path, rows: Iterable[Row]) -> None:
    """Write rows as Parquet if the name ends in .parquet, else as CSV."""
    frame = pd.DataFrame(rows, columns=COLUMNS)
    if Path(path).suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)


def read_rows(paths: Iterable[str | Path]) -> pd.DataFrame:
    """Read rows from files written by `write_rows`; all columns but the value are strings.

    Raises:
        ValueError: a file has other columns.
    """
    frames = []
    for path in paths:
        if Path(path).suffix == ".parquet":
            frame = pd.read_parquet(path)
        else:
            frame = pd.read_csv(path, dtype=dict.fromkeys(COLUMNS[:-1], str), keep_default_na=False)
        if list(frame.columns) != COLUMNS:
            raise ValueError(
                f"{path}: expected the columns {', '.join(COLUMNS)}, got {', '.join(frame.columns)}"
            )
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def save_predictions(path: Path, predictions: RobustnessPredictions) -> None:
    """Write predictions atomically, as an .npz file of plain arrays."""
    arrays: dict[str, Any] = {
        "labels": np.array(predictions.labels),
        "references": predictions.references,
        "dialogues": predictions.dialogues,
        "points": np.array(_points(predictions)),
    }
    for number, each in enumerate(predictions.conditions):
        arrays[f"probabilities:{number}"] = each.probabilities
        arrays |= {
            f"reliability:{number}:{name}": np.array(value) for name, value in each.reliability.items()
        }
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load_predictions(path: Path) -> RobustnessPredictions:
    """Read a file written by `save_predictions`."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    conditions = []
    for number, (condition, severity) in enumerate(arrays["points"].tolist()):
        conditions.append(
            ConditionPredictions(
                condition=condition,
                severity=severity,
                probabilities=arrays[f"probabilities:{number}"],
                reliability=_named(arrays, f"reliability:{number}:"),
            )
        )
    return RobustnessPredictions(
        labels=arrays["labels"].tolist(),
        references=arrays["references"],
        dialogues=arrays["dialogues"],
        conditions=conditions,
    )


def _points(run: RobustnessPredictions) -> list[tuple[str, str]]:
    return [(each.condition, each.severity) for each in run.conditions]


def _named(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, float]:
    return {
        name.removeprefix(prefix): float(value) for name, value in arrays.items() if name.startswith(prefix)
    }
