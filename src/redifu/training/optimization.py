"""The optimiser with its schedule, and the weights of labels in the loss."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from redifu.model import MODALITIES, ReDiFuForEmotionRecognition
from redifu.model.losses import IGNORED_LABEL
from redifu.training.recipe import TrainingSection

_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def parameter_groups(model: ReDiFuForEmotionRecognition, settings: TrainingSection) -> list[dict[str, Any]]:
    """Group the trained parameters by learning rate and weight decay.

    Matrices decay; biases, norms, scalars and embeddings do not.

    Args:
        model: its parameters without gradient are left out.
        settings: learning_rate of the fusion, NAME_learning_rate of the backbones, weight_decay.

    Returns:
        The groups that are not empty, for AdamW, named "fusion" and "fusion_no_decay", and by the stream of a
        backbone "text", "text_no_decay" and so on.
    """
    embedded = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    groups: dict[str, dict[str, Any]] = {}
    for path, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        streams = [name for name in MODALITIES if path.startswith(f"redifu.{name}_backbone.")]
        part, rate = (streams[0], f"{streams[0]}_learning_rate") if streams else ("fusion", "learning_rate")
        decays = parameter.dim() > 1 and id(parameter) not in embedded
        name = part + ("" if decays else "_no_decay")
        group: dict[str, Any] = {
            "name": name,
            "params": [],
            "lr": getattr(settings, rate),
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        groups.setdefault(name, group)["params"].append(parameter)
    return list(groups.values())


def build_optimizer(
    model: ReDiFuForEmotionRecognition, settings: TrainingSection, *, num_steps: int
) -> tuple[torch.optim.Optimizer, LRScheduler]:
    """Build AdamW and its schedule over `num_steps` steps, including the warm-up."""
    optimizer = torch.optim.AdamW(parameter_groups(model, settings), fused=True)
    scheduler = get_scheduler(
        _SCHEDULES[settings.schedule],
        optimizer,
        num_warmup_steps=round(settings.warmup_ratio * num_steps),
        num_training_steps=num_steps,
    )
    return optimizer, scheduler


def class_weights(
    setting: str | Sequence[float], conversations: Iterable[Mapping[str, Any]], labels: Sequence[str]
) -> Tensor | None:
    """Return the weight of each label in the loss, (labels,) float32, or None for equal weights.

    Args:
        setting: "none", "balanced" (utterances / (labels * utterances of the label)), or the weights.
        conversations: the training data, which "balanced" counts.
        labels: names of the labels in the order of the logits.

    Raises:
        ValueError: the weights are not one positive number for each label.
    """
    if setting == "none":
        return None
    if setting == "balanced":
        names = [utterance.get("label") for each in conversations for utterance in each["utterances"]]
        counts = torch.tensor([names.count(label) for label in labels]).float()
        return counts.sum() / (len(labels) * counts.clamp_min(1))
    weights = torch.tensor([float(weight) for weight in setting])
    if len(weights) != len(labels) or not (weights > 0).all() or not weights.isfinite().all():
        raise ValueError(
            f"training.class_weights must be {len(labels)} positive numbers, got {list(setting)}"
        )
    return weights


def loss_weight(labels: Tensor, modality_mask: Tensor, weights: Tensor | None) -> Tensor:
    """Return the weight of a batch's mean loss in the mean over several batches, a scalar.

    Args:
        labels: (batch, utterances) int, -100 where there is none.
        modality_mask: (batch, utterances, 3) bool; an utterance without any stream does not count.
        weights: (labels,) class weights or None.
    """
    counted = labels[(labels != IGNORED_LABEL) & modality_mask.bool().any(-1)]
    return (torch.ones_like(counted, dtype=torch.float32) if weights is None else weights[counted]).sum()
