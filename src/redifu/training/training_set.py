"""The dialogues of an epoch: split, with noise and hidden streams, and divided among processes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from redifu.conversation import MEDIA, Conversation
from redifu.data.stream_dropout import hide_sides, hide_streams

NOISY_SHARE = 0.5  # share of dialogues taken from the noisy copies, if there are any


def readable_keys(processor: Any) -> list[str]:
    """Return the utterance fields that a ReDiFuProcessor reads: text, precomputed features and media."""
    extractor = processor.feature_extractor
    keys = [*(f"{name}_features" for name in extractor.sizes), *(MEDIA[name] for name in extractor.backends)]
    return keys if processor.tokenizer is None else ["text", *keys]


class TrainingDialogues(Dataset):
    """Labelled dialogues, split to the length the processor allows; context around a piece has no labels.

    The key of an item is (index, counted); an item that is not counted has no labels. Noise and hidden
    streams depend only on seed, epoch and index, so they are the same for any number of processes and after
    a restart.
    """

    def __init__(
        self,
        conversations: Sequence[Conversation],
        *,
        processor: Any,
        modality_dropout: float,
        side_dropout: float = 0.0,
        seed: int,
        noisy: Sequence[Conversation] | None = None,
    ):
        """Split the conversations, and drop pieces with nothing to learn from.

        Args:
            conversations: the training data.
            processor: the model's processor.
            modality_dropout: probability of hiding each stream of an utterance.
            side_dropout: probability of hiding sound, and of hiding pictures, in a whole dialogue with texts.
            seed: random seed.
            noisy: noisy copies of the conversations, used for `NOISY_SHARE` of an epoch's dialogues.

        Raises:
            ValueError: `noisy` has different dialogues.
        """
        self.keys = readable_keys(processor)
        cut = [_cut(each, processor) for each in conversations]
        self.dialogues = [part for parts in cut for part in parts if self._teaches(part)]
        self.noisy = None
        if noisy is not None:
            _refuse_others(noisy, conversations)
            copies = [_cut(each, processor) for each in noisy]
            pairs = zip(chain.from_iterable(cut), chain.from_iterable(copies), strict=True)
            self.noisy = [copy for part, copy in pairs if self._teaches(part)]
        self.modality_dropout = modality_dropout
        self.side_dropout = side_dropout
        self.seed = seed
        self.epoch = 0

    @property
    def lengths(self) -> list[int]:
        """The number of utterances of each dialogue."""
        return [len(dialogue.utterances) for dialogue in self.dialogues]

    def __len__(self) -> int:
        """Return the number of dialogues."""
        return len(self.dialogues)

    def __getitem__(self, item: tuple[int, bool]) -> Conversation:
        """Return a dialogue of this epoch."""
        index, counted = item
        dialogue = self.dialogues[index]
        if self.noisy is not None:
            draw = np.random.default_rng((self.seed, self.epoch, index, 1)).random()
            dialogue = self.noisy[index] if draw < NOISY_SHARE else dialogue
        if self.side_dropout > 0:
            dialogue = hide_sides(
                dialogue,
                probability=self.side_dropout,
                generator=np.random.default_rng((self.seed, self.epoch, index, 2)),
            )
        if self.modality_dropout > 0:
            dialogue = hide_streams(
                dialogue,
                keys=self.keys,
                probability=self.modality_dropout,
                generator=np.random.default_rng((self.seed, self.epoch, index)),
            )
        return dialogue if counted else _cut_labels(dialogue, slice(0))

    def texts_alone(self) -> list[dict[str, Any]]:
        """Return all dialogues, including noisy copies, with only speakers and texts."""
        return [
            {"utterances": [{"speaker": one.speaker, "text": one.text} for one in each.utterances]}
            for each in chain(self.dialogues, self.noisy or [])
        ]

    def _teaches(self, dialogue: Conversation) -> bool:
        return any(
            one.label is not None and any(getattr(one, key) is not None for key in self.keys)
            for one in dialogue.utterances
        )


class ProcessShare(Sampler):
    """One process's share of every batch.

    accelerate's sharding would fill the last batch with repeated dialogues, which would count twice in the
    loss. Instead, a process without a dialogue takes the first one of the batch without counting it, because
    every process must take every step.
    """

    def __init__(self, batches: Any, *, process: int, num_processes: int):
        """Divide `batches`, a sampler of index lists, for process `process` of `num_processes`."""
        self.batches = batches
        self.process = process
        self.num_processes = num_processes

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, bool]]]:
        """Yield lists of (index, counted) pairs for `TrainingDialogues`."""
        for batch in self.batches:
            # Take every n-th: batches are sorted by length, so consecutive dialogues would be unequal shares.
            share = batch[self.process :: self.num_processes]
            yield [(index, True) for index in share] or [(batch[0], False)]


def _refuse_others(noisy: Sequence[Conversation], conversations: Sequence[Conversation]) -> None:
    """Raise ValueError unless `noisy` has copies of these conversations in the same order."""
    said = [
        [f"dialogue {each.id} with {len(each.utterances)} utterances" for each in given]
        for given in (noisy, conversations)
    ]
    for got, expected in zip_longest(*said, fillvalue="the end of the data"):
        if got != expected:
            raise ValueError(
                f"data.train_noisy must hold the dialogues of data.train: expected {expected}, got {got}"
            )


def _cut(conversation: Conversation, processor: Any) -> list[Conversation]:
    """Split a conversation to the length the processor allows, with one field per stream of an utterance."""
    read_once = _without_read_media(conversation, processor.feature_extractor)
    return [_cut_labels(*part) for part in read_once.pieces(processor.max_utterances)]


def _cut_labels(conversation: Conversation, keep: slice) -> Conversation:
    """Return the conversation without the labels outside `keep`."""
    utterances = conversation.utterances
    kept = range(len(utterances))[keep]
    if len(kept) == len(utterances):
        return conversation
    cut = [one if turn in kept else replace(one, label=None) for turn, one in enumerate(utterances)]
    return replace(conversation, utterances=cut)


def _without_read_media(conversation: Conversation, extractor: Any) -> Conversation:
    """Return the conversation without media that have features, so that each stream has at most one field.

    Otherwise, hiding the features would cause the file to be read instead.
    """
    utterances = []
    for one in conversation.utterances:
        unread = [MEDIA[name] for name in extractor.backends if conversation.medium_of(one, name) is None]
        utterances.append(one.with_fields(missing={}, **dict.fromkeys(unread)))
    return replace(conversation, utterances=utterances)
