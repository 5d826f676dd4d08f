"""Probabilities for any number of conversations, in bounded memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from redifu.inference.emotion_probabilities import emotion_probabilities


def predict_conversations(
    model: Any,
    processor: Any,
    conversations: Iterable[dict],
    *,
    batch_utterances: int = 256,
    lookahead_utterances: int = 1024,
) -> Iterator[tuple[dict, np.ndarray]]:
    """Predict lazily, in the order of the input.

    A window of conversations is read, grouped by length, predicted and given out before the next one is read,
    so memory does not grow with the input. The model is put in evaluation mode.

    Args:
        model: a ReDiFuForEmotionRecognition.
        processor: its ReDiFuProcessor.
        conversations: conversations, read only as far as the window needs.
        batch_utterances: places of one batch, padding included; a longer piece of a dialogue stands alone.
        lookahead_utterances: a window is closed by the conversation that fills it; 1 answers each
            conversation before the next one is read.

    Returns:
        The conversations as they came in, each with its probabilities, (utterances, labels) float32; a row is
        NaN where the model can use no stream of the utterance.

    Raises:
        ValueError: a limit is below 1, or the processor refuses a conversation.
        FloatingPointError: the model gave a logit that is not a number.
    """

    def predict(pieces: list[dict]) -> list[np.ndarray]:
        inputs = processor(pieces, return_tensors="pt").to(model.device)
        return list(emotion_probabilities(model, inputs, conversations=pieces).cpu().numpy())

    answers = answer_in_batches(
        conversations,
        predict,
        processor=processor,
        batch_utterances=batch_utterances,
        lookahead_utterances=lookahead_utterances,
    )
    return ((conversation, np.stack(rows)) for conversation, rows in answers)


def answer_in_batches(
    conversations: Iterable[dict],
    answer: Callable[[list[dict]], Sequence[Any]],
    *,
    processor: Any,
    batch_utterances: int,
    lookahead_utterances: int,
) -> Iterator[tuple[dict, list[Any]]]:
    """Answer every utterance of conversations, lazily and in their order; see `predict_conversations`.

    Args:
        conversations: read only as far as the window needs.
        answer: takes the conversations of a batch, pieces of long ones, and returns for each a sequence with
            an item for each utterance, and maybe more beyond them.
        processor: a ReDiFuProcessor; cuts long conversations.
        batch_utterances: as of `predict_conversations`.
        lookahead_utterances: as of `predict_conversations`.

    Yields:
        The conversation as it came in, and the items of its utterances.

    Raises:
        ValueError: a limit is below 1.
    """
    limits = {"batch_utterances": batch_utterances, "lookahead_utterances": lookahead_utterances}
    for name, limit in limits.items():
        if limit < 1:
            raise ValueError(f"{name}: expected at least 1, got {limit}")
    for window in _windows(conversations, lookahead_utterances):
        split = [processor.split_long(conversation) for conversation in window]
        pieces = [piece for parts in split for piece, _ in parts]
        items: dict[int, Any] = {}
        lengths = [len(piece["utterances"]) for piece in pieces]
        for batch in batches_by_length(lengths, batch_utterances=batch_utterances):
            items.update(zip(batch, answer([pieces[index] for index in batch]), strict=True))
        in_order = (items[index] for index in range(len(pieces)))
        for conversation, parts in zip(window, split, strict=True):
            yield conversation, [item for _, keep in parts for item in next(in_order)[keep]]


def batches_by_length(lengths: Sequence[int], *, batch_utterances: int) -> list[list[int]]:
    """Group indices of similar length, so that little is padded.

    Args:
        lengths: utterances of each piece.
        batch_utterances: most places of a batch, padding included; a longer piece is its own batch.

    Returns:
        Index lists, shortest pieces first, every index once.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batches and (len(batches[-1]) + 1) * lengths[index] <= batch_utterances:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _windows(conversations: Iterable[dict], lookahead_utterances: int) -> Iterator[list[dict]]:
    window: list[dict] = []
    utterances = 0
    for conversation in conversations:
        window.append(conversation)
        utterances += len(conversation["utterances"])
        if utterances >= lookahead_utterances:
            yield window
            window, utterances = [], 0
    if window:
        yield window
