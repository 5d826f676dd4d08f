"""What masks hide changes nothing: batches, padding, holes, missing streams and missing utterances."""

from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from torch import Tensor

from model.tiny_models import (
    IMPLEMENTATIONS,
    VARIANTS,
    assert_gradients_close,
    gradients,
    random_labels,
    random_modality_mask,
    tiny_batch,
    tiny_model,
)
from redifu.model import MODALITIES, ReDiFuForEmotionRecognition

LENGTHS = (7, 1, 4)


# The baseline has one attention, in the encoders: it is run both ways where eager and sdpa are compared.
MODELS = [
    ("meld", "eager"),
    ("meld", "sdpa"),
    ("iemocap", "eager"),
    ("iemocap", "sdpa"),
    ("baseline", "sdpa"),
    ("causal", "eager"),
    ("causal", "sdpa"),
    ("whole", "eager"),
    ("whole", "sdpa"),
    ("windowed", "sdpa"),
    ("sparse", "sdpa"),
]


@pytest.fixture(scope="module", params=MODELS, ids="-".join)
def model(request: pytest.FixtureRequest) -> ReDiFuForEmotionRecognition:
    variant, implementation = request.param
    return tiny_model(implementation=implementation, **VARIANTS[variant])


@pytest.fixture(params=[False, True], ids=["all_streams", "subsets_of_streams"])
def batch(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    batch = tiny_batch(*LENGTHS)
    if request.param:
        batch["modality_mask"] = random_modality_mask(batch["utterance_mask"])
    return batch


def dialogue(batch: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    """One dialogue of a batch, alone and without padding."""
    real = batch["utterance_mask"][row]
    return {name: value[row, real][None] for name, value in batch.items()}


def real_logits(model: ReDiFuForEmotionRecognition, batch: dict[str, Tensor]) -> Tensor:
    """The logits of the real utterances, (real utterances, labels)."""
    with torch.no_grad():
        return model(**batch).logits[batch["utterance_mask"].bool()]


def assert_near(actual: Tensor, expected: Tensor) -> None:
    assert expected.isfinite().all()
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def spread(batch: dict[str, Tensor], places: Tensor, length: int) -> dict[str, Tensor]:
    """Move utterance i of every dialogue to `places[i]` of `length`; the rest is NaN and nonsense."""
    moved = {}
    for name, value in batch.items():
        filler = float("nan") if value.is_floating_point() else -1
        filler = 0 if name == "utterance_mask" else filler
        filler = 1 if name == "modality_mask" else filler
        shape = (value.shape[0], length, *value.shape[2:])
        moved[name] = torch.full(shape, filler, dtype=value.dtype)
        moved[name][:, places] = value
    return moved


def test_a_dialogue_alone_equals_the_dialogue_in_a_batch(
    model: ReDiFuForEmotionRecognition, batch: dict[str, Tensor]
) -> None:
    alone = [real_logits(model, dialogue(batch, row)) for row in range(len(LENGTHS))]
    assert_near(real_logits(model, batch), torch.cat(alone))
    permuted = {name: value[[2, 0, 1]] for name, value in batch.items()}
    assert_near(real_logits(model, permuted), torch.cat([alone[2], alone[0], alone[1]]))


@pytest.mark.parametrize(
    "places",
    [range(7), range(5, 12), [0, 1, 4, 5, 6, 9, 11], [2, 3, 5, 7, 8, 9, 10]],
    ids=["right", "left", "holes", "left_and_holes"],
)
def test_padding_anywhere_with_any_content_changes_nothing(
    model: ReDiFuForEmotionRecognition, batch: dict[str, Tensor], places: range | list[int]
) -> None:
    moved = spread(batch, torch.tensor(places), length=12)
    assert_near(real_logits(model, moved), real_logits(model, batch))


@pytest.mark.parametrize("content", [float("nan"), 1e30])
def test_hidden_content_does_not_change_a_bit(model: ReDiFuForEmotionRecognition, content: float) -> None:
    batch = tiny_batch(*LENGTHS)
    batch["modality_mask"] = random_modality_mask(batch["utterance_mask"])
    before = model(**batch)
    for index, name in enumerate(MODALITIES):
        hidden = ~(batch["modality_mask"][..., index] & batch["utterance_mask"])
        batch[f"{name}_features"] = batch[f"{name}_features"].masked_fill(hidden[..., None], content)
    batch["speaker_ids"] = batch["speaker_ids"].masked_fill(~batch["utterance_mask"], 2)
    after = model(**batch)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.isfinite().all(), name
        assert torch.equal(after[name], value), name


def test_hidden_content_does_not_reach_loss_or_gradients(model: ReDiFuForEmotionRecognition) -> None:
    batch = tiny_batch(*LENGTHS)
    batch["modality_mask"] = random_modality_mask(batch["utterance_mask"])
    labels = random_labels(batch)
    before = model(**batch, labels=labels).loss
    for index, name in enumerate(MODALITIES):
        hidden = ~(batch["modality_mask"][..., index] & batch["utterance_mask"])
        batch[f"{name}_features"] = batch[f"{name}_features"].masked_fill(hidden[..., None], float("nan"))
    after = model(**batch, labels=labels).loss
    assert torch.equal(before, after)
    expected = gradients(model, before)
    assert all(value.isfinite().all() for value in expected.values())
    assert_gradients_close(gradients(model, after), expected, tolerance=0)


def test_a_batch_of_padding_gives_the_gradients_of_its_dialogues(model: ReDiFuForEmotionRecognition) -> None:
    batch = tiny_batch(5, 3)
    labels = random_labels(batch)
    alone = [
        model(**dialogue(batch, row)).logits[0].log_softmax(-1)[range(n), labels[row, :n]].sum()
        for row, n in enumerate((5, 3))
    ]
    together = torch.nn.functional.cross_entropy(
        model(**batch).logits.flatten(0, 1), labels.flatten(), reduction="sum"
    )
    assert_gradients_close(gradients(model, together), gradients(model, -sum(alone)), tolerance=1e-4)


def test_a_stream_not_given_equals_one_masked_everywhere(model: ReDiFuForEmotionRecognition) -> None:
    batch = tiny_batch(*LENGTHS)
    for given in [*((name,) for name in MODALITIES), *combinations(MODALITIES, 2)]:
        masked = {
            **batch,
            "modality_mask": torch.tensor([name in given for name in MODALITIES]).expand(3, 7, 3),
        }
        absent = {**batch, **{f"{name}_features": None for name in MODALITIES if name not in given}}
        assert_near(real_logits(model, absent), real_logits(model, masked))


def test_every_given_stream_counts(model: ReDiFuForEmotionRecognition) -> None:
    batch = tiny_batch(*LENGTHS)
    before = real_logits(model, batch)
    for name in MODALITIES:
        changed = {**batch, f"{name}_features": batch[f"{name}_features"] + 1.0}
        assert (real_logits(model, changed) - before).abs().amax(-1).min() > 1e-4


@pytest.mark.parametrize("missing", [{"text"}, {"audio", "visual"}, set(MODALITIES)])
def test_a_dialogue_without_a_stream_beside_one_that_has_it(
    model: ReDiFuForEmotionRecognition, missing: set[str]
) -> None:
    batch = tiny_batch(4, 4)
    batch["modality_mask"] = torch.ones(2, 4, 3, dtype=torch.bool)
    batch["modality_mask"][0] = torch.tensor([name not in missing for name in MODALITIES])
    together = real_logits(model, batch)
    assert together[:4].isfinite().all()
    assert_near(together[4:], real_logits(model, dialogue(batch, 1)))


def test_an_utterance_without_any_stream_is_seen_by_nobody(model: ReDiFuForEmotionRecognition) -> None:
    batch = tiny_batch(5)
    batch["modality_mask"] = torch.ones(1, 5, 3, dtype=torch.bool)
    batch["modality_mask"][0, 2] = False
    before = real_logits(model, batch)
    batch["speaker_ids"][0, 2] = 7
    after = real_logits(model, batch)
    assert torch.equal(after[[0, 1, 3, 4]], before[[0, 1, 3, 4]])
    assert before.isfinite().all()
    labels = torch.tensor([[0, 1, 2, 0, 1]])
    loss = model(**batch, labels=labels).loss
    assert torch.equal(loss, model(**batch, labels=labels.index_fill(1, torch.tensor([2]), -100)).loss)


def test_masks_of_numbers_mean_what_masks_of_bools_mean(model: ReDiFuForEmotionRecognition) -> None:
    batch = tiny_batch(*LENGTHS)
    batch["modality_mask"] = random_modality_mask(batch["utterance_mask"])
    before = real_logits(model, batch)
    for convert in (Tensor.int, Tensor.float, Tensor.half):
        assert torch.equal(real_logits(model, numbers(batch, convert)), before)


def numbers(batch: dict[str, Tensor], convert: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """The batch with its masks in another type."""
    return {name: convert(value) if value.dtype == torch.bool else value for name, value in batch.items()}


def test_no_mask_means_all_real_and_no_speakers_one_speaker(model: ReDiFuForEmotionRecognition) -> None:
    batch = tiny_batch(4, 4)
    explicit = {
        **batch,
        "modality_mask": torch.ones(2, 4, 3),
        "speaker_ids": torch.zeros(2, 4, dtype=torch.long),
    }
    features = {name: value for name, value in batch.items() if name.endswith("features")}
    assert torch.equal(model(**features).logits, model(**explicit).logits)


@pytest.mark.parametrize("variant", VARIANTS)
def test_eager_equals_sdpa_in_values_and_gradients(variant: str) -> None:
    batch = tiny_batch(*LENGTHS)
    batch["modality_mask"] = random_modality_mask(batch["utterance_mask"])
    batch["modality_mask"][2, :, 1] = False
    labels = random_labels(batch)
    eager, sdpa = (tiny_model(implementation=name, **VARIANTS[variant]) for name in IMPLEMENTATIONS)
    outputs = [model(**batch, labels=labels) for model in (eager, sdpa)]
    for name, value in outputs[0].items():
        assert_near(outputs[1][name], value)
    eager_gradients, sdpa_gradients = (
        gradients(model, output.loss) for model, output in zip((eager, sdpa), outputs, strict=True)
    )
    assert_gradients_close(sdpa_gradients, eager_gradients, tolerance=1e-5)
    eager.set_attn_implementation("sdpa")
    assert torch.equal(eager(**batch).logits, sdpa(**batch).logits)
