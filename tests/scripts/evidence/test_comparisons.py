"""Comparisons are recipes that train, on data that is what it says."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from redifu.data.readers import read_conversations
from redifu.evaluation.corruptions import read_grid
from redifu.training.build import build_model
from script_modules import SCRIPTS, load_script
from training.toy import toy_values, write_toy_data

EVIDENCE = SCRIPTS / "evidence"
COMPARISONS = {
    name: yaml.safe_load((EVIDENCE / f"{name}.yaml").read_text())
    for name in ("paired", "sounds", "mosi", "meld-speech")
}


@pytest.mark.parametrize(
    ("name", "model"), [(name, model) for name in COMPARISONS for model in COMPARISONS[name]["models"]]
)
def test_every_model_of_a_comparison_can_be_built(name: str, model: str, tmp_path: Path) -> None:
    recipe = load_script("evidence/train").recipe_of(COMPARISONS[name], model, seed=3, runs=tmp_path)
    assert recipe.training.seed == 3 and recipe.training.output == str(tmp_path / f"{model}-s3")
    built, processor = build_model(recipe)
    assert built.config.labels == processor.labels == recipe.data.labels


def test_each_fold_has_its_own_run_and_data(tmp_path: Path) -> None:
    script = load_script("evidence/train")
    assert script.folds_of(COMPARISONS["paired"]) == [None]
    recipes = [
        script.recipe_of(COMPARISONS["meld-speech"], "default", seed=3, runs=tmp_path, fold=fold)
        for fold in script.folds_of(COMPARISONS["meld-speech"])
    ]
    assert [Path(each.training.output).name for each in recipes] == [f"default-f{n}-s3" for n in range(1, 6)]
    for number, recipe in enumerate(recipes, start=1):
        for source in (recipe.data.train, recipe.data.dev, recipe.data.test):
            assert source["path"] == f"$EVIDENCE/meld-speech-{number}.parquet"


def test_models_of_a_comparison_differ() -> None:
    for comparison in COMPARISONS.values():
        changes = list(comparison["models"].values())
        assert all(changes.count(each) == 1 for each in changes)


@pytest.mark.parametrize("name", ["grid", "grid-factors", "grid-sounds"])
def test_the_grids_are_read(name: str) -> None:
    assert "permuted" in read_grid(EVIDENCE / f"{name}.yaml").conditions


def test_what_fails_does_not_stop_the_rest_and_what_is_done_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    write_toy_data(tmp_path)
    recipe = toy_values(tmp_path, training_epochs=1)
    models = {"good": {}, "bad": {"data.train": str(tmp_path / "nothing.jsonl")}}
    file = tmp_path / "comparison.yaml"
    file.write_text(yaml.safe_dump({"recipe": recipe, "seeds": [1], "models": models}))
    runs = tmp_path / "runs"
    monkeypatch.setattr("sys.argv", ["train.py", str(file), "--runs", str(runs)])
    script = load_script("evidence/train")
    assert script.main() == 1
    said = capsys.readouterr()
    assert "good-s1 done" in said.out and "bad-s1 failed" in said.out and "nothing.jsonl" in said.err
    trained = (runs / "good-s1" / "model.safetensors").stat().st_mtime_ns
    assert script.main() == 1
    assert (runs / "good-s1" / "model.safetensors").stat().st_mtime_ns == trained


def test_the_pairs_join_texts_with_clips(
    test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load_script("evidence/prepare_data")
    monkeypatch.setattr(script, "SPLITS", ("dev",))
    conversations = list(script.paired_conversations(test_data / "data", folder=tmp_path))
    meld = list(read_conversations(test_data / "data" / "meld" / "dev.csv"))
    pairs = pd.read_csv(test_data / "data" / "paired" / "pairs.csv").query("split == 'dev'")
    for ours, theirs in zip(conversations, meld, strict=True):
        assert [one.text for one in ours.utterances] == [one.text for one in theirs.utterances]
        assert [one.label for one in ours.utterances] == [one.label for one in theirs.utterances]
    utterances = [one.given for each in conversations for one in each.utterances]
    assert all((tmp_path / one["audio"]).is_file() for one in utterances)
    assert sorted(Path(one["audio"]).stem for one in utterances) == sorted(pairs["audio_clip"])
    # Whether a clip follows the label would tell the answer.
    assert {key for one in utterances for key in one} == {
        "turn",
        "speaker",
        "text",
        "label",
        "audio",
        "visual_features",
    }


def test_the_labels_of_mosi_are_named_and_its_texts_left_out(test_data: Path, tmp_path: Path) -> None:
    load_script("evidence/prepare_data").write_mosi(
        test_data / "data" / "mosi" / "utterances.parquet", tmp_path / "mosi.parquet"
    )
    table = pq.read_table(tmp_path / "mosi.parquet")
    assert "text" not in table.column_names
    test = list(read_conversations(tmp_path / "mosi.parquet", split="test"))
    labels = [one.label for each in test for one in each.utterances]
    assert len(labels) == 752 and set(labels) == {"negative", "positive"}
    # The share of the greater class, as the source tells it.
    assert max(labels.count(label) for label in set(labels)) / len(labels) == pytest.approx(0.621, abs=0.001)


def test_the_folds_of_melds_speech_test_each_utterance_once(test_data: Path, tmp_path: Path) -> None:
    load_script("evidence/prepare_data").write_meld_speech(test_data / "data", tmp_path)
    tested = []
    for fold in range(1, 6):
        splits = {
            split: list(read_conversations(tmp_path / f"meld-speech-{fold}.parquet", split=split))
            for split in ("train", "dev", "test")
        }
        names = [{each.id for each in part} for part in splits.values()]
        assert all(names) and len(set.union(*names)) == sum(map(len, names)) == 114
        tested += splits["test"]
    rows = {
        stream: np.load(test_data / "data" / "meld_dev_embeddings" / f"{name}.npy")
        for stream, name in (("text", "text_roberta_base_val"), ("audio", "audio_wav2vec2_val"))
    }
    meld = read_conversations(test_data / "data" / "meld" / "dev.csv")
    utterances = {(each.id, one.given["turn"]): one for each in meld for one in each.utterances}
    del utterances["110", 7]
    found = {(each.id, one.given["turn"]): one for each in tested for one in each.utterances}
    assert len(found) == sum(len(each.utterances) for each in tested) == 1108
    for row, (place, one) in enumerate(utterances.items()):
        assert found[place].label == one.label
        np.testing.assert_array_equal(found[place].text_features, rows["text"][row])
        np.testing.assert_array_equal(found[place].audio_features, rows["audio"][row])
