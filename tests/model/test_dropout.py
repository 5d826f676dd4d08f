"""Dropout keeps the mean, drops at the rate asked for, and does nothing in evaluation."""

import pytest
import torch

from redifu.model.dropout import dropout


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.6, 0.99])
def test_the_rate_and_the_mean_are_those_asked_for(probability: float) -> None:
    torch.manual_seed(0)
    dropped = dropout(torch.ones(1000, 1001), probability, True)
    zero = dropped == 0
    assert zero.float().mean().item() == pytest.approx(probability, abs=1 / 512 + 2e-3)
    assert dropped[~zero].unique().numel() == 1
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.05)
    # No pattern: neighbours in a row, and the same place of two rows, fall independently.
    for pairs in (zero[:, 1:] & zero[:, :-1], zero[1:] & zero[:-1]):
        assert pairs.float().mean().item() == pytest.approx(zero.float().mean().item() ** 2, abs=5e-3)


def test_gradients_pass_where_states_pass() -> None:
    torch.manual_seed(0)
    states = torch.randn(7, 3, requires_grad=True)
    dropped = dropout(states, 0.5, True)
    dropped.sum().backward()
    assert torch.equal(states.grad == 0, dropped == 0)
    assert torch.equal(states.grad[states.grad != 0].unique(), torch.tensor([2.0]))


def test_seeds_repeat_and_evaluation_is_the_identity() -> None:
    states = torch.randn(5, 8)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(dropout(states, 0.4, True))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])
    assert dropout(states, 0.4, False) is states
    assert dropout(states, 0.0, True) is states
    assert dropout(states.to(torch.bfloat16), 0.4, True).dtype == torch.bfloat16
