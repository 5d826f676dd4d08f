"""Exports to ONNX: the same logits as the model, for any batch, and a runtime that stands in for it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("onnxscript", reason="onnxscript is not installed: it comes with the extra onnx")
import onnx
import onnxruntime

from answers import predicted
from hub.loopback_hub import LoopbackHub
from hub.toy_models import CONVERSATION, write_text_model
from model.tiny_models import TEXT_CONFIGS, VARIANTS, text_model, tiny_batch, tiny_model
from redifu import ConversationSession
from redifu.cli import main
from redifu.hub import onnx_export
from redifu.hub.onnx_export import (
    CHECKED_SHAPES,
    TOLERANCE,
    export_onnx,
    largest_difference,
    sample_inputs,
)
from redifu.inference.loading import load_pretrained
from redifu.inference.onnx_runtime import CONFIG, FILE, OnnxModel, load_onnx

pytestmark = pytest.mark.slow

TEXTS = ["great", "never", "great never", "so it is", ""]


def conversations() -> list[dict[str, Any]]:
    """Dialogues of different lengths; one without any text but the last."""
    spoken = [{"speaker": "AB"[turn % 2], "text": TEXTS[turn % 5]} for turn in range(12)]
    return [{"id": str(n), "utterances": spoken[start : start + n]} for start, n in ((0, 4), (2, 9), (4, 1))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of texts with its export beside it."""
    folder = write_text_model(tmp_path_factory.mktemp("onnx") / "model")
    assert main(["export", str(folder), "--output", str(folder / FILE)]) == 0
    return folder


def test_an_export_is_the_same_bytes_again(folder: Path, tmp_path: Path) -> None:
    assert main(["export", str(folder), "--output", str(tmp_path / FILE)]) == 0
    assert (tmp_path / FILE).read_bytes() == (folder / FILE).read_bytes()


# Of every stream it would be the same graph thrice; and edges become dense ids.
SMALLER = {"relation_modalities": ["text"], "edges": True}


@pytest.mark.parametrize("variant", ["iemocap", "causal", "windowed", "whole", "consistent"])
def test_an_export_of_features_is_the_model(variant: str, tmp_path: Path) -> None:
    model = tiny_model(**{**VARIANTS[variant], **SMALLER})
    # Compared at five shapes as it is written.
    assert export_onnx(model, tmp_path / "model.onnx") <= TOLERANCE
    graph = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph
    batch = tiny_batch(9, 2, 4)
    assert {each.name for each in graph.input} == {*batch, "modality_mask"}
    assert [each.name for each in graph.output] == ["logits"]


FUSIONS: dict[str, dict[str, Any]] = {
    "bert": {"fusion": "text_diffusion", "relation_modalities": []},
    "roberta": {"fusion": "concat", "relation_modalities": ["text"]},
    "modernbert": {"fusion": "concat", "relation_modalities": []},
}


@pytest.mark.parametrize("family", TEXT_CONFIGS)
def test_an_export_of_texts_is_the_model(family: str, tmp_path: Path) -> None:
    # How text is fused does not depend on the family.
    model = text_model(family, **FUSIONS[family], visual_size=None)
    assert export_onnx(model, tmp_path / "model.onnx") <= TOLERANCE
    # In one piece, as another program runs it: the runtime of this package runs it in two.
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for shape in CHECKED_SHAPES:
        inputs = sample_inputs(model.config, shape, seed=7)
        logits, embeddings = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        usable = inputs["modality_mask"].any(-1)
        with torch.no_grad():
            expected = model(**inputs).logits[usable]
            embedded = model.redifu.embed("text", inputs["input_ids"], inputs["attention_mask"])
        np.testing.assert_allclose(logits[usable.numpy()], expected, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(embeddings, embedded, rtol=0, atol=TOLERANCE)
    # A batch in which nobody says anything, and without pictures.
    without_text = {name: inputs[name] for name in ("utterance_mask", "speaker_ids", "audio_features")}
    without_text["modality_mask"] = inputs["modality_mask"] & torch.tensor([False, True, False])
    usable = without_text["modality_mask"].any(-1)
    actual = OnnxModel(tmp_path / "model.onnx")(**without_text).logits[usable]
    with torch.no_grad():
        torch.testing.assert_close(actual, model(**without_text).logits[usable], rtol=0, atol=TOLERANCE)


def test_an_export_is_calibrated_and_so_is_one_of_an_earlier_version(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    model = tiny_model(fusion="concat", relation_modalities=[])
    inputs = sample_inputs(model.config, (2, 5, 1))
    usable = inputs["modality_mask"].any(-1)
    undivided = model(**inputs).logits.detach()[usable]
    for exported_at in (1.7, 1.0):
        model.config.temperature = exported_at
        export_onnx(model, file)
        graph = onnx.load(file)
        said = {entry.key: entry.value for entry in graph.metadata_props}
        if exported_at == 1.0:
            # Earlier versions left the division to whoever predicted, and the configuration said by what.
            former = {"graph_implementation": "auto", "learned_modality_weights": False, "quality_size": None}
            said[CONFIG] = json.dumps({**json.loads(said[CONFIG]), **former, "temperature": 1.7})
            onnx.helper.set_model_props(graph, said)
            onnx.save(graph, file)
        else:
            session = onnxruntime.InferenceSession(file)
            (logits,) = session.run(
                None, {each.name: inputs[each.name].numpy() for each in graph.graph.input}
            )
            np.testing.assert_allclose(logits[usable.numpy()], undivided / 1.7, rtol=0, atol=TOLERANCE)
        logits = OnnxModel(file)(**inputs).logits[usable]
        torch.testing.assert_close(logits, undivided / 1.7, rtol=0, atol=TOLERANCE)


def test_the_fusion_alone_reads_text_features(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "fusion.onnx"
    assert main(["export", str(folder), "--output", str(output), "--features"]) == 0
    model, _ = load_pretrained(folder)
    inputs = sample_inputs(model.config, (2, 5, 1), features=True)
    with torch.no_grad():
        expected = model(**inputs).logits
    usable = inputs["modality_mask"].any(-1)
    exported = OnnxModel(output)
    torch.testing.assert_close(exported(**inputs).logits[usable], expected[usable], rtol=0, atol=TOLERANCE)
    with pytest.raises(ValueError, match="no text backbone"):
        exported.embed("text", torch.ones(1, 2, dtype=torch.long), torch.ones(1, 2))


def test_an_export_says_nothing_of_this_machine(folder: Path) -> None:
    content = (folder / FILE).read_bytes()
    assert str(Path(onnx_export.__file__).parent.parent).encode() not in content
    assert str(Path(torch.__file__).parent).encode() not in content
    assert str(folder).encode() not in content


def test_the_runtime_predicts_what_the_model_does(folder: Path) -> None:
    expected, actual = (
        [probabilities for _, probabilities in predicted(*load(folder), conversations())]
        for load in (load_pretrained, load_onnx)
    )
    for there, here in zip(expected, actual, strict=True):
        np.testing.assert_allclose(here, there, rtol=0, atol=1e-5)


def test_a_session_runs_on_an_export(folder: Path) -> None:
    sessions = [ConversationSession(*load(folder), window=3) for load in (load_pretrained, load_onnx)]
    for utterance in conversations()[0]["utterances"] * 2:
        expected, actual = (session.add(utterance)["scores"] for session in sessions)
        assert actual == pytest.approx(expected, abs=1e-5)


def test_predict_runs_without_the_weights(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "talk.json").write_text(json.dumps(CONVERSATION), encoding="utf-8")
    command = [str(tmp_path / "talk.json"), "--output"]
    assert main(["predict", str(folder), *command, str(tmp_path / "torch.csv")]) == 0
    (folder / "model.safetensors").rename(tmp_path / "model.safetensors")
    runtime = ["--runtime", "onnx"]
    assert main(["predict", str(folder), *command, str(tmp_path / "onnx.csv"), *runtime]) == 0
    (tmp_path / "model.safetensors").rename(folder / "model.safetensors")
    tables = [np.genfromtxt(tmp_path / name, delimiter=",")[1:, -3:] for name in ("torch.csv", "onnx.csv")]
    np.testing.assert_allclose(*tables, rtol=0, atol=1e-5)
    out, err = capsys.readouterr()
    assert err == ""
    assert [line.split(": ")[0] for line in out.splitlines()] == [
        str(tmp_path / name) for name in ("torch.csv", "onnx.csv")
    ]


def test_a_published_export_runs_by_its_name(
    folder: Path, hub: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", str(folder), "ana/mood"]) == 0
    (expected, *_), (actual, *_) = (
        list(predicted(*load_onnx(place), conversations())) for place in (folder, "ana/mood")
    )
    np.testing.assert_array_equal(actual[1], expected[1])
    asked = " ".join(hub.requests)
    assert "/ana/mood/resolve/" in asked and "model.onnx" in asked
    gets = [request for request in hub.requests if request.startswith("GET /ana/mood/resolve/")]
    assert gets and not any(request.endswith((".safetensors", ".py")) for request in gets)
    (tmp_path / "talk.json").write_text(json.dumps(CONVERSATION), encoding="utf-8")
    command = ["predict", "ana/mood", str(tmp_path / "talk.json"), "--runtime", "onnx"]
    assert main([*command, "--output", str(tmp_path / "out.csv")]) == 0
    hub.create_with("ana/bare", {"config.json": b"{}"})
    capsys.readouterr()
    assert main(["predict", "ana/bare", *command[2:]]) == 2
    assert "ana/bare: no model.onnx" in capsys.readouterr().err


def test_int8_is_smaller_and_less_exact(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "int8.onnx"
    assert main(["export", str(folder), "--output", str(output), "--int8"]) == 0
    model, _ = load_pretrained(folder)
    # `scripts/benchmarks/export.py` measures on trained weights how much accuracy int8 costs.
    exact, rounded = (largest_difference(model, file, features=False) for file in (folder / FILE, output))
    assert exact < rounded
    exported = OnnxModel(output)
    assert exported.config.to_dict() == OnnxModel(folder / FILE).config.to_dict()
    nodes, weights = onnx.load(output).graph.node, onnx.load(output).graph.initializer
    assert {node.op_type for node in nodes} >= {"MatMulInteger", "DynamicQuantizeLinear"}
    types = {each.name: each.data_type for each in weights}
    products = [node for node in nodes if node.op_type in ("MatMul", "MatMulInteger", "Gemm")]
    stored = {types[name] for node in products for name in node.input if name in types}
    assert onnx.TensorProto.INT8 in stored and onnx.TensorProto.FLOAT not in stored


def test_an_export_that_differs_is_not_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "_translate", lambda *given, **options: onnx.load(folder / FILE))
    model, _ = load_pretrained(folder)
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter += 0.1
    with pytest.raises(ArithmeticError, match="logits differ"):
        export_onnx(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
