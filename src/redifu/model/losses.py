"""Loss functions over conversations; only labelled utterances count."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

IGNORED_LABEL = -100


def masked_cross_entropy(logits: Tensor, labels: Tensor, *, class_weights: Tensor | None = None) -> Tensor:
    """Compute the mean cross-entropy over labelled utterances, optionally class-weighted; 0 without labels.

    Args:
        logits: (batch, utterances, labels).
        labels: (batch, utterances) int, -100 where ignored.
        class_weights: (labels,) float or None.
    """
    counted = labels != IGNORED_LABEL
    target = labels.where(counted, 0)
    loss = -F.log_softmax(logits.float(), dim=-1).gather(-1, target[..., None]).squeeze(-1)
    weights = counted.float() if class_weights is None else class_weights.float()[target] * counted
    # Logits of masked utterances are finite but arbitrary; the zero weight removes them.
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
    """Add the squared cross-entropy of each stream, times `stream_weight`, to that of the fused logits.

    Args:
        logits: (batch, utterances, labels), fused.
        labels: (batch, utterances) int, -100 where ignored.
        stream_logits: by stream, the same shape as `logits`.
        present: (batch, utterances) bool by stream; a stream's loss skips utterances without it.
        stream_weight: weight of the squared stream losses, 0.1 in the released model.
        class_weights: (labels,) float or None.
    """
    loss = masked_cross_entropy(logits, labels, class_weights=class_weights)
    for name, own_logits in stream_logits.items():
        own_labels = labels.masked_fill(~present[name], IGNORED_LABEL)
        own = masked_cross_entropy(own_logits, own_labels, class_weights=class_weights)
        loss = loss + stream_weight * own**2
    return loss
