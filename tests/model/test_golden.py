"""The released model: the tensors of two of its runs (shared golden files), and its literal reference."""

import runpy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.tiny_models import IMPLEMENTATIONS, assert_gradients_close, gradients
from redifu.model import MODALITIES, ReDiFuConfig, ReDiFuForEmotionRecognition
from redifu.model.relation_subgraphs import speaker_relation_ids
from released_golden import ReleasedGolden, load_released_golden
from released_reference import ReleasedReference

CONVERSION = runpy.run_path(
    str(Path(__file__).resolve().parents[2] / "scripts" / "convert_released_checkpoint.py")
)
HIDDEN = {
    "textf_input": "text_projected",
    "gatTer": "text_inter_speaker",
    "gatT": "text_intra_speaker",
    "a_a": "audio_encoded",
    "v_v": "visual_encoded",
    "agate": "audio_gated",
    "vgate": "visual_gated",
    "fused_t": "text_fused",
    "fused_a": "audio_fused",
    "fused_v": "visual_fused",
}


def our_name(released_name: str) -> str:
    """Our name of a released parameter, from the table of the conversion script."""
    name = CONVERSION["translate"](released_name, CONVERSION["NAMES"])
    assert name is not None, released_name
    return name


@pytest.fixture(scope="module", params=["iemocap", "meld"])
def recipe(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def golden(recipe: str, test_data: Path) -> ReleasedGolden:
    return load_released_golden(test_data, recipe)


@pytest.fixture(params=IMPLEMENTATIONS)
def model(recipe: str, golden: ReleasedGolden, request: pytest.FixtureRequest) -> ReDiFuForEmotionRecognition:
    sizes = dict(golden.sizes)
    config = ReDiFuConfig.released(
        recipe,
        num_attention_heads=sizes.pop("num_heads"),
        relation_window=sizes.pop("window"),
        dropout=0.0,
        relation_dropout=0.0,
        attn_implementation=request.param,
        **sizes,
    )
    model = ReDiFuForEmotionRecognition(config).eval()
    model.load_state_dict({our_name(name): value for name, value in golden.weights().items()}, strict=True)
    return model


def inputs(golden: ReleasedGolden) -> dict[str, Tensor]:
    """What the model is called with: one dialogue."""
    ids = ("speaker_ids", "labels")
    return {name if name in ids else f"{name}_features": value for name, value in golden.inputs().items()}


def assert_near(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_logits_and_loss_are_the_released_ones(
    model: ReDiFuForEmotionRecognition, golden: ReleasedGolden
) -> None:
    output = model(**inputs(golden))
    assert_near(output.logits[0], golden.tensors["output.logits"])
    assert_near(output.logits[0].log_softmax(-1), golden.tensors["output.log_probs"])
    assert_near(output.loss, golden.tensors["output.loss"])
    for stream in MODALITIES:
        log_probabilities = output[f"{stream}_logits"][0].log_softmax(-1)
        assert_near(log_probabilities, golden.tensors[f"output.{stream}_log_probs"])


def test_hidden_states_are_the_released_ones(
    model: ReDiFuForEmotionRecognition, golden: ReleasedGolden
) -> None:
    states = model(**inputs(golden), output_hidden_states=True).hidden_states
    assert set(golden.group("hidden")) == set(HIDDEN)
    for released, ours in HIDDEN.items():
        assert_near(states[ours][0], golden.tensors[f"hidden.{released}"])


def test_gradients_are_the_released_ones(model: ReDiFuForEmotionRecognition, golden: ReleasedGolden) -> None:
    expected = {our_name(name): value for name, value in golden.group("grad").items()}
    assert_gradients_close(
        gradients(model, model(**inputs(golden)).loss), expected, tolerance=1e-4, rounding=0
    )


def test_relations_are_the_released_ones(golden: ReleasedGolden) -> None:
    speakers = golden.tensors["input.speaker_ids"][None]
    positions = torch.arange(speakers.shape[1])[None]
    present = torch.ones_like(speakers, dtype=torch.bool)
    window = golden.sizes["window"]
    intra, inter = speaker_relation_ids(speakers, positions, present=present, window=window)
    assert torch.equal(intra[0], golden.tensors["relations.intra_speaker"].long())
    assert torch.equal(inter[0], golden.tensors["relations.inter_speaker"].long())


def test_a_padded_batch_of_the_released_dialogue_agrees_too(
    model: ReDiFuForEmotionRecognition, golden: ReleasedGolden
) -> None:
    batch = inputs(golden)
    labels = batch.pop("labels")
    padded = {name: torch.cat([value, value[:, :4]], dim=1) for name, value in batch.items()}
    mask = torch.arange(labels.shape[1] + 4)[None] < labels.shape[1]
    logits = model(**padded, utterance_mask=mask).logits[:, : labels.shape[1]]
    assert_near(logits[0], golden.tensors["output.logits"])


@pytest.mark.parametrize("name", ["iemocap", "meld"])
def test_full_size_has_as_many_parameters_as_released(name: str) -> None:
    with torch.device("meta"):
        model = ReDiFuForEmotionRecognition(ReDiFuConfig.released(name))
        config = model.config
        reference = ReleasedReference(
            name,
            hidden_size=config.hidden_size,
            num_heads=config.num_attention_heads,
            window=config.relation_window,
            text_size=config.text_size,
            audio_size=config.audio_size,
            visual_size=config.visual_size,
            num_labels=config.num_labels,
            num_speakers=config.num_speakers,
        )
    counts = [sum(p.numel() for p in each.parameters()) for each in (model, reference)]
    assert counts[0] == counts[1] == {"iemocap": 45_632_144, "meld": 11_480_467}[name]
