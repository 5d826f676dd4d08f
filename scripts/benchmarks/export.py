"""Measures speed and accuracy of ONNX exports, with float32 and int8 weights, beside PyTorch.

The sides take turns, as in `session.py`, on each utterance of a live conversation with a full window and on
batches of whole dialogues. Speed is measured with the model loaded as causal, weighted F1 with the model as
it is.

    python scripts/benchmarks/export.py
    python scripts/benchmarks/export.py --model runs/mine --data path/to/meld/dev.csv
"""

import argparse
import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from session import MODEL, describe_latency, full_session, take_turns, utterances
from transformers import AutoModelForSequenceClassification, AutoProcessor
from transformers.utils import logging

from redifu.conversation import Conversation, Prediction
from redifu.evaluation.scoring import evaluate_conversations
from redifu.hub.onnx_export import export_onnx
from redifu.inference.onnx_runtime import OnnxModel
from redifu.inference.recogniser import Recogniser

DIALOGUES = 8


def exported(model: Any, folder: Path) -> dict[str, Any]:
    """Export a model, and return PyTorch, ONNX and int8 by name."""
    sides = {"PyTorch": model}
    for name, int8 in (("ONNX", False), ("ONNX int8", True)):
        export_onnx(model, folder / "model.onnx", int8=int8)
        sides[name] = OnnxModel(folder / "model.onnx")
    return sides


def measure_sessions(
    sides: dict[str, Any], processor: Any, *, window: int, number: int
) -> dict[str, np.ndarray]:
    """Time `number` utterances of a session of each side: (utterances, 2) milliseconds, see `take_turns`."""
    stream = utterances()
    seen = list(itertools.islice(stream, window))
    sessions = {name: full_session(model, processor, seen).add for name, model in sides.items()}
    return take_turns(sessions, itertools.islice(stream, number))


def measure_dialogues(
    sides: dict[str, Any], processor: Any, *, length: int, number: int
) -> dict[str, np.ndarray]:
    """Time `number` predictions, each of `DIALOGUES` dialogues, by each side."""

    def predict(model: Any, batch: Any) -> list[tuple[Conversation, list[Prediction]]]:
        return list(Recogniser(model, processor).predict(batch["dialogues"]))

    def batches() -> Iterator[dict[str, Any]]:
        stream = utterances(seed=1)
        while True:
            dialogues = [{"utterances": list(itertools.islice(stream, length))} for _ in range(DIALOGUES)]
            yield {"dialogues": [Conversation.from_dict(each) for each in dialogues]}

    predicting = {name: partial(predict, model) for name, model in sides.items()}
    return take_turns(predicting, itertools.islice(batches(), number))


def describe_scores(sides: dict[str, Any], processor: Any, data: str) -> list[str]:
    """Score each side on labelled conversations."""
    lines = ["| | weighted F1 | NLL |", "|---|---|---|"]
    for name, model in sides.items():
        given = Recogniser(model, processor).read(data)
        metrics = evaluate_conversations(model, processor, given)
        lines.append(f"| {name} | {metrics['weighted_f1']:.2f} | {metrics['nll']:.4f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default=str(MODEL), help="folder of a trained model")
    parser.add_argument("--data", help="labelled conversations to score each side on")
    parser.add_argument("--window", type=int, default=50, help="utterances the model sees")
    parser.add_argument("--utterances", type=int, default=300, help="utterances timed per side")
    parser.add_argument(
        "--predictions", type=int, default=10, help=f"batches of {DIALOGUES} dialogues timed per side"
    )
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable_progress_bar()
    processor = AutoProcessor.from_pretrained(options.model)
    load = partial(AutoModelForSequenceClassification.from_pretrained, options.model)
    with TemporaryDirectory() as folder:
        sides = exported(load(causal=True).eval(), Path(folder))
        size = options.window
        times = measure_sessions(sides, processor, window=size, number=options.utterances)
        print(f"One utterance in a session, context of {size}:\n", *describe_latency(times), sep="\n")
        times = measure_dialogues(sides, processor, length=size, number=options.predictions)
        print(f"\n{DIALOGUES} dialogues of length {size}:\n", *describe_latency(times), sep="\n", flush=True)
        if options.data is not None:
            sides = exported(load().eval(), Path(folder))
            print(f"\n{options.data}:\n", *describe_scores(sides, processor, options.data), sep="\n")


if __name__ == "__main__":
    main()
