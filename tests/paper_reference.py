"""Slow literal reference of what the paper claims beyond its released code, one dialogue at a time.

Each function reads the weights of a module of `redifu.model` and computes its equation utterance by utterance
and head by head, from tensors (utterances, hidden) in which `present` (utterances,) marks what is there.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

MODALITIES = ("text", "audio", "visual")


def attend(
    query: Tensor, keys: Tensor, values: Tensor, seen: Sequence[int], *, scale: float
) -> tuple[Tensor, dict[int, Tensor]]:
    """One query over the keys of the utterances `seen`: the attended value and the weights."""
    if not seen:
        return torch.zeros_like(values[0]), {}
    exponentials = {index: (query @ keys[index] * scale).exp() for index in seen}
    total = torch.stack(list(exponentials.values())).sum()
    weights = {index: value / total for index, value in exponentials.items()}
    return torch.stack([weights[index] * values[index] for index in seen]).sum(0), weights


def seen_by(receiver: int, present: Tensor, *, causal: bool) -> list[int]:
    """The utterances that an utterance attends to."""
    return [
        index for index, here in enumerate(present.tolist()) if here and (index <= receiver or not causal)
    ]


def heads_of(states: Tensor, num_heads: int) -> list[Tensor]:
    """Cut (utterances, hidden) into heads, (utterances, hidden / heads) each."""
    return list(states.chunk(num_heads, dim=-1))


def head_by_head(num_heads: int, *states: Tensor) -> list[tuple[Tensor, ...]]:
    """The same head of several states, for each head."""
    return list(zip(*(heads_of(each, num_heads) for each in states), strict=True))


def dual_map_attention(module: Any, states: Tensor, present: Tensor) -> Tensor:
    """(A1 - lambda A2) v of Ye et al. 2024, each head normed by its root mean square."""
    config, size = module.config, states.shape[-1] // module.config.num_attention_heads
    (q1, k1), (q2, k2) = (projection(states).chunk(2, dim=-1) for projection in module.queries_keys)
    (lq1, lq2), (lk1, lk2) = module.lambda_vectors
    initial = 0.8 - 0.6 * math.exp(0.0)
    strength = (lq1 @ lk1).exp() - (lq2 @ lk2).exp() + initial
    joined = []
    for head in head_by_head(config.num_attention_heads, q1, k1, q2, k2, module.value(states)):
        rows = []
        for receiver in range(len(states)):
            seen = seen_by(receiver, present, causal=config.causal)
            first, second = (
                attend(head[place][receiver], head[place + 1], head[4], seen, scale=size**-0.5)[0]
                for place in (0, 2)
            )
            row = first - strength * second
            root_mean_square = (row.square().mean() + 1e-5).sqrt()
            rows.append((1 - initial) * row / root_mean_square * module.head_norm.weight)
        joined.append(torch.stack(rows))
    return module.output(torch.cat(joined, dim=-1))


def causal_shifted_attention(module: Any, states: Tensor, present: Tensor) -> Tensor:
    """lambda (A1 - A2) v over causal maps, A2 over the keys of utterances before; the first has its own."""
    config = module.config
    query, key, value = module.qkv(states).chunk(3, dim=-1)
    places = seen_by(len(states), present, causal=True)
    earlier = key.clone()
    for place, before in zip(places[1:], places, strict=False):
        earlier[place] = key[before]
    joined = []
    for q, k, e, v in head_by_head(config.num_attention_heads, query, key, earlier, value):
        rows = []
        for receiver in range(len(states)):
            seen = seen_by(receiver, present, causal=True)
            first, second = (
                attend(q[receiver], keys, v, seen, scale=config.hidden_size**-0.5)[0] for keys in (k, e)
            )
            rows.append(first - second)
        joined.append(torch.stack(rows))
    return module.output(module.strength * torch.cat(joined, dim=-1))


def cross_modal_ids(
    speakers: Sequence[int], present: Mapping[str, Tensor], *, window: int, causal: bool
) -> Tensor:
    """Relation ids of the nodes (stream, utterance), stream by stream."""
    names = list(present)
    pairs = [(receiver, sender) for receiver in names for sender in names if receiver != sender]
    nodes = [(name, index) for name in names for index in range(len(speakers))]
    ids = torch.zeros(len(nodes), len(nodes), dtype=torch.long)
    for row, (receiver, i) in enumerate(nodes):
        for column, (sender, j) in enumerate(nodes):
            if row == column:
                ids[row, column] = 1
            if receiver == sender or abs(i - j) > window or (causal and j > i):
                continue
            if not (present[receiver][i] and present[sender][j]):
                continue
            if i == j:
                kind = 1
            elif speakers[i] == speakers[j]:
                kind = 2 if j < i else 3
            else:
                kind = 5 if j < i else 4
            ids[row, column] = kind + 5 * (1 + pairs.index((receiver, sender)))
    return ids


def text_diffusion(
    module: Any, streams: Mapping[str, Tensor], present: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """The fused text (utterances, hidden) and the reliabilities (utterances, 3)."""
    config, num_heads = module.config, module.heads
    names = [name for name in MODALITIES if name in streams]
    length = len(streams["text"])
    start = torch.stack(
        [streams["text"][i] if present["text"][i] else module.missing_text for i in range(length)]
    )
    normed = {name: module.norms[name](start if name == "text" else streams[name]) for name in names}
    queries = heads_of(module.query(normed["text"]), num_heads)
    keys = {name: heads_of(module.keys[name](normed[name]), num_heads) for name in names}
    values = {
        name: heads_of(module.values[name](normed[name]), num_heads) for name in names if name != "text"
    }
    reliability = torch.zeros(length, 3)
    for name in names:
        for i in range(length):
            if present[name][i]:
                reliability[i, MODALITIES.index(name)] = _trust(module, name, i, streams)
    state = heads_of(start, num_heads)
    first = heads_of(start, num_heads)
    for _ in range(config.diffusion_steps):
        after = []
        for head in range(num_heads):
            beta, rows = module.restart[head].sigmoid(), []
            for i in range(length):
                mixed = torch.zeros_like(first[head][i])
                for name in names:
                    source = state[head] if name == "text" else values[name][head]
                    seen = seen_by(i, present[name], causal=config.causal)
                    scale = (config.hidden_size // num_heads) ** -0.5
                    attended, _ = attend(queries[head][i], keys[name][head], source, seen, scale=scale)
                    mixed = mixed + reliability[i, MODALITIES.index(name)] * attended
                total = reliability[i].sum()
                mixed = mixed / total if total > 0 else mixed
                rows.append((1 - beta) * mixed + beta * first[head][i])
            after.append(torch.stack(rows))
        state = after
    return module.feed_forward(start, torch.cat(state, dim=-1)), reliability


def _trust(module: Any, name: str, index: int, streams: Mapping[str, Tensor]) -> Tensor:
    if name == "text":
        return torch.tensor(1.0)
    estimate = module.reliabilities[name]
    return estimate.estimate(estimate.norm(streams[name][index])).sigmoid()[0]
