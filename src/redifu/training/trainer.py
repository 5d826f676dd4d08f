"""The training loop: on a CPU, on one GPU, or in several processes started by torchrun."""

import json
import math
import shutil
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast_object_list, set_seed
from torch.utils.data import DataLoader

from redifu.conversation import Conversation
from redifu.data.collator import LengthGroupedBatchSampler
from redifu.data.media_reading import read_media
from redifu.evaluation.scoring import calibrate, evaluate_conversations
from redifu.inference.feature_cache import EmbeddedTexts
from redifu.inference.loading import load_pretrained
from redifu.model.configuration_redifu import BACKBONE_CONFIGS
from redifu.model.losses import IGNORED_LABEL
from redifu.training.build import build_model, read_data, unmeasured_streams
from redifu.training.checkpoints import (
    Progress,
    move_folder,
    newest_checkpoint,
    read_progress,
    replace_text,
    restore_optimizer,
    save_checkpoint,
)
from redifu.training.consistency_fit import fit_consistency
from redifu.training.optimization import build_optimizer, class_weights, loss_weight
from redifu.training.recipe import Recipe, expand, load_recipe
from redifu.training.run_log import Report, RunLog
from redifu.training.training_set import ProcessShare, TrainingDialogues

RECIPE, METRICS, CHECKPOINTS = "recipe.yaml", "metrics.json", "checkpoints"
SCORES = ("weighted_f1", "macro_f1", "accuracy", "nll", "ece")


def unheard(record: dict[str, Any]) -> None:
    """Report to nobody."""


def train(recipe: Recipe, *, report: Report = unheard) -> Path:
    """Train by a recipe, or go on where a killed run of the same recipe stopped.

    The run lives in OUTPUT.unfinished until it is whole; then that folder takes the name training.output. It
    holds model and processor, recipe.yaml, metrics.json (dev and test, of the epoch that was best on dev,
    the last without dev), log.jsonl and, with the extra `train`, tensorboard. A finished run of the same
    recipe is not run again. A resumed run on a CPU ends with the same bits as an uninterrupted one on the
    same machine and number of threads.

    With several processes (torchrun) a step's loss is the mean over the labelled utterances of all their
    dialogues, as in one process; only the squared losses per stream are means of the processes' squares.

    Args:
        recipe: what to train.
        report: called, in the main process only, with every record of the log.

    Returns:
        The folder that `from_pretrained` loads.

    Raises:
        FileNotFoundError: a file of the recipe is not there.
        ValueError: the recipe or the data can not be, or the output is of another recipe.
        FloatingPointError: the loss is not finite any more.
    """
    output = Path(expand(recipe.training.output))
    if output.exists():
        _refuse_another(output, recipe)
        shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)  # left by a kill in the last moment
        return output
    unfinished = output.with_name(f"{output.name}.unfinished")
    run = TrainingRun(recipe, unfinished)
    if run.accelerator.is_main_process:
        with closing(RunLog(unfinished, progress=run.progress, report=report)) as log:
            run.train(log.write)
            run.save_final()
        move_folder(unfinished, output)
        shutil.rmtree(output / CHECKPOINTS)
    else:
        run.train(unheard)
    run.accelerator.wait_for_everyone()
    run.accelerator.end_training()
    return output


class TrainingRun:
    """A run between two checkpoints: model, optimiser, data and progress."""

    def __init__(self, recipe: Recipe, folder: Path):
        """Build all of a run in `folder`, in the state of its newest checkpoint where there is one."""
        self.recipe = recipe
        self.settings = recipe.training
        self.folder = folder
        if (folder / RECIPE).exists():
            _refuse_another(folder, recipe)
        if self.settings.num_threads is not None:
            torch.set_num_threads(self.settings.num_threads)
        self.accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),
            # A step may leave parameters without gradient, as those of a stream that no dialogue of it has.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        set_seed(self.settings.seed)
        checkpoint = newest_checkpoint(folder / CHECKPOINTS)
        self.progress = read_progress(checkpoint) if checkpoint else Progress()
        model, self.processor = build_model(recipe) if checkpoint is None else load_pretrained(checkpoint)
        self.data = read_data(recipe, self.processor)
        if checkpoint is None and (streams := unmeasured_streams(recipe, self.processor)):
            given = [conversation.to_inputs() for conversation in self.data["train"]]
            self.processor.feature_extractor.fit(given, streams=streams)
        self._build_batches()
        self._build_steps(model, checkpoint)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process and checkpoint is None:
            folder.mkdir(parents=True, exist_ok=True)
            replace_text(folder / RECIPE, recipe.to_yaml())

    @property
    def is_over(self) -> bool:
        """Whether the last epoch is done, or dev has not improved for `patience` epochs."""
        patience = self.settings.patience or self.settings.epochs
        waited = self.progress.epoch - self.progress.best_epoch
        return self.progress.epoch >= self.settings.epochs or waited >= patience

    def train(self, write: Report) -> None:
        """Train, score on dev and save, epoch by epoch; `write` takes the records."""
        while not self.is_over:
            started = time.perf_counter()
            self._train_epoch(write)
            metrics = self._score_dev() if "dev" in self.data else {}
            self._count_epoch(metrics.get("weighted_f1"))
            place = {"event": "epoch", "epoch": self.progress.epoch, "step": self.progress.step}
            scores = {name: metrics[name] for name in SCORES if name in metrics}
            best = {"best_epoch": self.progress.best_epoch}
            write(place | scores | best | {"seconds": time.perf_counter() - started})
            self._save()

    def save_final(self) -> None:
        """Write the best epoch, able to compare speakers and calibrated; only here is the test set scored."""
        best = self.folder / CHECKPOINTS / f"epoch-{self.progress.best_epoch}"
        model, processor = load_pretrained(best)
        model.to(self.accelerator.device)
        if model.config.consistency_size is not None:
            fit_consistency(model, processor, self.data["train"], seed=self.settings.seed)
        metrics: dict[str, Any] = {"best_epoch": self.progress.best_epoch, "epochs": self.progress.epoch}
        if "dev" in self.data:
            calibrate(model, processor, self.data["dev"])
        for name in ("dev", "test"):
            if name in self.data:
                metrics[name] = evaluate_conversations(model, processor, self.data[name])
        model.save_pretrained(self.folder)
        processor.save_pretrained(self.folder)
        text = json.dumps(metrics, indent=2, ensure_ascii=False)
        (self.folder / METRICS).write_text(text + "\n", encoding="utf-8")

    def _build_batches(self) -> None:
        """Cut and group the training data; each process loads its share of every batch."""
        self.dialogues = TrainingDialogues(
            self.data["train"],
            noisy=self.data.get("train_noisy"),
            processor=self.processor,
            modality_dropout=self.settings.modality_dropout,
            seed=self.settings.seed,
        )
        self.batches = LengthGroupedBatchSampler(
            self.dialogues.lengths, batch_size=self.settings.batch_size, seed=self.settings.seed
        )
        share = ProcessShare(
            self.batches,
            process=self.accelerator.process_index,
            num_processes=self.accelerator.num_processes,
        )
        self.loader = DataLoader(self.dialogues, batch_sampler=share, collate_fn=self._collate)

    def _build_steps(self, model: Any, checkpoint: Path | None) -> None:
        """Build optimiser and schedule, restore them, and spread the model over the processes."""
        self.frozen = []
        for name, field in BACKBONE_CONFIGS.items():
            if not getattr(self.settings, f"freeze_{name}"):
                continue
            if getattr(model.config, field) is None:
                raise ValueError(f"training.freeze_{name}: this model has no {name} backbone")
            self.frozen.append(model.redifu.get_submodule(f"{name}_backbone").requires_grad_(False))
        # Alone: padded among others, the last bits of a run would depend on where it was stopped.
        self.texts = EmbeddedTexts(model, alone=True) if self.settings.freeze_text else lambda batch: batch
        if self.settings.activation_checkpointing:
            model.activation_checkpointing_enable()
        weights = class_weights(self.settings.class_weights, self.data["train"], self.processor.labels)
        self.class_weights = None if weights is None else weights.to(self.accelerator.device)
        model.to(self.accelerator.device)
        self.num_steps = len(self.loader) * self.settings.epochs
        optimizer, self.scheduler = build_optimizer(model, self.settings, num_steps=self.num_steps)
        if checkpoint is not None:
            restore_optimizer(checkpoint, optimizer, self.scheduler)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)

    def _collate(self, dialogues: list[Conversation]) -> Any:
        read = [read_media(each, self.processor.feature_extractor) for each in dialogues]
        batch: Any = self.processor.batch([each.to_inputs() for each in read])
        # A share that is not counted has no labels; its loss is 0, but it is asked for.
        batch.setdefault("labels", torch.full(batch["utterance_mask"].shape, IGNORED_LABEL))
        return batch

    def _train_epoch(self, write: Report) -> None:
        """Train once over the data, from random states that follow from seed, epoch and process alone."""
        epoch = self.progress.epoch + 1
        entropy = (self.settings.seed, epoch, self.accelerator.process_index)
        set_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        self.dialogues.epoch = epoch
        self.batches.set_epoch(epoch)
        self.model.train()
        for module in self.frozen:
            module.eval()
        for batch in self.loader:
            rates = {f"{group['name']}_learning_rate": group["lr"] for group in self.optimizer.param_groups}
            loss, norm = self._step(self.texts(batch.to(self.accelerator.device)))
            self.progress.step += 1
            place = {"event": "step", "epoch": epoch, "step": self.progress.step, "steps": self.num_steps}
            write(place | {"loss": loss, "gradient_norm": norm} | rates)

    def _step(self, batch: Any) -> tuple[float, float]:
        """Take one step; return the loss over the batches of all processes, and the norm of its gradient."""
        weight = loss_weight(batch["labels"], batch["modality_mask"], self.class_weights)
        total = self.accelerator.reduce(weight.clone(), reduction="sum")
        share = weight / total.where(total > 0, 1.0)
        bfloat16 = self.settings.mixed_precision == "bf16"
        # Not by the Accelerator: it would wrap forward for good, and dev would be scored in bfloat16 too.
        with torch.autocast(self.accelerator.device.type, dtype=torch.bfloat16, enabled=bfloat16):
            loss = self.model(**batch, class_weights=self.class_weights).loss
        # Gradients are averaged over the processes; times their number, the average is a sum.
        self.accelerator.backward(loss * share * self.accelerator.num_processes)
        mean = self.accelerator.reduce(loss.detach() * share, reduction="sum").item()
        if not math.isfinite(mean):
            raise FloatingPointError(f"the loss became {mean} after step {self.progress.step}")
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        return mean, float(norm)

    def _score_dev(self) -> dict[str, Any]:
        """Score on dev, in float32, in the main process: all must agree on what is best."""
        metrics: list[Any] = [None]
        if self.accelerator.is_main_process:
            model = self.accelerator.unwrap_model(self.model)
            metrics = [evaluate_conversations(model, self.processor, self.data["dev"])]
        broadcast_object_list(metrics)
        return metrics[0]

    def _count_epoch(self, weighted_f1: float | None) -> None:
        self.progress.epoch += 1
        if weighted_f1 is None:
            self.progress.best_epoch = self.progress.epoch
        elif weighted_f1 > self.progress.best_weighted_f1:
            self.progress.best_epoch, self.progress.best_weighted_f1 = self.progress.epoch, weighted_f1

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            save_checkpoint(
                self.folder / CHECKPOINTS,
                model=self.accelerator.unwrap_model(self.model),
                processor=self.processor,
                optimizer=self.optimizer,
                scheduler=self.scheduler,
                progress=self.progress,
            )
        self.accelerator.wait_for_everyone()


def _refuse_another(folder: Path, recipe: Recipe) -> None:
    """Refuse to go on in the folder of a run of another recipe."""
    advice = "choose another training.output, or delete it to start anew"
    if not (folder / RECIPE).exists():
        raise ValueError(f"{folder} exists and is no run of `redifu train`: {advice}")
    theirs, ours = (
        {
            f"{section}.{key}": value
            for section, values in each.to_dict().items()
            for key, value in values.items()
        }
        for each in (load_recipe(folder / RECIPE), recipe)
    )
    different = [
        f"{key} {theirs.get(key)} and now {ours.get(key)}"
        for key in sorted(theirs.keys() | ours.keys())
        if theirs.get(key) != ours.get(key) and key != "training.output"
    ]
    if different:
        raise ValueError(f"{folder} is a run of another recipe ({'; '.join(different)}): {advice}")
