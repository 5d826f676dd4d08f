"""Slow literal reference of the released ReDiFu, the oracle of the tests and of the benchmark.

It takes every step of arXiv 2603.25752 as the authors' model does: relation pairs [h_i | h_j | E] at full
width, two attention maps with rolled keys, the fusion's self-attention computed and thrown away. It knows
no padding: the dialogues of a batch are equally long. Parameters carry the released names. Sections count
the steps: 1 projections, 2 speaker relations, 3 relational attention, 4 differential encoder, 5 fusion, 6
heads, 7 loss.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

MODALITIES = ("text", "audio", "visual")
RELATION_SIZE = 10
NUM_RELATIONS = 6


@dataclass(frozen=True, kw_only=True)
class ReleasedRecipe:
    """What differs between the two released recipes, besides sizes."""

    rotary_positions: bool
    gelu_factor: float
    encoded_share: float
    fusion_heads_divisor: int
    residual_before_heads: bool
    modality_weights: tuple[float, float, float]
    dropout: float


RELEASED_RECIPES = {
    "iemocap": ReleasedRecipe(
        rotary_positions=True,
        gelu_factor=0.5,
        encoded_share=0.5,
        fusion_heads_divisor=2,
        residual_before_heads=True,
        modality_weights=(1.0, 1.0, 0.4),
        dropout=0.5,
    ),
    "meld": ReleasedRecipe(
        rotary_positions=False,
        gelu_factor=0.66,
        encoded_share=1.0,
        fusion_heads_divisor=1,
        residual_before_heads=False,
        modality_weights=(3.0, 1.0, 0.3),
        dropout=0.6,
    ),
}


class ReferenceOutput(NamedTuple):
    """Logits (batch, utterances, num_labels) and the named hidden states (batch, utterances, hidden_size)."""

    logits: Tensor
    text_logits: Tensor
    audio_logits: Tensor
    visual_logits: Tensor
    hidden: dict[str, Tensor]


def speaker_relations(speaker_ids: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Intra- and inter-speaker relation ids, each (batch, receivers, neighbours) (section 2)."""
    same = speaker_ids[:, :, None] == speaker_ids[:, None, :]
    steps_back = torch.arange(speaker_ids.shape[1])[:, None] - torch.arange(speaker_ids.shape[1])
    intra = torch.where(steps_back > 0, 2, 3).where(same, 0)
    inter = torch.where(steps_back > 0, 5, 4).where(~same, 0)
    intra, inter = (ids.where(steps_back.abs() <= window, 0) for ids in (intra, inter))
    return intra.where(steps_back != 0, 1), inter.where(steps_back != 0, 1)


def sinusoid_positions(length: int, size: int) -> Tensor:
    """Sines on even places and cosines on odd ones, base 10000, (length, size)."""
    angles = _position_angles(length, size)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def rotate_by_position(x: Tensor) -> Tensor:
    """Turn each pair (even, odd) of x (batch, utterances, size) by its position, base 10000."""
    angles = _position_angles(x.shape[-2], x.shape[-1])
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = (even * angles.cos() - odd * angles.sin(), even * angles.sin() + odd * angles.cos())
    return torch.stack(turned, dim=-1).flatten(-2)


def _position_angles(length: int, size: int) -> Tensor:
    frequencies = 10000.0 ** (-torch.arange(0, size, 2) / size)
    return torch.arange(length)[:, None] * frequencies


class RelationalAttention(nn.Module):
    """One layer over relation pairs at full width (section 3)."""

    def __init__(self, input_size: int, output_size: int, relation_embedding: nn.Embedding):
        super().__init__()
        self.W = nn.Parameter(torch.empty(input_size, output_size))
        self.a = nn.Parameter(torch.empty(2 * output_size + RELATION_SIZE, 1))
        nn.init.xavier_uniform_(self.W, gain=1.414)
        nn.init.xavier_uniform_(self.a, gain=1.414)
        self.relation_embedding = relation_embedding
        self.layer_norm = nn.LayerNorm(output_size)

    def forward(self, x: Tensor, relations: Tensor) -> Tensor:
        h = x @ self.W
        length = h.shape[1]
        receivers = h.unsqueeze(2).expand(-1, -1, length, -1)
        neighbours = h.unsqueeze(1).expand(-1, length, -1, -1)
        pairs = torch.cat((receivers, neighbours, self.relation_embedding(relations)), dim=-1)
        scores = functional.leaky_relu((pairs @ self.a).squeeze(-1), 0.2)
        weights = scores.masked_fill(relations == 0, -torch.inf).softmax(-1)
        return self.layer_norm(functional.dropout(weights, 0.2, self.training) @ h)


class RelationalGraph(nn.Module):
    """Two layers side by side, a third over both, a linear map and a residual (section 3)."""

    def __init__(self, hidden_size: int, relation_embedding: nn.Embedding):
        super().__init__()
        self.attentions = nn.ModuleList(
            RelationalAttention(hidden_size, hidden_size, relation_embedding) for _ in range(2)
        )
        self.out_att = RelationalAttention(2 * hidden_size, hidden_size, relation_embedding)
        self.fc = nn.Linear(hidden_size, hidden_size)
        self.layer_norm = nn.LayerNorm(hidden_size)

    def forward(self, x: Tensor, relations: Tensor) -> Tensor:
        dropped = functional.dropout(x, 0.2, self.training)
        both = torch.cat([functional.gelu(attend(dropped, relations)) for attend in self.attentions], dim=-1)
        both = functional.dropout(both, 0.2, self.training)
        return self.layer_norm(self.fc(functional.gelu(self.out_att(both, relations))) + x)


class DeltaNet(nn.Module):
    """x plus its gated local change over time (section 4, delta)."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.conv = nn.Conv1d(hidden_size, hidden_size, kernel_size=3, padding=1, groups=hidden_size)
        self.norm = nn.LayerNorm(hidden_size)
        self.gate = nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.Sigmoid())
        self.alpha = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        change = self.norm(self.conv(x.transpose(1, 2)).transpose(1, 2))
        return x + self.alpha * self.gate(x) * change


class ContextGate(nn.Module):
    """One number an utterance that mixes the delta and the positioned stream (section 4, context gate)."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.norm = nn.LayerNorm(2 * hidden_size)
        self.w = nn.Sequential(nn.Linear(2 * hidden_size, hidden_size), nn.Tanh(), nn.Linear(hidden_size, 1))

    def forward(self, positioned: Tensor, delta: Tensor) -> Tensor:
        gate = self.w(self.norm(torch.cat((positioned, delta), dim=-1))).sigmoid()
        return gate * delta + (1 - gate) * positioned


def attention_map(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """Softmax over the last axis of scaled scores, (batch, heads, utterances, utterances)."""
    return (queries @ keys.transpose(-1, -2) * scale).softmax(-1)


def split_heads(projected: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys, values (batch, heads, utterances, head size) of (batch, utterances, 3 D)."""
    queries, keys, values = projected.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)
    return queries, keys, values


def join_heads(x: Tensor) -> Tensor:
    """(batch, heads, utterances, head size) to (batch, utterances, D)."""
    return x.transpose(1, 2).flatten(-2)


class DifferentialAttention(nn.Module):
    """The difference of two maps with the same queries; the second has rolled keys (section 4)."""

    def __init__(self, hidden_size: int, num_heads: int, dropout: float):
        super().__init__()
        self.num_heads = num_heads
        self.scale = hidden_size**-0.5
        self.dropout = dropout
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)
        self.lambda_ = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = split_heads(self.qkv(x), self.num_heads)
        first = attention_map(queries, keys, self.scale)
        second = attention_map(queries, keys.roll(1, dims=-2), self.scale)
        difference = functional.dropout(first - second, self.dropout, self.training)
        return self.out(join_heads(self.lambda_ * (difference @ values)))


class FeedForward(nn.Module):
    """W2 gelu(W1 LN(h)) + h, with its own residual (section 4)."""

    def __init__(self, hidden_size: int, gelu_factor: float):
        super().__init__()
        self.gelu_factor = gelu_factor
        self.layer_norm = nn.LayerNorm(hidden_size, eps=1e-6)
        self.w_1 = nn.Linear(hidden_size, hidden_size)
        self.w_2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, h: Tensor) -> Tensor:
        inner = self.w_1(self.layer_norm(h))
        cubic = (2 / torch.pi) ** 0.5 * (inner + 0.044715 * inner**3)
        return self.w_2(self.gelu_factor * inner * (1 + cubic.tanh())) + h


class EncoderLayer(nn.Module):
    """Differential attention and feed-forward, each added and normalised (section 4)."""

    def __init__(self, hidden_size: int, num_heads: int, recipe: ReleasedRecipe):
        super().__init__()
        self.self_attn = DifferentialAttention(hidden_size, num_heads, recipe.dropout)
        self.norm1 = nn.LayerNorm(hidden_size, eps=1e-6)
        self.feed_forward = FeedForward(hidden_size, recipe.gelu_factor)
        self.norm2 = nn.LayerNorm(hidden_size, eps=1e-6)

    def forward(self, h: Tensor) -> Tensor:
        h = self.norm1(h + self.self_attn(h))
        return self.norm2(h + self.feed_forward(h))


class DifferentialEncoder(nn.Module):
    """Denoising of one stream, audio or visual (section 4)."""

    def __init__(self, hidden_size: int, num_heads: int, recipe: ReleasedRecipe):
        super().__init__()
        self.recipe = recipe
        self.delta_net = DeltaNet(hidden_size)
        self.context_gate = ContextGate(hidden_size)
        self.pre_norm = nn.LayerNorm(hidden_size, eps=1e-6)
        self.internal_transformer = nn.ModuleList([EncoderLayer(hidden_size, num_heads, recipe)])

    def forward(self, x: Tensor, speakers: Tensor) -> Tensor:
        rotary = self.recipe.rotary_positions
        positioned = rotate_by_position(x) if rotary else x + sinusoid_positions(x.shape[-2], x.shape[-1])
        positioned = functional.dropout(positioned + speakers, self.recipe.dropout, self.training)
        h = self.pre_norm(self.context_gate(positioned, self.delta_net(x)) + positioned)
        for layer in self.internal_transformer:
            h = layer(h)
        return positioned + self.recipe.encoded_share * h


class FilterGate(nn.Module):
    """x times the sigmoid of a linear map of x (section 4, last line)."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class FusionAttention(nn.Module):
    """Self-attention where one stream is given, else cross-attention to the other one (section 5)."""

    def __init__(self, hidden_size: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.scale = (hidden_size // num_heads) ** -0.5
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, own: Tensor, other: Tensor | None = None) -> Tensor:
        queries, keys, values = split_heads(self.qkv(own), self.num_heads)
        if other is not None:
            _, keys, values = split_heads(self.qkv(other), self.num_heads)
        return self.proj(join_heads(attention_map(queries, keys, self.scale) @ values))


class FusionGate(nn.Module):
    """g own + (1 - g) context with g = sigmoid(Linear [own | context]) (section 5)."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(2 * hidden_size, hidden_size), nn.Sigmoid())

    def forward(self, own: Tensor, context: Tensor) -> Tensor:
        gate = self.gate(torch.cat((own, context), dim=-1))
        return gate * own + (1 - gate) * context


class FusionMLP(nn.Module):
    """Four linear maps, GELU after each but the last, dropout after each (section 5)."""

    def __init__(self, hidden_size: int, dropout: float):
        super().__init__()
        wide = 4 * hidden_size
        layers: list[nn.Module] = []
        for size in (hidden_size, wide, wide):
            layers += [nn.Linear(size, wide), nn.GELU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(wide, hidden_size), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class MutualFormer(nn.Module):
    """Each stream attends to the two others; its self-attention is computed and thrown away (section 5)."""

    def __init__(self, hidden_size: int, num_heads: int, dropout: float):
        super().__init__()
        for stream in "tav":
            self.add_module(f"norm_{stream}", nn.LayerNorm(hidden_size))
            self.add_module(f"attn_{stream}", FusionAttention(hidden_size, num_heads))
            self.add_module(f"gate_{stream}", FusionGate(hidden_size))
            self.add_module(f"mlp_{stream}", FusionMLP(hidden_size, dropout))

    def forward(self, text: Tensor, audio: Tensor, visual: Tensor) -> list[Tensor]:
        streams = {"t": text, "a": audio, "v": visual}
        normed = {name: self.get_submodule(f"norm_{name}")(x) for name, x in streams.items()}
        fused = []
        for name, x in streams.items():
            attend = self.get_submodule(f"attn_{name}")
            attend(normed[name])
            context = sum(attend(normed[name], normed[other]) for other in streams if other != name)
            mixed = self.get_submodule(f"gate_{name}")(x, context)
            fused.append(x + self.get_submodule(f"mlp_{name}")(mixed))
        return fused


class ReleasedReference(nn.Module):
    """The whole released model (sections 1 to 6), started as torch starts its layers."""

    def __init__(
        self,
        recipe: str,
        *,
        hidden_size: int,
        num_heads: int,
        window: int,
        text_size: int,
        audio_size: int,
        visual_size: int,
        num_labels: int,
        num_speakers: int,
    ):
        super().__init__()
        self.recipe = RELEASED_RECIPES[recipe]
        self.window = window
        self.textf_input = nn.Linear(text_size, hidden_size)
        self.acouf_input = nn.Linear(audio_size, hidden_size)
        self.visuf_input = nn.Linear(visual_size, hidden_size)
        relation_embedding = nn.Embedding(NUM_RELATIONS, RELATION_SIZE)
        self.gatTer = RelationalGraph(hidden_size, relation_embedding)
        self.gatT = RelationalGraph(hidden_size, relation_embedding)
        self.speaker_embeddings = nn.Embedding(num_speakers + 1, hidden_size, padding_idx=num_speakers)
        self.a_a = DifferentialEncoder(hidden_size, num_heads, self.recipe)
        self.v_v = DifferentialEncoder(hidden_size, num_heads, self.recipe)
        self.agate = FilterGate(hidden_size)
        self.vgate = FilterGate(hidden_size)
        fusion_heads = num_heads // self.recipe.fusion_heads_divisor
        self.mutual_former = MutualFormer(hidden_size, fusion_heads, self.recipe.dropout)
        self.t_output_layer = self._head(hidden_size, num_labels)
        self.a_output_layer = self._head(hidden_size, num_labels)
        self.v_output_layer = self._head(hidden_size, num_labels)

    def _head(self, hidden_size: int, num_labels: int) -> nn.Sequential:
        activation = nn.LeakyReLU(0.01) if self.recipe.residual_before_heads else nn.ReLU()
        return nn.Sequential(activation, nn.Dropout(self.recipe.dropout), nn.Linear(hidden_size, num_labels))

    def forward(self, text: Tensor, audio: Tensor, visual: Tensor, speaker_ids: Tensor) -> ReferenceOutput:
        """Logits of features (batch, utterances, size) and speaker ids (batch, utterances)."""
        intra, inter = speaker_relations(speaker_ids, self.window)
        hidden = {"textf_input": self.textf_input(text)}
        hidden["gatTer"] = self.gatTer(hidden["textf_input"], inter)
        hidden["gatT"] = self.gatT(hidden["gatTer"], intra)
        speakers = self.speaker_embeddings(speaker_ids)
        hidden["a_a"] = self.a_a(self.acouf_input(audio), speakers)
        hidden["v_v"] = self.v_v(self.visuf_input(visual), speakers)
        hidden["agate"] = self.agate(hidden["a_a"])
        hidden["vgate"] = self.vgate(hidden["v_v"])
        streams = (hidden["gatT"], hidden["agate"], hidden["vgate"])
        fused = self.mutual_former(*streams)
        hidden |= dict(zip(("fused_t", "fused_a", "fused_v"), fused, strict=True))
        if self.recipe.residual_before_heads:
            fused = [after + before for after, before in zip(fused, streams, strict=True)]
        heads = (self.t_output_layer, self.a_output_layer, self.v_output_layer)
        logits = [head(x) for head, x in zip(heads, fused, strict=True)]
        total = sum(weight * x for weight, x in zip(self.recipe.modality_weights, logits, strict=True))
        return ReferenceOutput(total, *logits, hidden)


def released_loss(output: ReferenceOutput, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """CE(final) + sum of squared CE of each stream / 10 for labels (batch, utterances) (section 7)."""
    final, *streams = (
        functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), class_weights)
        for logits in output[:4]
    )
    return final + sum(loss**2 for loss in streams) / 10
