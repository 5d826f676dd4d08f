"""How sure a model should be: one temperature for its logits."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike

from redifu.evaluation.metrics import SMALLEST_PROBABILITY

# Far beyond what a trained model needs; without limits a set that is all right would want 0.
TEMPERATURES = (0.1, 10.0)


def fit_temperature(probabilities: ArrayLike, references: ArrayLike) -> float:
    """Find the temperature that makes the true labels likeliest: softmax(logits / T).

    Guo et al. 2017 (arXiv 1706.04599), section 4.2. It changes no predicted label.

    Args:
        probabilities: (utterances, labels) of the model with temperature 1.
        references: (utterances,) true label ids.

    Returns:
        T, within `TEMPERATURES`; above 1 the model was too sure.
    """
    # Logarithms of probabilities are logits, but for a constant that the softmax takes out.
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
