"""Utterance embeddings from the tokens of a text backbone."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel


def read_backbone_config(name_or_path: str, fields: Mapping[str, Any]) -> Any:
    """Read the configuration of a pretrained backbone, with some fields set otherwise.

    Raises:
        ValueError: a field is unknown to this kind of backbone.
    """
    config, unknown = AutoConfig.from_pretrained(name_or_path, return_unused_kwargs=True, **fields)
    if unknown:
        raise ValueError(f"text_config: {', '.join(unknown)} is unknown to {config.model_type}")
    config.name_or_path = ""  # a place on this machine is no part of the new checkpoint
    return config


def load_backbone_weights(backbone: nn.Module, name_or_path: str) -> None:
    """Load the weights of a pretrained backbone into one that was built of its configuration.

    Raises:
        ValueError: weights are missing, or of other shapes.
    """
    pretrained = AutoModel.from_pretrained(name_or_path, dtype=torch.float32, use_safetensors=True)
    try:
        found = backbone.load_state_dict(pretrained.state_dict(), strict=False)
    except RuntimeError as error:
        raise ValueError(f"text_config does not fit the weights of {name_or_path}: {error}") from None
    if found.missing_keys:
        raise ValueError(f"{name_or_path} lacks weights: {', '.join(found.missing_keys)}")


def mean_pooling(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real tokens: (texts, tokens, hidden) and (texts, tokens) bool to (texts, hidden)."""
    weights = mask[..., None].to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)


def embed_texts(backbone: nn.Module, input_ids: Tensor, mask: Tensor) -> Tensor:
    """Embed texts by masked mean pooling of the backbone's last hidden states.

    Args:
        backbone: a model that takes input_ids and attention_mask and returns last_hidden_state.
        input_ids: (texts, tokens) int.
        mask: (texts, tokens) bool, True for real tokens.

    Returns:
        (texts, hidden).
    """
    states = backbone(input_ids=input_ids, attention_mask=mask.long()).last_hidden_state
    return mean_pooling(states, mask)


def embed_by_length(
    embed: Callable[[Tensor, Tensor], Tensor], input_ids: Tensor, mask: Tensor, *, chunk_tokens: int
) -> Tensor:
    """Embed texts of similar length together, so that little padding is computed and memory stays bounded.

    Args:
        embed: turns input_ids and mask of some texts into their embeddings, (texts, hidden).
        input_ids: (texts, tokens) int.
        mask: (texts, tokens) bool, True for real tokens.
        chunk_tokens: at most so many tokens, padding included, are encoded at once (a longer text alone).

    Returns:
        (texts, hidden).
    """
    # The width of a text is the place of its last real token: only trailing padding is cut.
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    widths = (mask * places).amax(dim=1).clamp_min(1)
    order = widths.argsort(stable=True)
    pooled = []
    for chunk in _chunks(widths[order].tolist(), chunk_tokens):
        rows = order[chunk]
        width = int(widths[rows[-1]])
        pooled.append(embed(input_ids[rows, :width], mask[rows, :width]))
    return torch.cat(pooled)[order.argsort()]


def _chunks(ascending_widths: list[int], chunk_tokens: int) -> list[slice]:
    """Cut ascending widths into slices whose padded size stays within `chunk_tokens`."""
    slices, start = [], 0
    for index, width in enumerate(ascending_widths):
        if index > start and (index + 1 - start) * width > chunk_tokens:
            slices.append(slice(start, index))
            start = index
    return [*slices, slice(start, len(ascending_widths))]
