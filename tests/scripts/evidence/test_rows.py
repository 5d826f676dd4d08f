"""Rows and predictions survive their files, and pooled rows are means with intervals around them."""

import numpy as np
import pytest

from redifu.evaluation.metrics import paired_bootstrap
from redifu.evaluation.robustness import (
    ConditionPredictions,
    RobustnessPredictions,
    robustness_rows,
    seed_of,
    tidy_rows,
)
from script_modules import load_script

script = load_script("evidence/rows")


def drawn_predictions(seed, *, skill=1.0, dialogues=30):
    """A run whose predictions follow the labels as far as `skill` goes, less so in noise."""
    generator = np.random.default_rng(seed)
    references = np.arange(4 * dialogues) % 3
    conditions = []
    for name, severity, draws, scale in (
        ("clean", "0", 1, 1.0),
        ("noise", "0.5", 2, 0.5),
        ("subsets", "t", 1, 0.7),
    ):
        logits = generator.normal(size=(draws, len(references), 3))
        logits[:, np.arange(len(references)), references] += 2 * scale * skill
        probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        conditions.append(
            ConditionPredictions(
                condition=name,
                severity=severity,
                probabilities=probabilities.astype(np.float32),
                reliability={"audio": 0.5},
            )
        )
    return RobustnessPredictions(
        labels=["calm", "glad", "cross"],
        references=references,
        dialogues=np.repeat(np.arange(dialogues), 4),
        conditions=conditions,
    )


def value_of(rows, condition, metric):
    (found,) = [row["value"] for row in rows if (row["condition"], row["metric"]) == (condition, metric)]
    return found


def test_rows_survive_a_file(tmp_path):
    rows = tidy_rows(robustness_rows(drawn_predictions(0)), dataset="test", model="NA", seed="")
    script.write_rows(tmp_path / "rows.csv", rows)
    script.write_rows(tmp_path / "rows.parquet", rows)
    table = script.read_rows([tmp_path / "rows.csv", tmp_path / "rows.parquet"])
    assert list(table.columns) == script.COLUMNS
    assert table.to_dict("records") == rows + rows
    (tmp_path / "other.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"other\.csv: expected the columns dataset, .* got a, b"):
        script.read_rows([tmp_path / "other.csv"])


def test_predictions_survive_a_file(tmp_path):
    predictions = drawn_predictions(0)
    script.save_predictions(tmp_path / "run.npz", predictions)
    loaded = script.load_predictions(tmp_path / "run.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]
    assert robustness_rows(loaded) == robustness_rows(predictions)
    assert [one.reliability for one in loaded.conditions] == [
        one.reliability for one in predictions.conditions
    ]
    assert {one.probabilities.dtype for one in loaded.conditions} == {np.dtype(np.float32)}
    for one, other in zip(loaded.conditions, predictions.conditions, strict=True):
        np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_pooled_rows_are_the_means_over_runs_and_draws():
    runs = [drawn_predictions(seed) for seed in range(3)]
    text = [run.text_only for run in runs]
    rows = script.pooled_rows(runs, text, resamples=300)
    for condition in ("clean", "noise"):
        single = [robustness_rows(run, text_only=own) for run, own in zip(runs, text, strict=True)]
        for metric in ("weighted_f1", "gain_over_text"):
            low, mean, high = (value_of(rows, condition, f"{metric}{end}") for end in ("_low", "", "_high"))
            assert mean == pytest.approx(np.mean([value_of(one, condition, metric) for one in single]))
            assert low < mean < high
    noise = np.concatenate([run.of("noise", "0.5") for run in runs])
    compared = paired_bootstrap(
        noise, np.stack(text), runs[0].references, dialogues=runs[0].dialogues.tolist(), resamples=300
    )
    interval = [value_of(rows, "noise", f"gain_over_text_{end}") for end in ("low", "high")]
    assert interval == pytest.approx(compared["interval"])
    assert (
        value_of(rows, "subsets", "gain_over_text_low")
        == value_of(rows, "subsets", "gain_over_text_high")
        == 0
    )


def test_runs_without_text_have_no_pooled_gain():
    metrics = {row["metric"] for row in script.pooled_rows([drawn_predictions(0)], [], resamples=10)}
    assert metrics == {"weighted_f1", "weighted_f1_low", "weighted_f1_high"}


def test_runs_of_other_utterances_are_not_pooled():
    runs = [drawn_predictions(0), drawn_predictions(1, dialogues=29)]
    with pytest.raises(ValueError, match="the same utterances and conditions"):
        script.pooled_rows(runs, [])


def test_the_seed_is_that_of_the_recipe(tmp_path):
    assert seed_of(tmp_path) == ""
    (tmp_path / "recipe.yaml").write_text("training:\n  seed: 4\n", encoding="utf-8")
    assert seed_of(tmp_path) == "4"
