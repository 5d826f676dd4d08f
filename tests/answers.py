"""The dicts that tests write as conversations, and what a model says of them as arrays."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from redifu.conversation import FEATURES, Conversation, Prediction, Utterance
from redifu.inference.explanation import explain_conversations
from redifu.inference.predictions import predict_conversations, predictions_of

FIELDS = {field.name for field in fields(Utterance)} - {"given", "quality", "missing"}


def conversation_of(value: Any, folder: str | Path = "") -> Conversation:
    """Make a conversation; utterances may lack every stream, which none that is read does."""
    if isinstance(value, Conversation):
        return value
    utterances = [utterance_of(each) for each in value["utterances"]]
    return Conversation(id=value.get("id", "d"), utterances=utterances, folder=Path(folder), given=value)


def utterance_of(value: Mapping[str, Any]) -> Utterance:
    """Make an utterance."""
    known = {name: content for name, content in value.items() if name in FIELDS}
    known |= {name: np.float32(known[name]) for name in FEATURES if known.get(name) is not None}
    readings = Utterance.from_dict(
        {**value, "speaker": "A", "text": "x", **dict.fromkeys(FEATURES)}, allow_media_objects=True
    )
    return Utterance(**known, quality=readings.quality, missing=readings.missing, given=value)


def predicted(
    model: Any, processor: Any, conversations: Iterable[Any], **options: Any
) -> Iterator[tuple[Conversation, np.ndarray]]:
    """Predict; each conversation comes with its probabilities (utterances, labels)."""
    for conversation, predictions in predict_conversations(
        model, processor, map(conversation_of, conversations), **options
    ):
        yield conversation, np.stack([each.probabilities for each in predictions])


def explained(
    model: Any, processor: Any, conversations: Iterable[Any], **options: Any
) -> Iterator[tuple[list[Any], np.ndarray]]:
    """Predict and explain; explanations and probabilities of each conversation."""
    for _, predictions in explain_conversations(
        model, processor, map(conversation_of, conversations), **options
    ):
        rows = np.stack([each.probabilities for each in predictions])
        yield [each.explanation for each in predictions], rows


def answer_of(value: Any, rows: Any, labels: Sequence[str]) -> tuple[Conversation, list[Prediction]]:
    """Make a conversation and its predictions: rows of probabilities, and what stands as "explanation"."""
    conversation = conversation_of(value)
    answers = [
        {"probabilities": np.float32(row), "explanation": utterance.given.get("explanation")}
        for row, utterance in zip(rows, conversation.utterances, strict=True)
    ]
    return conversation, predictions_of(conversation, answers, labels)
