"""The fusions: what they read, and the released one against the literal reference."""

import pytest
import torch
from torch import Tensor

import paper_reference
import released_reference
from model.tiny_models import (
    IMPLEMENTATIONS,
    random_modality_mask,
    tiny_batch,
    tiny_config,
    tiny_model,
)
from redifu.model import MODALITIES
from redifu.model.fusion import MutualAttentionFusion, build_fusion
from redifu.model.recorder import Recorder


def streams(*shape: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Random streams (batch, utterances, 16), all present."""
    states = {name: torch.randn(*shape, 16) for name in MODALITIES}
    return states, {name: torch.ones(*shape, dtype=torch.bool) for name in MODALITIES}


def positions(states: dict[str, Tensor]) -> Tensor:
    """The places of the utterances of streams without padding."""
    batch, length, _ = states["text"].shape
    return torch.arange(length).expand(batch, -1)


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
    fused = fusion(states, present=present, positions=positions(states)).streams
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
    fused = fusion(states, present=present, positions=positions(states)).streams
    two = MutualAttentionFusion(tiny_config(visual_size=None, fusion_num_attention_heads=2)).eval()
    two.load_state_dict(fusion.state_dict(), strict=False)
    expected = two(
        {name: states[name] for name in ("text", "audio")}, present=present, positions=positions(states)
    ).streams
    for name, value in expected.items():
        torch.testing.assert_close(fused[name], value, rtol=0, atol=1e-6)
    assert not fused["visual"].any()


def test_concat_leaves_the_streams_as_they_are() -> None:
    states, present = streams(1, 3)
    fusion = build_fusion(tiny_config(fusion="concat"))
    record = Recorder(attentions={})
    fused = fusion(states, present=present, positions=positions(states), record=record)
    assert all(torch.equal(fused.streams[name], states[name]) for name in MODALITIES)
    assert not record.attentions
    assert not list(fusion.parameters())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_text_diffusion_equals_the_literal_equation(implementation: str, steps: int, causal: bool) -> None:
    fields = {"diffusion_steps": steps, "causal": causal}
    model = tiny_model(fusion="text_diffusion", implementation=implementation, **fields)
    states, present = streams(2, 5)
    drop = {"text": [(0, 1), (0, 0), (1, 4)], "audio": [(0, 1), (0, 4), (1, 2)], "visual": [(1, 0)]}
    for name, places in drop.items():
        for row, place in places:
            present[name][row, place] = False
            states[name][row, place] = 0.0
    fused = model.redifu.fusion(states, present=present, positions=positions(states))
    for row in range(2):
        expected, reliability = paper_reference.text_diffusion(
            model.redifu.fusion,
            {name: value[row] for name, value in states.items()},
            {name: value[row] for name, value in present.items()},
        )
        torch.testing.assert_close(fused.streams["text"][row], expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(fused.reliability[row], reliability, rtol=0, atol=1e-6)
    assert all(torch.equal(fused.streams[name], states[name]) for name in ("audio", "visual"))


def test_reliability_is_that_of_the_streams_that_are_there() -> None:
    model = tiny_model(fusion="text_diffusion")
    batch = tiny_batch(4, 2)
    batch["modality_mask"] = random_modality_mask(batch["utterance_mask"])
    present = batch["modality_mask"] & batch["utterance_mask"][..., None]
    output = model(**batch)
    assert output.reliability.shape == (2, 4, 3)
    assert torch.equal(output.reliability > 0, present)
    assert (output.reliability <= 1).all() and (output.reliability[..., 0] == present[..., 0]).all()


def test_an_utterance_without_text_is_recognised_by_the_text_head_too() -> None:
    model = tiny_model(fusion="text_diffusion")
    batch = tiny_batch(4)
    batch["modality_mask"] = torch.ones(1, 4, 3, dtype=torch.bool)
    batch["modality_mask"][0, 2, 0] = False
    output = model(**batch)
    weights = torch.tensor(model.config.modality_weights)
    by_stream = torch.stack([output[f"{name}_logits"] for name in MODALITIES], dim=-1)
    torch.testing.assert_close(output.logits, (by_stream * weights).sum(-1))
