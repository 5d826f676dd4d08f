"""What is wrong with an export, or with where it is looked for, said in one line."""

import json
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="onnx is not installed: it comes with the extra onnx")
import onnx

from hub.toy_models import CONVERSATION, write_features_model
from model.tiny_models import tiny_config, tiny_model
from redifu.cli import main
from redifu.hub.onnx_export import export_onnx
from redifu.inference.onnx_runtime import CONFIG, load_onnx
from redifu.optional_packages import optional_package


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "talk.json").write_text(json.dumps(CONVERSATION), encoding="utf-8")
    return write_features_model(tmp_path / "model")


def write_graph(file: Path, **properties: str) -> None:
    """An ONNX file that does nothing."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    body = onnx.helper.make_graph([node], "nothing", [value], [result])
    versions = {"ir_version": 10, "opset_imports": [onnx.helper.make_opsetid("", 20)]}
    graph = onnx.helper.make_model(body, **versions)
    onnx.helper.set_model_props(graph, properties)
    onnx.save(graph, file)


@pytest.mark.parametrize("name", ["model.pt", "nowhere/model.onnx"])
def test_an_output_that_can_not_be_is_refused_before_the_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        ValueError, match=f"{name}: (expected a file name ending in .onnx|the folder .* does not exist)"
    ):
        export_onnx(tiny_model(), tmp_path / name)


def test_a_folder_without_an_export_gets_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    talk = str(folder.parent / "talk.json")
    assert main(["predict", str(folder), talk, "--runtime", "onnx"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"redifu predict: error: {folder}: no model.onnx: create it with `redifu export`\n"


@pytest.mark.parametrize("content", [b"no graph", b""])
def test_a_file_that_is_no_export_is_refused(folder: Path, content: bytes) -> None:
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(ValueError, match="model.onnx: not an exported ReDiFu model"):
        load_onnx(folder)


def test_a_graph_of_something_else_is_refused(folder: Path) -> None:
    write_graph(folder / "model.onnx")
    with pytest.raises(ValueError, match="model.onnx: not an exported ReDiFu model"):
        load_onnx(folder)


def test_weights_outside_of_the_folder_are_not_read(folder: Path) -> None:
    (folder.parent / "secret").write_bytes(bytes(4))
    write_graph(folder / "model.onnx", **{CONFIG: json.dumps(tiny_config().to_dict())})
    graph = onnx.load(folder / "model.onnx")
    weights = graph.graph.initializer.add(name="w", data_type=onnx.TensorProto.FLOAT, dims=[1])
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../secret")
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(ValueError, match=r"not an exported ReDiFu model: .*'\.\./secret' points outside"):
        load_onnx(folder)


def test_an_export_with_a_deleted_option_is_refused(folder: Path) -> None:
    config = tiny_config().to_dict() | {"quality_size": 4}
    write_graph(folder / "model.onnx", **{CONFIG: json.dumps(config)})
    with pytest.raises(ValueError, match="model.onnx: not .*quality_size is no longer supported: .* got 4"):
        load_onnx(folder)


def test_labels_of_another_model_are_refused(folder: Path) -> None:
    config = tiny_config(id2label={0: "calm", 1: "cross"})
    write_graph(folder / "model.onnx", **{CONFIG: json.dumps(config.to_dict())})
    with pytest.raises(
        ValueError, match="has labels .'calm', 'cross'., but its processor has .'calm', 'glad'"
    ):
        load_onnx(folder)


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str, *, extra: str) -> None:
        return optional_package(f"no_{module}", extra=extra)

    monkeypatch.setattr("redifu.hub.onnx_export.optional_package", missing)
    with pytest.raises(ImportError, match=r"no_onnx is not installed: pip install 'redifu\[onnx\]'"):
        export_onnx(tiny_model(), tmp_path / "model.onnx")
