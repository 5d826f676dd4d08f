"""Fusion of the streams.

Source: arXiv 2603.25752, the fusion. The released model computes `mutual_attention`; the abstract describes
`text_diffusion`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import attend
from .configuration_redifu import MODALITIES, ReDiFuConfig
from .dropout import dropout
from .recorder import NOTHING, Recorder


@dataclass
class FusedStreams:
    """The result of a fusion.

    Attributes:
        streams: (batch, utterances, hidden) by stream, zero where missing.
        present: (batch, utterances) bool by stream, True where the fused stream has content.
        reliability: (batch, utterances, 3), text, audio and visual, 0 where missing; None if not estimated.
    """

    streams: dict[str, Tensor]
    present: Mapping[str, Tensor]
    reliability: Tensor | None = None


class CrossModalAttention(nn.Module):
    """Attention from one stream to the others, using only the receiving stream's matrices."""

    def __init__(self, config: ReDiFuConfig):
        """Build the attention of one receiving stream."""
        super().__init__()
        self.config = config
        self.heads = config.fusion_num_attention_heads or config.num_attention_heads
        self.scale = (config.hidden_size // self.heads) ** -0.5
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, states: Tensor, others: Mapping[str, Tensor], *, present: Mapping[str, Tensor], **where: Any
    ) -> Tensor:
        """Return the sum of the attentions to the other streams, (batch, utterances, hidden).

        The released code also computes self-attention, without using it, and attends to padded utterances;
        this code does neither (tests: batch invariance).

        Args:
            states: (batch, utterances, hidden) of the receiving stream, normed.
            others: the same of the other streams, by name.
            present: (batch, utterances) bool by stream.
            where: `positions` and `record` for `attend`; the weights are named after the other stream.
        """
        size = self.config.hidden_size
        query = F.linear(states, self.qkv.weight[:size])
        total, reached = torch.zeros_like(states), states.new_zeros(())
        for name, other in others.items():
            key, value = F.linear(other, self.qkv.weight[size:]).chunk(2, dim=-1)
            attended, seen = attend(
                query,
                key,
                value,
                present=present[name],
                config=self.config,
                num_heads=self.heads,
                scale=self.scale,
                name=name,
                **where,
            )
            total = total + attended
            reached = reached + seen.to(states.dtype)
        # The output layer is linear, so its bias is added once per stream that could be attended to.
        return F.linear(total, self.output.weight) + reached * self.output.bias


class GatedFeedForward(nn.Module):
    """x + MLP(g x + (1 - g) y) with g = sigmoid(W [x | y]); gate and residual use x before its norm."""

    def __init__(self, config: ReDiFuConfig):
        """Build the gate and the four-layer MLP of one stream."""
        super().__init__()
        size = config.hidden_size
        self.dropout = config.dropout
        self.gate = nn.Linear(2 * size, size)
        sizes = [size, 4 * size, 4 * size, 4 * size, size]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in zip(sizes, sizes[1:], strict=False))

    def forward(self, states: Tensor, received: Tensor) -> Tensor:
        """Combine two tensors (batch, utterances, hidden) into one of the same shape."""
        gate = self.gate(torch.cat([states, received], dim=-1)).sigmoid()
        hidden = received + gate * (states - received)
        for layer in self.layers[:-1]:
            hidden = dropout(F.gelu(layer(hidden)), self.dropout, self.training)
        return states + dropout(self.layers[-1](hidden), self.dropout, self.training)


class MutualAttentionStream(GradientCheckpointingLayer):
    """Attention from one stream to the others, followed by the gated MLP."""

    def __init__(self, config: ReDiFuConfig):
        """Build the parts of one stream."""
        super().__init__()
        self.attention = CrossModalAttention(config) if len(config.modalities) > 1 else None
        self.feed_forward = GatedFeedForward(config)

    def forward(self, states: Tensor, normed: Mapping[str, Tensor], name: str, **where: Any) -> Tensor:
        """Return the fused stream, (batch, utterances, hidden); `where` goes to `CrossModalAttention`."""
        if self.attention is None:
            return self.feed_forward(states, torch.zeros_like(states))
        others = {other: value for other, value in normed.items() if other != name}
        return self.feed_forward(states, self.attention(normed[name], others, **where))


class MutualAttentionFusion(nn.Module):
    """Every stream attends to every other stream, symmetrically, in one step."""

    def __init__(self, config: ReDiFuConfig):
        """Build norms and attention for each stream of `config.modalities`."""
        super().__init__()
        normed = config.modalities if len(config.modalities) > 1 else ()
        self.norms = nn.ModuleDict({name: nn.LayerNorm(config.hidden_size) for name in normed})
        self.streams = nn.ModuleDict({name: MutualAttentionStream(config) for name in config.modalities})

    def forward(
        self,
        streams: Mapping[str, Tensor],
        *,
        present: Mapping[str, Tensor],
        positions: Tensor,
        record: Recorder = NOTHING,
    ) -> FusedStreams:
        """Fuse the streams.

        Args:
            streams: (batch, utterances, hidden) by stream.
            present: (batch, utterances) bool by stream.
            positions: (batch, utterances) int, with padding last.
            record: stores the weights as "receiver.sender".
        """
        normed = {name: norm(streams[name]) for name, norm in self.norms.items()}
        fused = {}
        for name, states in streams.items():
            hidden = self.streams[name](
                states, normed, name, present=present, positions=positions, record=record.within(f"{name}.")
            )
            fused[name] = hidden.masked_fill(~present[name][..., None], 0.0)
        return FusedStreams(fused, present)


class Reliability(nn.Module):
    """Estimated reliability of a stream in each utterance: sigmoid(W LN(x)) in (0, 1)."""

    def __init__(self, config: ReDiFuConfig):
        """Build for one stream."""
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size)
        self.estimate = nn.Linear(config.hidden_size, 1)

    def forward(self, states: Tensor) -> Tensor:
        """Return (batch, utterances, 1) from (batch, utterances, hidden)."""
        return self.estimate(self.norm(states)).sigmoid()


class TextDiffusionFusion(GradientCheckpointingLayer):
    """Diffuses audio and visual into the text stream, weighted by their reliability.

    Z <- (1 - beta) (r_t S_tt Z + r_a S_ta Z_a + r_v S_tv Z_v) / (r_t + r_a + r_v) + beta Z_0, K times from
    Z = Z_0, the text. S_tt is self-attention of the text, S_ta and S_tv are attention from the text to values
    computed from Z_a and Z_v, beta is a learned number per head, and r is the reliability of each stream in
    the receiving utterance. The result goes through the gated MLP of `mutual_attention`. An utterance
    without text starts from a learned vector; the audio and visual streams are returned unchanged.
    """

    def __init__(self, config: ReDiFuConfig):
        """Build the attentions from text to each stream."""
        super().__init__()
        size = config.hidden_size
        self.config = config
        self.heads = config.fusion_num_attention_heads or config.num_attention_heads
        self.scale = (size // self.heads) ** -0.5
        others = [name for name in config.modalities if name != "text"]
        self.missing_text = nn.Parameter(torch.zeros(size))
        self.norms = nn.ModuleDict({name: nn.LayerNorm(size) for name in config.modalities})
        self.query = nn.Linear(size, size, bias=False)
        self.keys = nn.ModuleDict({name: nn.Linear(size, size, bias=False) for name in config.modalities})
        self.values = nn.ModuleDict({name: nn.Linear(size, size, bias=False) for name in others})
        self.reliabilities = nn.ModuleDict({name: Reliability(config) for name in others})
        self.restart = nn.Parameter(torch.zeros(self.heads))
        self.feed_forward = GatedFeedForward(config)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise beta to 0.5 and the vector for missing text to small random numbers."""
        nn.init.zeros_(self.restart)
        nn.init.normal_(self.missing_text, std=0.02)

    def forward(
        self,
        streams: Mapping[str, Tensor],
        *,
        present: Mapping[str, Tensor],
        positions: Tensor,
        record: Recorder = NOTHING,
    ) -> FusedStreams:
        """Fuse the streams; the arguments are those of `MutualAttentionFusion.forward`.

        The recorded self-attention weights of the text are from the last step.
        """
        text = streams["text"].where(present["text"][..., None], self.missing_text.to(streams["text"].dtype))
        normed = {name: norm(text if name == "text" else streams[name]) for name, norm in self.norms.items()}
        query = self.query(normed["text"])
        keys = {name: key(normed[name]) for name, key in self.keys.items()}
        attend_stream = partial(
            attend,
            query,
            positions=positions,
            config=self.config,
            num_heads=self.heads,
            scale=self.scale,
            record=record.within("text."),
        )
        trust = self._reliability(streams, present)
        received = torch.zeros_like(text)
        for name, value in self.values.items():
            values = value(normed[name]).masked_fill(~present[name][..., None], 0.0)
            attended, _ = attend_stream(keys[name], values, present=present[name], name=name)
            received = received + trust[name] * attended
        total = torch.stack(list(trust.values())).sum(dim=0)
        scale = total.where(total > 0, 1.0)
        # One number per head, repeated for its features.
        restart = self.restart.sigmoid().repeat_interleave(text.shape[-1] // self.heads)
        state = text
        for _ in range(self.config.diffusion_steps):
            attended, _ = attend_stream(keys["text"], state, present=present["text"], name="text")
            mixed = (trust["text"] * attended + received) / scale
            state = (1 - restart) * mixed + restart * text
        anything = torch.stack(list(present.values())).any(dim=0)
        fused = self.feed_forward(text, state).masked_fill(~anything[..., None], 0.0)
        nothing = torch.zeros_like(trust["text"])
        return FusedStreams(
            streams={**streams, "text": fused},
            present={**present, "text": anything},
            reliability=torch.cat([trust.get(name, nothing) for name in MODALITIES], dim=-1),
        )

    def _reliability(self, streams: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return (batch, utterances, 1) by stream: 1 for text, estimated for others, 0 where missing."""
        trust = {"text": present["text"][..., None].to(streams["text"].dtype)}
        rated = self.reliabilities.items()
        return trust | {name: rate(streams[name]) * present[name][..., None] for name, rate in rated}


class ConcatFusion(nn.Module):
    """No exchange between the streams; the head reads their concatenation."""

    def forward(
        self, streams: Mapping[str, Tensor], *, present: Mapping[str, Tensor], **where: Any
    ) -> FusedStreams:
        """Return the streams unchanged; the arguments are those of the other fusions."""
        return FusedStreams(dict(streams), present)


def build_fusion(config: ReDiFuConfig) -> nn.Module:
    """Build the fusion for `config.fusion`."""
    if config.fusion == "concat":
        return ConcatFusion()
    return TextDiffusionFusion(config) if config.fusion == "text_diffusion" else MutualAttentionFusion(config)
