"""The training loop, for a CPU, one GPU, or several processes started by torchrun."""

import math
import os
import shutil
import time
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast_object_list, set_seed
from torch.utils.data import DataLoader

from redifu.atomic_files import move_folder, only_writer, replace_json, replace_text
from redifu.conversation import Conversation
from redifu.data.length_batches import LengthGroupedBatchSampler
from redifu.data.media_reading import read_media
from redifu.evaluation.scoring import calibrate, evaluate_conversations
from redifu.inference.feature_cache import EmbeddedTexts
from redifu.inference.loading import load_pretrained
from redifu.model.configuration_redifu import BACKBONE_CONFIGS
from redifu.model.losses import IGNORED_LABEL
from redifu.training.build import build_model, read_data, unmeasured_streams
from redifu.training.checkpoints import (
    Progress,
    newest_checkpoint,
    read_progress,
    restore_optimizer,
    save_checkpoint,
)
from redifu.training.consistency_fit import fit_consistency
from redifu.training.data_digests import check_digests, keep_digests
from redifu.training.frozen_media import embed_media_once, normalise_pooling
from redifu.training.optimization import build_optimizer, class_weights, loss_weight
from redifu.training.recipe import Recipe, load_recipe
from redifu.training.run_log import Report, RunLog
from redifu.training.training_set import ProcessShare, TrainingDialogues

RECIPE, METRICS, CHECKPOINTS = "recipe.yaml", "metrics.json", "checkpoints"
SCORES = ("weighted_f1", "macro_f1", "accuracy", "nll", "ece")


def unheard(record: dict[str, Any]) -> None:
    """Ignore a record."""


def train(recipe: Recipe, *, report: Report = unheard) -> Path:
    """Train the model of a recipe, or resume an interrupted run of the same recipe.

    The run is written to OUTPUT.unfinished, which becomes training.output when it has finished. That folder
    holds model and processor, recipe.yaml, data.json (digests of the data), metrics.json (dev and test scores
    of the epoch that was best on dev, or of the last one without dev), log.jsonl and, with the extra `train`,
    tensorboard. A finished run of the same recipe is not repeated. On a CPU, a resumed run gives the same
    bits as an uninterrupted one on the same machine with the same number of threads.

    With several processes (torchrun), the loss of a step is the mean over the labelled utterances of all
    processes; only the squared losses per stream are averaged over the processes.

    Args:
        recipe: the recipe.
        report: called, in the main process only, with every record of the log, and with {"event": "stage",
            "stage": str} when a stage of the run begins.

    Returns:
        The output folder, which `from_pretrained` loads.

    Raises:
        FileNotFoundError: a file in the recipe does not exist.
        ValueError: the recipe or the data are invalid, or training.output has a run of another recipe or with
            data that have changed since, or is being trained by another process.
        FloatingPointError: the loss is not finite.
    """
    output = Path(recipe.expanded().training.output)
    unfinished = output.with_name(f"{output.name}.unfinished")
    # torchrun starts several processes of one training; the first one speaks for all.
    alone = only_writer(unfinished) if os.environ.get("RANK", "0") == "0" else nullcontext()
    try:
        with alone:
            return _train(recipe, output, unfinished, report)
    except BlockingIOError as error:
        raise ValueError(
            f"{output}: another process is training this model: wait for it or choose another training.output"
        ) from error


def _train(written: Recipe, output: Path, unfinished: Path, report: Report) -> Path:
    if output.exists():
        _refuse_another(output, written)
        check_digests(written.expanded(), output)
        shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)  # left if the run was killed at the very end
        return output
    if (unfinished / RECIPE).exists():
        _refuse_another(unfinished, written)
        check_digests(written.expanded(), unfinished)
    run = TrainingRun(written.expanded(), unfinished, report=report)
    run.keep_recipe(written)
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
    """The state of a run: model, optimiser, data and progress."""

    def __init__(self, recipe: Recipe, folder: Path, *, report: Report = unheard):
        """Build a run in `folder`, resuming from its newest checkpoint if there is one.

        Args:
            recipe: the recipe, with expanded paths.
            folder: the folder of the run.
            report: called in the main process when a stage begins.
        """
        self.settings = recipe.training
        self.folder = folder
        if self.settings.num_threads is not None:
            torch.set_num_threads(self.settings.num_threads)
        self.accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),
            # If no dialogue of a step has some stream, the stream's parameters get no gradient.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        set_seed(self.settings.seed)
        self._report = report if self.accelerator.is_main_process else unheard
        checkpoint = newest_checkpoint(folder / CHECKPOINTS)
        self.progress = read_progress(checkpoint) if checkpoint else Progress()
        self._begin(
            "building the model" if checkpoint is None else f"resuming after epoch {self.progress.epoch}"
        )
        model, self.processor = build_model(recipe) if checkpoint is None else load_pretrained(checkpoint)
        self._begin("reading the data")
        self.data = read_data(recipe, self.processor)
        if checkpoint is None and (streams := unmeasured_streams(recipe, self.processor)):
            given = [conversation.to_inputs() for conversation in self.data["train"]]
            self.processor.feature_extractor.fit(given, streams=streams)
        if checkpoint is None and recipe.model.checkpoint is None and model.config.audio_layers is not None:
            self._begin("measuring the sounds")
            normalise_pooling(model, self.processor, self.data["train"])
        self._build_batches(model)
        self._build_steps(model, checkpoint)
        self.accelerator.wait_for_everyone()

    def keep_recipe(self, recipe: Recipe) -> None:
        """Write the recipe, as the user wrote it, to the folder of the run."""
        if self.accelerator.is_main_process and not self.progress.epoch:
            self.folder.mkdir(parents=True, exist_ok=True)
            keep_digests(recipe.expanded(), self.folder)
            replace_text(self.folder / RECIPE, recipe.to_yaml())

    def _begin(self, stage: str) -> None:
        self._report({"event": "stage", "stage": stage})

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, or dev has not improved for `patience` epochs."""
        patience = self.settings.patience or self.settings.epochs
        waited = self.progress.epoch - self.progress.best_epoch
        return self.progress.epoch >= self.settings.epochs or waited >= patience

    def train(self, write: Report) -> None:
        """Train, score on dev and save, epoch by epoch; `write` receives the records."""
        if self.settings.freeze_text and not self.is_over:
            self._embed_texts()
        self._begin(
            f"training on {len(self.dialogues):,} dialogues, {sum(self.dialogues.lengths):,} utterances"
        )
        while not self.is_over:
            started = time.perf_counter()
            loss = self._train_epoch(write)
            metrics = self._score_dev() if "dev" in self.data else {}
            self._count_epoch(metrics.get("weighted_f1"))
            place = {"event": "epoch", "epoch": self.progress.epoch, "step": self.progress.step}
            scores = {name: metrics[name] for name in SCORES if name in metrics}
            rest = {"loss": loss, "epochs": self.settings.epochs, "best_epoch": self.progress.best_epoch}
            write(place | scores | rest | {"seconds": time.perf_counter() - started})
            self._save()

    def save_final(self) -> None:
        """Calibrate, score and write the best model; only this step scores the test set."""
        self._begin(f"finishing the model of epoch {self.progress.best_epoch}: calibration and scores")
        best = self.folder / CHECKPOINTS / f"epoch-{self.progress.best_epoch}"
        model, processor = load_pretrained(best)
        model.to(self.accelerator.device)
        if model.config.consistency_size is not None:
            fit_consistency(model, processor, self.data["train"], seed=self.settings.seed)
        metrics: dict[str, Any] = {"best_epoch": self.progress.best_epoch, "epochs": self.progress.epoch}
        if "dev" in self.data:
            calibrate(model, self.reader, self.data["dev"])
        for name in ("dev", "test"):
            if name in self.data:
                metrics[name] = evaluate_conversations(model, self.reader, self.data[name])
        model.save_pretrained(self.folder)
        processor.save_pretrained(self.folder)
        replace_json(self.folder / METRICS, metrics)

    def _build_batches(self, model: Any) -> None:
        """Split and batch the training data; each process loads its share of every batch."""
        raw = self.processor.feature_extractor.raw
        self.reader = self.processor
        if raw and all(getattr(self.settings, f"freeze_{name}") for name in raw):
            self._begin(f"embedding the data: {' and '.join(raw)}")
            self.reader, self.data = embed_media_once(model, self.processor, self.data)
        self.dialogues = TrainingDialogues(
            self.data["train"],
            noisy=self.data.get("train_noisy"),
            processor=self.reader,
            modality_dropout=self.settings.modality_dropout,
            side_dropout=self.settings.side_dropout,
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
        """Build or restore optimiser and schedule, and prepare the model for several processes."""
        self.frozen = []
        for name, field in BACKBONE_CONFIGS.items():
            if not getattr(self.settings, f"freeze_{name}"):
                continue
            if getattr(model.config, field) is None:
                raise ValueError(f"training.freeze_{name}: this model has no {name} backbone")
            self.frozen.append(model.redifu.get_submodule(f"{name}_backbone").requires_grad_(False))
        # Texts that `_embed_texts` did not embed, for example because dropout hides their context, are
        # embedded alone: in a batch, their last bits would depend on where the run was interrupted.
        self.texts: Any = (
            EmbeddedTexts(model, alone=True) if self.settings.freeze_text else lambda batch: batch
        )
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
        read = [read_media(each, self.reader.feature_extractor) for each in dialogues]
        batch: Any = self.reader.batch([each.to_inputs() for each in read])
        # A share that does not count has no labels. Its loss is 0, but the model must still compute it.
        batch.setdefault("labels", torch.full(batch["utterance_mask"].shape, IGNORED_LABEL))
        return batch

    def _embed_texts(self) -> None:
        """Embed the texts of the training data; the batches do not depend on where a run was interrupted."""
        for module in self.frozen:
            module.eval()
        inputs = self.processor.batch(self.dialogues.texts_alone())
        if "input_ids" in inputs:
            self._begin(f"embedding {len(inputs['input_ids']):,} texts")
            self.texts.embed(inputs.to(self.accelerator.device))

    def _train_epoch(self, write: Report) -> float:
        """Train for one epoch and return its mean loss; seed, epoch and process determine all randomness."""
        epoch = self.progress.epoch + 1
        entropy = (self.settings.seed, epoch, self.accelerator.process_index)
        set_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        self.dialogues.epoch = epoch
        self.batches.set_epoch(epoch)
        self.model.train()
        for module in self.frozen:
            module.eval()
        losses = []
        for batch in self.loader:
            rates = {f"{group['name']}_learning_rate": group["lr"] for group in self.optimizer.param_groups}
            loss, norm = self._step(self.texts(batch.to(self.accelerator.device)))
            losses.append(loss)
            self.progress.step += 1
            place = {"event": "step", "epoch": epoch, "step": self.progress.step, "steps": self.num_steps}
            write(place | {"loss": loss, "gradient_norm": norm} | rates)
        return sum(losses) / len(losses)

    def _step(self, batch: Any) -> tuple[float, float]:
        """Take one step; return the loss over the batches of all processes, and the norm of its gradient."""
        weight = loss_weight(batch["labels"], batch["modality_mask"], self.class_weights)
        total = self.accelerator.reduce(weight.clone(), reduction="sum")
        share = weight / total.where(total > 0, 1.0)
        bfloat16 = self.settings.mixed_precision == "bf16"
        # The Accelerator would wrap forward permanently, and dev would be scored in bfloat16, too.
        with torch.autocast(self.accelerator.device.type, dtype=torch.bfloat16, enabled=bfloat16):
            loss = self.model(**batch, class_weights=self.class_weights).loss
        # Gradients are averaged over the processes; the factor turns the average into a sum.
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
        """Score dev in float32, only in the main process, so that all processes agree on the best epoch."""
        metrics: list[Any] = [None]
        if self.accelerator.is_main_process:
            model = self.accelerator.unwrap_model(self.model)
            metrics = [evaluate_conversations(model, self.reader, self.data["dev"])]
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
    """Raise ValueError unless the folder has a run of the same recipe."""
    advice = "choose another training.output, or delete the folder to start again"
    if not (folder / RECIPE).exists():
        raise ValueError(f"{folder} exists but is not a run of `redifu train`: {advice}")
    theirs, ours = (
        {
            f"{section}.{key}": value
            for section, values in each.to_dict().items()
            for key, value in values.items()
        }
        for each in (load_recipe(folder / RECIPE), recipe)
    )
    different = [
        f"{key} was {theirs.get(key)} and is now {ours.get(key)}"
        for key in sorted(theirs.keys() | ours.keys())
        if theirs.get(key) != ours.get(key) and key != "training.output"
    ]
    if different:
        raise ValueError(f"{folder} is a run of a different recipe ({'; '.join(different)}): {advice}")
