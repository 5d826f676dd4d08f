"""Selective prediction: what a model gains by abstaining where it is not sure.

Source: Geifman and El-Yaniv 2017 (arXiv 1705.08500), section 2. Coverage is the share of utterances whose
confidence, the top probability, reaches a threshold; selective risk is the error rate on these utterances.
"""

import numpy as np

from redifu.conversation import shortest

PERCENTS = range(100, 0, -10)


def covered_at(confidence: np.ndarray, percent: int) -> tuple[float, np.ndarray]:
    """Choose the highest threshold that covers at least some percent of the utterances.

    Args:
        confidence: (utterances,) top probabilities; like `Prediction.probability`, they count as float32.
        percent: share to cover, 1 to 100.

    Returns:
        The threshold, and the covered utterances, (utterances,) bool: all at or above it, so that ties may
        cover more.
    """
    known = np.asarray(confidence, dtype=np.float32)
    number = -(-percent * len(known) // 100)  # rounded up
    threshold = np.sort(known)[len(known) - number]
    return shortest(threshold), known >= threshold


def area_under_risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Compute the area under the risk-coverage curve (AURC), 0 to 1; lower is better.

    Source: Geifman, Uziel and El-Yaniv 2019 (arXiv 1805.08206), section 3: the mean of the selective risk
    over the thresholds that are the confidences of the utterances. Tied utterances are covered together.

    Args:
        confidence: (utterances,) top probabilities.
        correct: (utterances,) bool, whether the top label is true.
    """
    known = np.asarray(confidence, dtype=np.float32)
    order = np.argsort(-known, kind="stable")
    number = np.searchsorted(-known[order], -known[order], side="right")
    return float(((~correct[order]).cumsum()[number - 1] / number).mean())
