"""Predictions for conversations, in batches and with calibrated probabilities."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from redifu.conversation import Conversation, Prediction, Utterance
from redifu.data.media_reading import read_media
from redifu.inference.batches import answer_in_batches
from redifu.inference.reasons import NO_STREAM, reasons_of
from redifu.model import MODALITIES

BATCH_UTTERANCES = 256
LOOKAHEAD_UTTERANCES = 1024


def predict_conversations(
    model: Any,
    processor: Any,
    conversations: Iterable[Conversation],
    *,
    batch_utterances: int = BATCH_UTTERANCES,
    lookahead_utterances: int = LOOKAHEAD_UTTERANCES,
) -> Iterator[tuple[Conversation, list[Prediction]]]:
    """Predict lazily, in the order of the input; see `answer_in_batches`.

    Args:
        model: a ReDiFuForEmotionRecognition; it is put in evaluation mode.
        processor: its ReDiFuProcessor, or a `FeatureCache`.
        conversations: conversations that fit the model, read only as far as needed.
        batch_utterances: maximum size of a batch in utterances, padding included.
        lookahead_utterances: number of utterances to read ahead.

    Yields:
        Each conversation with its media read, and the predictions of its utterances.

    Raises:
        ImportError: reading media requires an optional package that is not installed.
        ValueError: a limit is below 1, or a media file is of an unknown kind.
        FloatingPointError: a logit of the model is not finite.
    """

    def answer(pieces: list[Conversation]) -> list[list[dict[str, Any]]]:
        inputs = processor.batch([piece.to_inputs() for piece in pieces]).to(model.device)
        probabilities, output = recognise(model, inputs, names=[piece.id for piece in pieces])
        return answers_of(probabilities, output, inputs, model.config.modalities, pieces)

    answers = answer_in_batches(
        map(partial(read_media, extractor=processor.feature_extractor), conversations),
        answer,
        most_utterances=processor.max_utterances,
        batch_utterances=batch_utterances,
        lookahead_utterances=lookahead_utterances,
    )
    for conversation, rows in answers:
        yield conversation, predictions_of(conversation, rows, model.config.labels)


def predictions_of(
    conversation: Conversation, answers: Sequence[Mapping[str, Any]], labels: Sequence[str]
) -> list[Prediction]:
    """Build a `Prediction` for each utterance from the fields that the model computed."""
    return [
        Prediction(
            turn=turn,
            speaker=utterance.given.get("speaker", utterance.speaker),
            text=utterance.text,
            start=utterance.start,
            end=utterance.end,
            labels=labels,
            **answer,
        )
        for turn, (utterance, answer) in enumerate(zip(conversation.utterances, answers, strict=True))
    ]


def answers_of(
    probabilities: Tensor,
    output: Any,
    inputs: Mapping[str, Tensor],
    streams: Sequence[str],
    pieces: Sequence[Conversation],
) -> list[list[dict[str, Any]]]:
    """Return the fields of `Prediction` that the model computes, by dialogue and utterance of a batch."""
    rows, unlike = probabilities.cpu().numpy(), unlike_streams(output, inputs, streams)
    trust = None if output is None else output.reliability
    weights = None if trust is None else trust.float().cpu().numpy()
    here = inputs["modality_mask"].bool().cpu().numpy()
    places = {name: MODALITIES.index(name) for name in streams}

    def answer(at: tuple[int, int], utterance: Utterance) -> dict[str, Any]:
        odd = [name for name, is_odd in zip(streams, unlike[at], strict=True) if is_odd]
        reasons = reasons_of(utterance, streams, unlike=odd)
        if not here[at][list(places.values())].any():
            reasons.append(NO_STREAM)
        found = {"probabilities": rows[at], "reasons": reasons}
        if weights is not None:
            kept = {name: float(weights[at][place]) for name, place in places.items() if here[at][place]}
            found["reliability"] = kept
        return found

    return [
        [answer((row, turn), utterance) for turn, utterance in enumerate(piece.utterances)]
        for row, piece in enumerate(pieces)
    ]


def unlike_streams(output: Any, inputs: Mapping[str, Tensor], streams: Sequence[str]) -> np.ndarray:
    """Return (batch, utterances, streams) bool: given, but not used because they do not fit the speaker."""
    given = inputs["modality_mask"].bool()[..., [MODALITIES.index(name) for name in streams]]
    # An ONNX export does not say which streams it used.
    used = given if output is None or output.present is None else output.present
    return (given & ~used).cpu().numpy()


def recognise(model: Any, inputs: Mapping[str, Any], *, names: Sequence[str]) -> tuple[Tensor, Any]:
    """Put a model in evaluation mode and run it on one batch.

    Args:
        model: a ReDiFuForEmotionRecognition.
        inputs: the model's inputs, on its device, with modality_mask (batch, utterances, 3).
        names: ids of the dialogues in the batch, for errors.

    Returns:
        Calibrated probabilities (batch, utterances, labels) float32, with a row of NaN if the model can use
        no stream of the utterance; and the model's output, None if it can use no stream in the whole batch.

    Raises:
        FloatingPointError: a logit of the model is not finite.
    """
    usable = inputs["modality_mask"].bool().any(-1)
    probabilities = torch.full((*usable.shape, len(model.config.labels)), torch.nan, device=usable.device)
    output = None
    # The model rejects a batch without any stream, but accepts such utterances within a larger batch.
    if usable.any():
        # Set for every batch, because a caller may train between predictions.
        model.eval()
        with torch.no_grad():
            output = model(**inputs)
        probabilities[usable] = output.logits[usable].float().softmax(-1)
    broken = usable & ~probabilities.isfinite().all(-1)
    if broken.any():
        name = names[int(broken.any(1).nonzero()[0])]
        raise FloatingPointError(f"dialogue {name}: the model's logits are not finite")
    return probabilities, output
