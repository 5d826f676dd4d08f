"""The differential encoders, against the two attention maps that they never compute."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import paper_reference
from model.tiny_models import IMPLEMENTATIONS, tiny_config, tiny_model
from redifu.model.attention import masked_attention, neighbour_indices
from redifu.model.differential_attention import (
    DifferentialAttention,
    DifferentialEncoder,
    rotate_positions,
    sinusoidal_positions,
)
from redifu.model.recorder import Recorder

PRESENT = [
    [True] * 6,
    [True, False, True, True, False, True],
    [False, False, True, False, True, False],
    [False, False, False, True, False, False],
]


@pytest.fixture(params=IMPLEMENTATIONS)
def attention(request: pytest.FixtureRequest) -> DifferentialAttention:
    torch.manual_seed(0)
    layer = DifferentialAttention(tiny_config(attn_implementation=request.param)).eval()
    layer.strength.data.fill_(0.7)
    return layer


def two_maps(attention: DifferentialAttention, states: Tensor) -> Tensor:
    """The equation as it is written: (utterances, hidden), the map over rolled keys subtracted."""
    heads = attention.config.num_attention_heads
    query, key, value = attention.qkv(states).unflatten(-1, (3, heads, -1)).permute(1, 2, 0, 3)
    scale = attention.config.hidden_size**-0.5
    first = (query @ key.transpose(-1, -2) * scale).softmax(-1)
    second = (query @ key.roll(1, dims=-2).transpose(-1, -2) * scale).softmax(-1)
    joined = ((first - second) @ value).transpose(0, 1).flatten(1)
    return attention.output(attention.strength * joined)


@pytest.mark.parametrize("present", PRESENT, ids=["all", "some", "two", "one"])
def test_first_differences_equal_two_maps_over_the_present_utterances(
    attention: DifferentialAttention, present: list[bool]
) -> None:
    states = torch.randn(1, len(present), attention.config.hidden_size)
    mask = torch.tensor([present])
    hidden = states.masked_fill(~mask[..., None], 1e4)
    previous, following, _ = neighbour_indices(mask)
    output = attention(
        hidden,
        positions=torch.arange(mask.shape[1])[None],
        present=mask,
        previous=previous,
        following=following,
    )
    expected = two_maps(attention, states[mask])
    torch.testing.assert_close(output[mask], expected, rtol=0, atol=1e-6)


def test_strength_zero_leaves_the_output_bias(attention: DifferentialAttention) -> None:
    attention.strength.data.zero_()
    mask = torch.ones(1, 4, dtype=torch.bool)
    previous, following, _ = neighbour_indices(mask)
    output = attention(
        torch.randn(1, 4, 16),
        positions=torch.arange(mask.shape[1])[None],
        present=mask,
        previous=previous,
        following=following,
    )
    torch.testing.assert_close(output, attention.output.bias.expand(1, 4, -1))


def test_none_is_ordinary_attention() -> None:
    layer = DifferentialAttention(tiny_config(differential_attention="none")).eval()
    assert not hasattr(layer, "strength")
    states = torch.randn(1, 5, 16)
    mask = torch.ones(1, 5, dtype=torch.bool)
    previous, following, _ = neighbour_indices(mask)
    query, key, value = layer.qkv(states).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
    expected = (query @ key.transpose(-1, -2) * 16**-0.5).softmax(-1) @ value
    output = layer(
        states,
        positions=torch.arange(mask.shape[1])[None],
        present=mask,
        previous=previous,
        following=following,
    )
    torch.testing.assert_close(output, layer.output(expected.transpose(1, 2).flatten(2)), rtol=0, atol=1e-6)


def test_neighbours_are_the_nearest_present_utterances_and_wrap() -> None:
    previous, following, inner = neighbour_indices(torch.tensor(PRESENT[:3]))
    some = torch.tensor(PRESENT[1])
    assert previous[0].tolist() == [5, 0, 1, 2, 3, 4]
    assert following[0].tolist() == [1, 2, 3, 4, 5, 0]
    assert previous[1][some].tolist() == [5, 0, 2, 3]
    assert following[1][some].tolist() == [2, 3, 5, 0]
    assert inner[1][some].tolist() == [[False, True], [True, True], [True, True], [True, False]]
    assert previous[2, [2, 4]].tolist() == following[2, [2, 4]].tolist() == [4, 2]


def test_indices_stay_inside_where_nobody_is_present() -> None:
    for indices in neighbour_indices(torch.zeros(2, 3, dtype=torch.bool))[:2]:
        assert ((indices >= 0) & (indices < 3)).all()


def test_delta_is_the_depthwise_convolution() -> None:
    torch.manual_seed(0)
    delta = DifferentialEncoder(tiny_config()).delta
    states = torch.randn(2, 5, 16)
    padded = torch.nn.functional.pad(states, (0, 0, 1, 1))
    convolved = torch.nn.functional.conv1d(
        padded.transpose(1, 2), delta.convolution.weight, delta.convolution.bias, groups=16
    ).transpose(1, 2)
    expected = states + delta.alpha * delta.gate(states).sigmoid() * delta.norm(convolved)
    torch.testing.assert_close(delta(states, (padded[:, :-2], states, padded[:, 2:])), expected)


@pytest.mark.parametrize("fields", [{}, {"released": "iemocap"}], ids=["sinusoidal", "rotary"])
def test_an_encoder_reads_what_is_left_as_if_it_were_all(fields: dict[str, str]) -> None:
    torch.manual_seed(0)
    encoder = DifferentialEncoder(tiny_config(**fields)).eval()
    mask = torch.tensor([PRESENT[1]])
    positions = torch.arange(6)[None]
    states = torch.randn(1, 6, 16).masked_fill(~mask[..., None], 0.0)
    speakers = torch.randn(1, 6, 16)
    all_states, fewer_states = Recorder(hidden_states={}), Recorder(hidden_states={})
    gated = encoder(states, speakers, positions=positions, present=mask, record=all_states)
    compact = (states[mask][None], speakers[mask][None])
    fewer = mask[mask][None]
    places = positions[mask][None]
    expected = encoder(*compact, positions=places, present=fewer, record=fewer_states)
    encoded, expected_encoded = (record.hidden_states["encoded"] for record in (all_states, fewer_states))
    torch.testing.assert_close(gated[mask], expected[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(encoded[mask], expected_encoded[0], rtol=0, atol=1e-6)
    assert not gated[~mask].any() and not encoded[~mask].any()


def test_rotations_keep_lengths_and_tell_only_distances() -> None:
    first, second = torch.randn(2, 1, 1, 8).expand(2, 1, 6, 8)
    positions = torch.arange(6)[None]
    rotated = rotate_positions(first, positions), rotate_positions(second, positions)
    torch.testing.assert_close(rotated[0].norm(dim=-1), first.norm(dim=-1))
    products = rotated[0][0] @ rotated[1][0].T
    torch.testing.assert_close(products[1:, 1:], products[:-1, :-1], rtol=0, atol=1e-5)
    torch.testing.assert_close(rotated[0][:, 0], first[:, 0])


@pytest.mark.parametrize("size", [7, 8])
def test_sinusoids_start_at_zero_and_one(size: int) -> None:
    positions = sinusoidal_positions(torch.tensor([[0, 1, 50]]), size)
    assert positions.shape == (1, 3, size)
    assert positions[0, 0].tolist() == [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0][:size]
    assert positions[0, 1, 0] == torch.tensor(1.0).sin()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_without_any_key_nothing_is_attended(implementation: str) -> None:
    query, key, value = (torch.randn(2, 2, 3, 4, requires_grad=True) for _ in range(3))
    mask = torch.tensor([[False] * 3, [True, False, True]])
    attended, _ = masked_attention(
        query, key, value, visible=mask[:, None], scale=1.0, implementation=implementation
    )
    assert not attended[0].any()
    assert attended[1].any()
    attended.square().sum().backward()
    for tensor in (query, key, value):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert not tensor.grad[0].any()
    assert not value.grad[1, :, 1].any()


@pytest.mark.parametrize("present", PRESENT, ids=["all", "some", "two", "one"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("kind", "causal", "reference"),
    [
        ("dual_maps", False, paper_reference.dual_map_attention),
        ("dual_maps", True, paper_reference.dual_map_attention),
        ("shifted_keys", True, paper_reference.causal_shifted_attention),
    ],
)
def test_equals_the_literal_equation(
    kind: str, causal: bool, reference: Callable[..., Tensor], implementation: str, present: list[bool]
) -> None:
    fields = {"differential_attention": kind, "causal": causal}
    layer = tiny_model(**fields, implementation=implementation).redifu.encoders["audio"].attention
    states, mask = torch.randn(len(present), 16), torch.tensor(present)
    previous, following, inner = neighbour_indices(mask[None])
    output = layer(
        states.masked_fill(~mask[:, None], 1e4)[None],
        positions=torch.arange(len(present))[None],
        present=mask[None],
        previous=previous.where(inner[..., 0], torch.arange(len(present))),
        following=following,
    )
    expected = reference(layer, states, mask)
    torch.testing.assert_close(output[0, mask], expected[mask], rtol=0, atol=1e-5)


def test_the_causal_convolution_reads_the_utterance_and_two_earlier_ones() -> None:
    model = tiny_model(causal=True).redifu.encoders["audio"]
    taken: list[tuple[Tensor, ...]] = []
    model.delta.register_forward_pre_hook(lambda _, given: taken.append(given[1]))
    mask = torch.tensor([PRESENT[1]])
    states = torch.randn(1, 6, 16).masked_fill(~mask[..., None], 0.0)
    model(states, torch.zeros_like(states), positions=torch.arange(6)[None], present=mask)
    padded = torch.nn.functional.pad(states[0, mask[0]], (0, 0, 2, 0))
    for shift, tap in enumerate(taken[0]):
        assert torch.equal(tap[0, mask[0]], padded[shift : shift + 4])
