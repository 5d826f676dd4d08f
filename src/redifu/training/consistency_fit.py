"""Fits the weights that tell one speaker's sounds and pictures from another's, from who speaks when."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from redifu.inference.feature_cache import PreparedStreams
from redifu.model import MODALITIES
from redifu.model.speaker_consistency import SpeakerConsistency

STEPS = 1500
BATCH_SIZE = 8
# Assumed probability that a stream is another speaker's. Dropping a right stream costs more than keeping a
# wrong one.
PRIOR = 0.1
# Dropout of features; without it, the model memorises the voices of the training data.
DROPOUT = 0.7
VECTOR_LEARNING_RATE, JUDGE_LEARNING_RATE = 1e-3, 1e-2

Batch = tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]


def fit_consistency(
    model: Any, processor: Any, conversations: Iterable[Mapping[str, Any]], *, seed: int
) -> None:
    """Fit the weights of a model's SpeakerConsistency, without labels.

    It learns to tell real dialogues from the same dialogues with sounds, pictures or both shuffled among the
    utterances of a batch.

    Args:
        model: a ReDiFuForEmotionRecognition with `consistency_size`; only its SpeakerConsistency changes.
        processor: its ReDiFuProcessor.
        conversations: the training data.
        seed: random seed; torch's global generator is not touched.
    """
    module: SpeakerConsistency = model.redifu.consistency
    generator = torch.Generator().manual_seed(seed)
    fresh = SpeakerConsistency(model.config)
    state = dict(fresh.named_buffers())
    vectors = [
        state[name].normal_(std=state[name].shape[1] ** -0.5, generator=generator) for name in fresh.streams
    ]
    judge = [state["weight"], state["bias"].fill_(math.log((1 - PRIOR) / PRIOR))]
    optimizer = torch.optim.AdamW(
        [
            {"params": [each.requires_grad_() for each in vectors], "lr": VECTOR_LEARNING_RATE},
            {"params": [each.requires_grad_() for each in judge], "lr": JUDGE_LEARNING_RATE},
        ]
    )
    with torch.enable_grad():
        for batch in _batches(_dialogues(model, processor, conversations), fresh.streams, generator):
            loss = _loss(fresh, batch, generator)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for name, buffer in module.named_buffers():
        buffer.copy_(state[name].detach())


def _dialogues(
    model: Any, processor: Any, conversations: Iterable[Mapping[str, Any]]
) -> list[Mapping[str, Tensor]]:
    """Read the features of dialogues without their texts, split as the model reads them."""
    prepared = PreparedStreams(model, processor)
    dialogues = []
    for conversation in conversations:
        mute = [{**each, "text": None, "text_features": None} for each in conversation["utterances"]]
        read = prepared.read({**conversation, "utterances": mute})
        dialogues += [prepared([piece]).to("cpu") for piece, _ in prepared.split_long(read)]
    return [each for each in dialogues if each["modality_mask"].any()]


def _batches(
    dialogues: list[Mapping[str, Tensor]], streams: tuple[str, ...], generator: torch.Generator
) -> Iterator[Batch]:
    """Yield `STEPS` batches of features, speakers and presence, cycling through the dialogues."""
    order: list[int] = []
    for _ in range(STEPS if dialogues else 0):
        while len(order) < BATCH_SIZE:
            order += torch.randperm(len(dialogues), generator=generator).tolist()
        chosen, order = [dialogues[index] for index in order[:BATCH_SIZE]], order[BATCH_SIZE:]
        longest = max(each["speaker_ids"].shape[1] for each in chosen)
        speakers = torch.cat([_padded(each["speaker_ids"], longest) for each in chosen])
        masks = torch.cat([_padded(each["modality_mask"], longest) for each in chosen]).bool()
        features, present = {}, {}
        for name in streams:
            present[name] = masks[..., MODALITIES.index(name)]
            rows = [each.get(f"{name}_features") for each in chosen]
            if (size := next((row.shape[-1] for row in rows if row is not None), None)) is not None:
                empty = speakers.new_zeros(1, longest, size, dtype=torch.float32)
                features[name] = torch.cat(
                    [empty if row is None else _padded(row.float(), longest) for row in rows]
                )
        yield features, speakers, present


def _padded(rows: Tensor, length: int) -> Tensor:
    return F.pad(rows, (0, 0) * (rows.dim() - 2) + (0, length - rows.shape[1]))


def _loss(module: SpeakerConsistency, batch: Batch, generator: torch.Generator) -> Tensor:
    """Return the cross-entropy of the real batch and of one with shuffled streams, weighted by `PRIOR`."""
    features, speakers, present = batch
    noisy = {name: _dropped(values, generator) for name, values in features.items()}
    dealt = _dealt_streams(module.streams, generator)
    changed = _dealt_out(noisy, present, dealt, generator)
    total = torch.zeros(())
    for given, wrong, weight in ((noisy, frozenset(), 1 - PRIOR), (changed, dealt, PRIOR)):
        log_odds = module({name: given.get(name) for name in module.streams}, speakers, present)
        for index, name in enumerate(module.streams):
            if present[name].any():
                sign = 1.0 if name in wrong else -1.0
                total = total + weight * F.softplus(sign * log_odds[..., index][present[name]]).mean()
    return total


def _dropped(values: Tensor, generator: torch.Generator) -> Tensor:
    kept = torch.rand(values.shape, generator=generator) >= DROPOUT
    return values * kept / (1 - DROPOUT)


def _dealt_streams(streams: tuple[str, ...], generator: torch.Generator) -> frozenset[str]:
    """Draw which streams to shuffle: all of them half of the time, otherwise one."""
    draw = int(torch.randint(2 * len(streams), (), generator=generator))
    return frozenset(streams[draw : draw + 1] or streams)


def _dealt_out(
    features: Mapping[str, Tensor],
    present: Mapping[str, Tensor],
    dealt: frozenset[str],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Shuffle the features of some streams among the utterances that have them, by one permutation."""
    order = torch.randperm(next(iter(present.values())).numel(), generator=generator)
    changed = dict(features)
    for name in dealt & features.keys():
        rows = features[name].flatten(0, 1)
        places = present[name].flatten()
        moved = rows.clone()
        moved[places] = rows[order[places[order]]]
        changed[name] = moved.view_as(features[name])
    return changed
