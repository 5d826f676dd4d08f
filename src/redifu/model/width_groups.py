"""Encodes rows of similar width together, to reduce padding and bound memory."""

from collections.abc import Callable

import torch
from torch import Tensor


# Compiling this would recompile for each number and length of rows; `encode` is still compiled.
@torch.compiler.disable(recursive=False)
def encode_by_width(
    widths: Tensor, most: int, encode: Callable[[Tensor, int], Tensor], *, same_width: bool = False
) -> Tensor:
    """Encode rows of similar width together, (rows, hidden); `encode` takes row indices and the width."""
    order = widths.argsort(stable=True)
    ascending = widths[order].tolist()
    chunks = _chunks(ascending, most, same_width=same_width)
    return torch.cat([encode(order[chunk], ascending[chunk][-1]) for chunk in chunks])[order.argsort()]


def _chunks(ascending_widths: list[int], most: int, *, same_width: bool) -> list[slice]:
    """Split ascending widths into slices whose padded size is at most `most`, optionally of equal widths."""
    slices, start = [], 0
    for index, width in enumerate(ascending_widths):
        too_large = (index + 1 - start) * width > most
        if index > start and (too_large or (same_width and width > ascending_widths[start])):
            slices.append(slice(start, index))
            start = index
    return [*slices, slice(start, len(ascending_widths))]
