"""The literal reference computes what the released model computed."""

from pathlib import Path

import pytest
import torch

from released_golden import ReleasedGolden, load_released_golden
from released_reference import ReferenceOutput, ReleasedReference, released_loss, speaker_relations

SIZES = {
    "hidden_size": 8,
    "num_heads": 2,
    "window": 2,
    "text_size": 5,
    "audio_size": 4,
    "visual_size": 3,
    "num_labels": 6,
    "num_speakers": 3,
}


@pytest.fixture(scope="module", params=["iemocap", "meld"])
def golden(request: pytest.FixtureRequest, test_data: Path) -> ReleasedGolden:
    return load_released_golden(test_data, request.param)


@pytest.fixture(scope="module")
def reference(golden: ReleasedGolden) -> ReleasedReference:
    model = ReleasedReference(golden.recipe, **golden.sizes).eval()
    model.load_state_dict(golden.weights())
    return model


@pytest.fixture(scope="module")
def output(reference: ReleasedReference, golden: ReleasedGolden) -> ReferenceOutput:
    inputs = golden.inputs()
    return reference(inputs["text"], inputs["audio"], inputs["visual"], inputs["speaker_ids"])


def test_relations_equal_the_released_ones(golden: ReleasedGolden) -> None:
    intra, inter = speaker_relations(golden.inputs()["speaker_ids"], golden.sizes["window"])
    torch.testing.assert_close(intra[0], golden.tensors["relations.intra_speaker"])
    torch.testing.assert_close(inter[0], golden.tensors["relations.inter_speaker"])


def test_hidden_states_equal_the_released_ones(output: ReferenceOutput, golden: ReleasedGolden) -> None:
    expected = golden.group("hidden")
    assert set(expected) == set(output.hidden)
    for name, states in expected.items():
        torch.testing.assert_close(output.hidden[name][0], states, atol=1e-5, rtol=0, msg=name)


def test_outputs_equal_the_released_ones(output: ReferenceOutput, golden: ReleasedGolden) -> None:
    expected = golden.group("output")
    torch.testing.assert_close(output.logits[0], expected["logits"], atol=1e-5, rtol=0)
    names = ("log_probs", "text_log_probs", "audio_log_probs", "visual_log_probs")
    for name, logits in zip(names, output[:4], strict=True):
        torch.testing.assert_close(logits[0].log_softmax(-1), expected[name], atol=1e-5, rtol=0, msg=name)


def test_loss_and_gradients_equal_the_released_ones(
    reference: ReleasedReference, output: ReferenceOutput, golden: ReleasedGolden
) -> None:
    loss = released_loss(output, golden.inputs()["labels"])
    torch.testing.assert_close(loss, golden.tensors["output.loss"], atol=1e-5, rtol=0)
    names = [name for name, _ in reference.named_parameters()]
    expected = golden.group("grad")
    assert set(names) == set(expected)
    gradients = torch.autograd.grad(loss, list(reference.parameters()))
    for name, gradient in zip(names, gradients, strict=True):
        largest = expected[name].abs().max().item()
        torch.testing.assert_close(gradient, expected[name], atol=1e-4 * largest, rtol=0, msg=name)


@pytest.mark.parametrize("recipe", ["iemocap", "meld"])
def test_a_batch_gives_what_its_dialogues_give_alone(recipe: str) -> None:
    torch.manual_seed(0)
    model = ReleasedReference(recipe, **SIZES).eval()
    streams = [torch.randn(2, 7, SIZES[f"{name}_size"]) for name in ("text", "audio", "visual")]
    speaker_ids = torch.randint(3, (2, 7))
    both = model(*streams, speaker_ids).logits
    for row in range(2):
        alone = model(*(x[row : row + 1] for x in streams), speaker_ids[row : row + 1]).logits
        torch.testing.assert_close(both[row : row + 1], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("recipe", ["iemocap", "meld"])
def test_training_drops_at_random_and_reaches_every_parameter(recipe: str) -> None:
    torch.manual_seed(0)
    model = ReleasedReference(recipe, **SIZES).train()
    streams = [torch.randn(2, 7, SIZES[f"{name}_size"]) for name in ("text", "audio", "visual")]
    inputs = (*streams, torch.randint(3, (2, 7)))
    first, second = model(*inputs), model(*inputs)
    assert not torch.allclose(first.logits, second.logits)
    released_loss(first, torch.randint(SIZES["num_labels"], (2, 7))).backward()
    assert [name for name, x in model.named_parameters() if x.grad is None] == []
