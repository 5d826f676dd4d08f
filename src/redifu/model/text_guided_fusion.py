"""Fusion of the streams.

Source: arXiv 2603.25752, the fusion; `mutual_attention` is what the released model computes.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import masked_attention, split_heads
from .configuration_redifu import ReDiFuConfig
from .dropout import dropout


class CrossModalAttention(nn.Module):
    """Attention from one stream to others, all through the receiving stream's own matrices."""

    def __init__(self, config: ReDiFuConfig):
        """Build the attention of one receiving stream."""
        super().__init__()
        self.config = config
        self.heads = config.fusion_num_attention_heads or config.num_attention_heads
        self.scale = (config.hidden_size // self.heads) ** -0.5
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, states: Tensor, others: Mapping[str, Tensor], *, present: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor | None]]:
        """Return the sum of the attentions to the other streams and the weights by stream.

        Self-attention, which the released code computes and throws away, is not computed, and padded
        utterances, which it attends, are masked (tests: batch invariance).

        Args:
            states: (batch, utterances, hidden) of the receiving stream, normed.
            others: the same of the other streams, by name.
            present: (batch, utterances) bool by stream.
        """
        size = self.config.hidden_size
        query = split_heads(F.linear(states, self.qkv.weight[:size]), self.heads)
        total, reached = torch.zeros_like(states), states.new_zeros(())
        attentions: dict[str, Tensor | None] = {}
        for name, other in others.items():
            key, value = F.linear(other, self.qkv.weight[size:]).chunk(2, dim=-1)
            attended, attentions[name] = masked_attention(
                query,
                split_heads(key, self.heads),
                split_heads(value, self.heads),
                key_mask=present[name],
                scale=self.scale,
                implementation=self.config._attn_implementation,
            )
            total = total + attended
            reached = reached + present[name].any(-1)[:, None, None].to(states.dtype)
        # The output layer is linear: its bias counts once for each stream that could be attended.
        return F.linear(total, self.output.weight) + reached * self.output.bias, attentions


class GatedFeedForward(nn.Module):
    """x + MLP(g x + (1 - g) y) with g = sigmoid(W [x | y]); gate and residual take the un-normed x."""

    def __init__(self, config: ReDiFuConfig):
        """Build the gate and the four-layer MLP of one stream."""
        super().__init__()
        size = config.hidden_size
        self.dropout = config.dropout
        self.gate = nn.Linear(2 * size, size)
        sizes = [size, 4 * size, 4 * size, 4 * size, size]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in zip(sizes, sizes[1:], strict=False))

    def forward(self, states: Tensor, received: Tensor) -> Tensor:
        """Return (batch, utterances, hidden) from two of the same shape."""
        gate = self.gate(torch.cat([states, received], dim=-1)).sigmoid()
        hidden = received + gate * (states - received)
        for layer in self.layers[:-1]:
            hidden = dropout(F.gelu(layer(hidden)), self.dropout, self.training)
        return states + dropout(self.layers[-1](hidden), self.dropout, self.training)


class MutualAttentionStream(GradientCheckpointingLayer):
    """What one stream receives from the others, and what it makes of it."""

    def __init__(self, config: ReDiFuConfig):
        """Build the parts of one stream."""
        super().__init__()
        self.attention = CrossModalAttention(config) if len(config.modalities) > 1 else None
        self.feed_forward = GatedFeedForward(config)

    def forward(
        self, states: Tensor, normed: Mapping[str, Tensor], name: str, *, present: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor | None]]:
        """Return the fused stream (batch, utterances, hidden) and the attention weights by other stream."""
        if self.attention is None:
            return self.feed_forward(states, torch.zeros_like(states)), {}
        others = {other: value for other, value in normed.items() if other != name}
        received, attentions = self.attention(normed[name], others, present=present)
        return self.feed_forward(states, received), attentions


class MutualAttentionFusion(nn.Module):
    """Every stream attends every other one, symmetrically, in one step."""

    def __init__(self, config: ReDiFuConfig):
        """Build norms and attention for each stream of `config.modalities`."""
        super().__init__()
        normed = config.modalities if len(config.modalities) > 1 else ()
        self.norms = nn.ModuleDict({name: nn.LayerNorm(config.hidden_size) for name in normed})
        self.streams = nn.ModuleDict({name: MutualAttentionStream(config) for name in config.modalities})

    def forward(
        self, streams: Mapping[str, Tensor], *, present: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
        """Fuse the streams.

        Args:
            streams: (batch, utterances, hidden) by stream.
            present: (batch, utterances) bool by stream.

        Returns:
            The fused streams, zero where a stream is missing, and attention weights under "receiver.sender".
        """
        normed = {name: norm(streams[name]) for name, norm in self.norms.items()}
        fused: dict[str, Tensor] = {}
        attentions: dict[str, Tensor | None] = {}
        for name, states in streams.items():
            hidden, weights = self.streams[name](states, normed, name, present=present)
            fused[name] = hidden.masked_fill(~present[name][..., None], 0.0)
            attentions |= {f"{name}.{other}": weight for other, weight in weights.items()}
        return fused, attentions


class ConcatFusion(nn.Module):
    """No exchange between the streams: they meet in the head, which reads them side by side."""

    def forward(
        self, streams: Mapping[str, Tensor], *, present: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
        """Return the streams as they are, and no attention."""
        return dict(streams), {}


def build_fusion(config: ReDiFuConfig) -> nn.Module:
    """Build the fusion that `config.fusion` names."""
    return ConcatFusion() if config.fusion == "concat" else MutualAttentionFusion(config)
