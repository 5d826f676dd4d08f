"""Dropout with a mask that is cheap to draw on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor


def dropout(states: Tensor, probability: float, training: bool) -> Tensor:
    """Zero elements with `probability` in training and scale up the others to keep the mean.

    On a CPU, torch's mask took an eighth of a training step of the released IEMOCAP model. This mask uses one
    random byte per element, so on a CPU the probability is rounded to a multiple of 1/256.

    Args:
        states: tensor of any shape.
        probability: at least 0 and below 1.
        training: if False, the states are returned unchanged.
    """
    if not training or probability == 0:
        return states
    if states.device.type != "cpu":
        return F.dropout(states, probability)
    dropped = min(round(256 * probability), 255)
    words = torch.empty(states.numel() // 8 + 1, dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.uint8)[: states.numel()].view(states.shape) >= dropped
    return states * kept * (256 / (256 - dropped))
