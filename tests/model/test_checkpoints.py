"""Saving and loading: nothing is lost, nothing is invented, nothing is left as raw memory."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification

from model.tiny_models import TEXT_CONFIGS, VARIANTS, text_model, tiny_batch, tiny_config, tiny_model
from redifu.model import ReDiFuForEmotionRecognition, ReDiFuModel

MODELS = [*VARIANTS, *TEXT_CONFIGS]


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> ReDiFuForEmotionRecognition:
    variant = request.param
    return text_model(variant) if variant in TEXT_CONFIGS else tiny_model(**VARIANTS[variant])


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and every buffer, persistent or not."""
    return {name: value.detach() for name, value in [*model.named_parameters(), *model.named_buffers()]}


def assert_same(actual: nn.Module, expected: nn.Module) -> None:
    ours, theirs = tensors(actual), tensors(expected)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype, name
        assert torch.equal(ours[name], value), name


def edit(file: Path, **values: object) -> None:
    """Set keys of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_every_parameter_and_buffer_comes_back(model: ReDiFuForEmotionRecognition, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    loaded, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is ReDiFuForEmotionRecognition
    assert not loaded.training
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_same(loaded, model)
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "model.safetensors"
    ).read_bytes()
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    assert_same(again, model)
    assert again.config.to_diff_dict() == loaded.config.to_diff_dict()


def test_the_base_model_is_inside(model: ReDiFuForEmotionRecognition, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    base = AutoModel.from_pretrained(tmp_path)
    assert type(base) is ReDiFuModel
    assert_same(base, model.redifu)
    base.save_pretrained(tmp_path / "base")
    headed, info = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "base", output_loading_info=True
    )
    assert all(name.startswith("classifier.") for name in info["missing_keys"])
    assert_same(headed.redifu, model.redifu)


def test_a_checkpoint_of_an_earlier_version_answers_as_before(tmp_path: Path) -> None:
    model = tiny_model(fusion="text_diffusion", diffusion_steps=2)
    model.save_pretrained(tmp_path)
    former = {"graph_implementation": "auto", "learned_modality_weights": False, "quality_size": None}
    edit(tmp_path / "config.json", temperature=1.7, **former)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    batch = tiny_batch(5, 2)
    with torch.no_grad():
        # There, whoever predicted divided the logits by the temperature.
        before = (model(**batch).logits / 1.7).softmax(-1)
        torch.testing.assert_close(loaded(**batch).logits.softmax(-1), before, rtol=0, atol=1e-6)


def test_half_precision_weights_load_as_the_configuration_says(
    model: ReDiFuForEmotionRecognition, tmp_path: Path
) -> None:
    deepcopy(model).half().save_pretrained(tmp_path)
    edit(tmp_path / "config.json", dtype="float32")
    stored = load_file(tmp_path / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    for name, value in loaded.named_parameters():
        assert value.dtype == torch.float32, name
        assert torch.equal(value, stored[name].float()), name
    half = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float16)
    assert {value.dtype for value in half.parameters()} == {torch.float16}


def fill_memory() -> None:
    """Leave memory that is neither zero nor a plausible weight for whoever does not initialise its own."""
    for size in (1, 3, 16, 48, 256, 768, 1024, 4096):
        junk = [torch.full((size,), 1e30) for _ in range(64)]
        del junk


def assert_like_fresh(value: torch.Tensor, samples: list[torch.Tensor], name: str) -> None:
    """A constant of a fresh model is that constant; what it draws lies in the range that it draws from."""
    assert value.isfinite().all(), name
    if all(torch.equal(samples[0], sample) for sample in samples):
        assert torch.equal(value, samples[0]), name
    else:
        drawn = torch.stack(samples)
        assert value.abs().max() <= 2 * drawn.abs().max(), name
        assert not any(torch.equal(value, sample) for sample in samples), name
        if value.numel() >= 64:
            assert 0.7 < value.std() / drawn.std() < 1.4, name


@pytest.mark.parametrize("kept", ["nothing", "every_second"])
def test_missing_weights_are_those_of_a_fresh_model(
    model: ReDiFuForEmotionRecognition, kept: str, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    stored = dict(list(stored.items())[::2]) if kept == "every_second" else {}
    # Loading wants to see one tensor at least.
    save_file(
        stored or {"not_ours": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"format": "pt"}
    )
    fresh = []
    for seed in range(4):
        torch.manual_seed(seed)
        fresh.append(tensors(type(model)(deepcopy(model.config))))
    fill_memory()
    torch.manual_seed(99)
    loaded = tensors(type(model).from_pretrained(tmp_path))
    assert loaded.keys() == fresh[0].keys()
    for name, value in loaded.items():
        if name in stored:
            assert torch.equal(value, stored[name]), name
        elif ".text_backbone." in name and ".Wo." in name:
            # ModernBERT draws these in the module above, which transformers does not ask when it loads.
            assert value.abs().max() < 0.5, name
        else:
            assert_like_fresh(value, [sample[name] for sample in fresh], name)


def test_a_fresh_model_starts_as_released() -> None:
    model = ReDiFuForEmotionRecognition(tiny_config(hidden_size=32))
    parameters = dict(model.named_parameters())
    for name, value in parameters.items():
        if name.endswith("delta.alpha"):
            assert value.item() == 1.0
        if name.endswith("attention.strength"):
            assert value.item() == 0.5
        if name.endswith((".inputs.0.weight", ".joint.weight", ".inputs.0.attention", ".joint.attention")):
            bound = 1.414 * (6 / sum(value.shape)) ** 0.5
            assert 0.9 * bound < value.abs().max() <= bound, name
        if name.endswith(("gate.weight", "qkv.weight", "layers.0.weight", "filter_gate.weight")):
            # torch's own default for Linear: uniform within 1 / sqrt(inputs).
            bound = value.shape[1] ** -0.5
            assert 0.9 * bound < value.abs().max() <= bound, name
        if name.endswith("embedding.weight"):
            assert 0.8 < value.std() < 1.2, name
    assert sum("alpha" in name for name in parameters) == 2


def test_the_same_seed_draws_the_same_model() -> None:
    models = []
    for _ in range(2):
        torch.manual_seed(5)
        models.append(ReDiFuForEmotionRecognition(tiny_config()))
    assert_same(*models)


def test_a_head_of_another_size_is_drawn_anew(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path)
    labels = {"id2label": dict(enumerate("abcde")), "label2id": {name: i for i, name in enumerate("abcde")}}
    loaded = AutoModelForSequenceClassification.from_pretrained(
        tmp_path, ignore_mismatched_sizes=True, **labels
    )
    assert loaded.config.labels == list("abcde")
    assert loaded(**tiny_batch(3)).logits.shape == (1, 3, 5)
    assert_same(loaded.redifu, model.redifu)


def test_a_model_on_the_meta_device_takes_real_weights(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.device("meta"):
        empty = ReDiFuForEmotionRecognition(deepcopy(model.config)).eval()
    empty.load_state_dict(model.state_dict(), assign=True)
    assert_same(empty, model)
    batch = tiny_batch(4)
    assert torch.equal(empty(**batch).logits, model(**batch).logits)


def test_a_copy_is_independent(model: ReDiFuForEmotionRecognition) -> None:
    copy = deepcopy(model)
    assert_same(copy, model)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.zero_()
    assert all(value.abs().max() > 0 for value in model.parameters())


def test_parameters_pass_through_one_vector_and_back(model: ReDiFuForEmotionRecognition) -> None:
    copy = deepcopy(model)
    vector = nn.utils.parameters_to_vector(copy.parameters()).clone()
    nn.utils.vector_to_parameters(torch.zeros_like(vector), copy.parameters())
    nn.utils.vector_to_parameters(vector, copy.parameters())
    assert_same(copy, model)
