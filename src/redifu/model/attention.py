"""Masked multi-head attention, shared by all parts of the model."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .configuration_redifu import ReDiFuConfig
from .dropout import dropout
from .recorder import NOTHING, Recorder

# Number of utterances that windowed attention processes at a time.
BLOCK = 64


def split_heads(states: Tensor, num_heads: int) -> Tensor:
    """Reshape (batch, utterances, hidden) to (batch, heads, utterances, hidden / heads)."""
    return states.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def visible_keys(present: Tensor, *, causal: bool) -> Tensor:
    """Return which utterances each utterance may attend to.

    Args:
        present: (batch, utterances) bool, the utterances that have the attended stream.
        causal: whether an utterance may attend only to itself and earlier ones.

    Returns:
        (batch, utterances or 1, utterances) bool, receivers by keys; with 1, all receivers share the row.
    """
    keys = present[:, None, :]
    length = present.shape[-1]
    return keys & torch.ones(length, length, dtype=torch.bool, device=keys.device).tril() if causal else keys


def masked_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    visible: Tensor,
    scale: float,
    dropout_probability: float = 0.0,
    implementation: str = "sdpa",
) -> tuple[Tensor, Tensor | None]:
    """Attend from every utterance to the ones it can see.

    Args:
        query: (batch, heads, utterances, head size).
        key: (batch, heads, utterances, head size).
        value: (batch, heads, utterances, head size), finite even where not visible.
        visible: (batch, utterances or 1, utterances) bool, see `visible_keys`.
        scale: factor on the query-key products.
        dropout_probability: probability of dropping an attention weight.
        implementation: "eager" or "sdpa".

    Returns:
        The attended values (batch, utterances, heads * head size), zero where no key is visible, and the
        attention weights (batch, heads, utterances, utterances) for "eager", None for "sdpa".
    """
    has_key = visible.any(dim=-1, keepdim=True)
    # A row without keys would give 0 / 0, also in the gradient: it attends everywhere and is zeroed below.
    looked_at = (visible | ~has_key)[:, None]
    weights = None
    # With dropout, sdpa has no fused CPU kernel, and its dropout mask is slow to draw.
    if implementation == "sdpa" and not (dropout_probability > 0 and query.device.type == "cpu"):
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=looked_at, dropout_p=dropout_probability, scale=scale
        )
    else:
        scores = (query * scale) @ key.transpose(-1, -2)
        weights = scores.masked_fill(~looked_at, float("-inf")).softmax(dim=-1)
        attended = dropout(weights, dropout_probability, training=True) @ value
    attended = attended.transpose(1, 2).flatten(2)
    if weights is not None:
        weights = weights * has_key[:, None]
    return attended * has_key, weights


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    present: Tensor,
    positions: Tensor,
    config: ReDiFuConfig,
    num_heads: int,
    scale: float,
    dropout_probability: float = 0.0,
    record: Recorder = NOTHING,
    name: str = "",
) -> tuple[Tensor, Tensor]:
    """Attend between the utterances of each dialogue, within `config.causal` and `config.attention_window`.

    With a window, utterances are processed in blocks, so time and memory grow linearly with the dialogue.

    Args:
        query: (batch, utterances, hidden).
        key: (batch, utterances, hidden).
        value: (batch, utterances, hidden), finite even where not present.
        present: (batch, utterances) bool, the utterances that may be attended to.
        positions: (batch, utterances) int, positions in the dialogue; padding comes last.
        config: sets visibility and the attention implementation.
        num_heads: number of heads that `hidden` is split into.
        scale: factor on the query-key products.
        dropout_probability: probability of dropping an attention weight.
        record: stores the weights, (batch, heads, utterances, utterances), which are then computed eagerly;
            with a window, none are stored.
        name: name of the weights in the record.

    Returns:
        The attended values (batch, utterances, hidden), zero where no key is visible, and whether any key is
        visible, (batch, utterances or 1, 1) bool.
    """
    wants_weights = record.attentions is not None and config.attention_window is None
    attend_visible = partial(
        masked_attention,
        scale=scale,
        dropout_probability=dropout_probability,
        implementation="eager" if wants_weights else config._attn_implementation,
    )
    window = config.attention_window
    if window is None:
        visible = visible_keys(present, causal=config.causal)
        heads = [split_heads(states, num_heads) for states in (query, key, value)]
        attended, weights = attend_visible(*heads, visible=visible)
        record.attention(name, weights)
        return attended, visible.any(dim=-1, keepdim=True)
    # Sorting by position, padding last, puts nearby utterances next to each other.
    length, place = present.shape[1], torch.arange(present.shape[1], device=present.device)
    # All padding has one position. Adding the index makes the keys unique: ONNX has no stable sort.
    order = (positions * length + place).argsort(dim=-1)
    heads = [split_heads(take_utterances(states, order), num_heads) for states in (query, key, value)]
    here = present.gather(1, order)
    # An exported graph cannot contain a loop whose length varies, so it uses a single block.
    whole = torch.compiler.is_exporting()
    starts, size = ([0], length) if whole else (range(0, length, BLOCK), BLOCK)
    blocks, reached = [], []
    for start in starts:
        own = slice(start, min(start + size, length))
        seen = slice(max(start - window, 0), own.stop + (0 if config.causal else window))
        distance = place[own, None] - place[None, seen]
        near = (distance.abs() <= window) & ((distance >= 0) | (not config.causal))
        visible = here[:, None, seen] & near
        attended, _ = attend_visible(
            heads[0][:, :, own], heads[1][:, :, seen], heads[2][:, :, seen], visible=visible
        )
        blocks.append(attended)
        reached.append(visible.any(dim=-1, keepdim=True))
    back = order.argsort(dim=-1)
    attended, any_seen = torch.cat(blocks, dim=1), torch.cat(reached, dim=1)
    return take_utterances(attended, back), any_seen.gather(1, back[..., None])


def neighbour_indices(present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the nearest present utterance before and after each utterance.

    Args:
        present: (batch, utterances) bool.

    Returns:
        `previous` and `following`, (batch, utterances) int64 indices that wrap around within the dialogue
        (the last precedes the first), and `inner`, (batch, utterances, 2) bool, False where they wrapped.
    """
    batch, length = present.shape
    index = torch.arange(length, device=present.device).expand_as(present)
    rank = present.long().cumsum(dim=-1)
    count = rank[:, -1:]
    # Slots 1, 2, ... hold the indices of the present utterances; absent ones share the last slot, which is
    # never read. Running maxima would do the same, but ONNX has none.
    places = index.new_full((batch, length + 2), -1)
    places = places.scatter(1, rank.where(present, length + 1), index)
    previous, following = places.gather(1, rank - present.long()), places.gather(1, rank + 1)
    inner = torch.stack([previous >= 0, rank < count], dim=-1)
    last, first = places.gather(1, count).clamp_min(0), places[:, 1:2].clamp_min(0)
    return torch.where(inner[..., 0], previous, last), torch.where(inner[..., 1], following, first), inner


def take_utterances(states: Tensor, index: Tensor) -> Tensor:
    """Gather utterance `index[b, i]` of dialogue b at (b, i): (batch, utterances, hidden) in and out."""
    batch, length = index.shape
    offset = torch.arange(batch, device=index.device)[:, None] * length
    return states.flatten(0, 1).index_select(0, (index + offset).flatten()).unflatten(0, (batch, length))
