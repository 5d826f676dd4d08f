"""The documents that show commands and Python code, taken apart for the tests that run both."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FINE_TUNING = ROOT / "examples/fine-tuning/README.md"
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "examples/guides").glob("*.md")),
    FINE_TUNING,
    ROOT / "examples/moving-day/README.md",
    *sorted((ROOT / "model_cards").glob("*/README.md")),
]


def name_of(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(
        rf"^```{language}\n(.*?)^```$", document.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE
    )


def shell_commands(document: Path) -> list[str]:
    """The lines of a document's shell blocks; a line that ends in a backslash goes on in the next."""
    lines = [line for block in blocks(document, "sh") for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.strip()]
