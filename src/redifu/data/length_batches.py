"""Batches of conversations of similar length."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

# Batches sorted by length together: enough to pad little, few enough to keep the order random.
BATCHES_SORTED_TOGETHER = 32


class LengthGroupedBatchSampler(Sampler[list[int]]):
    """Yields lists of indices of dialogues of similar length, in random order, every index once an epoch.

    All but the last list are full.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, seed: int = 0):
        """Build the sampler.

        Args:
            lengths: utterances of each dialogue.
            batch_size: dialogues of a batch.
            seed: with the epoch, fixes the order.

        Raises:
            ValueError: no dialogue, or a batch size below 1.
        """
        if not len(lengths) or batch_size < 1:
            raise ValueError(
                "expected at least one dialogue and a batch size of at least 1, "
                f"got {len(lengths)} dialogues and batch size {batch_size}"
            )
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch, counted from 0."""
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
