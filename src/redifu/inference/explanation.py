"""Explanations of predictions: the contribution of each stream, and the utterances attended to."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from redifu.conversation import Conversation, Prediction, Utterance, shortest
from redifu.data.media_reading import read_media
from redifu.inference.batches import answer_in_batches
from redifu.inference.predictions import (
    BATCH_UTTERANCES,
    LOOKAHEAD_UTTERANCES,
    answers_of,
    predictions_of,
    recognise,
    unlike_streams,
)
from redifu.inference.reasons import missing_of
from redifu.model import MODALITIES
from redifu.model.model_inputs import RAW_INPUTS, RAW_MASKS

# Maximum number of earlier utterances in an explanation.
MOST_ATTENDED = 3


def explain_conversations(
    model: Any,
    processor: Any,
    conversations: Iterable[Conversation],
    *,
    batch_utterances: int = BATCH_UTTERANCES,
    lookahead_utterances: int = LOOKAHEAD_UTTERANCES,
) -> Iterator[tuple[Conversation, list[Prediction]]]:
    """Predict like `predict_conversations` and explain every utterance.

    The model runs once more per stream, with that stream hidden in the whole conversation. Each prediction
    gets an `explanation`: None if the model can use none of the utterance's streams, otherwise a dict of

    - contributions: for each stream of the utterance, the probability of the emotion recognised from all
      streams minus its probability without this stream, from -1 to 1; None if no stream is left without it;
    - emotion_without: for the same streams, the emotion recognised without the stream, or None;
    - reliability: for the same streams, how much the model trusted them, from 0 to 1; None for a model that
      does not estimate it;
    - attended: up to three earlier utterances, {"turn", "weight"}, heaviest first. The weight is the share of
      this utterance's attention that went to them, from 0 to 1, averaged over heads and layers; the rest went
      to itself and to other utterances. If the fusion uses attention, this is the attention of the text (of
      the first stream, in a model without text) to all streams, weighted by reliability; otherwise it is the
      attention in the first stream's relation subgraphs. It does not cover earlier turns that a backbone
      read. None if the model returns no weights: with an attention window, with subgraphs stored as edges, or
      without any attention;
    - quality: the measures of `media.quality.QUALITY` by stream, where known;
    - missing: the reason for each stream that has a file but cannot be used, or does not fit the speaker.

    Attention shows what a model looked at, not why it decided as it did. Contributions need not add up: two
    streams with the same content contribute nothing, because each can replace the other.

    Args:
        model: a ReDiFuForEmotionRecognition.
        processor: its ReDiFuProcessor.
        conversations: see `predict_conversations`.
        batch_utterances: see `predict_conversations`.
        lookahead_utterances: see `predict_conversations`.

    Yields:
        Each conversation with its media read, and the explained predictions of its utterances.

    Raises:
        ValueError: see `predict_conversations`; or the model is an ONNX export, which returns no attention.
        FloatingPointError: a logit of the model is not finite.
    """
    if not isinstance(model, torch.nn.Module):
        raise ValueError("an ONNX export cannot explain its predictions: use --runtime torch")
    answers = answer_in_batches(
        map(partial(read_media, extractor=processor.feature_extractor), conversations),
        partial(_explain, model, processor),
        most_utterances=processor.max_utterances,
        batch_utterances=batch_utterances,
        lookahead_utterances=lookahead_utterances,
    )
    config: Any = model.config
    for conversation, rows in answers:
        placed = [
            {**row, "explanation": _with_turns(row["explanation"], turn)} for turn, row in enumerate(rows)
        ]
        yield conversation, predictions_of(conversation, placed, config.labels)


def _explain(model: Any, processor: Any, pieces: Sequence[Conversation]) -> list[list[dict[str, Any]]]:
    """Predict and explain a batch; attended utterances are identified by how many turns back they are."""
    inputs = processor.batch([piece.to_inputs() for piece in pieces]).to(model.device)
    names = [piece.id for piece in pieces]
    given, output = recognise(model, {**inputs, "output_attentions": True}, names=names)
    hidden = {
        stream: recognise(model, _hide(inputs, stream), names=names)[0].cpu().numpy()
        for stream in model.config.modalities
    }
    present = inputs["modality_mask"].bool()
    probabilities, here = given.cpu().numpy(), present.cpu().numpy()
    attention = None if output is None else _attention(output, model.config, present)
    answers = answers_of(given, output, inputs, model.config.modalities, pieces)
    unlike = unlike_streams(output, inputs, model.config.modalities)
    for row, piece in enumerate(pieces):
        for turn, utterance in enumerate(piece.utterances):
            streams = [name for name in hidden if here[row, turn, MODALITIES.index(name)]]
            without = {name: hidden[name][row, turn] for name in streams}
            odd = [name for name, is_odd in zip(hidden, unlike[row, turn], strict=True) if is_odd]
            trust = answers[row][turn].get("reliability")
            explanation = {
                **_contributions(probabilities[row, turn], without, model.config.labels),
                "reliability": trust and {name: shortest(value) for name, value in trust.items()},
                "attended": None if attention is None else _most_attended(attention[row, turn, :turn]),
                "quality": _quality(utterance),
                "missing": missing_of(utterance, odd),
            }
            answers[row][turn]["explanation"] = explanation if streams else None
    return answers


def _hide(inputs: Mapping[str, Tensor], stream: str) -> dict[str, Tensor]:
    """Return the inputs as if no utterance had a stream."""
    gone = {f"{stream}_features", RAW_INPUTS[stream], RAW_MASKS.get(stream)}
    kept = {name: value for name, value in inputs.items() if name not in gone}
    others = torch.tensor([name != stream for name in MODALITIES], device=inputs["modality_mask"].device)
    return {**kept, "modality_mask": inputs["modality_mask"].bool() & others}


def _attention(output: Any, config: Any, present: Tensor) -> np.ndarray | None:
    """Return the first stream's attention (batch, utterances, utterances), or None without weights."""
    first, maps, trust = config.modalities[0], output.attentions, output.reliability
    fused = {name: f"{first}.{name}" for name in MODALITIES if f"{first}.{name}" in maps}
    related = [maps[name] for name in (f"{first}_inter_speaker", f"{first}_intra_speaker") if name in maps]
    received = None
    if fused:
        # A fusion without reliability adds the streams unweighted.
        shares = present.any(dim=1, keepdim=True).float() if trust is None else trust
        shares = shares[..., [MODALITIES.index(name) for name in fused]]
        by_stream = torch.stack([maps[key].mean(dim=1) for key in fused.values()], dim=-1)
        total = shares.sum(dim=-1)[..., None]
        received = (by_stream * shares[:, :, None]).sum(dim=-1) / total.where(total > 0, 1.0)
    elif related:
        received = torch.cat(related, dim=1).mean(dim=1)
    if received is not None and trust is None:
        # A missing stream attends to nothing; only a fusion with reliability replaces a missing text.
        received = received * present[..., MODALITIES.index(first), None]
    return None if received is None else received.float().cpu().numpy()


def _contributions(
    probabilities: np.ndarray, without: Mapping[str, np.ndarray], labels: Sequence[str]
) -> dict[str, Any]:
    emotion = int(probabilities.argmax())
    left = {name: row for name, row in without.items() if not np.isnan(row).any()}
    return {
        "contributions": {
            name: shortest(probabilities[emotion] - left[name][emotion]) if name in left else None
            for name in without
        },
        "emotion_without": {
            name: labels[int(left[name].argmax())] if name in left else None for name in without
        },
    }


def _most_attended(weights: np.ndarray) -> list[tuple[int, float]]:
    """Return how many turns back the most attended earlier utterances are, and their weights."""
    heaviest = np.argsort(-weights, kind="stable")[:MOST_ATTENDED]
    return [(len(weights) - int(turn), shortest(weights[turn])) for turn in heaviest if weights[turn] > 0]


def _quality(utterance: Utterance) -> dict[str, dict[str, float]]:
    """Return the measures of an utterance's media."""
    return {
        stream: {name: shortest(value) for name, value in measured.items()}
        for stream, measured in utterance.quality.items()
    }


def _with_turns(explanation: dict[str, Any] | None, turn: int) -> dict[str, Any] | None:
    if explanation is None or explanation["attended"] is None:
        return explanation
    attended = [{"turn": turn - back, "weight": weight} for back, weight in explanation["attended"]]
    return {**explanation, "attended": attended}
