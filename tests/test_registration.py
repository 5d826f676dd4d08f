"""`import redifu` loads neither torch nor transformers, and transformers knows the classes all the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import redifu
from hub.toy_models import CONVERSATION, write_features_model

ROOT = Path(__file__).resolve().parent.parent

LIGHT = """
import sys, redifu
assert not {"torch", "transformers", "pandas", "numpy"} & set(sys.modules)
"""
AUTO = """
from transformers import AutoModel, AutoModelForSequenceClassification, AutoProcessor
"""
LOADED = """
base, model, processor = (each.from_pretrained(FOLDER) for each in
                          (AutoModel, AutoModelForSequenceClassification, AutoProcessor))
assert type(base) is redifu.ReDiFuModel
assert type(model) is redifu.ReDiFuForEmotionRecognition
assert type(processor) is redifu.ReDiFuProcessor
assert type(processor.feature_extractor) is redifu.ReDiFuFeatureExtractor
"""
PIPELINE = """
from transformers import pipeline
assert len(pipeline("conversation-emotion-recognition", model=FOLDER)(GIVEN)) == 2
import sys
assert not [each for each in sys.meta_path if "redifu" in type(each).__module__]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features_model(tmp_path_factory.mktemp("registered") / "model")


@pytest.mark.parametrize(
    "code",
    [
        LIGHT + AUTO + LOADED + PIPELINE,
        AUTO + "import redifu" + LOADED,
        "from transformers import pipeline\nimport redifu" + PIPELINE,
        # Modules that import the Auto classes while they are themselves half imported.
        "from redifu.model.modeling_redifu import ReDiFuModel\nimport redifu" + AUTO + LOADED,
        "import redifu, transformers.processing_utils, transformers.trainer" + AUTO + LOADED,
        "from redifu.inference.pipeline import TASK" + PIPELINE,
    ],
    ids=[
        "first",
        "after Auto",
        "after pipelines",
        "from a model file",
        "from inside transformers",
        "from a task",
    ],
)
def test_transformers_knows_the_classes_in_any_order(folder: Path, code: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", f"FOLDER, GIVEN = {str(folder)!r}, {CONVERSATION!r}\n{code}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there() -> None:
    for name in redifu.__all__:
        assert getattr(redifu, name).__name__ == name
    assert set(redifu.__all__) <= set(dir(redifu))
    with pytest.raises(AttributeError, match="module 'redifu' has no attribute 'ReDiFu'"):
        redifu.ReDiFu  # noqa: B018
