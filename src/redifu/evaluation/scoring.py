"""How a data set is scored."""

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

    Utterances without a label give context and are not scored. Labelled utterances of which the model can use
    no stream are not scored either; their number is logged as a warning.

    Args:
        model: a ReDiFuForEmotionRecognition.
        processor: its ReDiFuProcessor.
        conversations: conversations, read once and lazily.
        batch_utterances: as in `predict_conversations`.

    Returns:
        The metrics of `redifu.evaluation.metrics.score_predictions`, intervals over the conversations.

    Raises:
        ValueError: a label is not one of the model's, or nothing can be scored.
    """
    metric = EmotionRecognitionMetric(model.config.labels)
    for predictions, references, dialogues in labelled_predictions(
        model, processor, conversations, batch_utterances=batch_utterances
    ):
        metric.add_batch(predictions=predictions, references=references, dialogues=dialogues)
    return metric.compute()


def calibrate(model: Any, processor: Any, conversations: Iterable[Conversation]) -> None:
    """Set the temperature of a model by labelled conversations that it was not trained on.

    Raises:
        ValueError: as of `evaluate_conversations`.
    """
    model.config.temperature = 1.0
    parts = list(labelled_predictions(model, processor, conversations))
    predictions, references = (np.concatenate([part[index] for part in parts]) for index in (0, 1))
    model.config.temperature = fit_temperature(predictions, references)


def labelled_predictions(
    model: Any, processor: Any, conversations: Iterable[Conversation], *, batch_utterances: int = 256
) -> Iterator[tuple[np.ndarray, np.ndarray, list[str]]]:
    """Predict labelled conversations, one after another; arguments and errors as of `evaluate_conversations`.

    Yields:
        Of the utterances of a conversation that are scored, if any: probabilities (utterances, labels), label
        ids (utterances,) and the name of the dialogue, once for each.
    """
    scored = unusable = 0
    predictions = predict_conversations(model, processor, conversations, batch_utterances=batch_utterances)
    # Conversations are told apart by their place and not by their id, which two files may share.
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
    """Number the labels of a conversation.

    Args:
        conversation: a conversation, labels optional.
        labels: names of the labels, in the order of their ids.

    Returns:
        (utterances,) int label ids, -100 where there is no label.

    Raises:
        ValueError: a label is unknown; names the dialogue and the utterance.
    """
    ids = {None: IGNORED_LABEL} | {label: index for index, label in enumerate(labels)}
    names = [utterance.label for utterance in conversation.utterances]
    for turn, name in enumerate(names):
        if name not in ids:
            where = conversation.where(turn)
            raise ValueError(f"{where}: unknown label: expected one of {', '.join(labels)}, got {name}")
    return np.array([ids[name] for name in names])
