import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader

from redifu.data.collator import ConversationCollator, LengthGroupedBatchSampler

LENGTHS = np.random.default_rng(0).integers(1, 34, 1038).tolist()


class LengthProcessor:
    """Stands in for a processor: gives out how many utterances came."""

    def __call__(self, conversations: list[dict], return_tensors: str) -> dict[str, torch.Tensor]:
        assert isinstance(conversations, list)
        assert return_tensors == "pt"
        return {"lengths": torch.tensor([len(each["utterances"]) for each in conversations])}


def padding(batches: list[list[int]]) -> float:
    """The share of a padded batch that is not real."""
    places = sum(max(LENGTHS[index] for index in batch) * len(batch) for batch in batches)
    return 1 - sum(LENGTHS) / places


def test_the_collator_hands_the_batch_to_the_processor() -> None:
    conversations = [{"utterances": [{}] * length} for length in (3, 1)]
    assert ConversationCollator(LengthProcessor())(conversations)["lengths"].tolist() == [3, 1]
    assert ConversationCollator(LengthProcessor())(tuple(conversations))["lengths"].tolist() == [3, 1]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(
    ("count", "batch_size"), [(1038, 8), (1, 8), (8, 8), (9, 8), (5, 1), (300, 8), (256, 8), (257, 8)]
)
def test_every_index_comes_once_and_only_the_last_batch_is_short(
    count: int, batch_size: int, shuffle: bool
) -> None:
    sampler = LengthGroupedBatchSampler(LENGTHS[:count], batch_size=batch_size, seed=1, shuffle=shuffle)
    batches = list(sampler)
    assert sorted(index for batch in batches for index in batch) == list(range(count))
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}
    assert len(sampler) == len(batches)


def test_batches_hold_dialogues_of_similar_length() -> None:
    unsorted = [list(range(start, min(start + 8, 1038))) for start in range(0, 1038, 8)]
    assert padding(unsorted) > 0.4
    for shuffle in (True, False):
        batches = list(LengthGroupedBatchSampler(LENGTHS, batch_size=8, seed=0, shuffle=shuffle))
        assert padding(batches) < 0.1


def test_the_order_follows_from_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        sampler = LengthGroupedBatchSampler(LENGTHS, batch_size=8, seed=seed, shuffle=True)
        sampler.set_epoch(epoch)
        return list(sampler)

    orders = [order(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert orders == [order(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert all(one != other for i, one in enumerate(orders) for other in orders[:i])


def test_the_order_of_lengths_is_random_with_shuffle_and_falls_without() -> None:
    longest = [
        [max(LENGTHS[index] for index in batch) for batch in sampler]
        for sampler in (
            LengthGroupedBatchSampler(LENGTHS, batch_size=8, seed=0, shuffle=shuffle)
            for shuffle in (True, False)
        )
    ]
    assert abs(np.corrcoef(longest[0], np.arange(len(longest[0])))[0, 1]) < 0.3
    assert longest[1] == sorted(longest[1], reverse=True)


@pytest.mark.parametrize(("count", "batch_size"), [(1038, 8), (1024, 8), (1037, 8), (31, 8), (3, 8)])
@pytest.mark.parametrize("even_batches", [True, False])
def test_two_processes_share_the_batches(count: int, batch_size: int, even_batches: bool) -> None:
    conversations = [{"utterances": [{}] * length, "index": i} for i, length in enumerate(LENGTHS[:count])]

    def epoch_of(process: int, epoch: int) -> list[list[int]]:
        sampler = LengthGroupedBatchSampler(LENGTHS[:count], batch_size=batch_size, seed=0, shuffle=True)
        loader = DataLoader(
            conversations, batch_sampler=sampler, collate_fn=lambda batch: [each["index"] for each in batch]
        )
        prepared = prepare_data_loader(
            loader, num_processes=2, process_index=process, even_batches=even_batches
        )
        prepared.set_epoch(epoch)
        return list(prepared)

    first, second = epoch_of(0, 3), epoch_of(1, 3)
    seen = [index for batch in first + second for index in batch]
    assert set(seen) == set(range(count))
    if even_batches:
        assert [len(batch) for batch in first] == [len(batch) for batch in second]
    else:
        assert len(seen) == count
    assert epoch_of(0, 3) == first
    assert count <= 2 * batch_size or epoch_of(0, 4) != first, "set_epoch of the loader reaches the sampler"


@pytest.mark.parametrize(("lengths", "batch_size"), [([], 8), ([3], 0), ([3], -1)])
def test_nothing_to_batch_is_refused(lengths: list[int], batch_size: int) -> None:
    with pytest.raises(ValueError, match="expected dialogues and a batch size from 1"):
        LengthGroupedBatchSampler(lengths, batch_size=batch_size)
