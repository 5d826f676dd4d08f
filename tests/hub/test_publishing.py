"""What is published is all that is needed and nothing else, whole or not at all."""

import json
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hub.loopback_hub import LoopbackHub
from hub.toy_models import CONVERSATION, write_features_model, write_text_model
from model.tiny_models import LABELS
from redifu import ReDiFuForEmotionRecognition
from redifu.cli import main
from redifu.hub.publishing import files_to_publish, publish
from redifu.inference.loading import load_pretrained

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "redifu" / "model"
CARD = ROOT / "model_cards" / "redifu-meld-text"
CODE = {path.name for path in SOURCE.glob("*.py")} - {"__init__.py"}
CHECKPOINT = {"config.json", "model.safetensors", "processor_config.json"}
TOKENIZER = {"tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_model(tmp_path_factory.mktemp("text") / "model")


@pytest.fixture
def features_model(tmp_path: Path) -> Path:
    return write_features_model(tmp_path / "model")


def read(files: dict[str, Path | bytes], name: str) -> str:
    content = files[name]
    return (content if isinstance(content, bytes) else content.read_bytes()).decode()


def logits(name_or_path: str | Path) -> torch.Tensor:
    model, processor = load_pretrained(name_or_path)
    with torch.no_grad():
        return model(**processor(CONVERSATION)).logits


def test_a_repository_holds_the_checkpoint_its_card_and_the_code(text_model: Path) -> None:
    files = files_to_publish(text_model, "ana/mood")
    assert set(files) == CHECKPOINT | TOKENIZER | CODE | {"README.md", "metrics.json", "recipe.yaml"}
    for name in CODE:
        assert read(files, name) == (SOURCE / name).read_text(encoding="utf-8")


def test_what_is_private_pickled_or_code_stays(features_model: Path) -> None:
    before = set(files_to_publish(features_model, "ana/mood"))
    for name in (".secret.json", "log.jsonl", "optimizer.safetensors", "weights.pkl", "run.py", ".env"):
        (features_model / name).write_bytes(b"{}")
    (features_model / "notes.json").mkdir()
    assert set(files_to_publish(features_model, "ana/mood")) == before


def test_only_what_belongs_to_a_model_is_gathered(text_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(text_model, tmp_path / "model")
    before = set(files_to_publish(folder, "ana/mood"))
    for name in (
        "patients.json",
        "notes.txt",
        "diary.md",
        "face.png",
        "keys.yaml",
        "model-private.safetensors",
    ):
        (folder / name).write_bytes(b"{}")
    (folder / "passwords.txt").symlink_to("/etc/passwd")
    assert set(files_to_publish(folder, "ana/mood")) == before
    (folder / "card.yaml").write_text("license: mit", encoding="utf-8")
    assert set(files_to_publish(folder, "ana/mood")) == before | {"card.yaml"}


@pytest.mark.parametrize("name", ["metrics.json", "README.md", "model.onnx"])
def test_a_link_out_of_the_folder_is_not_followed(features_model: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("{}", encoding="utf-8")
    (features_model / name).symlink_to(tmp_path / "secret")
    with pytest.raises(
        ValueError, match=f"{name}: expected a file of the folder, got a link to another place"
    ):
        files_to_publish(features_model, "ana/mood")


def test_shards_and_their_index_are_gathered(features_model: Path) -> None:
    model, _ = load_pretrained(features_model)
    (features_model / "model.safetensors").unlink()
    model.save_pretrained(features_model, max_shard_size="5kB")
    shards = {path.name for path in features_model.glob("model-*.safetensors")}
    assert len(shards) > 1
    (features_model / "model-00000-of-00001.safetensors").write_bytes(b"of an earlier save")
    files = set(files_to_publish(features_model, "ana/mood"))
    assert {name for name in files if "safetensors" in name} == shards | {"model.safetensors.index.json"}


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("/home/ana/train.csv", "train.csv"),
        ("../clients/acme/train.csv", "train.csv"),
        ("clients/train.csv", "train.csv"),
        ("~/clients/train.csv", "train.csv"),
        ("C:\\Users\\ana\\train.csv", "train.csv"),
        ("s3://acme/train.csv", "train.csv"),
        ("$HOME/clients/train.csv", "$HOME/train.csv"),
        ("${HOME}/clients/train.csv", "${HOME}/train.csv"),
        ("train.csv", "train.csv"),
    ],
)
def test_a_recipe_names_no_place(
    features_model: Path, monkeypatch: pytest.MonkeyPatch, place: str, shown: str
) -> None:
    (features_model.parent / "clients").mkdir()
    monkeypatch.chdir(features_model.parent)
    recipe = {
        "model": {"checkpoint": place, "text_backbone": "ana/words"},
        "data": {"train": place, "dev": {"path": place, "split": "dev"}, "labels": ["joy/happy", "calm"]},
        "training": {"output": place, "seed": 1},
    }
    (features_model / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    assert yaml.safe_load(read(files_to_publish(features_model, "ana/mood"), "recipe.yaml")) == {
        "model": {"checkpoint": shown, "text_backbone": "ana/words"},
        "data": {"train": shown, "dev": {"path": shown, "split": "dev"}, "labels": ["joy/happy", "calm"]},
        "training": {"output": shown, "seed": 1},
    }


def test_a_processor_names_no_place(features_model: Path) -> None:
    path = features_model / "processor_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["feature_extractor"]["face_detector"] = "/home/ana/yunet.onnx"
    path.write_text(json.dumps(content), encoding="utf-8")
    published = json.loads(read(files_to_publish(features_model, "ana/mood"), path.name))
    assert published["feature_extractor"]["face_detector"] == "yunet.onnx"


@pytest.mark.parametrize("content", ["[]", "model: 3", "{", "[" * 5000])
def test_what_is_no_recipe_gets_one_line(
    features_model: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (features_model / "recipe.yaml").write_text(content, encoding="utf-8")
    assert main(["publish", str(features_model), "ana/mood", "--dry-run"]) == 2
    assert "recipe.yaml: not a recipe" in capsys.readouterr().err


def test_classes_are_named_where_they_are_looked_for(text_model: Path) -> None:
    files = files_to_publish(text_model, "ana/mood")
    config, processor = (json.loads(read(files, name)) for name in ("config.json", "processor_config.json"))
    named = config["auto_map"] | processor["auto_map"] | processor["feature_extractor"]["auto_map"]
    assert set(named) == {
        "AutoConfig",
        "AutoModel",
        "AutoModelForSequenceClassification",
        "AutoFeatureExtractor",
        "AutoProcessor",
    }
    for place in named.values():
        module, name = place.split(".")
        assert f"class {name}(" in read(files, f"{module}.py")
    # Nothing else of the folder's own files is changed, and the folder is not written to.
    own = json.loads((text_model / "config.json").read_text(encoding="utf-8"))
    assert "auto_map" not in own
    assert own == {key: value for key, value in config.items() if key != "auto_map"}


def test_places_of_this_machine_are_left_out_of_the_recipe(text_model: Path) -> None:
    recipe = read(files_to_publish(text_model, "ana/mood"), "recipe.yaml")
    assert recipe == "model:\n  text_backbone: ana/words\ndata:\n  train: train.csv\n  dev: $MELD/dev.csv\n"


def test_a_card_in_the_folder_is_kept_and_its_code_loads_the_repository(features_model: Path) -> None:
    card = """\
In runs/model or "runs/model".

```python
folder = "%s"
code(folder, {"model": 'runs/model-2', "text": "model"})
```
"""
    (features_model / "README.md").write_text(card % "runs/model", encoding="utf-8")
    assert read(files_to_publish(features_model, "ana/mood"), "README.md") == card % "ana/mood"


def test_the_code_of_a_card_by_hand_runs_once_it_is_published(hub: LoopbackHub) -> None:
    publish(files_to_publish(CARD, "ana/mood"), "ana/mood")
    repository = hub.repositories["ana/mood"]
    card = repository.commits[repository.head]["README.md"].decode()
    hub.requests.clear()
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL):
        exec(code, names)
    assert any("/ana/mood/resolve/" in request for request in hub.requests)
    model, processor = load_pretrained(CARD)
    with torch.no_grad():
        logits = model(**processor(names["conversation"])).logits
    assert torch.equal(names["probabilities"], logits.softmax(-1))


def test_an_export_is_published_unless_it_is_too_large(
    features_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (features_model / "model.onnx").write_bytes(b"12345678")
    (features_model / "other.onnx").write_bytes(b"12345678")
    files = files_to_publish(features_model, "ana/mood")
    assert {name for name in files if name.endswith(".onnx")} == {"model.onnx"}
    monkeypatch.setattr("redifu.hub.publishing.LARGEST_EXPORT", 7)
    with pytest.raises(ValueError, match=r"model\.onnx: expected at most 7 bytes, got 8"):
        files_to_publish(features_model, "ana/mood")


def test_a_dry_run_prints_what_is_uploaded_and_asks_nobody(
    hub: LoopbackHub, text_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", str(text_model), "ana/mood", "--dry-run"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert hub.requests == []
    assert main(["publish", str(text_model), "ana/mood"]) == 0
    *repeated, address = capsys.readouterr().out.splitlines()
    assert repeated == printed
    repository = hub.repositories["ana/mood"]
    assert address == f"{hub.address}/ana/mood/commit/{repository.head}"
    uploaded = {path: len(content) for path, content in repository.commits[repository.head].items()}
    del uploaded[".gitattributes"]
    listed = (line.rsplit(maxsplit=1) for line in printed)
    assert {path: int(size.replace(",", "")) for size, path in listed} == uploaded


def test_a_published_model_predicts_by_its_name(
    hub: LoopbackHub, text_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["publish", str(text_model), "ana/mood"])
    assert torch.equal(logits("ana/mood"), logits(text_model))
    # Neither code nor anything else that is not read has been downloaded.
    (snapshot,) = (tmp_path / "cache" / "models--ana--mood" / "snapshots").iterdir()
    assert {path.name for path in snapshot.iterdir()} == CHECKPOINT | TOKENIZER | {
        "metrics.json",
        "README.md",
    }
    (tmp_path / "dinner.json").write_text(json.dumps(CONVERSATION), encoding="utf-8")
    output = ["--output", str(tmp_path / "out.jsonl")]
    assert main(["predict", "ana/mood", str(tmp_path / "dinner.json"), *output]) == 0
    assert json.loads((tmp_path / "out.jsonl").read_text())["utterances"][0]["emotion"] in LABELS


@pytest.mark.parametrize("option", [[], ["--private"]])
def test_a_repository_is_private_on_request(
    hub: LoopbackHub, features_model: Path, option: list[str]
) -> None:
    assert main(["publish", str(features_model), "ana/mood", *option]) == 0
    assert hub.repositories["ana/mood"].private is bool(option)


def test_nothing_meant_to_be_private_goes_to_a_public_repository(
    hub: LoopbackHub, features_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["publish", str(features_model), "ana/mood"])
    before = dict(hub.repositories["ana/mood"].commits)
    capsys.readouterr()
    assert main(["publish", str(features_model), "ana/mood", "--private"]) == 2
    assert "ana/mood already exists and is public" in capsys.readouterr().err
    assert hub.repositories["ana/mood"].commits == before


def test_a_wrong_token_gets_one_line(
    hub: LoopbackHub,
    features_model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert main(["publish", str(features_model), "ana/mood"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("redifu publish: error: ana/mood: the Hub rejected the token")
    assert err.count("\n") == 1
    assert hub.repositories == {}


def test_offline_gets_one_line(features_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", str(features_model), "ana/mood"]) == 2
    err = capsys.readouterr().err
    assert "offline mode is enabled" in err
    assert err.count("\n") == 1


def test_a_hub_that_cannot_be_reached_gets_one_line(
    hub: LoopbackHub,
    features_model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert main(["publish", str(features_model), "ana/mood"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("redifu publish: error: ana/mood: the Hub cannot be reached: ")
    assert err.count("\n") == 1


def test_an_interrupted_upload_leaves_the_last_revision(hub: LoopbackHub, features_model: Path) -> None:
    main(["publish", str(features_model), "ana/mood"])
    before = logits("ana/mood")
    commits = dict(hub.repositories["ana/mood"].commits)
    write_features_model(features_model, seed=1)
    hub.cut_uploads = True
    with pytest.raises(RuntimeError, match=r"model\.safetensors"):
        main(["publish", str(features_model), "ana/mood"])
    assert hub.repositories["ana/mood"].commits == commits
    assert torch.equal(logits("ana/mood"), before)
    # Once the line holds, the same command puts up what is new.
    hub.cut_uploads = False
    assert main(["publish", str(features_model), "ana/mood"]) == 0
    assert torch.equal(logits("ana/mood"), logits(features_model))
    assert not torch.equal(logits("ana/mood"), before)


def test_a_revision_can_be_pinned(hub: LoopbackHub, features_model: Path) -> None:
    main(["publish", str(features_model), "ana/mood"])
    first, before = hub.repositories["ana/mood"].head, load_pretrained(features_model)[0].state_dict()
    write_features_model(features_model, seed=1)
    main(["publish", str(features_model), "ana/mood"])
    pinned = ReDiFuForEmotionRecognition.from_pretrained("ana/mood", revision=first).state_dict()
    newest = ReDiFuForEmotionRecognition.from_pretrained("ana/mood").state_dict()
    assert all(torch.equal(pinned[name], value) for name, value in before.items())
    assert not all(torch.equal(newest[name], value) for name, value in before.items())


@pytest.mark.parametrize("write", [write_features_model, write_text_model])
def test_a_model_and_its_processor_push_themselves_with_their_code(
    hub: LoopbackHub, tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    folder = write(tmp_path / "model")
    model, processor = load_pretrained(folder)
    model.push_to_hub("ana/pushed")
    processor.push_to_hub("ana/pushed")
    repository = hub.repositories["ana/pushed"]
    files = repository.commits[repository.head]
    assert CHECKPOINT | CODE | {"README.md"} <= set(files)
    assert {"auto_map"} <= set(json.loads(files["config.json"])) & set(
        json.loads(files["processor_config.json"])
    )
    assert torch.equal(logits("ana/pushed"), logits(folder))


def test_saving_pushes_on_request_and_copies_no_code_otherwise(hub: LoopbackHub, tmp_path: Path) -> None:
    model, processor = load_pretrained(write_features_model(tmp_path / "model"))
    for part, name in ((model, "config.json"), (processor, "processor_config.json")):
        part.save_pretrained(tmp_path / "saved")
        part.save_pretrained(str(tmp_path / "pushed"), push_to_hub=True, repo_id="ana/pushed")
        repository = hub.repositories["ana/pushed"]
        assert CODE | {name} <= set(repository.commits[repository.head])
    assert {path.name for path in (tmp_path / "saved").iterdir()} == CHECKPOINT


@pytest.mark.parametrize("repo_id", ["mood", "ana/mood/more", "ana/", "./mood", "/ana/mood"])
def test_another_form_of_name_gets_one_line(
    features_model: Path, capsys: pytest.CaptureFixture[str], repo_id: str
) -> None:
    assert main(["publish", str(features_model), repo_id, "--dry-run"]) == 2
    assert f"must be named ORG/NAME, got {repo_id!r}" in capsys.readouterr().err


def test_without_a_network_publishing_gets_one_line(
    features_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", nobody)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert main(["publish", str(features_model), "ana/mood"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("redifu publish: error: ana/mood: the Hub cannot be reached: ")


def test_what_does_not_load_is_not_published(
    hub: LoopbackHub, features_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", str(features_model.with_name("nowhere")), "ana/mood"]) == 2
    assert "nowhere: no such model folder" in capsys.readouterr().err
    (features_model / "model.safetensors").write_bytes(b"half a file")
    assert main(["publish", str(features_model), "ana/mood"]) == 2
    assert "not a ReDiFu model" in capsys.readouterr().err
    assert hub.requests == []
