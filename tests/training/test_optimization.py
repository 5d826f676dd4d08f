"""Parameter groups, class weights, and a mean that does not depend on how a batch is shared."""

import pytest
import torch
from torch import Tensor, nn

from answers import conversation_of
from model.tiny_models import LABELS, text_model, tiny_model
from redifu.model.losses import masked_cross_entropy
from redifu.training.optimization import build_optimizer, class_weights, loss_weight, parameter_groups
from redifu.training.recipe import TrainingSection

SETTINGS = TrainingSection(output="unused", learning_rate=1e-3, text_learning_rate=1e-5, weight_decay=0.1)


def of_names(model: nn.Module, groups: list[dict]) -> dict[str, dict]:
    """The group of each parameter by the parameter's name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)]: group for group in groups for parameter in group["params"]}


def test_every_parameter_is_in_one_group() -> None:
    model = text_model("bert")
    groups = parameter_groups(model, SETTINGS)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())


def test_the_backbone_has_its_own_learning_rate() -> None:
    model = text_model("bert")
    for name, group in of_names(model, parameter_groups(model, SETTINGS)).items():
        assert group["lr"] == (1e-5 if "text_backbone" in name else 1e-3), name


def test_biases_norms_and_embeddings_do_not_decay() -> None:
    model = text_model("bert")
    groups = of_names(model, parameter_groups(model, SETTINGS))
    for path, module in model.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            free = name == "bias" or isinstance(module, nn.Embedding | nn.LayerNorm)
            if free or isinstance(module, nn.Linear):
                assert groups[f"{path}.{name}"]["weight_decay"] == (0.0 if free else 0.1), f"{path}.{name}"


def test_what_is_frozen_is_left_out() -> None:
    model = text_model("bert")
    model.redifu.text_backbone.requires_grad_(False)
    assert {group["name"] for group in parameter_groups(model, SETTINGS)} == {"fusion", "fusion_no_decay"}


@pytest.mark.parametrize(("schedule", "last"), [("linear", 0.0), ("cosine", 0.0), ("constant", 1.0)])
def test_the_schedule_rises_and_goes_on(schedule: str, last: float) -> None:
    settings = TrainingSection(output="unused", learning_rate=1.0, schedule=schedule, warmup_ratio=0.2)
    optimizer, scheduler = build_optimizer(tiny_model(), settings, num_steps=10)
    rates = []
    for _ in range(11):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:3] == pytest.approx([0.0, 0.5, 1.0])
    assert rates[10] == pytest.approx(last)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_balanced_weights_make_labels_equal() -> None:
    labels = ["calm"] * 6 + ["glad"] * 3 + ["cross"]
    said = [{"speaker": "Ana", "label": label} for label in [*labels, None]]
    weights = class_weights("balanced", [conversation_of({"utterances": said})], LABELS)
    assert weights is not None
    assert (weights * torch.tensor([6.0, 3.0, 1.0])).tolist() == pytest.approx([10 / 3] * 3)


def test_given_weights_are_taken_and_checked() -> None:
    assert class_weights("none", [], LABELS) is None
    assert class_weights([1, 2, 0.5], [], LABELS).tolist() == [1, 2, 0.5]  # type: ignore[union-attr]
    for wrong in ([1, 2], [1, 2, 0], [1, 2, float("nan")]):
        with pytest.raises(ValueError, match="class_weights must be 3 positive numbers"):
            class_weights(wrong, [], LABELS)


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5])])
def test_weighed_means_of_parts_are_the_mean_of_the_whole(weights: Tensor | None) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 7, 3, generator=generator)
    labels = torch.randint(0, 3, (5, 7), generator=generator)
    labels[torch.rand(5, 7, generator=generator) < 0.4] = -100
    present = torch.ones(5, 7, 3, dtype=torch.bool)
    parts = [slice(0, 1), slice(1, 5)]
    shares = [loss_weight(labels[part], present[part], weights) for part in parts]
    losses = [masked_cross_entropy(logits[part], labels[part], class_weights=weights) for part in parts]
    mean = sum(share * loss for share, loss in zip(shares, losses, strict=True)) / sum(shares)
    torch.testing.assert_close(mean, masked_cross_entropy(logits, labels, class_weights=weights))


def test_an_utterance_without_any_stream_weighs_nothing() -> None:
    labels = torch.tensor([[0, 1, -100]])
    present = torch.tensor([[[True, False, False], [False, False, False], [True, True, True]]])
    assert loss_weight(labels, present, None) == 1
