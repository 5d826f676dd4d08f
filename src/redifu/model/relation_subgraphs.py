"""Relation subgraphs built from speakers and positions, as dense ids or lists of edges.

Source: arXiv 2603.25752, the relation subgraphs. Dense ids are (utterances, utterances). Edges are equivalent
and take memory linear in the dialogue; their nodes are the streams that an utterance has.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SELF, SAME_SPEAKER_EARLIER, SAME_SPEAKER_LATER, OTHER_SPEAKER_LATER, OTHER_SPEAKER_EARLIER = range(1, 6)
NUM_RELATIONS = 6  # 0 means not related
KINDS = NUM_RELATIONS - 1


def speaker_relation_ids(
    speaker_ids: Tensor, positions: Tensor, *, present: Tensor, window: int, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """Relate each utterance (row) to its neighbours (columns) of the same speaker and of other speakers.

    Args:
        speaker_ids: (batch, utterances) int; only equality counts.
        positions: (batch, utterances) int, positions in the dialogue.
        present: (batch, utterances) bool, the utterances to relate.
        window: maximum distance between related utterances.
        causal: whether an utterance is related only to earlier ones.

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


def cross_modal_relation_ids(
    speaker_ids: Tensor,
    positions: Tensor,
    *,
    present: Mapping[str, Tensor],
    window: int,
    causal: bool = False,
) -> Tensor:
    """Relate each utterance's stream (row) to other streams of itself and of its neighbours (columns).

    The nodes are the utterances of the first stream, then those of the next. Each ordered pair of streams has
    its own ids: those of `speaker_relation_ids`, with SELF for the same utterance, plus KINDS per pair.

    Args:
        speaker_ids: (batch, utterances) int; only equality counts.
        positions: (batch, utterances) int, positions in the dialogue.
        present: (batch, utterances) bool by stream.
        window: maximum distance between related utterances.
        causal: whether an utterance is related only to earlier ones.

    Returns:
        (batch, streams * utterances, streams * utterances) int64 ids; the diagonal is always SELF.
    """
    everyone = torch.ones_like(speaker_ids, dtype=torch.bool)
    intra, inter = speaker_relation_ids(
        speaker_ids, positions, present=everyone, window=window, causal=causal
    )
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


@dataclass
class RelationEdges:
    """The edges of one subgraph, sorted by receiver.

    Attributes:
        index: (2, edges) int64 node numbers of receivers and their neighbours.
        pointers: (nodes + 1,) int64, where each receiver's edges begin: the row pointers of a CSR matrix.
        ids: (edges,) int64 relation ids, never 0.
    """

    index: Tensor
    pointers: Tensor
    ids: Tensor


def speaker_edges(
    speaker_ids: Tensor, positions: Tensor, *, present: Tensor, window: int, causal: bool = False
) -> tuple[RelationEdges, RelationEdges]:
    """Relate utterances to their neighbours like `speaker_relation_ids`, but as lists of edges.

    Args:
        speaker_ids: (batch, utterances) int; only equality counts.
        positions: (batch, utterances) int, positions in the dialogue.
        present: (batch, utterances) bool; the nodes are the positions where it is True, row by row.
        window: maximum distance between related utterances.
        causal: whether an utterance is related only to earlier ones.

    Returns:
        The intra-speaker and the inter-speaker subgraph.
    """
    nodes = present.flatten().nonzero().squeeze(-1)
    kinds, same, neighbours = _neighbours(
        nodes, speaker_ids, positions, present.shape[1], window=window, causal=causal
    )
    intra, inter = kinds * (same | (kinds == SELF)), kinds * (~same | (kinds == SELF))
    return _edges(intra, neighbours), _edges(inter, neighbours)


def cross_modal_edges(
    speaker_ids: Tensor,
    positions: Tensor,
    *,
    present: Mapping[str, Tensor],
    window: int,
    causal: bool = False,
) -> RelationEdges:
    """Relate the streams of utterances like `cross_modal_relation_ids`, but as a list of edges.

    Args:
        speaker_ids: (batch, utterances) int; only equality counts.
        positions: (batch, utterances) int, positions in the dialogue.
        present: (batch, utterances) bool by stream; the nodes are the positions where the first is True, row
            by row, then those of the next.
        window: maximum distance between related utterances.
        causal: whether an utterance is related only to earlier ones.
    """
    masks = torch.stack([mask.flatten() for mask in present.values()])
    anything = masks.any(dim=0)
    utterances = anything.nonzero().squeeze(-1)
    kinds, _, neighbours = _neighbours(
        utterances, speaker_ids, positions, speaker_ids.shape[1], window=window, causal=causal
    )
    here = masks[:, utterances]
    numbers = (here.flatten().cumsum(0) - 1).view_as(here)
    streams = len(masks)
    pair = torch.arange(1, streams * (streams - 1) + 1, device=kinds.device)
    between = torch.zeros(streams, streams, dtype=torch.long, device=kinds.device)
    between[~torch.eye(streams, dtype=torch.bool, device=kinds.device)] = pair
    # (receiver's stream, utterance, neighbour's stream, neighbour): neighbours are in numeric order, as a CSR
    # matrix requires. The last step keeps only present receivers.
    apart = between[:, None, :, None]
    ids = kinds[None, :, None, :] + KINDS * apart
    joined = ((apart > 0) | (kinds == SELF)[None, :, None, :]) & (kinds > 0)[None, :, None, :]
    ids = ids * (joined & here[:, neighbours].transpose(0, 1)[None])
    senders = numbers[:, neighbours].transpose(0, 1)[None].expand_as(ids)
    return _edges(ids[here].flatten(1), senders[here].flatten(1))


def _neighbours(
    nodes: Tensor, speaker_ids: Tensor, positions: Tensor, length: int, *, window: int, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Relate nodes, indices into the flattened batch, to the nearest other nodes.

    Returns:
        The kind of relation (0 for none), whether the speaker is the same, and the neighbour's index in
        `nodes`, each (nodes, 2 window + 1), or (nodes, window + 1) in a causal graph.
    """
    # A window wider than the dialogue has no effect.
    reach = min(window, length)
    offsets = torch.arange(-reach, (0 if causal else reach) + 1, device=nodes.device)
    neighbours = torch.arange(len(nodes), device=nodes.device)[:, None] + offsets
    inside = (neighbours >= 0) & (neighbours < len(nodes))
    neighbours = neighbours.clamp(0, max(len(nodes) - 1, 0))
    dialogue, place = nodes // length, positions.flatten()[nodes]
    speaker = speaker_ids.flatten()[nodes]
    near = (dialogue[neighbours] == dialogue[:, None]) & (
        (place[neighbours] - place[:, None]).abs() <= window
    )
    same = speaker[neighbours] == speaker[:, None]
    earlier = torch.where(same, SAME_SPEAKER_EARLIER, OTHER_SPEAKER_EARLIER)
    later = torch.where(same, SAME_SPEAKER_LATER, OTHER_SPEAKER_LATER)
    kinds = torch.where(offsets < 0, earlier, later).masked_fill(offsets == 0, SELF)
    return kinds * (inside & near), same, neighbours


def _edges(ids: Tensor, neighbours: Tensor) -> RelationEdges:
    """Keep the candidates, (nodes, candidates), with nonzero ids."""
    kept = ids > 0
    pointers = F.pad(kept.sum(dim=1).cumsum(0), (1, 0))
    index = torch.stack([kept.nonzero()[:, 0], neighbours[kept]])
    return RelationEdges(index, pointers, ids[kept])
