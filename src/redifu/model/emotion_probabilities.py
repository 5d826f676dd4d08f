"""From a batch to the probabilities of its labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def emotion_probabilities(
    model: Any, inputs: Mapping[str, Tensor], *, conversations: Sequence[Mapping[str, Any]]
) -> Tensor:
    """Predict a batch, calibrated by the temperature of the model; it is put in evaluation mode.

    Args:
        model: a ReDiFuForEmotionRecognition.
        inputs: what the model takes, on its device, with modality_mask (batch, utterances, 3).
        conversations: the dialogues of the batch, whose ids are named in errors.

    Returns:
        (batch, utterances, labels) float32; a row is NaN where the model can use no stream of the utterance.

    Raises:
        FloatingPointError: the model gave a logit that is not a number.
    """
    usable = inputs["modality_mask"].bool().any(-1)
    probabilities = torch.full((*usable.shape, len(model.config.labels)), torch.nan, device=usable.device)
    # A model refuses a batch with nothing to read, which in another batching is a part of one.
    if usable.any():
        # Set here and not once: whoever predicts now and then may train in between.
        model.eval()
        with torch.no_grad():
            logits = model(**inputs).logits[usable].float()
            probabilities[usable] = (logits / model.config.temperature).softmax(-1)
    broken = usable & ~probabilities.isfinite().all(-1)
    if broken.any():
        name = conversations[int(broken.any(1).nonzero()[0])].get("id")
        raise FloatingPointError(f"dialogue {name}: the model gave logits that are not finite")
    return probabilities
