"""Checkpoints of a run; an interrupted save never harms the last good one.

Nothing is pickled: tensors are saved as safetensors, everything else as JSON.
"""

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from redifu.atomic_files import new_folder
from redifu.model import ReDiFuForEmotionRecognition, ReDiFuProcessor

PREFIX = "epoch-"
OPTIMIZER_TENSORS, STATE = "optimizer.safetensors", "state.json"


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: finished epochs.
        step: optimiser steps.
        best_epoch: the epoch with the best weighted F1 on dev, the earliest of equals; the last without
            dev.
        best_weighted_f1: its weighted F1, 0 to 100.
    """

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_weighted_f1: float = -1.0


def save_checkpoint(
    folder: Path,
    *,
    model: ReDiFuForEmotionRecognition,
    processor: ReDiFuProcessor,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    progress: Progress,
) -> Path:
    """Save the end of an epoch as a folder that `from_pretrained` loads; then drop all others but the best.

    Args:
        folder: the folder of the run's checkpoints.
        model: the model to save.
        processor: its processor.
        optimizer: saved for `restore_optimizer`.
        scheduler: saved for `restore_optimizer`.
        progress: names this epoch and the best one.
    """
    target = folder / f"{PREFIX}{progress.epoch}"
    with new_folder(target) as unfinished:
        model.save_pretrained(unfinished)
        processor.save_pretrained(unfinished)
        state = optimizer.state_dict()
        tensors = {
            f"{index}.{name}": value.contiguous()
            for index, values in state["state"].items()
            for name, value in values.items()
        }
        save_file(tensors, unfinished / OPTIMIZER_TENSORS)
        rest = {
            "progress": dataclasses.asdict(progress),
            "param_groups": state["param_groups"],
            "scheduler": {key: value for key, value in scheduler.state_dict().items() if key != "lr_lambdas"},
        }
        (unfinished / STATE).write_text(json.dumps(rest), encoding="utf-8")
    for other in _checkpoints(folder):
        if other not in (progress.epoch, progress.best_epoch):
            shutil.rmtree(folder / f"{PREFIX}{other}")
    return target


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint of the last finished epoch, None before the first."""
    epochs = _checkpoints(folder)
    return folder / f"{PREFIX}{max(epochs)}" if epochs else None


def read_progress(checkpoint: Path) -> Progress:
    """Read how far the run was when the checkpoint was saved."""
    return Progress(**json.loads((checkpoint / STATE).read_text(encoding="utf-8"))["progress"])


def restore_optimizer(
    checkpoint: Path, optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler
) -> None:
    """Put optimiser and schedule into the state of a checkpoint; both must be built as when it was saved."""
    rest = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in load_file(checkpoint / OPTIMIZER_TENSORS).items():
        index, name = key.split(".", maxsplit=1)
        state.setdefault(int(index), {})[name] = value.clone()
    optimizer.load_state_dict({"state": state, "param_groups": rest["param_groups"]})
    # The lambdas are code and not state; the schedule was built with its own.
    scheduler.load_state_dict({**rest["scheduler"], "lr_lambdas": scheduler.state_dict()["lr_lambdas"]})


def _checkpoints(folder: Path) -> list[int]:
    return [int(path.name.removeprefix(PREFIX)) for path in folder.glob(f"{PREFIX}*")]
