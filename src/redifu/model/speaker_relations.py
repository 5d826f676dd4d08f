"""Attention over the relations of who speaks when.

Source: arXiv 2603.25752, the relation subgraphs; the equations are those of the released model.
"""

import warnings
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_redifu import ReDiFuConfig
from .dropout import dropout
from .relation_subgraphs import (
    KINDS,
    NUM_RELATIONS,
    RelationEdges,
    cross_modal_edges,
    cross_modal_relations,
    speaker_edges,
    speaker_relations,
)

# Longer dialogues are related by edges where the configuration leaves the choice: there edges are faster.
SPARSE_ABOVE = 512


def choose_sparse(config: ReDiFuConfig, length: int) -> bool:
    """Say whether dialogues padded to `length` utterances are related by edges and not by dense ids."""
    if config.graph_implementation == "auto":
        return not torch.compiler.is_compiling() and length > SPARSE_ABOVE
    return config.graph_implementation == "sparse"


def weigh_neighbours(weights: Tensor, edges: RelationEdges, states: Tensor) -> Tensor:
    """Sum the neighbours of each node, (nodes, hidden), by the weight of each edge: a CSR product."""
    size = len(edges.pointers) - 1
    with warnings.catch_warnings(), torch.autocast(states.device.type, enabled=False):
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        matrix = torch.sparse_csr_tensor(
            edges.pointers, edges.index[1], weights.float(), (size, size), check_invariants=False
        )
        return (matrix @ states.float()).to(states.dtype)


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

    def forward(
        self, states: Tensor, relations: Tensor | RelationEdges, *, embedding: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return (batch, utterances, hidden) and the weights (batch, utterances, utterances).

        Args:
            states: (batch, utterances, input size).
            relations: (batch, utterances, utterances) ids, 0 for not related; or edges between nodes, and
                then states in and out are (nodes, size) and no weights are returned.
            embedding: (relations, relation embedding size).
        """
        hidden = states @ self.weight
        size = hidden.shape[-1]
        receiver, neighbour = (hidden @ self.attention[: 2 * size].view(2, size).T).unbind(-1)
        relation = embedding @ self.attention[2 * size :]
        if isinstance(relations, RelationEdges):
            try:  # only here: it takes a second to import, and short dialogues do without
                from torch_geometric.utils import softmax
            except ImportError:
                raise ImportError(
                    "relations as edges need torch-geometric; graph_implementation 'dense' does without"
                ) from None
            receivers, neighbours = relations.index
            scores = receiver[receivers] + neighbour[neighbours] + relation[relations.ids, 0]
            weights = softmax(F.leaky_relu(scores, 0.2), ptr=relations.pointers)
            weights = dropout(weights, self.dropout, self.training)
            return self.norm(weigh_neighbours(weights, relations, hidden)), None
        scores = receiver[:, :, None] + neighbour[:, None, :] + F.embedding(relations, relation).squeeze(-1)
        scores = F.leaky_relu(scores, 0.2)
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

    def forward(
        self, states: Tensor, relations: Tensor | RelationEdges, *, embedding: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return (batch, utterances, hidden) and weights of its layers (batch, 3, utterances, utterances).

        Of edges, states are (nodes, hidden) and there are no weights; see `RelationalAttention.forward`.
        """
        dropped = dropout(states, self.dropout, self.training)
        layers = [layer(dropped, relations, embedding=embedding) for layer in self.inputs]
        joined = torch.cat([F.gelu(hidden) for hidden, _ in layers], dim=-1)
        joined = dropout(joined, self.dropout, self.training)
        hidden, weights = self.joint(joined, relations, embedding=embedding)
        output = self.norm(self.projection(F.gelu(hidden)) + states)
        all_weights = [*(layer_weights for _, layer_weights in layers), weights]
        dense = [each for each in all_weights if each is not None]
        return output, torch.stack(dense, dim=1) if dense else None


def relate(
    graph: RelationGraph,
    states: Tensor,
    relations: Tensor | RelationEdges,
    present: Tensor,
    embedding: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """Pass states through a subgraph; edges join only the nodes that are present.

    Args:
        graph: the subgraph's layers.
        states: (batch, utterances, hidden).
        relations: dense ids, or edges between the present places of the flattened batch.
        present: (batch, utterances) bool.
        embedding: (relations, relation embedding size).

    Returns:
        States (batch, utterances, hidden), zero where not present, and the weights of dense relations.
    """
    if not isinstance(relations, RelationEdges):
        states, weights = graph(states, relations, embedding=embedding)
        return states.masked_fill(~present[..., None], 0.0), weights
    places = present.flatten().nonzero().squeeze(-1)
    flat = states.flatten(0, 1)
    if not len(places):
        return torch.zeros_like(states), None
    related, _ = graph(flat[places], relations, embedding=embedding)
    return related.new_zeros(flat.shape).index_copy(0, places, related).view_as(states), None


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
    ) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
        """Pass a stream through both subgraphs.

        Args:
            states: (batch, utterances, hidden).
            speaker_ids: (batch, utterances) int.
            positions: (batch, utterances) int.
            present: (batch, utterances) bool.

        Returns:
            By subgraph, in order: states (batch, utterances, hidden), zero where not present, and weights,
            None where the subgraph is a list of edges.
        """
        sparse = choose_sparse(self.config, states.shape[1])
        intra, inter = (speaker_edges if sparse else speaker_relations)(
            speaker_ids,
            positions,
            present=present,
            window=self.config.relation_window,
            causal=self.config.causal,
        )
        hidden_states: dict[str, Tensor] = {}
        attentions: dict[str, Tensor | None] = {}
        for name, graph, relations in (
            ("inter_speaker", self.inter_speaker, inter),
            ("intra_speaker", self.intra_speaker, intra),
        ):
            states, attentions[name] = relate(graph, states, relations, present, self.embedding.weight)
            hidden_states[name] = states
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
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Pass all streams through the subgraph.

        Args:
            streams: (batch, utterances, hidden) by stream.
            speaker_ids: (batch, utterances) int.
            positions: (batch, utterances) int.
            present: (batch, utterances) bool by stream.

        Returns:
            The streams, zero where missing, and the weights of the layers, (batch, 3, nodes, nodes), of the
            nodes of `cross_modal_relations`; None where the subgraph is a list of edges.
        """
        here = {name: present[name] for name in streams}
        sparse = choose_sparse(self.config, speaker_ids.shape[1])
        relations = (cross_modal_edges if sparse else cross_modal_relations)(
            speaker_ids,
            positions,
            present=here,
            window=self.config.relation_window,
            causal=self.config.causal,
        )
        # Edges number their nodes stream by stream, dense ids dialogue by dialogue.
        dim = 0 if sparse else 1
        states, mask = (torch.cat(list(each.values()), dim=dim) for each in (streams, here))
        states, weights = relate(self.graph, states, relations, mask, self.embedding.weight)
        # Not chunk(): an export would hold for one number of utterances.
        parts = states.unflatten(dim, (len(streams), -1)).unbind(dim)
        return dict(zip(streams, parts, strict=True)), weights
