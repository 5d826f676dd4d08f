"""Temperature scaling of a model's logits."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike

from redifu.evaluation.metrics import SMALLEST_PROBABILITY

# Wider than any trained model needs; without limits, data without errors would give 0.
TEMPERATURES = (0.1, 10.0)


def fit_temperature(probabilities: ArrayLike, references: ArrayLike) -> float:
    """Find the temperature T that maximises the likelihood of the true labels under softmax(logits / T).

    Source: Guo et al. 2017 (arXiv 1706.04599), section 4.2. The predicted labels do not change.

    Args:
        probabilities: (utterances, labels) of the model with temperature 1.
        references: (utterances,) true label ids.

    Returns:
        T, within `TEMPERATURES`; above 1, the model was overconfident.
    """
    # Log-probabilities are logits up to a constant, which the softmax removes.
    known = np.asarray(probabilities, dtype=np.float64).clip(min=SMALLEST_PROBABILITY)
    logits, target = torch.from_numpy(known).log(), torch.from_numpy(np.asarray(references))
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(logits / log_temperature.exp(), target)
        loss.backward()
        return loss.item()

    optimizer.step(closure)
    return float(np.clip(log_temperature.exp().item(), *TEMPERATURES))
