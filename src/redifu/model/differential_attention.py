"""Denoising of the audio and visual streams: a differential Transformer over the utterances that have them.

Source: arXiv 2603.25752, the differential Transformer; the equations are those of the released model.
In this module, "previous" and "next" mean the nearest utterance of the dialogue that has the stream.
"""

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import attend, neighbour_indices, take_utterances
from .configuration_redifu import ReDiFuConfig
from .dropout import dropout
from .recorder import NOTHING, Recorder


def sinusoidal_positions(positions: Tensor, size: int) -> Tensor:
    """Encode (batch, utterances) positions as (batch, utterances, size): even sines, odd cosines."""
    steps = torch.arange(0, size, 2, device=positions.device, dtype=torch.float32)
    angles = positions[..., None].float() * torch.exp(steps * (-math.log(10000.0) / size))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)[..., :size]


def rotate_positions(states: Tensor, positions: Tensor) -> Tensor:
    """Rotate interleaved pairs of (batch, utterances, hidden) states by (batch, utterances) positions."""
    size = states.shape[-1]
    steps = torch.arange(0, size, 2, device=positions.device, dtype=torch.float32)
    angles = positions[..., None].float() / 10000.0 ** (steps / size)
    cosine, sine = angles.cos().to(states.dtype), angles.sin().to(states.dtype)
    even, odd = states[..., 0::2], states[..., 1::2]
    return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1).flatten(-2)


class DeltaNet(nn.Module):
    """Adds local changes: x + alpha * sigmoid(W x) * LN(depthwise convolution of x)."""

    def __init__(self, hidden_size: int):
        """Build for states of `hidden_size`."""
        super().__init__()
        self.convolution = nn.Conv1d(hidden_size, hidden_size, kernel_size=3, groups=hidden_size)
        self.norm = nn.LayerNorm(hidden_size)
        self.gate = nn.Linear(hidden_size, hidden_size)
        self.alpha = nn.Parameter(torch.ones(1))

    def reset_parameters(self) -> None:
        """Initialise alpha to 1."""
        nn.init.ones_(self.alpha)

    def forward(self, states: Tensor, taps: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Return (batch, utterances, hidden).

        Args:
            states: (batch, utterances, hidden).
            taps: the inputs of the three kernel positions, each shaped like `states`, zero beyond the ends.
        """
        weights = self.convolution.weight[:, 0].unbind(-1)
        convolved = sum(tap * weight for tap, weight in zip(taps, weights, strict=True))
        convolved = convolved + cast(Tensor, self.convolution.bias)
        return states + self.alpha * self.gate(states).sigmoid() * self.norm(convolved)


class ContextGate(nn.Module):
    """Mixes positioned states and delta with a learned gate g, one number per utterance."""

    def __init__(self, hidden_size: int):
        """Build for states of `hidden_size`."""
        super().__init__()
        self.norm = nn.LayerNorm(2 * hidden_size)
        self.hidden = nn.Linear(2 * hidden_size, hidden_size)
        self.output = nn.Linear(hidden_size, 1)

    def forward(self, positioned: Tensor, delta: Tensor) -> Tensor:
        """Return g delta + (1 - g) positioned, (batch, utterances, hidden)."""
        joined = self.norm(torch.cat([positioned, delta], dim=-1))
        gate = self.output(self.hidden(joined).tanh()).sigmoid()
        return positioned + gate * (delta - positioned)


class StreamAttention(nn.Module):
    """Base class of both kinds of attention within a stream."""

    scale: float

    def __init__(self, config: ReDiFuConfig):
        """Store the configuration."""
        super().__init__()
        self.config = config

    def attend(self, query: Tensor, key: Tensor, value: Tensor, **where: Any) -> Tensor:
        """Attend within the stream, returning (batch, utterances, hidden); see `attention.attend`."""
        attended, _ = attend(
            query,
            key,
            value,
            config=self.config,
            num_heads=self.config.num_attention_heads,
            scale=self.scale,
            # Dropout acts on A1; in the released code, on A1 - A2. Both keep the expected value, and neither
            # acts in evaluation (tests: golden).
            dropout_probability=self.config.dropout if self.training else 0.0,
            name="encoded",
            **where,
        )
        return attended


class DifferentialAttention(StreamAttention):
    """Attention minus a second attention map, with a learned strength; or ordinary attention.

    "shifted_keys": the second map uses the keys of the previous utterance. With A1 = softmax(q k^T) and A2
    the same over keys rolled by one utterance, A2's columns are A1's columns rolled, so
    (A1 - A2) v = A1 (v - next v): a single attention over first differences of the values. With a causal or
    windowed map this identity fails and keys cannot wrap around, so both maps are computed, and the first
    key is its own predecessor. "none": ordinary attention, with nothing subtracted.
    """

    def __init__(self, config: ReDiFuConfig):
        """Build one layer, of the kind set by `config.differential_attention`."""
        super().__init__(config)
        # The released model scales by the model size, not the head size.
        self.scale = config.hidden_size**-0.5
        self.differential = config.differential_attention == "shifted_keys"
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.two_maps = self.differential and (config.causal or config.attention_window is not None)
        if self.differential:
            self.strength = nn.Parameter(torch.tensor(0.5))

    def reset_parameters(self) -> None:
        """Initialise the strength to 0.5."""
        if self.differential:
            nn.init.constant_(self.strength, 0.5)

    def forward(
        self, states: Tensor, *, present: Tensor, previous: Tensor, following: Tensor, **where: Any
    ) -> Tensor:
        """Return (batch, utterances, hidden).

        Args:
            states: (batch, utterances, hidden).
            present: (batch, utterances) bool, the utterances that have the stream.
            previous: (batch, utterances) index of the previous utterance; the first has its own index.
            following: (batch, utterances) index of the next utterance; the last wraps to the first.
            where: `positions` and `record` for `attention.attend`; the record stores A1.
        """
        query, key, value = self.qkv(states).chunk(3, dim=-1)
        if self.differential and not self.two_maps:
            value = value - take_utterances(value, following)
        value = value.masked_fill(~present[..., None], 0.0)
        attended = self.attend(query, key, value, present=present, **where)
        if self.two_maps:
            shifted = take_utterances(key, previous)
            attended = attended - self.attend(
                query, shifted, value, present=present, **(where | {"record": NOTHING})
            )
        return self.output(self.strength * attended if self.differential else attended)


class DualMapAttention(StreamAttention):
    """Two attention maps with separate queries and keys: (A1 - lambda A2) v, normalised per head.

    Source: the first layer of the differential Transformer of Ye et al. (arXiv 2410.05258, section 2.1):
    lambda = exp(lq1·lk1) - exp(lq2·lk2) + lambda_init; the normalised result is scaled by 1 - lambda_init.
    """

    LAMBDA_INIT = 0.8 - 0.6 * math.exp(-0.3 * 0)

    def __init__(self, config: ReDiFuConfig):
        """Build one layer."""
        super().__init__(config)
        size = config.hidden_size // config.num_attention_heads
        self.scale = size**-0.5
        self.queries_keys = nn.ModuleList(
            nn.Linear(config.hidden_size, 2 * config.hidden_size) for _ in range(2)
        )
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.lambda_vectors = nn.Parameter(torch.empty(2, 2, size))
        self.head_norm = nn.RMSNorm(size, eps=1e-5)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start near lambda_init, as in Ye et al."""
        nn.init.normal_(self.lambda_vectors, std=0.1)

    def forward(
        self, states: Tensor, *, present: Tensor, previous: Tensor, following: Tensor, **where: Any
    ) -> Tensor:
        """Return (batch, utterances, hidden); the arguments are those of `DifferentialAttention.forward`."""
        value = self.value(states).masked_fill(~present[..., None], 0.0)
        queries_keys = [projection(states).chunk(2, dim=-1) for projection in self.queries_keys]
        (query, key), (other_query, other_key) = queries_keys
        first = self.attend(query, key, value, present=present, **where)
        second = self.attend(other_query, other_key, value, present=present, **(where | {"record": NOTHING}))
        exponents = self.lambda_vectors.prod(dim=0).sum(dim=-1).exp()
        strength = exponents[0] - exponents[1] + self.LAMBDA_INIT
        heads = (self.config.num_attention_heads, -1)
        difference = self.head_norm((first - strength * second).unflatten(-1, heads))
        return self.output((1 - self.LAMBDA_INIT) * difference.flatten(-2))


class PositionwiseFeedForward(nn.Module):
    """F(h) = W2 gelu(W1 LN(h)) + h, with a configurable GELU scale and the released second residual."""

    def __init__(self, config: ReDiFuConfig):
        """Build with inner size `config.hidden_size`."""
        super().__init__()
        self.scale = 2 * config.feed_forward_gelu_scale
        self.norm = nn.LayerNorm(config.hidden_size, eps=1e-6)
        self.inner = nn.Linear(config.hidden_size, config.hidden_size)
        self.outer = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, states: Tensor) -> Tensor:
        """Return (batch, utterances, hidden)."""
        inner = self.scale * F.gelu(self.inner(self.norm(states)), approximate="tanh")
        return self.outer(inner) + states


class DifferentialEncoder(GradientCheckpointingLayer):
    """Encodes a stream: position and speaker, local changes, differential layer, residual, filter gate."""

    def __init__(self, config: ReDiFuConfig):
        """Build the encoder of one stream."""
        super().__init__()
        size = config.hidden_size
        self.config = config
        self.delta = DeltaNet(size)
        self.context_gate = ContextGate(size)
        self.input_norm = nn.LayerNorm(size, eps=1e-6)
        dual = config.differential_attention == "dual_maps"
        self.attention = DualMapAttention(config) if dual else DifferentialAttention(config)
        self.attention_norm = nn.LayerNorm(size, eps=1e-6)
        self.feed_forward = PositionwiseFeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(size, eps=1e-6)
        self.filter_gate = nn.Linear(size, size)

    def forward(
        self,
        states: Tensor,
        speakers: Tensor,
        *,
        positions: Tensor,
        present: Tensor,
        record: Recorder = NOTHING,
    ) -> Tensor:
        """Encode one stream.

        Args:
            states: (batch, utterances, hidden), zero where the stream is missing.
            speakers: (batch, utterances, hidden) speaker embeddings.
            positions: (batch, utterances) positions in the dialogue, from 0.
            present: (batch, utterances) bool, the utterances that have the stream.
            record: stores the stream before and after the gate, and the attention weights.

        Returns:
            (batch, utterances, hidden), zero where the stream is missing.
        """
        previous, following, inner = neighbour_indices(present)
        positioned = dropout(self._position(states, positions) + speakers, self.config.dropout, self.training)
        before = take_utterances(states, previous).masked_fill(~inner[..., :1], 0.0)
        if self.config.causal:
            earlier = take_utterances(before, previous).masked_fill(~inner[..., :1], 0.0)
            taps = (earlier, before, states)
        else:
            taps = (before, states, take_utterances(states, following).masked_fill(~inner[..., 1:], 0.0))
        delta = self.delta(states, taps)
        hidden = self.input_norm(self.context_gate(positioned, delta) + positioned)
        own = torch.arange(present.shape[1], device=present.device)
        attended = self.attention(
            hidden,
            positions=positions,
            present=present,
            previous=previous.where(inner[..., 0], own),
            following=following,
            record=record,
        )
        hidden = self.attention_norm(hidden + attended)
        hidden = self.feed_forward_norm(hidden + self.feed_forward(hidden))
        encoded = positioned + self.config.encoder_residual_scale * hidden
        encoded = record.state("encoded", encoded.masked_fill(~present[..., None], 0.0))
        return record.state("gated", encoded * self.filter_gate(encoded).sigmoid())

    def _position(self, states: Tensor, positions: Tensor) -> Tensor:
        if self.config.position_encoding == "rotary":
            return rotate_positions(states, positions)
        return states + sinusoidal_positions(positions, states.shape[-1]).to(states.dtype)
