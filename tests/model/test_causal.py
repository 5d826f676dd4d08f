"""A causal model never looks ahead, whatever it is made of."""

from itertools import product
from typing import Any

import pytest
import torch

from model.tiny_models import IMPLEMENTATIONS, random_modality_mask, text_model, tiny_batch, tiny_model
from redifu.model import MODALITIES

LENGTH = 6
OPTIONS: dict[str, list[Any]] = {
    "differential_attention": ["shifted_keys", "dual_maps", "none"],
    "relation_modalities": [[], ["text"], list(MODALITIES)],
    "cross_modal_relations": [False, True],
    "fusion": ["mutual_attention", "text_diffusion", "concat"],
    "position_encoding": ["sinusoidal", "rotary"],
    "attention_window": [None, 2],
}
COMBINATIONS = [dict(zip(OPTIONS, values, strict=True)) for values in product(*OPTIONS.values())]
COMBINATIONS += [{"consistency_size": 3, "fusion": fusion} for fusion in OPTIONS["fusion"]]


def one_dialogue_many_times() -> dict[str, torch.Tensor]:
    """LENGTH rows of the same dialogue, in which some utterances lack streams."""
    batch = tiny_batch(LENGTH)
    batch["modality_mask"] = random_modality_mask(batch["utterance_mask"])
    return {name: value.repeat_interleave(LENGTH, dim=0) for name, value in batch.items()}


def changed_at_each_place(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch with utterance k of row k said by somebody else, in other streams, with other content."""
    diagonal = torch.eye(LENGTH, dtype=torch.bool)
    changed = dict(batch)
    for name, value in batch.items():
        if value.is_floating_point():
            changed[name] = value.where(~diagonal[..., None], value * 3 + 1)
    changed["speaker_ids"] = batch["speaker_ids"].where(~diagonal, 1 - batch["speaker_ids"].clamp(max=1))
    changed["modality_mask"] = batch["modality_mask"] ^ (
        diagonal[..., None] & torch.tensor([True, False, True])
    )
    return changed


@pytest.mark.parametrize("fields", COMBINATIONS, ids=lambda fields: "-".join(map(str, fields.values())))
def test_a_later_utterance_changes_no_bit_of_an_earlier_one(fields: dict[str, Any]) -> None:
    model = tiny_model(causal=True, **fields)
    batch = one_dialogue_many_times()
    with torch.no_grad():
        before, after = model(**batch).logits, model(**changed_at_each_place(batch)).logits
    earlier = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril(-1)
    assert torch.equal(after[earlier], before[earlier])
    assert (after != before).any(-1).diagonal().all()


@pytest.mark.parametrize("fields", COMBINATIONS[::7], ids=lambda fields: "-".join(map(str, fields.values())))
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_growing_dialogue_keeps_its_logits(fields: dict[str, Any], implementation: str) -> None:
    model = tiny_model(causal=True, implementation=implementation, **fields)
    batch = tiny_batch(LENGTH)
    batch["modality_mask"] = random_modality_mask(batch["utterance_mask"])
    with torch.no_grad():
        whole = model(**batch).logits
        for length in range(1, LENGTH):
            part = {name: value[:, :length] for name, value in batch.items()}
            torch.testing.assert_close(model(**part).logits, whole[:, :length], rtol=0, atol=1e-5)


def test_a_model_that_is_not_causal_looks_ahead() -> None:
    batch = one_dialogue_many_times()
    for fields in ({}, {"fusion": "concat", "relation_modalities": ["text"]}):
        model = tiny_model(**fields)
        before, after = model(**batch).logits, model(**changed_at_each_place(batch)).logits
        assert (after[-1, : LENGTH - 1] != before[-1, : LENGTH - 1]).any()


def test_a_text_backbone_sees_no_later_text() -> None:
    model = text_model("bert", causal=True, fusion="text_diffusion", audio_size=None, visual_size=None)
    ids = torch.randint(4, 40, (LENGTH, 5))
    mask = torch.ones(1, LENGTH, dtype=torch.bool)
    before = model(input_ids=ids, utterance_mask=mask).logits
    ids[-1] = 4 + (ids[-1] + 1) % 36
    after = model(input_ids=ids, utterance_mask=mask).logits
    torch.testing.assert_close(after[:, :-1], before[:, :-1], rtol=0, atol=1e-6)
    assert not torch.allclose(after[:, -1], before[:, -1], atol=1e-4)
