"""Training from recipe to folder: it learns, it resumes to the same bits, and processes add up."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoProcessor

from redifu.atomic_files import only_writer
from redifu.data.readers import read_conversations
from redifu.evaluation.scoring import evaluate_conversations
from redifu.model import (
    ReDiFuConfig,
    ReDiFuFeatureExtractor,
    ReDiFuForEmotionRecognition,
    ReDiFuModel,
    ReDiFuProcessor,
)
from redifu.training.build import build_model
from redifu.training.recipe import Recipe, load_recipe
from redifu.training.trainer import train
from training.toy import (
    LABELS,
    toy_conversations,
    toy_recipe,
    toy_values,
    write_conversations,
    write_text_backbone,
    write_toy_data,
)

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy data, and a tiny text backbone."""
    folder = tmp_path_factory.mktemp("toy")
    write_toy_data(folder)
    write_text_backbone(folder / "backbone")
    return folder


@pytest.fixture(scope="module")
def recipe(folder: Path) -> Recipe:
    return toy_recipe(folder, training_modality_dropout=0.2, training_output=str(folder / "whole"))


@pytest.fixture(scope="module")
def trained(recipe: Recipe) -> Path:
    """An uninterrupted run of `recipe`."""
    return train(recipe)


def with_output(recipe: Recipe, output: Path) -> Recipe:
    values = recipe.to_dict()
    values["training"]["output"] = str(output)
    return Recipe.from_dict(values)


def quick(folder: Path, output: Path, **changes: Any) -> Recipe:
    """A recipe of one epoch that writes to `output`."""
    return toy_recipe(folder, training_output=str(output), **{"training_epochs": 1, **changes})


def log_of(model: Path) -> list[dict[str, Any]]:
    """The records of a log, without the time they took."""
    lines = (model / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]


def weights_of(model: Path) -> dict[str, Tensor]:
    return load_file(model / "model.safetensors")


def differing(one: Path, other: Path) -> list[str]:
    """The names of the weights that differ in any bit."""
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    return [name for name, value in first.items() if not torch.equal(value, second[name])]


def run_module(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code with the package and the tests at hand, in as many threads as here."""
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, *arguments, *(["-c", code] if code else [])]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_a_folder_is_trained_by_one_process_at_a_time(folder: Path, tmp_path: Path) -> None:
    recipe = quick(folder, tmp_path / "model")
    complaint = "model: another process is training this model: wait for it"
    with only_writer(tmp_path / "model.unfinished"), pytest.raises(ValueError, match=complaint):
        train(recipe)
    assert list(tmp_path.iterdir()) == []
    assert train(recipe) == train(recipe) == tmp_path / "model"
    assert [each.name for each in tmp_path.iterdir()] == ["model"]


def test_the_folder_holds_model_processor_recipe_and_metrics(
    trained: Path, recipe: Recipe, folder: Path
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(trained).eval()
    processor = AutoProcessor.from_pretrained(trained)
    assert model.config.labels == LABELS
    assert load_recipe(trained / "recipe.yaml") == recipe
    metrics = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))
    for name in ("dev", "test"):
        again = evaluate_conversations(model, processor, read_conversations(folder / f"{name}.jsonl"))
        assert again["confusion"] == metrics[name]["confusion"]
        assert again["nll"] == pytest.approx(metrics[name]["nll"])
    assert not (trained / "checkpoints").exists()
    assert not trained.with_name(f"{trained.name}.unfinished").exists()


def test_tensorboard_is_written_where_it_is_installed(trained: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard needs the extra `train`")
    assert list(trained.glob("tensorboard/events.*"))


def test_without_tensorboard_the_log_is_the_same(
    trained: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run = train(with_output(recipe, tmp_path / "run"))
    assert log_of(run) == log_of(trained)
    assert not (run / "tensorboard").exists()


def test_training_learns_what_can_be_learnt(folder: Path, tmp_path: Path) -> None:
    model = train(quick(folder, tmp_path / "model", training_epochs=20, training_learning_rate=0.03))
    metrics = json.loads((model / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["test"]["weighted_f1"] > 80
    losses = [record["loss"] for record in log_of(model) if record["event"] == "step"]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_the_best_epoch_on_dev_is_the_one_kept(trained: Path) -> None:
    metrics = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))
    scores = [record["weighted_f1"] for record in log_of(trained) if record["event"] == "epoch"]
    assert metrics["best_epoch"] == scores.index(max(scores)) + 1
    assert metrics["dev"]["weighted_f1"] == max(scores)


def test_the_log_has_a_line_for_each_step_and_epoch(trained: Path) -> None:
    log = log_of(trained)
    assert Counter(record["event"] for record in log) == {"step": 15, "epoch": 3}
    assert [record["step"] for record in log if record["event"] == "step"] == list(range(1, 16))


def test_the_processor_carries_the_statistics_of_the_training_data(trained: Path, folder: Path) -> None:
    statistics = AutoProcessor.from_pretrained(trained).feature_extractor.statistics
    given = [one for each in read_conversations(folder / "train.jsonl") for one in each.utterances]
    audio = torch.stack(
        [torch.from_numpy(one.audio_features) for one in given if one.audio_features is not None]
    )
    assert statistics["audio"]["mean"] == pytest.approx(audio.mean(0).tolist(), abs=1e-5)


def test_a_killed_run_resumes_to_the_same_bits(trained: Path, recipe: Recipe, tmp_path: Path) -> None:
    resumed = with_output(recipe, tmp_path / "resumed")
    (tmp_path / "recipe.yaml").write_text(resumed.to_yaml(), encoding="utf-8")
    # Killed in the middle of the second epoch, by a signal that nothing can catch.
    killed = run_module(f"""
import os, signal
from redifu.training.recipe import load_recipe
from redifu.training.trainer import train
def report(record):
    if record["event"] == "step" and record["step"] == 7:
        os.kill(os.getpid(), signal.SIGKILL)
train(load_recipe({str(tmp_path / "recipe.yaml")!r}), report=report)
""")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    unfinished = tmp_path / "resumed.unfinished"
    assert [path.name for path in (unfinished / "checkpoints").iterdir()] == ["epoch-1"]
    assert not (tmp_path / "resumed").exists()
    steps: list[int] = []
    train(resumed, report=lambda record: steps.extend([record["step"]] if record["event"] == "step" else []))
    assert steps[0] == 6
    assert differing(trained, tmp_path / "resumed") == []
    assert (tmp_path / "resumed" / "metrics.json").read_bytes() == (trained / "metrics.json").read_bytes()
    assert log_of(tmp_path / "resumed") == log_of(trained)


def test_a_run_that_fails_while_it_saves_goes_on(
    trained: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = with_output(recipe, tmp_path / "again")

    def fail(metrics: dict[str, Any], *arguments: Any, **options: Any) -> str:
        raise OSError("no space left on device")

    for place in ("redifu.training.checkpoints.save_file", "redifu.training.trainer.replace_json"):
        with monkeypatch.context() as patch:
            patch.setattr(place, fail)
            with pytest.raises(OSError, match="no space left"):
                train(again)
        assert not (tmp_path / "again").exists()
    train(again)
    assert differing(trained, tmp_path / "again") == []
    assert log_of(tmp_path / "again") == log_of(trained)


def test_seeds_decide(trained: Path, recipe: Recipe, tmp_path: Path) -> None:
    values = with_output(recipe, tmp_path / "other").to_dict()
    values["training"]["seed"] = 2
    assert differing(trained, train(Recipe.from_dict(values)))


def test_copies_in_noise_change_nothing_but_what_is_in_noise(
    folder: Path, trained: Path, tmp_path: Path
) -> None:
    options = {"training_modality_dropout": 0.2, "training_output": str(tmp_path / "copies")}
    copies = train(toy_recipe(folder, data_train_noisy=str(folder / "train.jsonl"), **options))
    assert differing(copies, trained) == []
    deaf = toy_conversations(20, seed=0)
    for one in (one for each in deaf for one in each["utterances"]):
        one["audio_features"] = None
    path = write_conversations(tmp_path / "deaf.jsonl", deaf)
    options["training_output"] = str(tmp_path / "deaf")
    assert differing(train(toy_recipe(folder, data_train_noisy=str(path), **options)), trained)


def test_a_finished_run_is_not_run_again(trained: Path, recipe: Recipe) -> None:
    def refuse(record: dict[str, Any]) -> None:
        raise AssertionError("trained again")

    assert train(recipe, report=refuse) == trained


def test_another_recipe_does_not_touch_a_run(trained: Path, folder: Path) -> None:
    other = toy_recipe(folder, training_modality_dropout=0.3, training_output=str(trained))
    with pytest.raises(
        ValueError, match=r"different recipe \(training.modality_dropout was 0.2 and is now 0.3\)"
    ):
        train(other)
    (folder / "stranger").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match="is not a run of `redifu train`"):
        train(toy_recipe(folder, training_output=str(folder / "stranger")))


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_does_not_go_on_with_other_data(tmp_path: Path, finished: bool) -> None:
    write_toy_data(tmp_path)
    recipe = toy_recipe(tmp_path, training_epochs=1, training_output=str(tmp_path / "run"))
    run = train(recipe)
    if not finished:
        run = run.rename(tmp_path / "run.unfinished")
    data = tmp_path / "train.jsonl"
    given = data.read_bytes()
    data.write_bytes(given.replace(b"joy", b"sad", 1) + b"\n")
    with pytest.raises(ValueError, match=r"a run with other data \(.*train.jsonl has changed since\)"):
        train(recipe)
    data.write_bytes(given)
    assert train(recipe) == tmp_path / "run"


def test_the_test_set_is_scored_once_and_at_the_end(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[str] = []

    def spy(model: Any, processor: Any, conversations: list[Any]) -> dict[str, Any]:
        scored.append("test" if conversations[0].id == "only-in-test" else "dev")
        return evaluate_conversations(model, processor, conversations)

    lines = (folder / "test.jsonl").read_text(encoding="utf-8").replace("toy-0", "only-in-test")
    (tmp_path / "test.jsonl").write_text(lines, encoding="utf-8")
    monkeypatch.setattr("redifu.training.trainer.evaluate_conversations", spy)
    train(quick(folder, tmp_path / "model", training_epochs=2, data_test=str(tmp_path / "test.jsonl")))
    assert scored == ["dev", "dev", "dev", "test"]


def test_training_stops_when_dev_does_not_improve(folder: Path, tmp_path: Path) -> None:
    still = {"training_learning_rate": 0.0, "training_epochs": 9, "training_patience": 2}
    model = train(quick(folder, tmp_path / "model", **still))
    metrics = json.loads((model / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["best_epoch"], metrics["epochs"]) == (1, 3)


def test_two_processes_train_like_one(folder: Path, tmp_path: Path) -> None:
    # Batches of three leave the processes unequal shares; the last batch has two.
    exact = {"model_dropout": 0.0, "model_relation_dropout": 0.0, "model_fusion": "concat"}
    changes = {**exact, "training_batch_size": 3, "training_class_weights": [1, 2, 3], "training_epochs": 2}
    one = train(quick(folder, tmp_path / "one", **changes))
    (tmp_path / "two.yaml").write_text(
        yaml.safe_dump(toy_values(folder, training_output=str(tmp_path / "two"), **changes)), encoding="utf-8"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = run_module(
        "",
        *("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)),
        *("-m", "redifu.cli", "train", str(tmp_path / "two.yaml")),
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{tmp_path / 'two'}: best epoch ")
    for single, double in zip(log_of(one), log_of(tmp_path / "two"), strict=True):
        assert single.pop("event") == double.pop("event")
        assert double == pytest.approx(single, rel=1e-3, abs=1e-5)
    for name, value in weights_of(one).items():
        torch.testing.assert_close(weights_of(tmp_path / "two")[name], value, rtol=1e-3, atol=1e-4)


def backbone_recipe(folder: Path, output: Path, **changes: Any) -> Recipe:
    text = {"model_text_backbone": str(folder / "backbone"), "data_speaker_in_text": True}
    values = toy_values(folder, training_output=str(output), **text, **{"training_epochs": 1, **changes})
    del values["model"]["text_size"]
    return Recipe.from_dict(values)


@pytest.mark.parametrize("freeze", [False, True])
def test_a_text_backbone_learns_or_is_frozen(folder: Path, tmp_path: Path, freeze: bool) -> None:
    recipe = backbone_recipe(
        folder, tmp_path / "model", training_freeze_text=freeze, training_activation_checkpointing=not freeze
    )
    model = train(recipe)
    given = load_file(folder / "backbone" / "model.safetensors")
    prefix = "redifu.text_backbone."
    kept = [
        torch.equal(value, given[name.removeprefix(prefix)])
        for name, value in weights_of(model).items()
        if name.startswith(prefix)
    ]
    assert len(kept) > 10
    assert all(kept) == freeze
    assert AutoProcessor.from_pretrained(model).speaker_in_text is True


def test_frozen_texts_are_embedded_once_and_to_the_same_bits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recipe(name: str, **changes: Any) -> Recipe:
        # With context and dropout, some texts of an epoch are not those that were embedded beforehand.
        varied = {"data_text_context_turns": 2, "training_modality_dropout": 0.4, "data_dev": None, **changes}
        return backbone_recipe(
            folder, tmp_path / name, training_freeze_text=True, training_epochs=3, **varied
        )

    stages: list[str] = []
    whole = train(recipe("whole"), report=lambda record: stages.append(record.get("stage", "")))
    assert any(re.fullmatch(r"embedding \d+ texts", stage) for stage in stages)

    def stop(record: dict[str, Any]) -> None:
        if record["event"] == "step" and record["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe("resumed"), report=stop)
    assert differing(whole, train(recipe("resumed"))) == []

    embedded: list[int] = []
    encode = ReDiFuModel.embed

    def count(model: Any, name: str, values: Tensor, mask: Tensor) -> Tensor:
        embedded.append(len(values))
        return encode(model, name, values, mask)

    monkeypatch.setattr(ReDiFuModel, "embed", count)
    plain = {"data_text_context_turns": 0, "training_modality_dropout": 0.0, "data_test": None}
    train(recipe("plain", **plain))
    texts = [one for each in read_conversations(folder / "train.jsonl") for one in each.utterances]
    assert embedded == [len({(one.speaker, one.text) for one in texts})]


def test_a_checkpoint_is_gone_on_from_with_other_labels(trained: Path, folder: Path, tmp_path: Path) -> None:
    for name in ("train", "dev"):
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").replace('"cross"', '"calm"')
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    values: dict[str, Any] = {
        "model": {"checkpoint": str(trained), "dropout": 0.0},
        "data": {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "dev")}
        | {"labels": ["glad", "calm"]},
        "training": {"output": str(tmp_path / "tuned"), "epochs": 1, "learning_rate": 0.0},
    }
    tuned = train(Recipe.from_dict(values))
    changed = set(differing_shapes(trained, tuned))
    assert changed
    assert all(name.startswith("classifier.") for name in changed)
    model = AutoModelForSequenceClassification.from_pretrained(tuned)
    assert (model.config.labels, model.config.dropout) == (["glad", "calm"], 0.0)
    theirs, ours = (
        AutoProcessor.from_pretrained(each).feature_extractor.statistics for each in (trained, tuned)
    )
    assert theirs == ours


@pytest.mark.parametrize("labels", [["b", "a"], ["a", "c"]], ids=["reordered", "renamed"])
def test_other_labels_of_the_same_number_get_a_head_of_their_own(tmp_path: Path, labels: list[str]) -> None:
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 8,
        "num_attention_heads": 2,
        "text_size": 3,
        "audio_size": None,
        "visual_size": None,
    }
    model = ReDiFuForEmotionRecognition(ReDiFuConfig(id2label={0: "a", 1: "b"}, **sizes))
    model.save_pretrained(tmp_path)
    ReDiFuProcessor(ReDiFuFeatureExtractor(text_size=3), labels=["a", "b"]).save_pretrained(tmp_path)

    def tuned(**section: Any) -> Any:
        values: dict[str, Any] = {
            "model": {"checkpoint": str(tmp_path), **section},
            "data": {"train": "x", "dev": "x", "labels": labels},
            "training": {"output": "x"},
        }
        return build_model(Recipe.from_dict(values))[0]

    ours = tuned().state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, ours[name]) != name.startswith("classifier.outputs"), name
    with pytest.raises(ValueError, match=r"model.checkpoint.*projections.text.*\(4, 3\).*\(8, 3\)"):
        tuned(hidden_size=4)


def differing_shapes(one: Path, other: Path) -> list[str]:
    first, second = weights_of(one), weights_of(other)
    return [
        name
        for name, value in first.items()
        if value.shape != second[name].shape or not torch.equal(value, second[name])
    ]


def test_the_labels_of_a_checkpoint_stand_in_for_those_of_a_recipe(
    trained: Path, folder: Path, tmp_path: Path
) -> None:
    data = {name: str(folder / f"{name}.jsonl") for name in ("train", "dev")}
    training = {"output": str(tmp_path / "tuned"), "epochs": 1, "learning_rate": 0.0}
    tuned = train(
        Recipe.from_dict({"model": {"checkpoint": str(trained)}, "data": data, "training": training})
    )
    assert differing(trained, tuned) == []


def test_bfloat16_trains_and_is_scored_in_float32(folder: Path, tmp_path: Path) -> None:
    model = train(quick(folder, tmp_path / "model", training_mixed_precision="bf16"))
    assert {value.dtype for value in weights_of(model).values()} == {torch.float32}
    log = log_of(model)
    loaded = AutoModelForSequenceClassification.from_pretrained(model)
    loaded.config.temperature = 1.0  # the log is of models that are not yet calibrated
    again = evaluate_conversations(
        loaded, AutoProcessor.from_pretrained(model), read_conversations(folder / "dev.jsonl")
    )
    assert log[-1]["nll"] == pytest.approx(again["nll"], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"data_labels": None}, "data.labels is missing"),
        ({"data_labels": ["calm", "glad"]}, "train.jsonl: dialogue .*label"),
        ({"data_dev": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"model_num_attention_heads": 3}, "num_attention_heads"),
        ({"model_dropout": "much"}, "model: .*dropout"),
        ({"model_audio_size": 5}, "train.jsonl: dialogue .*audio_features"),
        ({"model_checkpoint": "nowhere"}, "nowhere: no such model folder"),
        ({"training_class_weights": [1, 2]}, "class_weights must be 3 positive numbers"),
        ({"training_freeze_text": True}, "freeze_text: this model has no text backbone"),
        ({"training_output": "${NO_SUCH_VARIABLE}/model"}, "NO_SUCH_VARIABLE is not set"),
    ],
)
def test_what_can_not_be_trained_is_said_before(
    folder: Path, tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    recipe = quick(folder, tmp_path / "model", **changes) if "training_output" not in changes else None
    recipe = recipe or toy_recipe(folder, **changes)
    with pytest.raises((ValueError, FileNotFoundError), match=complaint):
        train(recipe)
    assert list(tmp_path.iterdir()) == []


def test_data_without_labels_is_refused(folder: Path, tmp_path: Path) -> None:
    unlabelled = '{"utterances": [{"speaker": "Ana", "text_features": [0, 0, 0, 0]}]}\n'
    (tmp_path / "dev.jsonl").write_text(unlabelled, encoding="utf-8")
    with pytest.raises(ValueError, match="dev.jsonl: data.dev must have labels"):
        train(quick(folder, tmp_path / "model", data_dev=str(tmp_path / "dev.jsonl")))


def test_without_dev_the_last_epoch_is_kept(folder: Path, tmp_path: Path) -> None:
    recipe = toy_recipe(folder, data_dev=None, training_output=str(tmp_path / "model"))
    metrics = json.loads((train(recipe) / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["best_epoch"] == metrics["epochs"] == 3
    assert set(metrics) == {"best_epoch", "epochs", "test"}
    with pytest.raises(ValueError, match="training.patience requires data.dev"):
        toy_recipe(folder, data_dev=None, training_patience=2)


def test_a_trained_model_is_calibrated_on_dev_and_stays_so(trained: Path, folder: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(trained)
    processor = AutoProcessor.from_pretrained(trained)
    dev = list(read_conversations(folder / "dev.jsonl"))
    fitted = model.config.temperature
    assert fitted != 1.0
    scores = {}
    for temperature in (fitted, 1.0, 0.9 * fitted, 1.1 * fitted):
        model.config.temperature = temperature
        scores[temperature] = evaluate_conversations(model, processor, dev)["nll"]
    assert min(scores, key=scores.__getitem__) == fitted
    metrics = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["dev"]["nll"] == pytest.approx(scores[fitted])


def test_a_checkpoint_that_is_trained_on_loses_its_temperature(trained: Path, folder: Path) -> None:
    assert AutoModelForSequenceClassification.from_pretrained(trained).config.temperature != 1.0
    values = toy_values(folder, data_dev=None)
    values["model"] = {"checkpoint": str(trained)}
    model, _ = build_model(Recipe.from_dict(values))
    assert model.config.temperature == 1.0
