"""Attention over the relation subgraphs.

Source: arXiv 2603.25752, the relation subgraphs; the equations are those of the released model.
"""

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_redifu import ReDiFuConfig
from .dropout import dropout
from .recorder import NOTHING, Recorder
from .relation_subgraphs import (
    KINDS,
    NUM_RELATIONS,
    RelationEdges,
    cross_modal_edges,
    cross_modal_relation_ids,
    speaker_edges,
    speaker_relation_ids,
)


def weigh_edges(scores: Tensor, edges: RelationEdges) -> Tensor:
    """Apply softmax to scores (edges,) over the edges of each receiver."""
    # torch-geometric's softmax would add a second of import time and a dependency of remote code.
    receivers, size = edges.index[0], len(edges.pointers) - 1
    largest = scores.new_full((size,), -torch.inf).scatter_reduce(0, receivers, scores.detach(), "amax")
    weights = (scores - largest[receivers]).exp()
    return weights / weights.new_zeros(size).index_add(0, receivers, weights)[receivers]


def weigh_neighbours(weights: Tensor, edges: RelationEdges, states: Tensor) -> Tensor:
    """Sum the neighbours of each node, weighted by edge: a CSR product of shape (nodes, hidden)."""
    size = len(edges.pointers) - 1
    with warnings.catch_warnings(), torch.autocast(states.device.type, enabled=False):
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        matrix = torch.sparse_csr_tensor(
            edges.pointers, edges.index[1], weights.float(), (size, size), check_invariants=False
        )
        return (matrix @ states.float()).to(states.dtype)


class RelationalAttention(nn.Module):
    """Graph attention: e_ij = LeakyReLU(a1·h_i + a2·h_j + a3·E[R_ij]), softmax over related j, LN of the sum.

    The dot product of `a` with [h_i | h_j | E] is a sum of three terms, so pairs are never materialised.
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

    def forward(
        self, states: Tensor, relations: Tensor | RelationEdges, *, embedding: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return (batch, utterances, hidden) and the weights (batch, utterances, utterances).

        Args:
            states: (batch, utterances, input size).
            relations: (batch, utterances, utterances) ids, 0 for unrelated; or edges between nodes, in which
                case states are (nodes, size) and no weights are returned.
            embedding: (relations, relation embedding size).
        """
        hidden = states @ self.weight
        size = hidden.shape[-1]
        receiver, neighbour = (hidden @ self.attention[: 2 * size].view(2, size).T).unbind(-1)
        relation = embedding @ self.attention[2 * size :]
        if isinstance(relations, RelationEdges):
            receivers, neighbours = relations.index
            scores = receiver[receivers] + neighbour[neighbours] + relation[relations.ids, 0]
            weights = weigh_edges(F.leaky_relu(scores, 0.2), relations)
            weights = dropout(weights, self.dropout, self.training)
            return self.norm(weigh_neighbours(weights, relations, hidden)), None
        scores = receiver[:, :, None] + neighbour[:, None, :] + F.embedding(relations, relation).squeeze(-1)
        scores = F.leaky_relu(scores, 0.2)
        weights = scores.masked_fill(relations == 0, float("-inf")).softmax(dim=-1)
        return self.norm(dropout(weights, self.dropout, self.training) @ hidden), weights


class RelationGraph(GradientCheckpointingLayer):
    """One relation subgraph: two parallel layers, a third on their output, projection, residual and norm."""

    def __init__(self, config: ReDiFuConfig):
        """Build the layers of one subgraph."""
        super().__init__()
        size = config.hidden_size
        self.dropout = config.relation_dropout
        self.inputs = nn.ModuleList([RelationalAttention(size, config) for _ in range(2)])
        self.joint = RelationalAttention(2 * size, config)
        self.projection = nn.Linear(size, size)
        self.norm = nn.LayerNorm(size)

    def forward(
        self,
        states: Tensor,
        relations: Tensor | RelationEdges,
        *,
        embedding: Tensor,
        record: Recorder = NOTHING,
        name: str = "",
    ) -> Tensor:
        """Return states of the same shape; the arguments are those of `RelationalAttention.forward`.

        If relations are dense, `record` stores the weights of the three layers as `name`, (batch, 3,
        utterances, utterances).
        """
        dropped = dropout(states, self.dropout, self.training)
        layers = [layer(dropped, relations, embedding=embedding) for layer in self.inputs]
        joined = torch.cat([F.gelu(hidden) for hidden, _ in layers], dim=-1)
        joined = dropout(joined, self.dropout, self.training)
        layers.append(self.joint(joined, relations, embedding=embedding))
        if record.attentions is not None and not isinstance(relations, RelationEdges):
            record.attention(name, torch.stack([weights for _, weights in layers], dim=1))
        return self.norm(self.projection(F.gelu(layers[-1][0])) + states)


class Subgraphs(nn.Module):
    """Base class of the subgraphs within and across streams."""

    # Above this length, edges are faster than dense ids; results are equal. Tests and benchmarks change it.
    _edges_above = 512

    def __init__(self, config: ReDiFuConfig, num_relations: int):
        """Build the relation embedding."""
        super().__init__()
        self.reach: dict[str, Any] = {"window": config.relation_window, "causal": config.causal}
        self.embedding = nn.Embedding(num_relations, config.relation_embedding_size)

    def takes_edges(self, length: int) -> bool:
        """Return whether dialogues padded to `length` utterances use edges instead of dense ids."""
        return not torch.compiler.is_compiling() and length > self._edges_above

    def relate(
        self, graph: RelationGraph, states: Tensor, relations: Any, present: Tensor, **kept: Any
    ) -> Tensor:
        """Pass states through a subgraph, (batch, utterances, hidden), zero where not present.

        Args:
            graph: the subgraph's layers.
            states: (batch, utterances, hidden).
            relations: dense ids, or edges between the present positions of the flattened batch.
            present: (batch, utterances) bool.
            kept: `record`, and the `name` of the weights in it.
        """
        attend = partial(graph, embedding=self.embedding.weight, **kept)
        if not isinstance(relations, RelationEdges):
            return attend(states, relations).masked_fill(~present[..., None], 0.0)
        places = present.flatten().nonzero().squeeze(-1)
        flat = states.flatten(0, 1)
        if not len(places):
            return torch.zeros_like(states)
        related = attend(flat[places], relations)
        return related.new_zeros(flat.shape).index_copy(0, places, related).view_as(states)


class SpeakerSubgraphs(Subgraphs):
    """The inter-speaker subgraph of one stream, followed by its intra-speaker subgraph."""

    def __init__(self, config: ReDiFuConfig):
        """Build both subgraphs; they share one embedding of relations."""
        super().__init__(config, NUM_RELATIONS)
        self.inter_speaker = RelationGraph(config)
        self.intra_speaker = RelationGraph(config)

    def forward(
        self,
        states: Tensor,
        speaker_ids: Tensor,
        *,
        positions: Tensor,
        present: Tensor,
        record: Recorder = NOTHING,
    ) -> Tensor:
        """Pass a stream through both subgraphs.

        Args:
            states: (batch, utterances, hidden).
            speaker_ids: (batch, utterances) int.
            positions: (batch, utterances) int.
            present: (batch, utterances) bool.
            record: stores states and weights by subgraph.

        Returns:
            (batch, utterances, hidden), zero where not present.
        """
        related = speaker_edges if self.takes_edges(states.shape[1]) else speaker_relation_ids
        intra, inter = related(speaker_ids, positions, present=present, **self.reach)
        for name, graph, relations in (
            ("inter_speaker", self.inter_speaker, inter),
            ("intra_speaker", self.intra_speaker, intra),
        ):
            states = self.relate(graph, states, relations, present, record=record, name=name)
            record.state(name, states)
        return states


class CrossModalSubgraph(Subgraphs):
    """The subgraph that connects each stream of an utterance to other streams of it and its neighbours."""

    def __init__(self, config: ReDiFuConfig):
        """Build the subgraph; every ordered pair of streams has its own relations."""
        streams = len(config.modalities)
        super().__init__(config, NUM_RELATIONS + KINDS * streams * (streams - 1))
        self.graph = RelationGraph(config)

    def forward(
        self,
        streams: Mapping[str, Tensor],
        speaker_ids: Tensor,
        *,
        positions: Tensor,
        present: Mapping[str, Tensor],
        record: Recorder = NOTHING,
    ) -> dict[str, Tensor]:
        """Pass all streams through the subgraph; like `SpeakerSubgraphs.forward`, with values by stream.

        The recorded weights are (batch, 3, nodes, nodes); see `cross_modal_relation_ids` for the nodes.
        """
        edges = self.takes_edges(speaker_ids.shape[1])
        related = cross_modal_edges if edges else cross_modal_relation_ids
        relations = related(speaker_ids, positions, present=present, **self.reach)
        # Edges number the nodes stream by stream; dense ids, dialogue by dialogue.
        dim = 0 if edges else 1
        states, mask = (torch.cat([each[name] for name in streams], dim=dim) for each in (streams, present))
        states = self.relate(self.graph, states, relations, mask, record=record, name="cross_modal")
        # chunk() would fix the number of utterances in an export.
        parts = states.unflatten(dim, (len(streams), -1)).unbind(dim)
        return {
            name: record.state(f"{name}_cross_modal", part) for name, part in zip(streams, parts, strict=True)
        }
