"""Dropout whose mask is cheap to draw on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor


def dropout(states: Tensor, probability: float, training: bool) -> Tensor:
    """Zero elements with `probability` in training and scale the others up, so that the mean stays.

    torch's own mask took an eighth of a training step of the released IEMOCAP model on a CPU. Here an element
    takes one byte of a random word, so on a CPU the probability is the nearest multiple of 1/256.

    Args:
        states: of any shape.
        probability: at least 0 and below 1.
        training: False returns the states as they are.
    """
    if not training or probability == 0:
        return states
    if states.device.type != "cpu":
        return F.dropout(states, probability)
    dropped = min(round(256 * probability), 255)
    words = torch.empty(states.numel() // 8 + 1, dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.uint8)[: states.numel()].view(states.shape) >= dropped
    return states * kept * (256 / (256 - dropped))
