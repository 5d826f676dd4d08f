"""Probabilities for any number of conversations, in bounded memory."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from redifu.model.emotion_probabilities import emotion_probabilities


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

    Yields:
        The conversation as it came in, and its probabilities, (utterances, labels) float32; a row is NaN
        where the model can use no stream of the utterance.

    Raises:
        ValueError: a limit is below 1, or the processor refuses a conversation.
        FloatingPointError: the model gave a logit that is not a number.
    """
    for name, limit in (
        ("batch_utterances", batch_utterances),
        ("lookahead_utterances", lookahead_utterances),
    ):
        if limit < 1:
            raise ValueError(f"{name}: expected at least 1, got {limit}")
    for window in _windows(conversations, lookahead_utterances):
        probabilities = _predict_window(model, processor, window, batch_utterances=batch_utterances)
        yield from zip(window, probabilities, strict=True)


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


def _predict_window(
    model: Any, processor: Any, window: list[dict], *, batch_utterances: int
) -> list[np.ndarray]:
    split = [processor.split_long(conversation) for conversation in window]
    pieces = [piece for parts in split for piece, _ in parts]
    predicted: dict[int, np.ndarray] = {}
    lengths = [len(piece["utterances"]) for piece in pieces]
    for batch in batches_by_length(lengths, batch_utterances=batch_utterances):
        rows = _predict_batch(model, processor, [pieces[index] for index in batch])
        predicted.update(zip(batch, rows, strict=True))
    in_order = (predicted[index] for index in range(len(pieces)))
    return [np.concatenate([next(in_order)[keep] for _, keep in parts]) for parts in split]


def _predict_batch(model: Any, processor: Any, pieces: list[dict]) -> list[np.ndarray]:
    batch = processor(pieces, return_tensors="pt").to(model.device)
    rows = emotion_probabilities(model, batch, conversations=pieces).cpu().numpy()
    return [rows[index, : len(piece["utterances"])] for index, piece in enumerate(pieces)]
