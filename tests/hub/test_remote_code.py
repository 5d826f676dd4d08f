"""Published models load where this package is not installed, and run no code of theirs where it is."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import snapshot_download
from transformers import AutoModel, AutoModelForSequenceClassification, AutoProcessor
from transformers.dynamic_module_utils import get_imports

from hub.environment import make_environment
from hub.loopback_hub import LoopbackHub
from hub.toy_models import CONVERSATION, write_features_model, write_text_model
from model.tiny_models import LABELS
from redifu.hub.publishing import files_to_publish, publish
from redifu.inference.loading import load_pretrained
from redifu.model import ReDiFuForEmotionRecognition, ReDiFuModel, ReDiFuProcessor
from redifu.model.remote_code import remote_code

MODEL = Path(__file__).parents[2] / "src" / "redifu" / "model"
# What the card says is needed, and what these two bring.
NEEDED = {"torch", "transformers", "numpy", "huggingface_hub"}
RunPython = Callable[..., str]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment with all that is installed here, but neither us nor torch-geometric."""
    return make_environment(tmp_path_factory.mktemp("environment"), without=("redifu", "torch_geometric"))


@pytest.fixture
def run(hub: LoopbackHub, python: Path, tmp_path: Path) -> RunPython:
    """Run the new environment's Python and return what it printed."""
    settings = {"HF_HOME": tmp_path / "home", "HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": 1}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}

    def run(*arguments: Any, offline: bool = False) -> str:
        environment = inherited | {name: str(value) for name, value in settings.items()}
        environment["HF_HUB_OFFLINE"] = str(int(offline))
        # Isolated: neither PYTHONPATH nor the current folder lead to the package.
        command = [python, "-I", *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def publish_toy(write: Callable[[Path], Path], folder: Path, repo_id: str) -> tuple[str, dict[str, Any]]:
    """Publish a model; return the code of its card that needs no package, and what that must compute."""
    files = files_to_publish(write(folder), repo_id)
    publish(files, repo_id)
    _, code = re.findall(r"```python\n(.*?)```", files["README.md"].decode(), flags=re.DOTALL)
    model, processor = load_pretrained(folder)
    inputs = processor(CONVERSATION)
    with torch.no_grad():
        logits, states = model(**inputs).logits, model.redifu(**inputs).last_hidden_state
    return code, {"logits": logits, "last_hidden_state": states}


def test_the_code_of_the_card_loads_without_the_package(
    hub: LoopbackHub, run: RunPython, tmp_path: Path
) -> None:
    text = publish_toy(write_text_model, tmp_path / "text", "ana/text")
    features = publish_toy(write_features_model, tmp_path / "features", "ana/features")
    snapshot = snapshot_download("ana/features", local_dir=tmp_path / "snapshot")
    in_folder = (features[0].replace("ana/features", snapshot), features[1])
    (tmp_path / "dinner.json").write_text(json.dumps(CONVERSATION), encoding="utf-8")
    for offline, cards in ((False, [text, features]), (True, [text, in_folder])):
        hub.requests.clear()
        for number, (code, _) in enumerate(cards):
            (tmp_path / f"card{number}.py").write_text(code, encoding="utf-8")
        script = Path(__file__).with_name("load_without_package.py")
        printed = run(script, "dinner.json", "card0.py", "card1.py", offline=offline)
        *labels, computed = printed.splitlines()
        assert set(labels) <= set(LABELS)
        assert len(labels) == 2
        assert bool(hub.requests) is not offline
        for found, (_, expected) in zip(json.loads(computed), cards, strict=True):
            assert all(module.startswith("transformers_modules.") for module in found["modules"])
            complaint = "relation_graph requires torch-geometric: pip install torch-geometric"
            assert found["complaint"] == complaint
            for name, value in expected.items():
                torch.testing.assert_close(torch.tensor(found[name]), value, rtol=0, atol=1e-6)


def test_the_code_of_the_card_runs_with_the_package(
    hub: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for write in (write_text_model, write_features_model):
        files = files_to_publish(write(tmp_path / write.__name__), "ana/mood")
        publish(files, "ana/mood")
        code, _ = re.findall(r"```python\n(.*?)```", files["README.md"].decode(), flags=re.DOTALL)
        capsys.readouterr()
        exec(code, {})
        (ranked,) = ast.literal_eval(capsys.readouterr().out)
        (best,) = ranked
        assert best["label"] in LABELS
        assert 1 / 3 < best["score"] <= 1


def test_the_hint_of_the_card_is_what_transformers_says(run: RunPython, tmp_path: Path) -> None:
    write_text_model(tmp_path / "model")
    code = (
        "from transformers import AutoModelForSequenceClassification as auto\n"
        "try: auto.from_pretrained('model')\n"
        "except ValueError as error: print(error)"
    )
    said = run("-c", code)
    assert "`redifu`" in said and "does not recognize" in said
    assert "does not recognize the model type `redifu`, `import redifu` is missing" in (
        files_to_publish(tmp_path / "model", "ana/mood")["README.md"].decode()
    )


@pytest.mark.parametrize("trust", [None, True])
def test_with_the_package_no_remote_code_runs(hub: LoopbackHub, tmp_path: Path, trust: bool | None) -> None:
    files = files_to_publish(write_text_model(tmp_path / "model"), "ana/text")
    trap = {name: b"raise SystemExit('remote code ran')" for name in files if name.endswith(".py")}
    publish({**files, **trap}, "ana/text")
    snapshot = snapshot_download("ana/text", local_dir=tmp_path / "snapshot")
    for place in ("ana/text", snapshot):
        headed = AutoModelForSequenceClassification.from_pretrained(place, trust_remote_code=trust)
        assert type(headed) is ReDiFuForEmotionRecognition
        assert type(AutoModel.from_pretrained(place, trust_remote_code=trust)) is ReDiFuModel
        assert type(AutoProcessor.from_pretrained(place, trust_remote_code=trust)) is ReDiFuProcessor


def test_a_class_whose_code_is_not_there_is_not_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As where a model was loaded by remote code, and its processor was not.
    (tmp_path / "configuration_redifu.py").touch()
    (tmp_path / "modeling_redifu.py").touch()
    monkeypatch.setattr("redifu.model.remote_code.__file__", str(tmp_path / "remote_code.py"))
    added = remote_code({"config.json": b"{}", "processor_config.json": b'{"feature_extractor": {}}'})
    maps = {name: json.loads(added[name])["auto_map"] for name in ("config.json", "processor_config.json")}
    assert set(maps["config.json"]) == {"AutoConfig", "AutoModel", "AutoModelForSequenceClassification"}
    assert maps["processor_config.json"] == {}


@pytest.mark.parametrize("path", sorted(MODEL.glob("*.py")), ids=lambda path: path.name)
def test_the_code_demands_only_what_the_card_names(path: Path) -> None:
    assert set(get_imports(path)) <= NEEDED | sys.stdlib_module_names
