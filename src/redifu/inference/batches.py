"""Batches of conversations: read ahead, grouped by length, long ones cut into pieces."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from redifu.conversation import Conversation


def answer_in_batches(
    conversations: Iterable[Conversation],
    answer: Callable[[list[Conversation]], Sequence[Sequence[Any]]],
    *,
    most_utterances: int,
    batch_utterances: int,
    lookahead_utterances: int,
) -> Iterator[tuple[Conversation, list[Any]]]:
    """Answer every utterance of conversations, lazily and in their order.

    A window of conversations is read, grouped by length, answered and yielded before the next one is read,
    so memory does not grow with the input.

    Args:
        conversations: read only as far as the window needs.
        answer: takes the conversations of a batch (long ones in pieces) and returns a sequence for each, with
            one item per utterance; additional items at its end are ignored.
        most_utterances: longer dialogues are answered in pieces.
        batch_utterances: maximum size of a batch, padding included; a longer piece is its own batch.
        lookahead_utterances: a window ends once it holds this many utterances; 1 answers each conversation
            before the next one is read.

    Yields:
        The conversation as it was given, and the items of its utterances.

    Raises:
        ValueError: a limit is below 1.
    """
    limits = {"batch_utterances": batch_utterances, "lookahead_utterances": lookahead_utterances}
    for name, limit in limits.items():
        if limit < 1:
            raise ValueError(f"{name}: expected at least 1, got {limit}")
    for window in _windows(conversations, lookahead_utterances):
        split = [conversation.pieces(most_utterances) for conversation in window]
        pieces = [piece for parts in split for piece, _ in parts]
        items: dict[int, Any] = {}
        lengths = [len(piece.utterances) for piece in pieces]
        for batch in batches_by_length(lengths, batch_utterances=batch_utterances):
            items.update(zip(batch, answer([pieces[index] for index in batch]), strict=True))
        in_order = (items[index] for index in range(len(pieces)))
        for conversation, parts in zip(window, split, strict=True):
            yield conversation, [item for _, keep in parts for item in next(in_order)[keep]]


def batches_by_length(lengths: Sequence[int], *, batch_utterances: int) -> list[list[int]]:
    """Group the indices of pieces of similar length, to keep padding small.

    Args:
        lengths: number of utterances in each piece.
        batch_utterances: maximum size of a batch, padding included; a longer piece is its own batch.

    Returns:
        Lists of indices, shortest pieces first; every index occurs once.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batches and (len(batches[-1]) + 1) * lengths[index] <= batch_utterances:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _windows(
    conversations: Iterable[Conversation], lookahead_utterances: int
) -> Iterator[list[Conversation]]:
    window: list[Conversation] = []
    utterances = 0
    for conversation in conversations:
        window.append(conversation)
        utterances += len(conversation.utterances)
        if utterances >= lookahead_utterances:
            yield window
            window, utterances = [], 0
    if window:
        yield window
