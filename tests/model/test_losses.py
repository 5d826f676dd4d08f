"""The losses against torch's own, and what they must not count."""

import pytest
import torch
from torch import Tensor, nn

from redifu.model.losses import emotion_loss, masked_cross_entropy


@pytest.fixture
def logits() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 5, 4, requires_grad=True)


LABELS = torch.tensor([[0, 3, -100, 1, 1], [2, -100, -100, 0, -100]])


@pytest.mark.parametrize("class_weights", [None, torch.tensor([0.5, 2.0, 1.0, 3.0])])
def test_equals_cross_entropy_over_labelled_utterances(logits: Tensor, class_weights: Tensor | None) -> None:
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), LABELS.flatten(), weight=class_weights)
    torch.testing.assert_close(masked_cross_entropy(logits, LABELS, class_weights=class_weights), expected)


def test_unlabelled_logits_get_no_gradient(logits: Tensor) -> None:
    masked_cross_entropy(logits, LABELS).backward()
    reached = logits.grad.abs().sum(-1) > 0
    assert torch.equal(reached, LABELS != -100)


@pytest.mark.parametrize("class_weights", [None, torch.tensor([0.0, 0.0, 0.0, 1.0])])
def test_nothing_to_count_is_zero_with_a_zero_gradient(logits: Tensor, class_weights: Tensor | None) -> None:
    labels = torch.full((2, 5), -100)
    if class_weights is not None:
        labels[0, 0] = 1
    loss = masked_cross_entropy(logits, labels, class_weights=class_weights)
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


def test_streams_count_squared_and_only_where_present(logits: Tensor) -> None:
    present = {"text": torch.ones(2, 5, dtype=torch.bool), "audio": torch.tensor([[True] * 5, [False] * 5])}
    streams = {"text": logits.detach() * 2, "audio": logits.detach() - 1}
    loss = emotion_loss(logits, LABELS, stream_logits=streams, present=present, stream_weight=0.1)
    cross_entropy = nn.functional.cross_entropy
    text = cross_entropy(streams["text"].flatten(0, 1), LABELS.flatten())
    audio = cross_entropy(streams["audio"][0], LABELS[0])
    expected = cross_entropy(logits.flatten(0, 1), LABELS.flatten()) + 0.1 * (text**2 + audio**2)
    torch.testing.assert_close(loss, expected)
    streams["audio"][1] = 1e6
    again = emotion_loss(logits, LABELS, stream_logits=streams, present=present, stream_weight=0.1)
    assert torch.equal(again, loss)


def test_half_precision_logits_are_reduced_in_full_precision(logits: Tensor) -> None:
    low = logits.detach().bfloat16()
    loss = masked_cross_entropy(low, LABELS)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, masked_cross_entropy(low.float(), LABELS))
