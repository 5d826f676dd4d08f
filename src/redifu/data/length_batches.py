"""Batches of conversations of similar length."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

# Batches that are sorted by length together: enough for little padding, few enough for a random order.
BATCHES_SORTED_TOGETHER = 32


class LengthGroupedBatchSampler(Sampler[list[int]]):
    """Yields batches of dialogue indices, grouped by similar length, in random order.

    Every index appears once per epoch; only the last batch may be smaller.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, seed: int = 0):
        """Build the sampler.

        Args:
            lengths: number of utterances in each dialogue.
            batch_size: dialogues per batch.
            seed: determines the order, together with the epoch.

        Raises:
            ValueError: there is no dialogue, or the batch size is below 1.
        """
        if not len(lengths) or batch_size < 1:
            raise ValueError(
                f"expected dialogues and batch_size >= 1, got {len(lengths)} dialogues and {batch_size}"
            )
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0, which determines the order."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of the epoch."""
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(len(self.lengths))
        together = self.batch_size * BATCHES_SORTED_TOGETHER
        for start in range(0, len(order), together):
            part = order[start : start + together]
            order[start : start + together] = part[np.argsort(self.lengths[part], kind="stable")]
        starts = range(0, len(order), self.batch_size)
        batches = [order[start : start + self.batch_size].tolist() for start in starts]
        full = len(self.lengths) // self.batch_size
        yield from (batches[index] for index in generator.permutation(full))
        yield from batches[full:]
