"""The relation subgraphs of a conversation, for inspection and plots."""

from collections.abc import Mapping
from itertools import permutations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .accepted_inputs import has_content
from .configuration_redifu import ReDiFuConfig
from .relation_subgraphs import cross_modal_edges, speaker_edges


def conversation_graph(conversation: Mapping[str, Any], config: ReDiFuConfig) -> Any:
    """Return the relation subgraphs that a model with this configuration builds for a conversation.

    Args:
        conversation: a dict with "utterances", as in a conversation file.
        config: determines the subgraphs and their windows.

    Returns:
        A torch_geometric HeteroData. Each stream has nodes whose `turn` is the utterance's index; each
        subgraph ("intra_speaker", "inter_speaker" or "cross_modal") has edges from neighbour to receiver,
        with their relation ids as `edge_attr`.

    Raises:
        ImportError: torch-geometric is not installed.
    """
    try:  # imported late: it takes a second, and remote code must load without it
        from torch_geometric.data import HeteroData
    except ImportError:
        raise ImportError("relation_graph requires torch-geometric: pip install torch-geometric") from None
    utterances = conversation["utterances"]
    names = list(dict.fromkeys(utterance["speaker"] for utterance in utterances))
    speakers = torch.tensor([[names.index(utterance["speaker"]) for utterance in utterances]])
    positions = torch.arange(len(utterances))[None]
    options: dict[str, Any] = {"window": config.relation_window, "causal": config.causal}
    present = {name: _presence(utterances, name) for name in config.modalities}
    graph = HeteroData()
    for name, here in present.items():
        graph[name].turn = here[0].nonzero().squeeze(-1)
        graph[name].num_nodes = len(graph[name].turn)
        if name in config.relation_modalities:
            both = speaker_edges(speakers, positions, present=here, **options)
            for kind, edges in zip(("intra_speaker", "inter_speaker"), both, strict=True):
                graph[name, kind, name].edge_index = edges.index.flip(0)
                graph[name, kind, name].edge_attr = edges.ids
    if config.cross_modal_relations:
        edges = cross_modal_edges(speakers, positions, present=present, **options)
        ends = torch.tensor([graph[name].num_nodes for name in present]).cumsum(0)
        first = F.pad(ends[:-1], (1, 0))
        stream = torch.bucketize(edges.index, ends, right=True)
        for (receiver, to), (sender, source) in permutations(enumerate(present), 2):
            kept = (stream[0] == receiver) & (stream[1] == sender)
            inside = edges.index[:, kept] - torch.stack([first[receiver], first[sender]])[:, None]
            graph[source, "cross_modal", to].edge_index = inside.flip(0)
            graph[source, "cross_modal", to].edge_attr = edges.ids[kept]
    return graph


def _presence(utterances: list[dict[str, Any]], name: str) -> Tensor:
    keys = (f"{name}_features", {"visual": "video"}.get(name, name))
    return torch.tensor([[any(has_content(utterance, key) for key in keys) for utterance in utterances]])
