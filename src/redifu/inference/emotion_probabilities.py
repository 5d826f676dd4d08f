"""From a batch to the probabilities of its labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def emotion_probabilities(
    model: Any, inputs: Mapping[str, Tensor], *, conversations: Sequence[Mapping[str, Any]]
) -> Tensor:
    """Predict a batch; the model is put in evaluation mode.

    Args:
        model: a ReDiFuForEmotionRecognition.
        inputs: what the model takes, on its device, with modality_mask (batch, utterances, 3).
        conversations: the dialogues of the batch, whose ids are named in errors.

    Returns:
        (batch, utterances, labels) float32; a row is NaN where the model can use no stream of the utterance.

    Raises:
        FloatingPointError: the model gave a logit that is not a number.
    """
    return probabilities_and_output(model, inputs, conversations=conversations)[0]


def probabilities_and_output(
    model: Any, inputs: Mapping[str, Any], *, conversations: Sequence[Mapping[str, Any]]
) -> tuple[Tensor, Any]:
    """Predict as `emotion_probabilities`, and return the model's output: None if there is nothing to read."""
    usable = inputs["modality_mask"].bool().any(-1)
    probabilities = torch.full((*usable.shape, len(model.config.labels)), torch.nan, device=usable.device)
    output = None
    # A model rejects a batch with nothing to read, which is a part of a larger batch elsewhere.
    if usable.any():
        # Set at every call: the caller may train between two predictions.
        model.eval()
        with torch.no_grad():
            output = model(**inputs)
        probabilities[usable] = output.logits[usable].float().softmax(-1)
    broken = usable & ~probabilities.isfinite().all(-1)
    if broken.any():
        name = conversations[int(broken.any(1).nonzero()[0])].get("id")
        raise FloatingPointError(f"dialogue {name}: the model gave logits that are not finite")
    return probabilities, output
