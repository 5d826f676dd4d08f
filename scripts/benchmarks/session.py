"""Measures what one utterance of a live conversation costs, with and without reuse, and over time.

The sides take turns, so that a busy machine slows both alike: a session, which encodes only the new text,
against the model on the whole window; and a new session against one that has run for long. Processor time
is given beside wall-clock time, because other work on the machine affects it less. A model that is not
causal is loaded as causal: just as fast, but less accurate.

    python scripts/benchmarks/session.py
    python scripts/benchmarks/session.py --model runs/mine --window 100 --utterances 500
    python scripts/benchmarks/session.py --memory 100000     # only the memory of a long conversation; Linux
"""

import argparse
import itertools
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoProcessor
from transformers.utils import logging

from redifu import ConversationSession

MODEL = Path(__file__).resolve().parents[2] / "model_cards" / "redifu-meld-text"
SPEAKERS = ["Ana", "Jonas", "Mira"]
WORDS = (
    "I you we it that this what is was are not do know think really want go come back here there just "
    "like never so good time right all out about them okay well maybe please sorry great wait why how"
)


def utterances(seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield utterances endlessly: all texts differ, with 3 to 20 words as in real dialogues."""
    generator = random.Random(seed)
    while True:
        text = " ".join(generator.choices(WORDS.split(), k=generator.randint(3, 20)))
        yield {"speaker": generator.choice(SPEAKERS), "text": text}


def take_turns(sides: dict[str, Callable[[dict], object]], stream: Iterator[dict]) -> dict[str, np.ndarray]:
    """Time each side on each utterance: (utterances, 2) milliseconds of wall-clock and processor time."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for utterance in stream:
        for name, answer in sides.items():
            clock, processor = time.perf_counter(), time.process_time()
            answer(utterance)
            elapsed = time.perf_counter() - clock, time.process_time() - processor
            times[name].append((1000 * elapsed[0], 1000 * elapsed[1]))
    return {name: np.array(values) for name, values in times.items()}


def measure_latency(model: Any, processor: Any, *, window: int, number: int) -> dict[str, np.ndarray]:
    """Time `number` utterances with a full window, in a session and by the model on the whole window."""
    stream = utterances()
    session = full_session(model, processor, seen := list(itertools.islice(stream, window)))
    recent = deque(seen, maxlen=window)

    def answer_whole(utterance: dict) -> torch.Tensor:
        recent.append(utterance)
        with torch.no_grad():
            return model(**processor({"utterances": list(recent)})).logits[0, -1].softmax(-1)

    sides = {"session": session.add, "without reuse": answer_whole}
    return take_turns(sides, itertools.islice(stream, number))


def measure_growth(
    model: Any, processor: Any, *, window: int, number: int, part: int
) -> dict[str, np.ndarray]:
    """Time the last `part` of `number` utterances of a session, and the first `part` of a new one.

    The new session starts with a full window too; otherwise it would have less to read.
    """
    stream = utterances(seed=1)
    new = full_session(model, processor, list(itertools.islice(stream, window)))
    old = ConversationSession(model, processor, window=window)
    for utterance in itertools.islice(stream, number - part):
        old.add(utterance)
    return take_turns({"first": new.add, "last": old.add}, itertools.islice(stream, part))


def measure_memory(model: Any, processor: Any, *, window: int, number: int) -> dict[int, int]:
    """Return the bytes of this process after a tenth of `number` utterances and after all of them."""
    session = ConversationSession(model, processor, window=window)
    memory = {}
    for heard, utterance in enumerate(itertools.islice(utterances(seed=1), number), start=1):
        session.add(utterance)
        if heard in (number // 10, number):
            status = Path("/proc/self/status").read_text("utf-8")
            memory[heard] = 1024 * int(status.split("VmRSS:")[1].split()[0])
    return memory


def full_session(model: Any, processor: Any, seen: list[dict]) -> ConversationSession:
    session = ConversationSession(model, processor, window=len(seen))
    for utterance in seen:
        session.add(utterance)
    return session


def describe_latency(times: dict[str, np.ndarray]) -> list[str]:
    lines = ["| | p50 | p99 | p50, processor time | p99, processor time |", "|---|---|---|---|---|"]
    for name, values in times.items():
        clock, processor = np.percentile(values, [50, 99], axis=0).T
        cells = " | ".join(f"{value:.1f} ms" for value in (*clock, *processor))
        lines.append(f"| {name} | {cells} |")
    return lines


def describe_growth(times: dict[str, np.ndarray], *, number: int) -> str:
    medians = {name: np.median(values, axis=0) for name, values in times.items()}
    said = (
        f"the {name} {len(times[name])} {clock:.1f} ms ({cpu:.1f})" for name, (clock, cpu) in medians.items()
    )
    return f"{number:,} utterances, median (processor time): {', '.join(said)}"


def describe_memory(memory: dict[int, int]) -> str:
    said = (f"{held / 1e6:.1f} MB after {heard:,} utterances" for heard, held in memory.items())
    return f"process memory: {', '.join(said)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default=str(MODEL), help="folder of a trained model")
    parser.add_argument("--window", type=int, default=50, help="utterances the model sees")
    parser.add_argument("--utterances", type=int, default=300, help="utterances timed per side")
    parser.add_argument("--long", type=int, default=2000, help="utterances of the long conversation")
    parser.add_argument("--part", type=int, default=200, help="utterances compared at each end")
    parser.add_argument("--memory", type=int, help="measure only memory, over this many utterances")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable_progress_bar()
    model = AutoModelForSequenceClassification.from_pretrained(options.model, causal=True).eval()
    processor = AutoProcessor.from_pretrained(options.model)
    loaded, window = (model, processor), options.window
    if options.memory is not None:
        print(describe_memory(measure_memory(*loaded, window=window, number=options.memory)))
        return
    times = measure_latency(*loaded, window=window, number=options.utterances)
    print("\n".join(describe_latency(times)), flush=True)
    growth = measure_growth(*loaded, window=window, number=options.long, part=options.part)
    print(describe_growth(growth, number=options.long))


if __name__ == "__main__":
    main()
