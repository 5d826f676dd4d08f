"""Relations of who speaks when, and attention over them.

Source: arXiv 2603.25752, the relation subgraphs; the equations are those of the released model.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_redifu import ReDiFuConfig
from .dropout import dropout

SELF, SAME_SPEAKER_EARLIER, SAME_SPEAKER_LATER, OTHER_SPEAKER_LATER, OTHER_SPEAKER_EARLIER = range(1, 6)
NUM_RELATIONS = 6  # 0 means not related
KINDS = NUM_RELATIONS - 1


def speaker_relations(
    speaker_ids: Tensor, positions: Tensor, *, present: Tensor, window: int, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """Relate each utterance (row) to its neighbours (columns) of the same speaker and of other speakers.

    Args:
        speaker_ids: (batch, utterances) int; only equality counts.
        positions: (batch, utterances) int, places within the dialogue.
        present: (batch, utterances) bool, the utterances that take part.
        window: greatest distance of related utterances.
        causal: whether an utterance is related to earlier ones only.

    Returns:
        Intra-speaker and inter-speaker relation ids, (batch, utterances, utterances) int64. The diagonal is
        always SELF, so that no row is empty.
    """
    distance = positions[:, :, None] - positions[:, None, :]
    same = speaker_ids[:, :, None] == speaker_ids[:, None, :]
    related = (distance.abs() <= window) & present[:, :, None] & present[:, None, :]
    earlier, later = related & (distance > 0), related & (distance < 0) & (not causal)
    intra = SAME_SPEAKER_EARLIER * (earlier & same) + SAME_SPEAKER_LATER * (later & same)
    inter = OTHER_SPEAKER_EARLIER * (earlier & ~same) + OTHER_SPEAKER_LATER * (later & ~same)
    itself = torch.eye(distance.shape[-1], dtype=torch.bool, device=distance.device)
    return intra.masked_fill(itself, SELF), inter.masked_fill(itself, SELF)


def cross_modal_relations(
    speaker_ids: Tensor,
    positions: Tensor,
    *,
    present: Mapping[str, Tensor],
    window: int,
    causal: bool = False,
) -> Tensor:
    """Relate each utterance's stream (row) to the other streams of its neighbours and of itself (columns).

    The nodes are the utterances of the first stream, then those of the next. Each ordered pair of streams has
    ids of its own: the kinds of `speaker_relations`, SELF for the same utterance, shifted by KINDS a pair.

    Args:
        speaker_ids: (batch, utterances) int; only equality counts.
        positions: (batch, utterances) int, places within the dialogue.
        present: (batch, utterances) bool by stream.
        window: greatest distance of related utterances.
        causal: whether an utterance is related to earlier ones only.

    Returns:
        (batch, streams * utterances, streams * utterances) int64 ids; the diagonal is always SELF.
    """
    everyone = torch.ones_like(speaker_ids, dtype=torch.bool)
    intra, inter = speaker_relations(speaker_ids, positions, present=everyone, window=window, causal=causal)
    kinds = torch.maximum(intra, inter)
    itself = SELF * torch.eye(kinds.shape[-1], dtype=torch.long, device=kinds.device).expand_as(kinds)
    rows, pair = [], 0
    for receiver in present:
        row = []
        for sender in present:
            pair += sender != receiver
            both = present[receiver][:, :, None] & present[sender][:, None, :] & (kinds > 0)
            row.append(itself if sender == receiver else (kinds + KINDS * pair) * both)
        rows.append(torch.cat(row, dim=-1))
    return torch.cat(rows, dim=-2)


class RelationalAttention(nn.Module):
    """Graph attention: e_ij = LeakyReLU(a1·h_i + a2·h_j + a3·E[R_ij]), softmax over related j, LN of the sum.

    The dot product of `a` with [h_i | h_j | E] is a sum of three, so no pair is ever materialised.
    """

    def __init__(self, input_size: int, config: ReDiFuConfig):
        """Build a layer from `input_size` to `config.hidden_size`."""
        super().__init__()
        self.dropout = config.relation_dropout
        size = config.hidden_size
        self.weight = nn.Parameter(torch.empty(input_size, size))
        self.attention = nn.Parameter(torch.empty(2 * size + config.relation_embedding_size, 1))
        self.norm = nn.LayerNorm(size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as the released model does."""
        nn.init.xavier_uniform_(self.weight, gain=1.414)
        nn.init.xavier_uniform_(self.attention, gain=1.414)

    def forward(self, states: Tensor, relations: Tensor, *, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Return (batch, utterances, hidden) and the weights (batch, utterances, utterances).

        Args:
            states: (batch, utterances, input size).
            relations: (batch, utterances, utterances) ids, 0 for not related.
            embedding: (relations, relation embedding size).
        """
        hidden = states @ self.weight
        size = hidden.shape[-1]
        receiver, neighbour = (hidden @ self.attention[: 2 * size].view(2, size).T).unbind(-1)
        relation = F.embedding(relations, embedding @ self.attention[2 * size :]).squeeze(-1)
        scores = F.leaky_relu(receiver[:, :, None] + neighbour[:, None, :] + relation, 0.2)
        weights = scores.masked_fill(relations == 0, float("-inf")).softmax(dim=-1)
        return self.norm(dropout(weights, self.dropout, self.training) @ hidden), weights


class RelationGraph(GradientCheckpointingLayer):
    """One relation subgraph: two layers side by side, a third on both, a projection, a residual, a norm."""

    def __init__(self, config: ReDiFuConfig):
        """Build the three layers of one kind of relation."""
        super().__init__()
        size = config.hidden_size
        self.dropout = config.relation_dropout
        self.inputs = nn.ModuleList([RelationalAttention(size, config) for _ in range(2)])
        self.joint = RelationalAttention(2 * size, config)
        self.projection = nn.Linear(size, size)
        self.norm = nn.LayerNorm(size)

    def forward(self, states: Tensor, relations: Tensor, *, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Return (batch, utterances, hidden) and weights of its layers (batch, 3, utterances, utterances)."""
        dropped = dropout(states, self.dropout, self.training)
        layers = [layer(dropped, relations, embedding=embedding) for layer in self.inputs]
        joined = torch.cat([F.gelu(hidden) for hidden, _ in layers], dim=-1)
        joined = dropout(joined, self.dropout, self.training)
        hidden, weights = self.joint(joined, relations, embedding=embedding)
        output = self.norm(self.projection(F.gelu(hidden)) + states)
        return output, torch.stack([*(layer_weights for _, layer_weights in layers), weights], dim=1)


class SpeakerRelations(nn.Module):
    """The inter-speaker subgraph and, on its result, the intra-speaker subgraph of one stream."""

    def __init__(self, config: ReDiFuConfig):
        """Build both subgraphs; they share one embedding of relations."""
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(NUM_RELATIONS, config.relation_embedding_size)
        self.inter_speaker = RelationGraph(config)
        self.intra_speaker = RelationGraph(config)

    def forward(
        self, states: Tensor, speaker_ids: Tensor, *, positions: Tensor, present: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Pass a stream through both subgraphs.

        Args:
            states: (batch, utterances, hidden).
            speaker_ids: (batch, utterances) int.
            positions: (batch, utterances) int.
            present: (batch, utterances) bool.

        Returns:
            By subgraph, in order: states (batch, utterances, hidden), zero where not present, and weights.
        """
        intra, inter = speaker_relations(
            speaker_ids,
            positions,
            present=present,
            window=self.config.relation_window,
            causal=self.config.causal,
        )
        hidden_states, attentions = {}, {}
        for name, graph, relations in (
            ("inter_speaker", self.inter_speaker, inter),
            ("intra_speaker", self.intra_speaker, intra),
        ):
            states, attentions[name] = graph(states, relations, embedding=self.embedding.weight)
            states = hidden_states[name] = states.masked_fill(~present[..., None], 0.0)
        return hidden_states, attentions


class CrossModalRelations(nn.Module):
    """The subgraph that joins the streams of an utterance to each other and to its neighbours' other ones."""

    def __init__(self, config: ReDiFuConfig):
        """Build the subgraph; every ordered pair of streams has relations of its own."""
        super().__init__()
        self.config = config
        streams = len(config.modalities)
        num_relations = NUM_RELATIONS + KINDS * streams * (streams - 1)
        self.embedding = nn.Embedding(num_relations, config.relation_embedding_size)
        self.graph = RelationGraph(config)

    def forward(
        self,
        streams: Mapping[str, Tensor],
        speaker_ids: Tensor,
        *,
        positions: Tensor,
        present: Mapping[str, Tensor],
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Pass all streams through the subgraph.

        Args:
            streams: (batch, utterances, hidden) by stream.
            speaker_ids: (batch, utterances) int.
            positions: (batch, utterances) int.
            present: (batch, utterances) bool by stream.

        Returns:
            The streams, zero where missing, and the weights of the layers, (batch, 3, nodes, nodes), of the
            nodes of `cross_modal_relations`.
        """
        here = {name: present[name] for name in streams}
        relations = cross_modal_relations(
            speaker_ids,
            positions,
            present=here,
            window=self.config.relation_window,
            causal=self.config.causal,
        )
        nodes = torch.cat(list(streams.values()), dim=1)
        states, weights = self.graph(nodes, relations, embedding=self.embedding.weight)
        states = states.masked_fill(~torch.cat(list(here.values()), dim=1)[..., None], 0.0)
        return dict(zip(streams, states.chunk(len(streams), dim=1), strict=True)), weights
