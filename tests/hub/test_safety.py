"""Loading opens nothing pickled, and asks the network only for what can be a Hub id."""

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoProcessor

from hub.loopback_hub import LoopbackHub
from hub.toy_models import CONVERSATION, write_features_model, write_text_model
from redifu import ReDiFuForEmotionRecognition
from redifu.cli import main
from redifu.inference.loading import load_pretrained
from training.toy import write_text_backbone

ROOT = Path(__file__).parents[2]
DATA = str(ROOT / "tests" / "smoke" / "conversations.jsonl")


@pytest.fixture
def no_unpickling(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a pickle was opened")

    for name in ("torch.load", "pickle.load", "pickle.loads"):
        monkeypatch.setattr(name, refuse)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def refused(capsys: pytest.CaptureFixture[str], model: str) -> str:
    """The one line of a prediction that must fail by the name of its model."""
    assert main(["predict", model, DATA]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    """A model beside whose weights lie the same, pickled."""
    folder = write_features_model(tmp_path / "model")
    torch.save(load_pretrained(folder)[0].state_dict(), folder / "pytorch_model.bin")
    (folder / "extra.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    return folder


@pytest.mark.usefixtures("no_unpickling")
def test_a_pickle_beside_the_weights_is_not_opened(pickled: Path) -> None:
    load_pretrained(pickled)
    for loader in (ReDiFuForEmotionRecognition, AutoModelForSequenceClassification, AutoModel):
        loader.from_pretrained(pickled)


@pytest.mark.usefixtures("no_unpickling")
def test_a_folder_with_a_pickle_only_is_refused(pickled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pickled / "model.safetensors").unlink()
    err = refused(capsys, str(pickled))
    assert "has no model*.safetensors; pickled files are never loaded: extra.pkl, pytorch_model.bin" in err
    for loader in (ReDiFuForEmotionRecognition, AutoModelForSequenceClassification, AutoModel):
        with pytest.raises(OSError, match=r"model\.safetensors"):
            loader.from_pretrained(pickled)


def as_shard(folder: Path, name: str) -> Path:
    """Leave to a model an index alone, which names one file of weights."""
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").rename(folder / "model-00001.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "../model.safetensors", "/model.safetensors", 3, "a.pt"]
)
@pytest.mark.usefixtures("no_unpickling")
def test_an_index_names_only_safetensors_of_its_folder(
    pickled: Path, name: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(pickled / "model.safetensors", pickled.parent)
    as_shard(pickled, name)
    complaint = f"may name only safetensors files of its folder, got {name!r}"
    assert complaint in refused(capsys, str(pickled))
    for loader in (ReDiFuForEmotionRecognition, AutoModelForSequenceClassification, AutoModel):
        with pytest.raises(ValueError, match=complaint):
            loader.from_pretrained(pickled)


@pytest.mark.parametrize("content", ["[]", "{", '{"weight_map": 3}', "[" * 100_000])
def test_a_damaged_index_gets_one_line(
    pickled: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (as_shard(pickled, "x") / "model.safetensors.index.json").write_text(content, encoding="utf-8")
    assert "model.safetensors.index.json is damaged" in refused(capsys, str(pickled))


def test_shards_of_the_folder_are_read(pickled: Path) -> None:
    expected = load_pretrained(pickled)[0].state_dict()
    loaded = load_pretrained(as_shard(pickled, "model-00001.safetensors"))[0].state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())


@pytest.mark.usefixtures("no_unpickling")
def test_an_index_of_a_repository_names_only_safetensors(hub: LoopbackHub, pickled: Path) -> None:
    as_shard(pickled, "pytorch_model.bin")
    files: dict[str, Any] = {path.name: path.read_bytes() for path in pickled.iterdir()}
    hub.create_with("ana/mood", files)
    for load in (load_pretrained, AutoModel.from_pretrained):
        with pytest.raises(ValueError, match="may name only safetensors files of its folder"):
            load("ana/mood")


@pytest.mark.usefixtures("no_unpickling")
def test_a_text_backbone_is_of_safetensors_alone(tmp_path: Path) -> None:
    backbone = as_shard(write_text_backbone(tmp_path / "backbone"), "pytorch_model.bin")
    (backbone / "model-00001.safetensors").rename(backbone / "pytorch_model.bin")
    with pytest.raises(ValueError, match="may name only safetensors files of its folder"):
        ReDiFuForEmotionRecognition.from_backbones(text=str(backbone), id2label={0: "calm"})


@pytest.mark.usefixtures("no_unpickling")
def test_pickled_weights_can_not_be_asked_for(pickled: Path) -> None:
    with pytest.raises(ValueError, match="only from safetensors, got use_safetensors=False"):
        AutoModelForSequenceClassification.from_pretrained(pickled, use_safetensors=False)


@pytest.mark.usefixtures("no_unpickling")
def test_a_pickled_text_backbone_is_refused(tmp_path: Path) -> None:
    backbone = write_text_backbone(tmp_path / "backbone")
    (backbone / "model.safetensors").rename(backbone / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"model\.safetensors"):
        ReDiFuForEmotionRecognition.from_backbones(text=str(backbone), id2label={0: "calm"})


@pytest.mark.usefixtures("no_network")
def test_a_folder_loads_without_network(tmp_path: Path) -> None:
    folder = write_text_model(tmp_path / "model")
    for loader in (AutoModelForSequenceClassification, AutoModel, AutoProcessor):
        loader.from_pretrained(folder)
    (tmp_path / "dinner.json").write_text(json.dumps(CONVERSATION), encoding="utf-8")
    assert main(["predict", str(folder), str(tmp_path / "dinner.json")]) == 0
    assert main(["publish", str(folder), "ana/mood", "--dry-run"]) == 0


@pytest.mark.parametrize(
    "name", ["nowhere", "./nowhere", "../a/b", "~/model", "/nowhere/model", "a/b/c", "model_cards/typo"]
)
@pytest.mark.usefixtures("no_network")
def test_a_mistyped_path_is_not_asked_for(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert f"{name}: no such model folder\n" in refused(capsys, name)


def test_what_the_hub_does_not_have_gets_one_line(
    hub: LoopbackHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "ana/nowhere: no such model folder, and downloading it failed" in refused(capsys, "ana/nowhere")
    assert any("ana/nowhere" in request for request in hub.requests)


def test_offline_a_hub_id_gets_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "ana/nowhere: no such model folder, and downloading it failed" in refused(capsys, "ana/nowhere")


@pytest.mark.usefixtures("no_unpickling")
def test_nothing_pickled_is_downloaded(hub: LoopbackHub, pickled: Path, tmp_path: Path) -> None:
    files: dict[str, Any] = {path.name: path.read_bytes() for path in pickled.iterdir()}
    hub.create_with("ana/mood", files)
    load_pretrained("ana/mood")
    assert not any("pytorch_model.bin" in request or ".pkl" in request for request in hub.requests)
