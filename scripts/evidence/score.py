"""Scores finished runs under every condition of a grid, and writes all results as rows.

    python scripts/evidence/score.py runs/full-s* runs/plain-s* --text-only runs/text-s* \\
        --data test.jsonl --grid examples/robustness.yaml --output rows.parquet

A run is a folder written by `redifu train`. Its seed is read from recipe.yaml, and its model is the folder's
name without "-sN". Gain and harm are measured against the text-only run of the same seed on the clean data.
Runs NAME-fF-sN are folds of one run: {fold} in the path of the data is F, and their predictions are joined.
The probabilities of each run are kept in a folder beside the output; a second call scores only runs that are
new or whose weights, data or grid have changed. There are rows for each run, for all seeds of a model
together, and for the most frequent label; see `rows.py`.
"""

import argparse
import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rows import (
    ALL_SEEDS,
    MAJORITY,
    joined_folds,
    load_predictions,
    majority_predictions,
    pooled_rows,
    save_predictions,
    write_rows,
)

from redifu.evaluation.corruptions import Grid, read_grid
from redifu.evaluation.robustness import (
    RobustnessPredictions,
    Row,
    predict_robustness,
    robustness_rows,
    seed_of,
    tidy_rows,
)
from redifu.inference.recogniser import load

# The files of a run that its predictions depend on.
READ = ("model*.safetensors", "config.json", "processor_config.json")


def score(
    runs: Sequence[Path],
    *,
    data: Path,
    grid: Grid,
    cache: Path,
    dataset: str,
    text_only: Sequence[Path] = (),
    split: str | None = None,
) -> list[Row]:
    """Score runs under every condition.

    Args:
        runs: folders of finished runs of several models and seeds.
        data: labelled conversations.
        grid: the conditions.
        cache: folder for the predictions.
        dataset: name of the data in the rows.
        text_only: runs of a text-only model, one per seed; without them, each model with text alone.
        split: the split to read, for a file with several.

    Raises:
        ValueError: two runs have the same model and seed, or a seed has no text-only run.
    """
    models, texts = by_model(runs), by_model(text_only)
    if len(texts) > 1:
        raise ValueError(f"expected one text-only run of each seed, got {', '.join(map(str, text_only))}")
    references = next(iter(texts.values()), {})
    wanted = {seed for seeds in models.values() for seed in seeds}
    if text_only and (lacking := wanted - references.keys()):
        raise ValueError(f"there is no text-only run of seed {', '.join(sorted(lacking))}")
    cache.mkdir(parents=True, exist_ok=True)

    def predicted(folds: Sequence[Path], under: Grid) -> RobustnessPredictions:
        return joined_folds(
            [predict_run(run, data=data_of(run, data), split=split, grid=under, cache=cache) for run in folds]
        )

    clean = Grid(conditions={}, seed=grid.seed)
    rows: list[Row] = []

    def add(model: str, predictions: Mapping[str, RobustnessPredictions]) -> None:
        from_text = {
            seed: clean_text(predicted(references[seed], clean)) if text_only else each.text_only
            for seed, each in predictions.items()
        }
        for seed, each in predictions.items():
            scored = robustness_rows(each, text_only=from_text[seed])
            rows.extend(tidy_rows(scored, dataset=dataset, model=model, seed=seed))
        known = [each for each in from_text.values() if each is not None]
        pooled = pooled_rows(list(predictions.values()), known)
        rows.extend(tidy_rows(pooled, dataset=dataset, model=model, seed=ALL_SEEDS))

    for model, seeds in models.items():
        add(model, {seed: predicted(folds, grid) for seed, folds in seeds.items()})
    # Its predictions are the same for every seed, but the text-only reference is not.
    seed, folds = next(iter(next(iter(models.values())).items()))
    add(MAJORITY, dict.fromkeys(references or [seed], majority_predictions(predicted(folds, grid))))
    return rows


def by_model(runs: Sequence[Path]) -> dict[str, dict[str, list[Path]]]:
    """Group runs by model and seed; the runs of a seed are its folds.

    Raises:
        ValueError: two runs have the same model, seed and fold.
    """
    models: dict[str, dict[str, dict[int, Path]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        model, seed, fold = re.sub(r"(-f\d+)?-s\d+$", "", run.name), seed_of(run), fold_of(run)
        if fold in (folds := models[model][seed]):
            raise ValueError(f"{folds[fold]} and {run} are of the same model and seed, {seed}")
        folds[fold] = run
    return {
        model: {seed: [folds[fold] for fold in sorted(folds)] for seed, folds in seeds.items()}
        for model, seeds in models.items()
    }


def fold_of(run: Path) -> int:
    """Return the fold of a run; 0 if it has none."""
    found = re.search(r"-f(\d+)-s\d+$", run.name)
    return int(found[1]) if found else 0


def data_of(run: Path, data: Path) -> Path:
    """Return the data of a run's fold."""
    return Path(str(data).replace("{fold}", str(fold_of(run))))


def predict_run(
    run: Path, *, data: Path, split: str | None, grid: Grid, cache: Path
) -> RobustnessPredictions:
    """Return the predictions of a run, from the cache if they are there."""
    stored = cache / f"{run.name}-{digest(run, data, split=split, grid=grid)}.npz"
    if not stored.exists():
        print(f"{run}: scoring", flush=True)
        recogniser = load(run)
        given = recogniser.read(data, split=split)
        predictions = predict_robustness(recogniser.model, recogniser.processor, given, grid)
        save_predictions(stored, predictions)
    return load_predictions(stored)


def digest(run: Path, data: Path, *, split: str | None, grid: Grid) -> str:
    """Hash everything that the predictions of a run depend on."""
    hashed = hashlib.sha256(repr((split, grid)).encode())
    files = [data] if data.is_file() else sorted(path for path in data.rglob("*") if path.is_file())
    for path in [*(path for name in READ for path in sorted(run.glob(name))), *files]:
        with path.open("rb") as file:
            hashed.update(hashlib.file_digest(file, "sha256").digest())
    return hashed.hexdigest()[:16]


def clean_text(predictions: RobustnessPredictions) -> np.ndarray:
    """Return the (utterances, labels) probabilities on the clean data."""
    return predictions.conditions[0].probabilities[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of finished runs")
    parser.add_argument("--text-only", nargs="+", type=Path, default=[], metavar="RUN")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="labelled conversations")
    parser.add_argument(
        "--dataset", metavar="NAME", help="name of the data in the rows; default: the file's name"
    )
    parser.add_argument("--split", help="split to read, for a file with several")
    parser.add_argument("--grid", type=Path, required=True, metavar="GRID.yaml")
    parser.add_argument("--output", type=Path, required=True, metavar="ROWS", help=".csv or .parquet")
    options = parser.parse_args()
    rows = score(
        options.runs,
        data=options.data,
        grid=read_grid(options.grid),
        cache=options.output.with_suffix(".predictions"),
        dataset=options.dataset or options.data.stem,
        text_only=options.text_only,
        split=options.split,
    )
    write_rows(options.output, rows)


if __name__ == "__main__":
    main()
