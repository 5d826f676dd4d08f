"""Streams that do not fit their speaker count as missing."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from model.tiny_models import random_modality_mask, tiny_batch, tiny_config, tiny_model
from redifu.model import MODALITIES, ReDiFuForEmotionRecognition


def log_odds_by_loops(module: Any, batch: dict[str, Tensor], row: int, *, causal: bool) -> Tensor:
    """What `SpeakerConsistency` says of a dialogue, utterance by utterance and pair by pair."""
    length = int(batch["utterance_mask"][row].sum())
    speakers = batch["speaker_ids"][row].tolist()

    def compared(stream: str, one: int) -> list[float]:
        here = batch["modality_mask"][row, :, MODALITIES.index(stream)]
        if not here[one] or speakers[one] >= module.num_speakers:
            return []
        vectors = batch[f"{stream}_features"][row] @ module.get_buffer(stream).T
        others = range(one if causal else length)
        return [
            torch.cosine_similarity(vectors[one], vectors[other], dim=0).item()
            for other in others
            if other != one and here[other] and speakers[other] == speakers[one]
        ]

    rows = []
    for turn in range(length):
        measures = []
        for stream in module.streams:
            own = compared(stream, turn)
            of_dialogue = [
                cosine for one in range(turn + 1 if causal else length) for cosine in compared(stream, one)
            ]
            for cosines in (own, of_dialogue):
                measures += [sum(cosines) / (len(cosines) + 1), len(cosines) / (len(cosines) + 1)]
        rows.append(module.weight @ torch.tensor(measures) + module.bias)
    return torch.stack(rows)


@pytest.mark.parametrize("causal", [False, True])
def test_the_odds_are_those_of_all_pairs(causal: bool) -> None:
    module = tiny_model(consistency_size=3, causal=causal, num_speakers=2).redifu.consistency
    batch = tiny_batch(9, 4, 1)  # three speakers, of which two are compared
    batch["modality_mask"] = random_modality_mask(batch["utterance_mask"])
    features = {name: batch[f"{name}_features"] for name in MODALITIES}
    present = {
        name: batch["utterance_mask"] & batch["modality_mask"][..., index]
        for index, name in enumerate(MODALITIES)
    }
    log_odds = module(features, batch["speaker_ids"], present)
    for row, length in enumerate((9, 4, 1)):
        expected = log_odds_by_loops(module, batch, row, causal=causal)
        torch.testing.assert_close(log_odds[row, :length], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fusion", ["mutual_attention", "text_diffusion", "concat"])
def test_a_stream_that_does_not_fit_is_a_missing_one(fusion: str) -> None:
    model = tiny_model(consistency_size=3, fusion=fusion)
    plain = tiny_model(fusion=fusion)
    plain.load_state_dict(model.state_dict(), strict=False)
    batch = tiny_batch(12, 7)
    with torch.no_grad():
        output = model(**batch)
        unlike = output.consistency < 0.5
        kept = torch.cat([torch.ones_like(unlike[..., :1]), ~unlike], dim=-1)
        expected = plain(**batch, modality_mask=kept)
    real = batch["utterance_mask"]
    assert unlike[real].any() and not unlike[real].all()
    torch.testing.assert_close(output.logits[real], expected.logits[real])
    assert expected.consistency is None


def test_the_last_stream_of_an_utterance_stays() -> None:
    model = tiny_model(consistency_size=3)
    model.redifu.consistency.reset_parameters()
    model.redifu.consistency.bias.fill_(-1.0)
    batch = tiny_batch(4)
    seen = torch.tensor([False, True, True]).expand(1, 4, 3)
    with torch.no_grad():
        dropped, without = model(**batch), model(**batch, modality_mask=seen)
        text_alone = model(**batch, modality_mask=torch.tensor([True, False, False]).expand(1, 4, 3))
        plain = tiny_model()
        plain.load_state_dict(model.state_dict(), strict=False)
        torch.testing.assert_close(dropped.logits, text_alone.logits)
        torch.testing.assert_close(without.logits, plain(**batch, modality_mask=seen).logits)


def test_a_new_model_drops_nothing_and_starts_as_one_that_does_not_compare() -> None:
    torch.manual_seed(0)
    model = ReDiFuForEmotionRecognition(tiny_config(consistency_size=3)).eval()
    torch.manual_seed(0)
    plain = ReDiFuForEmotionRecognition(tiny_config()).eval()
    batch = tiny_batch(8, 5)
    with torch.no_grad():
        output = model(**batch)
    assert torch.equal(output.logits, plain(**batch).logits)
    assert (output.consistency == 0.5).all()


def test_a_lone_voice_among_others_of_its_speaker_is_dropped() -> None:
    model = tiny_model(consistency_size=5)
    module = model.redifu.consistency
    module.reset_parameters()
    module.audio.copy_(torch.eye(5))
    module.weight[0, 0] = 1.0  # the mean cosine to the speaker's other sounds alone
    batch = tiny_batch(6)
    batch["speaker_ids"] = torch.tensor([[0, 1, 0, 1, 0, 1]])
    batch["audio_features"] = torch.eye(5)[[0, 1, 0, 1, 2, 1]][None] - 0.1
    output = model(**batch)
    assert (output.consistency[0, :, 0] < 0.5).tolist() == [False] * 4 + [True, False]
    assert math.isclose(output.consistency[0, :, 1].max().item(), 0.5)
