"""Copies the code of this folder into checkpoints, so that they load without this package.

`trust_remote_code=True` runs the code if the checkpoint's files list its classes in an "auto_map".
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.utils import PushToHubMixin

_MODELS = {
    "AutoConfig": "configuration_redifu.ReDiFuConfig",
    "AutoModel": "modeling_redifu.ReDiFuModel",
    "AutoModelForSequenceClassification": "modeling_redifu.ReDiFuForEmotionRecognition",
}
_EXTRACTORS = {"AutoFeatureExtractor": "feature_extraction_redifu.ReDiFuFeatureExtractor"}
_PROCESSORS = {"AutoProcessor": "processing_redifu.ReDiFuProcessor"}


def remote_code(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the code files for a checkpoint, and its configuration files with an "auto_map".

    Args:
        files: content by file name, for all or part of a checkpoint.

    Returns:
        Content by file name of the files to add or replace.
    """
    code = {path.name: path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))}
    code.pop("__init__.py", None)  # transformers creates an empty one
    added = dict(code)
    if "config.json" in files:
        config = json.loads(files["config.json"])
        added["config.json"] = _as_json(_mapped(config, _MODELS, code))
    if "processor_config.json" in files:
        processor = _mapped(json.loads(files["processor_config.json"]), _PROCESSORS, code)
        processor["feature_extractor"] = _mapped(processor["feature_extractor"], _EXTRACTORS, code)
        added["processor_config.json"] = _as_json(processor)
    return added


class CarriesCode(PushToHubMixin):
    """Adds the code to uploads by `push_to_hub` and `save_pretrained(push_to_hub=True)`.

    `register_for_auto_class` would add it to every saved folder.
    """

    def _upload_modified_files(self, working_dir: Any, *args: Any, **kwargs: Any) -> Any:
        folder = Path(working_dir)
        files = {path.name: path.read_bytes() for path in folder.glob("*config.json")}
        for name, content in remote_code(files).items():
            (folder / name).write_bytes(content)
        return super()._upload_modified_files(working_dir, *args, **kwargs)


def _mapped(content: dict[str, Any], classes: Mapping[str, str], code: Mapping[str, bytes]) -> dict[str, Any]:
    # If this code was itself loaded from a repository, some of its files may be missing.
    known = {name: place for name, place in classes.items() if f"{place.split('.')[0]}.py" in code}
    return {**content, "auto_map": known}


def _as_json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
