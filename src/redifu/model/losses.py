"""Losses over conversations: pure functions that read only labelled utterances."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

IGNORED_LABEL = -100


def masked_cross_entropy(logits: Tensor, labels: Tensor, *, class_weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over labelled utterances, weighted by class if weights are given; 0 without labels.

    Args:
        logits: (batch, utterances, labels).
        labels: (batch, utterances) int, -100 where not counted.
        class_weights: (labels,) float or None.
    """
    counted = labels != IGNORED_LABEL
    target = labels.where(counted, 0)
    loss = -F.log_softmax(logits.float(), dim=-1).gather(-1, target[..., None]).squeeze(-1)
    weights = counted.float() if class_weights is None else class_weights.float()[target] * counted
    # Hidden logits may be anything finite; a product with zero keeps them out.
    total = weights.sum()
    return (loss * weights).sum() / total.where(total > 0, 1.0)


def emotion_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    stream_logits: Mapping[str, Tensor],
    present: Mapping[str, Tensor],
    stream_weight: float,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of the fused logits plus `stream_weight` times the square of each stream's own.

    Args:
        logits: (batch, utterances, labels), fused.
        labels: (batch, utterances) int, -100 where not counted.
        stream_logits: the same as `logits` by stream.
        present: (batch, utterances) bool by stream; an utterance without a stream does not count for it.
        stream_weight: 0.1 in the released model.
        class_weights: (labels,) float or None.
    """
    loss = masked_cross_entropy(logits, labels, class_weights=class_weights)
    for name, own_logits in stream_logits.items():
        own_labels = labels.masked_fill(~present[name], IGNORED_LABEL)
        own = masked_cross_entropy(own_logits, own_labels, class_weights=class_weights)
        loss = loss + stream_weight * own**2
    return loss
