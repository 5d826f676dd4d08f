"""Recipes: defaults, overrides, and mistakes that are named."""

from pathlib import Path

import pytest
import yaml

from redifu.training.recipe import DataSource, Recipe, load_recipe
from training.toy import toy_recipe, toy_values

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(toy_values(tmp_path)), encoding="utf-8")
    return path


def test_a_saved_recipe_is_the_same_recipe(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path, ["data.dev={path: all.csv, split: dev}", "training.class_weights=[1, 2, 3]"])
    (tmp_path / "saved.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(tmp_path / "saved.yaml") == recipe


def test_overrides_replace_and_add(path: Path) -> None:
    overrides = [
        "training.seed=7",
        "training.learning_rate=5e-5",
        "model.fusion=concat",
        "data.dev.split=dev",
    ]
    recipe = load_recipe(path, ["data.dev={path: all.csv}", *overrides])
    assert recipe.training.seed == 7
    assert recipe.training.learning_rate == 5e-5
    assert recipe.model.config["fusion"] == "concat"
    assert recipe.data.source("dev") == DataSource("all.csv", "dev")


def test_bare_yaml_words_mean_what_they_say(path: Path) -> None:
    recipe = load_recipe(path, ["training.mixed_precision=no", "training.class_weights=null"])
    assert (recipe.training.mixed_precision, recipe.training.class_weights) == ("no", "none")


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("training.sead=2", "training.seed"),
        ("model.hiden_size=2", "model.hidden_size"),
        ("data.tarin=x", "data.train"),
        ("trainin.seed=2", "training"),
        ("data.dev={path: x, splt: dev}", "dev.split"),
    ],
)
def test_a_misspelt_key_is_answered_with_the_right_one(path: Path, override: str, named: str) -> None:
    with pytest.raises(ValueError, match=f"toy.yaml: .*unknown key .*; did you mean {named}\\?"):
        load_recipe(path, [override])


def test_a_misspelt_key_in_the_file_is_answered_too(tmp_path: Path) -> None:
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(toy_values(tmp_path, training_epoch=2)), encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"toy.yaml: unknown key training.epoch; did you mean training.epochs\?"
    ):
        load_recipe(path)


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("training.epochs=0", "epochs must be at least 1, got 0"),
        ("training.epochs=many", "'epochs' expected int, got str"),
        ("training.modality_dropout=1", "modality_dropout must be at least 0 and below 1, got 1"),
        ("training.side_dropout=-0.1", "side_dropout must be at least 0 and below 1, got -0.1"),
        ("training.learning_rate=.nan", "learning_rate must be at least 0, got nan"),
        ("data.columns=text", "'columns' with value"),
        ("training.max_grad_norm=0", "max_grad_norm must be above 0, got 0"),
        ("training.schedule=step", "expected one of .'linear', 'cosine', 'constant'.*, got step"),
        ("training.class_weights=balancd", "expected one of .'none', 'balanced'"),
        ("training.output=null", "training.output is missing"),
        ("data.train=null", "data.train is missing"),
        ("data.dev={split: dev}", "dev must be a path or"),
        ("data.train_noisy={split: train}", "train_noisy must be a path or"),
        ("data.labels=[a, a]", "labels must name at least two different labels"),
        ("model={text_backbone: a, checkpoint: b}", "an override must be SECTION.KEY=VALUE"),
        ("model.text_backbone=3", "'text_backbone'.* expected str"),
        ("seed=2", "an override must be SECTION.KEY=VALUE, got 'seed=2'"),
        ("training.seed", "an override must be SECTION.KEY=VALUE"),
        ("training.seed=[", "not valid YAML"),
        ("training.seed.deeper=1", "'seed' expected int, got dict"),
    ],
)
def test_an_impossible_value_is_named(path: Path, override: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"toy.yaml: .*{complaint}"):
        load_recipe(path, [override])


def test_there_is_one_starting_point(path: Path) -> None:
    with pytest.raises(ValueError, match="got text_backbone and released"):
        load_recipe(path, ["model.text_backbone=a", "model.released=meld"])


def test_a_text_config_needs_a_backbone(path: Path) -> None:
    with pytest.raises(ValueError, match="text_config requires text_backbone"):
        load_recipe(path, ["model.text_config.hidden_dropout_prob=0"])
    recipe = load_recipe(path, ["model.text_config.hidden_dropout_prob=0", "model.text_backbone=a"])
    assert recipe.model.text_config == {"hidden_dropout_prob": 0}


@pytest.mark.parametrize("text", ["", "- a", "model: 3", "model: [", "\x00"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "odd.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"odd\.yaml: "):
        load_recipe(tmp_path / "odd.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere.yaml"):
        load_recipe(tmp_path / "nowhere.yaml")


def test_all_paths_are_expanded_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_FOLDER", "/data")
    monkeypatch.setenv("HOME", "/home/ana")
    changes = {
        "data_train": "$DATA_FOLDER/train.csv",
        "data_dev": {"path": "${DATA_FOLDER}/all.csv", "split": "dev"},
    }
    places = {"model_text_backbone": "~/minilm", "training_output": "runs/$DATA_FOLDER"}
    recipe = toy_recipe(tmp_path, **changes, **places).expanded()
    assert recipe.data.source("train") == DataSource("/data/train.csv")
    assert recipe.data.source("dev") == DataSource("/data/all.csv", "dev")
    assert recipe.model.backbones == {"text": "/home/ana/minilm"}
    assert recipe.training.output == "runs//data"
    with pytest.raises(ValueError, match=r"^\$NOWHERE/model: the environment variable NOWHERE is not set"):
        toy_recipe(tmp_path, model_checkpoint="$NOWHERE/model").expanded()


def test_a_recipe_keeps_variables_unexpanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_FOLDER", "/data")
    recipe = toy_recipe(tmp_path, data_train="${DATA_FOLDER}/train.csv")
    assert Recipe.from_dict(recipe.to_dict()).data.train == "${DATA_FOLDER}/train.csv"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples" / "recipes").glob("*.yaml")), ids=lambda path: path.name
)
def test_the_example_recipes_load(path: Path) -> None:
    load_recipe(path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "model: " + "{a: " * 20_000, "model: &a [*a]", "? {a: 1}\n: 2"]
)
def test_a_recipe_that_nests_too_deep_or_is_odd_gets_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError) as error:
        load_recipe(path)
    assert str(error.value).startswith(f"{path}: ")


def test_an_override_that_nests_too_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("model: {}", "utf-8")
    with pytest.raises(ValueError, match="the value is not valid YAML"):
        load_recipe(tmp_path / "a.yaml", ["model.a=" + "[" * 100_000])
