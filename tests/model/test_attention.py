"""Windowed attention against the same equation over all pairs."""

import pytest
import torch

import redifu.model.attention
from model.tiny_models import IMPLEMENTATIONS, tiny_batch, tiny_config, tiny_model
from redifu.model.attention import attend, masked_attention, split_heads
from redifu.model.recorder import Recorder


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [0, 2, 5, 100])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_blocks_equal_one_attention_over_all_pairs(
    implementation: str, window: int, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redifu.model.attention, "BLOCK", 4)
    config = tiny_config(attention_window=window, causal=causal, attn_implementation=implementation)
    generator = torch.Generator().manual_seed(0)
    real = torch.rand(3, 19, generator=generator) < 0.8
    present = real & (torch.rand(3, 19, generator=generator) < 0.8)
    present[2] = False
    positions = (real.long().cumsum(-1) - 1).masked_fill(~real, 19)
    states = [torch.randn(3, 19, 16, generator=generator, requires_grad=True) for _ in range(3)]
    record = Recorder(attentions={})
    options = {"config": config, "num_heads": 4, "scale": 0.5, "record": record}
    actual, reached = attend(*states, present=present, positions=positions, **options)
    distance = positions[:, :, None] - positions[:, None, :]
    visible = present[:, None, :] & (distance.abs() <= window)
    visible = visible & (distance >= 0) if causal else visible
    expected, _ = masked_attention(
        *(split_heads(each, 4) for each in states), visible=visible, scale=0.5, implementation="eager"
    )
    assert record.attentions == {}
    torch.testing.assert_close(actual[real], expected[real], rtol=0, atol=1e-5)
    assert torch.equal(reached[real], visible.any(-1, keepdim=True)[real])
    gradients = [torch.autograd.grad(each[real].square().sum(), states) for each in (actual, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_a_window_wider_than_the_dialogue_is_no_window() -> None:
    batch = tiny_batch(9, 4)
    fields = {"differential_attention": "dual_maps"}
    without, within = (tiny_model(attention_window=window, **fields)(**batch).logits for window in (None, 9))
    torch.testing.assert_close(within, without, rtol=0, atol=1e-5)


def test_what_is_far_has_no_influence() -> None:
    model = tiny_model(attention_window=1, relation_modalities=[])
    batch = tiny_batch(12)
    before = model(**batch).logits
    for name in ("text", "audio", "visual"):
        batch[f"{name}_features"][:, -1] += 1.0
    changed = (model(**batch).logits != before).any(-1)[0]
    # An encoder's convolution and attention, the key before it, and the fusion: four utterances.
    assert not changed[:7].any()
    assert changed[-2:].all()
