"""Kills a command at random moments, runs it again, and reports what is torn, left behind or different.

A program of its own, which forks once everything slow is imported, so that kills fall into the work and not
into the imports. Prints what is wrong, and at the end how many runs were killed before they had finished.

    python tests/killed_commands.py FOLDER COMMAND --kills 20
"""

import argparse
import copy
import importlib
import json
import os
import pkgutil
import shutil
import signal
import sys
import time
import wave
from pathlib import Path
from random import Random

import numpy as np
import yaml

import redifu
from redifu.cli import main as run

ROOT = Path(__file__).parents[1]
SMOKE = ROOT / "tests" / "smoke"
FOLDER = "out"  # of everything that a command writes
# What each command is given: a model of the smoke recipe, its conversations, and a talk of short sounds.
COMMANDS: dict[str, list[str]] = {
    "extract": ["extract", "talk.json", "--output", f"{FOLDER}/features", "--visual-backend", "none"],
    "predict": [
        "predict",
        "model",
        "said.jsonl",
        "--output",
        f"{FOLDER}/a.csv",
        "--html",
        f"{FOLDER}/a.html",
    ],
    "evaluate": [
        "evaluate",
        "model",
        "said.jsonl",
        "--output",
        f"{FOLDER}/a.json",
        "--robustness",
        "grid.yaml",
    ],
    "export": ["export", "model", "--output", f"{FOLDER}/a.onnx"],
    "train": ["train", "recipe.yaml"],
    "add-noise": ["add-noise", "talk.json", "--output", f"{FOLDER}/noisy", "--snr", "0", "10"],
    "publish": ["publish", "model", "org/name", "--dry-run"],
}
# What says when something was done, or goes on with what was killed, is never the same twice.
DIFFERS = ("log.jsonl", "tensorboard")
GOES_ON = ".unfinished"


def prepare(folder: Path) -> None:
    """Write what the commands read."""
    recipe = yaml.safe_load((SMOKE / "recipe.yaml").read_text("utf-8"))
    conversations = str(SMOKE / "conversations.jsonl")
    recipe["data"] |= {"train": conversations, "dev": conversations}
    for name, output in (("model.yaml", "model"), ("recipe.yaml", f"{FOLDER}/model")):
        recipe["training"] |= {"output": str(folder / output), "epochs": 4}
        (folder / name).write_text(yaml.safe_dump(recipe), "utf-8")
    said = (SMOKE / "conversations.jsonl").read_text("utf-8").splitlines()
    copies = [
        {**json.loads(line), "id": f"{copy}-{place}"} for copy in range(20) for place, line in enumerate(said)
    ]
    (folder / "said.jsonl").write_text("".join(json.dumps(one) + "\n" for one in copies), "utf-8")
    grid = {"conditions": {"missing": {"severities": [0.5]}}}
    (folder / "grid.yaml").write_text(yaml.safe_dump(grid), "utf-8")
    utterances = []
    for number in range(60):
        time_, name = np.arange(16000) / 16000, f"{number}.wav"
        with wave.open(str(folder / name), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes((9000 * np.sin(200 * (number + 1) * time_)).astype("<i2").tobytes())
        utterances.append({"speaker": "Ana", "text": "Hi.", "audio": name})
    talk = [{"id": f"{number}", "utterances": utterances[number::20]} for number in range(20)]
    (folder / "talk.json").write_text(json.dumps(talk), "utf-8")


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the content of each file below a folder, by its path."""
    return {
        str(path.relative_to(folder)): b""
        if any(name in str(path) for name in DIFFERS)
        else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(name in path.parts for name in DIFFERS[1:])
    }


def started(arguments: list[str]) -> int:
    """Run a command in a process of its own; return its id."""
    if child := os.fork():
        return child
    os.setsid()
    quiet = os.open(os.devnull, os.O_WRONLY)
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(quiet, 1)
    os.dup2(log, 2)
    status = 1
    try:
        status = run(arguments)
    finally:
        os._exit(status)


def finished(child: int) -> bool:
    """Wait for a process; return whether it ended with exit status 0."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def kill_and_repeat(arguments: list[str], *, kills: int, random: Random, old: bool) -> tuple[int, list[str]]:
    """Kill a command at random moments of its work, and repeat it.

    Args:
        arguments: of the command line.
        kills: how many runs are killed.
        random: chooses the moments.
        old: whether each run finds the output of an earlier one.

    Returns:
        How many runs had not finished yet, and everything that is wrong.
    """
    out, scratch = Path(FOLDER), Path(os.environ["TMPDIR"])
    for _ in range(2):  # the first one may be slow
        if not old:
            empty(out)
        begun = time.monotonic()
        if not finished(started(arguments)):
            return 0, [f"failed: {Path('log.txt').read_text('utf-8')[-500:]}"]
        seconds = time.monotonic() - begun
    whole, usual = files_of(out), {path.name for path in scratch.iterdir()}  # caches of torch
    early, faults = 0, []
    for number in range(kills):
        if not old:
            empty(out)
        child = started(arguments)
        time.sleep(moment := random.uniform(0, seconds))
        os.killpg(child, signal.SIGKILL) if is_group(child) else os.kill(child, signal.SIGKILL)
        early += not finished(child)
        kept = {name: content for name, content in files_of(out).items() if GOES_ON not in name}
        found = [f"torn: {name}" for name, content in kept.items() if whole.get(name) != content]
        if not finished(started(arguments)):
            found.append(f"cannot be repeated: {Path('log.txt').read_text('utf-8')[-500:]}")
        again = files_of(out)
        found += [f"left behind: {name}" for name in again.keys() - whole.keys()]
        found += [f"missing: {name}" for name in whole.keys() - again.keys()]
        found += [
            f"other bytes: {name}" for name in again.keys() & whole.keys() if again[name] != whole[name]
        ]
        left = {path.name for path in scratch.iterdir()} - usual
        found += [f"left behind in TMPDIR: {name}" for name in left]
        faults += [f"kill {number} after {moment:.3f} s: {each}" for each in found]
    return early, faults


def is_group(child: int) -> bool:
    """Whether a process has a group of its own yet."""
    return os.getpgid(child) == child


def empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def import_all() -> None:
    """Import everything that a command imports late."""
    for name in (
        "av",
        "matplotlib.pyplot",
        "onnx",
        "onnxruntime",
        "datasets",
        "tensorboard",
        "torch._dynamo",
    ):
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    for module in pkgutil.walk_packages(redifu.__path__, "redifu."):
        if not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except ImportError:
                continue


def translate_once(model: str) -> None:
    """Translate a model to ONNX here, so that kills fall into what export writes and checks.

    The translation takes most of its time, and touches no file.
    """
    from redifu.hub import onnx_export

    graph = onnx_export._translate(redifu.load(model).model, features=False)
    onnx_export._translate = lambda *_, **options: copy.deepcopy(graph)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="to work in; its contents are replaced")
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.chdir(options.folder)
    os.environ["TMPDIR"] = str(options.folder.resolve() / "tmp")
    for name in ("tmp", FOLDER):
        empty(Path(name))
    import_all()
    prepare(options.folder.resolve())
    if not Path("model").exists() and not finished(started(["train", "model.yaml"])):
        print(Path("log.txt").read_text("utf-8"))
        return 1
    if options.command == "export":
        translate_once("model")
    faults: list[str] = []
    random = Random(options.seed)
    early = 0
    for old in (False, True):
        count = options.kills // 2 + (options.kills % 2 and not old)
        killed, found = kill_and_repeat(COMMANDS[options.command], kills=count, random=random, old=old)
        early += killed
        faults += found
    print(*faults, sep="\n", end="\n" if faults else "")
    print(f"{options.command}: {early} of {options.kills} runs killed in their work, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
