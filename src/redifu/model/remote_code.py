"""The code of this folder beside a checkpoint, for whoever loads it without this package.

`trust_remote_code=True` runs it, where the files of a checkpoint name its classes in an "auto_map".
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
    """Return the code that belongs beside a checkpoint, and the files that name its classes.

    Args:
        files: content by name, of a whole checkpoint or of a part of it.

    Returns:
        Content by name of all that is to be added or replaced.
    """
    code = {path.name: path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))}
    code.pop("__init__.py", None)  # a folder of remote code is given an empty one
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
    """Uploads its code with what it uploads, by `push_to_hub` and by `save_pretrained(push_to_hub=True)`.

    `register_for_auto_class` would put the code into every folder that is saved.
    """

    def _upload_modified_files(self, working_dir: Any, *args: Any, **kwargs: Any) -> Any:
        folder = Path(working_dir)
        files = {path.name: path.read_bytes() for path in folder.glob("*config.json")}
        for name, content in remote_code(files).items():
            (folder / name).write_bytes(content)
        return super()._upload_modified_files(working_dir, *args, **kwargs)


def _mapped(content: dict[str, Any], classes: Mapping[str, str], code: Mapping[str, bytes]) -> dict[str, Any]:
    # Code that was itself loaded from a repository holds the files that were needed, not always all.
    known = {name: place for name, place in classes.items() if f"{place.split('.')[0]}.py" in code}
    return {**content, "auto_map": known}


def _as_json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
