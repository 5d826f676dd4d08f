"""Scores a stored checkpoint with every subset of its streams, and writes its card.

    python scripts/store_checkpoint.py runs/meld-ravdess-1 model_cards/redifu-meld-ravdess
    python scripts/evidence/demonstration_card.py model_cards/redifu-meld-ravdess \\
        --data runs/evidence/paired-raw.jsonl

With --data, which needs the splits dev and test, metrics.json gets the scores of the stored weights, with
intervals. The card, README.md, is rendered from demonstration_card.md, metrics.json and the configuration;
without --data, nothing else is done.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, StrictUndefined
from rows import majority_predictions

from redifu.evaluation.corruptions import SUBSETS, Grid, Severities
from redifu.evaluation.metrics import (
    bootstrap_sums,
    dialogue_confusions,
    label_scores,
    paired_bootstrap,
    percentile_interval,
    score_predictions,
)
from redifu.evaluation.robustness import RobustnessPredictions, predict_robustness
from redifu.inference.recogniser import load
from redifu.model.configuration_redifu import MODALITIES

TEMPLATE = Path(__file__).with_suffix(".md")
SPLITS = ("dev", "test")
RESAMPLES = 1000
SCORES = {"weighted_f1": "weighted F1", "macro_f1": "macro F1", "accuracy": "accuracy"}


def score(folder: Path, data: Path) -> dict[str, Any]:
    """Score a checkpoint on the dev and test set.

    Returns:
        By split the metrics of `score_predictions`, with `f1_interval` in each class. "streams": the same
        for test with only these streams, by their initials. "gain": all streams against text alone, see
        `paired_bootstrap`. "most_frequent": the metrics of the label shares as probabilities.
    """
    recogniser = load(folder)
    results: dict[str, Any] = {}
    for split in SPLITS:
        given = recogniser.read(data, split=split)
        conditions = {} if split == "dev" else {SUBSETS: Severities()}
        predictions = predict_robustness(
            recogniser.model, recogniser.processor, given, Grid(conditions=conditions)
        )
        results[split] = metrics_of(predictions, predictions.conditions[0].probabilities[0])
    subsets = {
        each.severity: each.probabilities[0] for each in predictions.conditions if each.condition == SUBSETS
    }
    results["streams"] = {name: metrics_of(predictions, each) for name, each in subsets.items()}
    results["gain"] = paired_bootstrap(
        predictions.conditions[0].probabilities[0],
        subsets["t"],
        predictions.references,
        dialogues=predictions.dialogues.tolist(),
        resamples=RESAMPLES,
    )
    majority = majority_predictions(predictions)
    results["most_frequent"] = metrics_of(predictions, majority.conditions[0].probabilities[0])
    return results


def metrics_of(predictions: RobustnessPredictions, probabilities: np.ndarray) -> dict[str, Any]:
    """Score (utterances, labels) probabilities of the utterances of `predictions`."""
    references, labels = predictions.references, predictions.labels
    dialogues = predictions.dialogues.tolist()
    metrics = score_predictions(
        probabilities, references, dialogues=dialogues, labels=labels, resamples=RESAMPLES
    )
    confusions = dialogue_confusions(
        probabilities.argmax(1), references, dialogues=dialogues, num_labels=len(labels)
    )
    drawn = label_scores(bootstrap_sums(confusions, resamples=RESAMPLES, seed=0))["f1"]
    for label, values in zip(labels, drawn.T, strict=True):
        metrics["per_class"][label]["f1_interval"] = percentile_interval(values)
    return metrics


def render(folder: Path) -> str:
    """Return the card of a folder whose metrics.json holds the results of `score`."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"cell": cell, "streams": streams}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    config, metrics = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in ("config.json", "metrics.json")
    )
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    text = template.render(
        name=folder.name, config=config, recipe=recipe, metrics=metrics, scores=SCORES, resamples=RESAMPLES
    )
    return f"{text.rstrip()}\n"


def cell(metrics: dict[str, Any], name: str, digits: int = 2) -> str:
    """Write a metric with its interval."""
    low, high = metrics["f1_interval"] if name == "f1" else metrics["intervals"][name]
    return f"{metrics[name]:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def streams(initials: str) -> str:
    """Name the streams of a subset."""
    return ", ".join(name for name in MODALITIES if name[0] in initials)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a folder written by store_checkpoint.py")
    parser.add_argument("--data", type=Path, help="labelled conversations with the splits dev and test")
    options = parser.parse_args()
    if options.data is not None:
        path = options.folder / "metrics.json"
        metrics = json.loads(path.read_text(encoding="utf-8")) | score(options.folder, options.data)
        path.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    (options.folder / "README.md").write_text(render(options.folder), encoding="utf-8")


if __name__ == "__main__":
    main()
