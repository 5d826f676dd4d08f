import numpy as np
import pytest
import torch

from redifu.evaluation.calibration import TEMPERATURES, fit_temperature
from redifu.evaluation.metrics import expected_calibration_error


def softmax(logits):
    return torch.from_numpy(logits).softmax(-1).numpy()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    generator = np.random.default_rng(0)
    logits = 3 * generator.standard_normal((20_000, 4))
    true = softmax(logits / temperature)
    references = (true.cumsum(1) < generator.random((len(true), 1))).sum(1)
    found = fit_temperature(softmax(logits), references)
    assert found == pytest.approx(temperature, rel=0.05)
    assert expected_calibration_error(softmax(logits / found), references) < 0.02


def test_labels_that_are_always_right_or_never_stay_within_limits():
    probabilities = np.full((10, 2), [0.9, 0.1])
    least, most = TEMPERATURES
    assert least <= fit_temperature(probabilities, np.zeros(10, int)) < 0.2
    assert fit_temperature(probabilities, np.ones(10, int)) == most
    assert least <= fit_temperature(np.eye(2), np.arange(2)) <= 1
