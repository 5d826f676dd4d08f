"""Trains the models of a comparison with several seeds each, and resumes where it was stopped.

A comparison is a YAML file with `recipe`, the values that all models share; `seeds`; and `models`, the
overrides of each model by name. The run of model NAME with seed S is RUNS/NAME-sS, as `redifu train` writes
it. With `folds: K`, each model is trained K times per seed, as NAME-fF-sS, and {fold} in the paths of the
data is F, from 1 to K. Finished runs are left as they are.

    EVIDENCE=path/to/evidence python scripts/evidence/train.py scripts/evidence/paired.yaml --runs runs/paired
    ... --models default concat-mlp --seeds 1 2 --num-proc 2
"""

import argparse
import multiprocessing
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import yaml

from redifu.training.recipe import Recipe
from redifu.training.trainer import train


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("comparison", type=Path)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--models", nargs="*", help="train only these")
    parser.add_argument("--seeds", nargs="*", type=int, help="replace the seeds of the comparison")
    parser.add_argument("--num-proc", type=int, default=1)
    options = parser.parse_args()
    comparison = yaml.safe_load(options.comparison.read_text(encoding="utf-8"))
    recipes = [
        recipe_of(comparison, name, seed=seed, runs=options.runs, fold=fold)
        for seed in options.seeds or comparison["seeds"]
        for fold in folds_of(comparison)
        for name in options.models or comparison["models"]
    ]
    failed = 0
    with ProcessPoolExecutor(options.num_proc, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(train, recipe): recipe.training.output for recipe in recipes}
        for done in as_completed(waiting):
            # A failing model does not stop the others.
            if (error := done.exception()) is not None:
                failed += 1
                traceback.print_exception(error)
            print(waiting[done], "failed" if error else "done", flush=True)
    return int(failed > 0)


def folds_of(comparison: dict[str, Any]) -> list[int | None]:
    """Return the folds of a comparison, counted from 1; None is its only one."""
    return list(range(1, comparison["folds"] + 1)) if "folds" in comparison else [None]


def recipe_of(
    comparison: dict[str, Any], name: str, *, seed: int, runs: Path, fold: int | None = None
) -> Recipe:
    """Return the recipe of one model of a comparison."""
    values = {section: dict(keys) for section, keys in comparison["recipe"].items()}
    for key, value in (comparison["models"][name] or {}).items():
        section, _, field = key.partition(".")
        values[section][field] = value
    run = f"{name}-s{seed}" if fold is None else f"{name}-f{fold}-s{seed}"
    values["training"] |= {"seed": seed, "output": str(runs / run)}
    values["data"] |= {
        key: {**source, "path": source["path"].replace("{fold}", str(fold))}
        for key, source in values["data"].items()
        if isinstance(source, dict) and "path" in source
    }
    return Recipe.from_dict(values)


if __name__ == "__main__":
    sys.exit(main())
