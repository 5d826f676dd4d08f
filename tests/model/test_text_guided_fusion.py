"""The fusions: what they read, and the released one against the literal reference."""

import pytest
import torch
from torch import Tensor

import released_reference
from model.tiny_models import IMPLEMENTATIONS, tiny_config
from redifu.model import MODALITIES
from redifu.model.text_guided_fusion import MutualAttentionFusion, build_fusion


def streams(*shape: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Random streams (batch, utterances, 16), all present."""
    states = {name: torch.randn(*shape, 16) for name in MODALITIES}
    return states, {name: torch.ones(*shape, dtype=torch.bool) for name in MODALITIES}


@pytest.fixture(params=IMPLEMENTATIONS)
def fusion(request: pytest.FixtureRequest) -> MutualAttentionFusion:
    torch.manual_seed(0)
    config = tiny_config(attn_implementation=request.param, fusion_num_attention_heads=2)
    return MutualAttentionFusion(config).eval()


def test_equals_the_reference_that_also_computes_self_attention(fusion: MutualAttentionFusion) -> None:
    reference = released_reference.MutualFormer(16, 2, 0.0)
    weights = {}
    for name in MODALITIES:
        short, own = name[0], fusion.streams[name]
        parts = {
            "norm": fusion.norms[name],
            "attn": own.attention,
            "gate": own.feed_forward.gate,
            "mlp": own.feed_forward.layers,
        }
        for part, module in parts.items():
            for key, value in module.state_dict().items():
                weights[f"{part}_{short}.{_released_key(part, key)}"] = value
    reference.load_state_dict(weights)
    states, present = streams(2, 5)
    fused, _ = fusion(states, present=present)
    for actual, expected in zip(fused.values(), reference(*states.values()), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def _released_key(part: str, key: str) -> str:
    if part == "mlp":
        index, _, kind = key.partition(".")
        return f"layers.{3 * int(index)}.{kind}"
    return f"gate.0.{key}" if part == "gate" else key.replace("output.", "proj.")


def test_a_stream_that_nobody_has_is_as_if_the_model_had_two(fusion: MutualAttentionFusion) -> None:
    states, present = streams(1, 4)
    present["visual"] = torch.zeros(1, 4, dtype=torch.bool)
    states["visual"] = torch.zeros(1, 4, 16)
    fused, _ = fusion(states, present=present)
    two = MutualAttentionFusion(tiny_config(visual_size=None, fusion_num_attention_heads=2)).eval()
    two.load_state_dict(fusion.state_dict(), strict=False)
    expected, _ = two({name: states[name] for name in ("text", "audio")}, present=present)
    for name, value in expected.items():
        torch.testing.assert_close(fused[name], value, rtol=0, atol=1e-6)
    assert not fused["visual"].any()


def test_concat_leaves_the_streams_as_they_are() -> None:
    states, present = streams(1, 3)
    fusion = build_fusion(tiny_config(fusion="concat"))
    fused, attentions = fusion(states, present=present)
    assert all(torch.equal(fused[name], states[name]) for name in MODALITIES)
    assert not attentions
    assert not list(fusion.parameters())
