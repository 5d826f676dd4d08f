import numpy as np
import pytest

from redifu.data.length_batches import LengthGroupedBatchSampler

LENGTHS = np.random.default_rng(0).integers(1, 34, 1038).tolist()


def padding(batches: list[list[int]]) -> float:
    """The share of a padded batch that is not real."""
    places = sum(max(LENGTHS[index] for index in batch) * len(batch) for batch in batches)
    return 1 - sum(LENGTHS) / places


@pytest.mark.parametrize(
    ("count", "batch_size"), [(1038, 8), (1, 8), (8, 8), (9, 8), (5, 1), (300, 8), (256, 8), (257, 8)]
)
def test_every_index_comes_once_and_only_the_last_batch_is_short(count: int, batch_size: int) -> None:
    sampler = LengthGroupedBatchSampler(LENGTHS[:count], batch_size=batch_size, seed=1)
    batches = list(sampler)
    assert sorted(index for batch in batches for index in batch) == list(range(count))
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}
    assert len(sampler) == len(batches)


def test_batches_hold_dialogues_of_similar_length() -> None:
    unsorted = [list(range(start, min(start + 8, 1038))) for start in range(0, 1038, 8)]
    assert padding(unsorted) > 0.4
    assert padding(list(LengthGroupedBatchSampler(LENGTHS, batch_size=8, seed=0))) < 0.1


def test_the_order_follows_from_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        sampler = LengthGroupedBatchSampler(LENGTHS, batch_size=8, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    orders = [order(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert orders == [order(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert all(one != other for i, one in enumerate(orders) for other in orders[:i])


def test_the_order_of_lengths_is_random() -> None:
    batches = LengthGroupedBatchSampler(LENGTHS, batch_size=8, seed=0)
    longest = [max(LENGTHS[index] for index in batch) for batch in batches]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3


@pytest.mark.parametrize(("lengths", "batch_size"), [([], 8), ([3], 0), ([3], -1)])
def test_nothing_to_batch_is_refused(lengths: list[int], batch_size: int) -> None:
    with pytest.raises(ValueError, match="expected dialogues and batch_size >= 1"):
        LengthGroupedBatchSampler(lengths, batch_size=batch_size)
