"""The layout: imports run one way, what travels with a checkpoint is flat, and nothing else stands about."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
MODULES = sorted((SOURCE / "redifu").rglob("*.py"))

# From the roof down. A module imports from its own floor or from those below it, that is further right.
FLOORS = (
    "cli",
    "command_arguments",
    "__init__",
    "registration",
    "console",
    "hub",
    "serving",
    "reports",
    "training",
    "evaluation",
    "inference",
    "transcription",
    "data",
    "conversation",
    "conversation_values",
    "model",
    "media",
    "optional_packages",
    "atomic_files",
)

FILES = {
    "pyproject.toml",
    "constraints.txt",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "Makefile",
    ".gitignore",
}
FOLDERS = {"src", "model_cards", "examples", "tests", "scripts", ".ci", ".github"}


def floor_of(module: tuple[str, ...]) -> int:
    """The number of the floor a module stands on, 0 the highest; ("redifu",) is the package's own file."""
    return FLOORS.index(module[1] if len(module) > 1 else "__init__")


def imports_of_redifu(source: str, path: Path) -> Iterator[tuple[ast.stmt, tuple[str, ...]]]:
    """Every import of this package in `source`, inside functions too, with the name of what it reaches."""
    package = path.parts[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else ()
            base = start + tuple(node.module.split(".") if node.module else ())
            # `from redifu import data` reaches a floor, `from redifu import Name` the package's own file.
            at_top = base == ("redifu",)
            targets = {base + ((a.name,) if at_top and a.name in FLOORS else ()) for a in node.names}
        else:
            continue
        for target in targets:
            if target[:1] == ("redifu",):
                yield node, target


def climbing_imports(source: str, path: Path) -> list[str]:
    """The imports in the module at `path` (relative to src/) that reach a floor above its own."""
    own = floor_of(path.with_suffix("").parts)
    return [
        f"{path}:{node.lineno}: {ast.unparse(node)}"
        for node, target in imports_of_redifu(source, path)
        if floor_of(target) < own
    ]


def imports_not_flat(source: str, path: Path) -> list[str]:
    """The imports that remote code cannot follow: all of this package's own but `from .name import X`."""
    return [
        f"{path}:{node.lineno}: {ast.unparse(node)}"
        for node, _ in imports_of_redifu(source, path)
        if not (
            isinstance(node, ast.ImportFrom) and node.level == 1 and node.module and "." not in node.module
        )
    ]


def test_contributing_lists_the_floors_in_order() -> None:
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), flags=re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`(\w+)(?:/|\.py)`", row)]
    assert listed == list(FLOORS)


def test_no_import_climbs() -> None:
    climbing = [
        line
        for path in MODULES
        for line in climbing_imports(path.read_text("utf-8"), path.relative_to(SOURCE))
    ]
    assert MODULES
    assert not climbing


def test_model_imports_are_flat() -> None:
    files = sorted((SOURCE / "redifu" / "model").rglob("*.py"))
    wrong = [
        line for path in files for line in imports_not_flat(path.read_text("utf-8"), path.relative_to(SOURCE))
    ]
    assert files
    assert not wrong
    assert [path for path in files if path.parent.name != "model"] == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("redifu/data/readers.py", "from redifu.training.recipe import Recipe"),
        ("redifu/data/readers.py", "from ..evaluation import metrics"),
        ("redifu/data/readers.py", "import redifu.inference.session"),
        ("redifu/data/__init__.py", "from ..training.trainer import train"),
        ("redifu/data/readers.py", "from redifu import ReDiFuConfig"),
        ("redifu/data/readers.py", "from redifu import hub"),
        ("redifu/data/readers.py", "from .. import hub"),
        ("redifu/data/readers.py", "import redifu"),
        ("redifu/serving/batching.py", "def load():\n    from redifu.cli import main"),
        ("redifu/model/losses.py", "if TYPE_CHECKING:\n    from redifu.conversation import Conversation"),
    ],
)
def test_a_climbing_import_is_caught(path: str, line: str) -> None:
    assert len(climbing_imports(line, Path(path))) == 1


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("redifu/__init__.py", "from .inference.session import ConversationSession"),
        ("redifu/__init__.py", "from redifu.model import ReDiFuConfig"),
        ("redifu/cli.py", "from redifu.hub import publish"),
        ("redifu/data/readers.py", "from redifu.conversation import validate_conversation"),
        ("redifu/data/readers.py", "from .schema import validate_conversation"),
        ("redifu/data/__init__.py", "from .schema import validate_conversation"),
        ("redifu/data/length_batches.py", "from ..model import ReDiFuProcessor"),
        ("redifu/data/length_batches.py", "from redifu import model"),
        (
            "redifu/model/losses.py",
            "import torch\nfrom transformers import AutoModel\nfrom evaluate import load",
        ),
    ],
)
def test_a_descending_import_passes(path: str, line: str) -> None:
    assert climbing_imports(line, Path(path)) == []


@pytest.mark.parametrize(
    "line",
    [
        "from . import losses",
        "from .fusion.text import X",
        "from redifu.model.losses import X",
        "import redifu.model.losses",
        "from ..model.losses import X",
    ],
)
def test_an_import_that_remote_code_cannot_follow_is_caught(line: str) -> None:
    assert len(imports_not_flat(line, Path("redifu/model/modeling_redifu.py"))) == 1
    assert imports_not_flat("from .losses import X", Path("redifu/model/modeling_redifu.py")) == []


@pytest.fixture(scope="module")
def tracked_files() -> list[Path]:
    """What git tracks or would add, relative to the root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [Path(name) for name in listing.stdout.split("\0") if name and (ROOT / name).exists()]


def test_the_top_level_holds_nothing_else(tracked_files: list[Path]) -> None:
    assert {path.parts[0] for path in tracked_files} <= FILES | FOLDERS


def test_nothing_pickled_is_tracked(tracked_files: list[Path]) -> None:
    pickled = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib"}
    assert [path for path in tracked_files if path.suffix in pickled] == []


def test_source_files_are_short_and_named_after_what_they_do() -> None:
    assert [path for path in MODULES if len(path.read_text("utf-8").splitlines()) > 400] == []
    assert [path for path in MODULES if path.stem in {"utils", "helpers", "common"}] == []


def test_every_dependency_is_pinned_at_a_version_it_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    extras = project["optional-dependencies"].values()
    for requirement in map(
        Requirement, project["dependencies"] + [line for extra in extras for line in extra]
    ):
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not pinned in constraints.txt"
        assert requirement.specifier.contains(version), f"{requirement} does not allow {version}"
