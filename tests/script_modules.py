"""Loads scripts by their path, for the tests of these scripts."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def load_script(name: str) -> ModuleType:
    """Load `scripts/NAME.py` without running its command."""
    path = SCRIPTS / f"{name}.py"
    module_name = name.replace("/", ".")
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look up their module by name
    with pytest.MonkeyPatch.context() as patch:
        # A script that runs as a command finds the modules beside it. Afterwards tests must not find them.
        patch.setattr(sys, "path", [str(path.parent), *sys.path])
        spec.loader.exec_module(module)
    return module
