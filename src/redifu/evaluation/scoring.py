"""Scoring and calibration of a model on labelled conversations."""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from redifu.conversation import Conversation
from redifu.evaluation.calibration import fit_temperature
from redifu.evaluation.metrics import EmotionRecognitionMetric
from redifu.inference.predictions import predict_conversations
from redifu.model.losses import IGNORED_LABEL

logger = logging.getLogger(__name__)


def evaluate_conversations(
    model: Any, processor: Any, conversations: Iterable[Conversation], *, batch_utterances: int = 256
) -> dict[str, Any]:
    """Score a model on labelled conversations.

    Utterances without a label serve as context and are not scored. Neither are labelled utterances without a
    stream that the model can use; a warning reports their number.

    Args:
        model: a ReDiFuForEmotionRecognition.
        processor: its ReDiFuProcessor.
        conversations: conversations, read once and lazily.
        batch_utterances: see `predict_conversations`.

    Returns:
        The result of `redifu.evaluation.metrics.score_predictions`; intervals resample conversations.

    Raises:
        ValueError: a label is unknown to the model, or no utterance can be scored.
    """
    metric = EmotionRecognitionMetric(model.config.labels)
    for predictions, references, dialogues in labelled_predictions(
        model, processor, conversations, batch_utterances=batch_utterances
    ):
        metric.add_batch(predictions=predictions, references=references, dialogues=dialogues)
    return metric.compute()


def calibrate(model: Any, processor: Any, conversations: Iterable[Conversation]) -> None:
    """Fit the temperature of a model to labelled conversations that it was not trained on.

    Raises:
        ValueError: a label is unknown to the model, or no utterance can be scored.
    """
    model.config.temperature = 1.0
    parts = list(labelled_predictions(model, processor, conversations))
    predictions, references = (np.concatenate([part[index] for part in parts]) for index in (0, 1))
    model.config.temperature = fit_temperature(predictions, references)


def labelled_predictions(
    model: Any, processor: Any, conversations: Iterable[Conversation], *, batch_utterances: int = 256
) -> Iterator[tuple[np.ndarray, np.ndarray, list[str]]]:
    """Predict labelled conversations; arguments and errors are those of `evaluate_conversations`.

    Yields:
        For each conversation with utterances to score: their probabilities (utterances, labels), label ids
        (utterances,) and, for each of them, the name of the dialogue.
    """
    scored = unusable = 0
    predictions = predict_conversations(model, processor, conversations, batch_utterances=batch_utterances)
    # Conversations are identified by position, because two files may share an id.
    for place, (conversation, predicted) in enumerate(predictions):
        references = reference_ids(conversation, model.config.labels)
        probabilities = np.stack([each.probabilities for each in predicted])
        labelled = references != IGNORED_LABEL
        rows = np.flatnonzero(labelled & ~np.isnan(probabilities).any(1))
        unusable += int(labelled.sum()) - len(rows)
        scored += len(rows)
        if len(rows):
            yield probabilities[rows], references[rows], [str(place)] * len(rows)
    if unusable:
        logger.warning("%d labelled utterances have no stream the model can use and are not scored", unusable)
    if not scored:
        raise ValueError("expected a labelled utterance with a stream the model can use, got none")


def reference_ids(conversation: Conversation, labels: list[str]) -> np.ndarray:
    """Convert the labels of a conversation to ids.

    Args:
        conversation: a conversation; labels are optional.
        labels: label names, in the order of their ids.

    Returns:
        (utterances,) int label ids, -100 where there is no label.

    Raises:
        ValueError: a label is unknown; the message names the dialogue and the utterance.
    """
    ids = {None: IGNORED_LABEL} | {label: index for index, label in enumerate(labels)}
    names = [utterance.label for utterance in conversation.utterances]
    for turn, name in enumerate(names):
        if name not in ids:
            where = conversation.where(turn)
            raise ValueError(f"{where}: unknown label: expected one of {', '.join(labels)}, got {name}")
    return np.array([ids[name] for name in names])
