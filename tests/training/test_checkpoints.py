"""Checkpoints come back exactly, and an interrupted save never harms the last good one."""

import json
import socket
from pathlib import Path

import pytest
import torch

from model.tiny_models import LABELS, SIZES, tiny_batch, tiny_model
from redifu.inference.loading import load_pretrained
from redifu.model import ReDiFuFeatureExtractor, ReDiFuForEmotionRecognition, ReDiFuProcessor
from redifu.training.checkpoints import (
    Progress,
    newest_checkpoint,
    read_progress,
    restore_optimizer,
    save_checkpoint,
)
from redifu.training.optimization import build_optimizer
from redifu.training.recipe import TrainingSection

SETTINGS = TrainingSection(output="unused", warmup_ratio=0.5)


class Run:
    """A model in training, with all that a checkpoint holds of it."""

    def __init__(self, model: ReDiFuForEmotionRecognition):
        self.model = model
        self.optimizer, self.scheduler = build_optimizer(model, SETTINGS, num_steps=20)
        extractor = ReDiFuFeatureExtractor(**{f"{name}_size": size for name, size in SIZES.items()})
        self.processor = ReDiFuProcessor(extractor, labels=LABELS)
        self.progress = Progress()

    def step(self, seed: int) -> None:
        labels = torch.tensor([[0, 1, 2], [2, 1, -100]])
        self.model(**tiny_batch(3, 2, seed=seed), labels=labels).loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()

    def save(self, folder: Path, *, epoch: int, best_epoch: int) -> Path:
        self.progress = Progress(epoch=epoch, step=3, best_epoch=best_epoch, best_weighted_f1=0.1 + 0.2)
        return save_checkpoint(
            folder,
            model=self.model,
            processor=self.processor,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            progress=self.progress,
        )


@pytest.fixture
def run() -> Run:
    run = Run(tiny_model())
    for seed in range(3):
        run.step(seed)
    return run


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(name == name2 and torch.equal(value, value2) for (name, value), (name2, value2) in pairs)


def test_a_restored_run_takes_the_same_steps(run: Run, tmp_path: Path) -> None:
    saved = run.save(tmp_path, epoch=1, best_epoch=1)
    restored = Run(load_pretrained(saved)[0])
    restore_optimizer(saved, restored.optimizer, restored.scheduler)
    assert read_progress(saved) == run.progress
    for seed in range(3, 6):
        run.step(seed)
        restored.step(seed)
    assert same_weights(restored.model, run.model)
    assert restored.scheduler.get_last_lr() == run.scheduler.get_last_lr()


def test_nothing_is_pickled(run: Run, tmp_path: Path) -> None:
    files = [path for path in run.save(tmp_path, epoch=1, best_epoch=1).iterdir() if path.suffix != ".json"]
    assert sorted(path.name for path in files) == ["model.safetensors", "optimizer.safetensors"]


def test_the_newest_and_the_best_are_kept(run: Run, tmp_path: Path) -> None:
    for epoch, best in enumerate([1, 2, 2, 2, 2], start=1):
        run.save(tmp_path, epoch=epoch, best_epoch=best)
    # By number and not by name, where epoch-10 comes before epoch-5.
    run.save(tmp_path, epoch=10, best_epoch=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-10", "epoch-2"]
    assert newest_checkpoint(tmp_path) == tmp_path / "epoch-10"


def test_there_is_no_newest_before_the_first(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    "interrupted",
    [
        "redifu.training.checkpoints.save_file",
        "redifu.training.checkpoints.json.dumps",
        "redifu.atomic_files.move_folder",
    ],
)
def test_an_interrupted_save_leaves_the_last_good_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: str
) -> None:
    first = run.save(tmp_path, epoch=1, best_epoch=1)
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    run.step(3)

    def fail(*arguments: object, **options: object) -> None:
        # Half a file, as a full disk or a kill leaves it.
        if interrupted.endswith("save_file"):
            Path(str(arguments[1])).write_bytes(b"\x01\x02")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(interrupted, fail)
        with pytest.raises(OSError, match="no space left"):
            run.save(tmp_path, epoch=2, best_epoch=2)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-1"]
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before
    second = run.save(tmp_path, epoch=2, best_epoch=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-2"]
    assert same_weights(load_pretrained(second)[0], run.model)


def test_loading_needs_no_network(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = run.save(tmp_path, epoch=1, best_epoch=1)

    def refuse(*arguments: object) -> None:
        raise AssertionError("a local folder was looked for in the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    model, processor = load_pretrained(saved)
    assert same_weights(model, run.model)
    assert processor.labels == LABELS
    assert not model.training


def test_loaded_weights_lie_where_fresh_ones_would(run: Run, tmp_path: Path) -> None:
    model, _ = load_pretrained(run.save(tmp_path, epoch=1, best_epoch=1))
    assert {value.data_ptr() % 64 for value in model.state_dict().values() if value.numel()} == {0}


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("config.json", None, "has no config.json"),
        ("processor_config.json", None, "has no processor_config.json"),
        ("model.safetensors", None, "has no model"),
        ("config.json", "{", "config.json is not JSON"),
        ("config.json", '{"model_type": "bert"}', "must be 'redifu', got 'bert'"),
        ("config.json", "[]", "must be 'redifu', got None"),
        ("model.safetensors", "no tensors", "not a ReDiFu model"),
        ("processor_config.json", "{", "not a ReDiFu model"),
    ],
)
def test_a_folder_that_is_no_model_is_named(
    run: Run, tmp_path: Path, name: str, content: str | None, complaint: str
) -> None:
    saved = run.save(tmp_path, epoch=1, best_epoch=1)
    (saved / name).unlink()
    if content is not None:
        (saved / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=f"epoch-1: .*{complaint}"):
        load_pretrained(saved)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"hiden_size": 8}, "'hiden_size'.*'hidden_size'"),
        ({"dropout": "much"}, "dropout"),
        ({"hidden_size": 32}, "not a ReDiFu model"),
    ],
)
def test_a_config_that_does_not_fit_is_named(
    run: Run, tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    saved = run.save(tmp_path, epoch=1, best_epoch=1)
    config = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    (saved / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    with pytest.raises(ValueError, match=f"(?s)epoch-1: .*{complaint}"):
        load_pretrained(saved)


def test_missing_weights_are_not_made_up(run: Run, tmp_path: Path) -> None:
    saved = run.save(tmp_path, epoch=1, best_epoch=1)
    run.model.redifu.save_pretrained(saved)
    with pytest.raises(ValueError, match=r"epoch-1: .*missing weights: classifier\."):
        load_pretrained(saved)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such model folder"):
        load_pretrained(tmp_path / "nowhere")
