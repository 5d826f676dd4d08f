"""A released checkpoint, converted, is the released model."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from released_golden import ReleasedGolden, load_released_golden
from script_modules import load_script

EMBEDDING = "relation_embedding.weight"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("convert_released_checkpoint")


@pytest.fixture(scope="module", params=["iemocap", "meld"])
def golden(request: pytest.FixtureRequest, test_data: Path) -> ReleasedGolden:
    return load_released_golden(test_data, request.param)


@pytest.fixture
def convert(script: ModuleType, golden: ReleasedGolden, tmp_path: Path) -> Callable[..., int]:
    """Run the script on a file with the golden's recipe, heads and window; it writes tmp_path / "model"."""

    def run(weights: Path | dict[str, Tensor], *, num_heads: int = golden.sizes["num_heads"]) -> int:
        path = tmp_path / "weights.safetensors"
        if isinstance(weights, dict):
            save_file({name: x.clone() for name, x in weights.items()}, path)
        arguments = {
            "--weights": path if isinstance(weights, dict) else weights,
            "--recipe": golden.recipe,
            "--num-heads": num_heads,
            "--window": golden.sizes["window"],
            "--output": tmp_path / "model",
        }
        return script.main([str(part) for pair in arguments.items() for part in pair])

    return run


def logits_of(folder: Path, golden: ReleasedGolden) -> Tensor:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = golden.inputs()
    features = {f"{name}_features": inputs[name] for name in ("text", "audio", "visual")}
    with torch.no_grad():
        return model(**features, speaker_ids=inputs["speaker_ids"]).logits[0]


def test_the_converted_model_gives_the_released_logits(
    convert: Callable[..., int], golden: ReleasedGolden, tmp_path: Path
) -> None:
    assert convert(golden.path) == 0
    logits = logits_of(tmp_path / "model", golden)
    torch.testing.assert_close(logits, golden.tensors["output.logits"], atol=1e-5, rtol=0)


def test_the_configuration_follows_the_shapes(
    convert: Callable[..., int], golden: ReleasedGolden, tmp_path: Path
) -> None:
    assert convert(golden.path) == 0
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").config
    names = {"num_heads": "num_attention_heads", "window": "relation_window"}
    assert {name: getattr(config, names.get(name, name)) for name in golden.sizes} == golden.sizes
    assert "neutral" in config.labels


def test_names_without_prefix_and_one_copy_of_the_shared_embedding_do(
    convert: Callable[..., int], golden: ReleasedGolden, tmp_path: Path
) -> None:
    weights = golden.weights()
    for name in [name for name in weights if name.endswith(EMBEDDING)][1:]:
        del weights[name]
    assert convert(weights | {"optimizer.step": torch.ones(1)}) == 0
    logits = logits_of(tmp_path / "model", golden)
    torch.testing.assert_close(logits, golden.tensors["output.logits"], atol=1e-5, rtol=0)


def test_other_labels_than_the_recipe_has_are_numbered(
    convert: Callable[..., int], golden: ReleasedGolden, tmp_path: Path
) -> None:
    heads = {name: x[:2] for name, x in golden.weights().items() if "_output_layer" in name}
    assert convert(golden.weights() | heads) == 0
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").config.num_labels == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gatT.surprise": torch.ones(1)}, "gatT.surprise is not a weight of the released model"),
        ({"gatT.fc.bias": None}, "gatT.fc.bias missing"),
        ({"gatT.fc.bias": None, "gatTer.fc.bias": None}, "gatT.fc.bias and 1 more missing"),
        ({"textf_input.weight": None}, "textf_input.weight is missing"),
        ({"textf_input.weight": torch.ones(4)}, "textf_input.weight must have two axes, got shape (4,)"),
        ({"a_a.norm.weight": None, "a_a.delta_net.alpha": torch.ones(2)}, "must have shape (1,), got (2,)"),
        ({f"gatT.out_att.{EMBEDDING}": torch.ones(6, 10)}, "must equal the other copies"),
    ],
)
def test_weights_of_another_model_are_refused_in_one_line(
    convert: Callable[..., int],
    golden: ReleasedGolden,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Tensor | None],
    message: str,
) -> None:
    weights = golden.weights() | changes
    assert convert({name: x for name, x in weights.items() if x is not None}) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "model").exists()


def test_a_file_that_holds_no_weights_is_refused_in_one_line(
    convert: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no weights")
    for path in (text, tmp_path / "absent.safetensors"):
        assert convert(path) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert str(path) in line


def test_heads_that_do_not_divide_the_size_are_refused_in_one_line(
    convert: Callable[..., int], golden: ReleasedGolden, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(golden.path, num_heads=5) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "num_attention_heads must divide" in line
