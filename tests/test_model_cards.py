"""Every folder of model_cards is a Hub repository that loads, and its card says what was measured."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification, AutoProcessor

import redifu  # noqa: F401  registers the model
from redifu.cli import main
from redifu.data.readers import read_conversations
from redifu.data.writers import write_conversations
from redifu.evaluation.scoring import evaluate_conversations
from redifu.inference.loading import load_pretrained
from script_modules import load_script

ROOT = Path(__file__).parents[1]
CARDS = sorted(path.parent for path in (ROOT / "model_cards").glob("*/config.json"))
SIZE_LIMIT = 75_000_000
RECIPES = {"redifu-meld-text": "meld-text", "redifu-meld-ravdess": "meld-ravdess"}
# Of three streams, and made with data that forbids commercial use.
DEMONSTRATION = ROOT / "model_cards/redifu-meld-ravdess"


@pytest.fixture(params=CARDS, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_the_checkpoints_are_those_of_the_recipes() -> None:
    assert {card.name for card in CARDS} == set(RECIPES)


def test_it_loads_in_float32_and_predicts(folder: Path) -> None:
    assert all(path.stat().st_size < SIZE_LIMIT for path in folder.iterdir())
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.labels == processor.labels
    conversation = json.loads((ROOT / "examples/conversation.json").read_text(encoding="utf-8"))
    with torch.no_grad():
        logits = model(**processor(conversation)).logits
    assert logits.shape == (1, len(conversation["utterances"]), len(processor.labels))
    # Trained weights, not drawn ones: the dialogue has many emotions, and the model sees several.
    assert len(set(logits.argmax(-1).flatten().tolist())) >= 4


def test_the_card_repeats_the_metrics(folder: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    header = yaml.safe_load(card.split("---")[1])
    measured = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    for result in header["model-index"][0]["results"]:
        split = {"validation": "dev"}.get(result["dataset"]["split"], result["dataset"]["split"])
        for metric in result["metrics"]:
            assert metric["value"] == round(measured[split][metric["type"]], 2)
            assert f"{metric['value']:.2f}" in card.split("---", 2)[2]


def test_the_card_repeats_the_comparison_of_seeds() -> None:
    compare_runs = load_script("evidence/compare_runs")
    folder = ROOT / "model_cards/redifu-meld-text"
    card = (folder / "README.md").read_text(encoding="utf-8")
    measured = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    for split in ("dev", "test"):
        compared = json.loads((folder / f"seeds-{split}.json").read_text(encoding="utf-8"))
        assert "\n".join(compare_runs.table_of(compared)) in card
        # The checkpoint is one of the seeds, and the best of them on dev.
        first = next(iter(compared.values()))["runs"]["weighted_f1"]
        assert any(abs(value - measured[split]["weighted_f1"]) < 1e-6 for value in first)
        assert split == "test" or measured["dev"]["weighted_f1"] == pytest.approx(max(first))


def test_the_recipe_is_the_one_it_was_trained_with(folder: Path) -> None:
    used = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    recipe = ROOT / f"examples/recipes/{RECIPES[folder.name]}.yaml"
    published = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    for section in ("model", "data", "training"):
        for key, value in published[section].items():
            if key not in ("output", "seed", "num_threads"):
                assert used[section][key] == value, key


def test_nothing_of_this_machine_is_in_the_folder(folder: Path) -> None:
    for path in folder.iterdir():
        if path.suffix in (".json", ".yaml", ".md"):
            assert not re.search(r"(^|[\s\"'=:])/(?!/)\w+/\w+", path.read_text(encoding="utf-8")), path


def test_the_demonstration_says_first_what_it_is() -> None:
    card = (DEMONSTRATION / "README.md").read_text(encoding="utf-8")
    header, text = card.split("---", 2)[1:]
    assert yaml.safe_load(header)["license"] == "cc-by-nc-sa-4.0"
    beginning = text.split("\n\n")[2]
    for said in ("controlled demonstration", "semi-synthetic", "MELD", "RAVDESS", "CC BY-NC-SA 4.0", "never"):
        assert said in beginning


def test_the_card_of_the_demonstration_is_rendered_from_its_folder() -> None:
    card = (DEMONSTRATION / "README.md").read_text(encoding="utf-8")
    assert card == load_script("evidence/demonstration_card").render(DEMONSTRATION)


def test_the_demonstration_reads_files_of_all_streams() -> None:
    config, extractor = (
        json.loads((DEMONSTRATION / name).read_text(encoding="utf-8"))
        for name in ("config.json", "processor_config.json")
    )
    extractor = extractor["feature_extractor"]
    assert (extractor["audio_backend"], extractor["visual_backend"]) == ("backbone", "action_units")
    assert config["text_config"] is not None and config["temperature"] != 1.0
    assert (config["audio_layers"], config["audio_size"], config["visual_size"]) == ([2, 3], 1536, 35)


def test_the_example_of_the_demonstration_shows_three_streams(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra media is not installed")
    conversation, output = ROOT / "examples/moving-day/conversation.json", tmp_path / "emotions.jsonl"
    page = tmp_path / "emotions.html"
    command = ["predict", str(DEMONSTRATION), str(conversation), "--html", str(page)]
    assert main([*command, "--explain", "--output", str(output)]) == 0
    (predicted,) = read_conversations(output)
    for said in predicted.to_dict()["utterances"]:
        assert set(said["explanation"]["contributions"]) == {"text", "audio", "visual"}
        assert not said["explanation"]["missing"]
    assert "cell missing" not in page.read_text(encoding="utf-8")


def paired_dev(test_data: Path, folder: Path) -> Path:
    """The dev set of the controlled conversations, with its sounds."""
    joined = load_script("evidence/prepare_data").paired_conversations(test_data / "data", folder=folder)
    write_conversations(folder / "dev.jsonl", (each for each in joined if each.split == "dev"))
    return folder / "dev.jsonl"


@pytest.mark.slow
def test_the_stored_weights_score_on_dev_what_the_card_says(
    folder: Path, test_data: Path, tmp_path: Path
) -> None:
    data = paired_dev(test_data, tmp_path) if folder == DEMONSTRATION else test_data / "data/meld/dev.csv"
    model, processor = load_pretrained(folder)
    metrics = evaluate_conversations(model, processor, read_conversations(data))
    measured = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["dev"]
    # Of the first, the metrics were taken before the weights were rounded to half precision.
    assert metrics["weighted_f1"] == pytest.approx(measured["weighted_f1"], abs=0.2)
    assert metrics["num_utterances"] == measured["num_utterances"] == 1109
