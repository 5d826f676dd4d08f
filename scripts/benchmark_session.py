"""What an utterance of a live conversation costs: with and without reuse, and in a long conversation.

Both sides take turns, so that a busy machine slows both alike: a session, which encodes only the new text,
and the model on the whole window. Beside the time on the clock stands that on the processor, which other
work on the machine changes less. A model that is not causal is loaded as one: as fast, but not as good.

    python scripts/benchmark_session.py
    python scripts/benchmark_session.py --model runs/mine --window 100 --utterances 500
"""

import argparse
import itertools
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoProcessor
from transformers.utils import logging

from redifu import ConversationSession

MODEL = Path(__file__).resolve().parent.parent / "model_cards" / "redifu-meld-text"
SPEAKERS = ["Ana", "Jonas", "Mira"]
WORDS = (
    "I you we it that this what is was are not do know think really want go come back here there just "
    "like never so good time right all out about them okay well maybe please sorry great wait why how"
)


def utterances(seed: int = 0) -> Iterator[dict[str, Any]]:
    """Make utterances without end: no text is like another, 3 to 20 words long as in real dialogues."""
    generator = random.Random(seed)
    while True:
        text = " ".join(generator.choices(WORDS.split(), k=generator.randint(3, 20)))
        yield {"speaker": generator.choice(SPEAKERS), "text": text}


def milliseconds(call: Callable[[], object]) -> tuple[float, float]:
    """Time one call, on the clock and on the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    call()
    return 1000 * (time.perf_counter() - clock), 1000 * (time.process_time() - processor)


def answer_whole(model: Any, processor: Any, window: list[dict[str, Any]]) -> torch.Tensor:
    """Answer the newest utterance as without a session: the window as a conversation."""
    with torch.no_grad():
        return model(**processor({"utterances": window})).logits[0, -1].softmax(-1)


def measure_latency(model: Any, processor: Any, *, window: int, number: int) -> dict[str, np.ndarray]:
    """Time both sides in turn, each with a full window: (utterances, 2) milliseconds."""
    session = ConversationSession(model, processor, window=window)
    stream = utterances()
    seen = list(itertools.islice(stream, window))
    for utterance in seen:
        session.add(utterance)
    times: dict[str, list[tuple[float, float]]] = {"session": [], "without reuse": []}
    for utterance in itertools.islice(stream, number):
        seen = [*seen[1:], utterance]
        times["session"].append(milliseconds(lambda new=utterance: session.add(new)))
        times["without reuse"].append(milliseconds(lambda all_=seen: answer_whole(model, processor, all_)))
    return {name: np.array(values) for name, values in times.items()}


def measure_growth(model: Any, processor: Any, *, window: int, number: int) -> np.ndarray:
    """Time a session from its first utterance on: (utterances, 2) milliseconds."""
    session = ConversationSession(model, processor, window=window)
    stream = itertools.islice(utterances(seed=1), number)
    return np.array([milliseconds(lambda new=each: session.add(new)) for each in stream])


def describe_latency(times: dict[str, np.ndarray]) -> list[str]:
    lines = ["| | p50 | p99 | p50 on the processor | p99 on the processor |", "|---|---|---|---|---|"]
    for name, values in times.items():
        clock, processor = np.percentile(values, [50, 99], axis=0).T
        cells = " | ".join(f"{value:.1f} ms" for value in (*clock, *processor))
        lines.append(f"| {name} | {cells} |")
    return lines


def describe_growth(times: np.ndarray, *, window: int, part: int) -> str:
    """Compare the first `part` utterances with a full window with the last."""
    full = times[window:]
    first, last = np.median(full[:part], axis=0), np.median(full[-part:], axis=0)
    return (
        f"{len(times):,} utterances: median of the first {part} with a full window {first[0]:.1f} ms, of the "
        f"last {part} {last[0]:.1f} ms; on the processor {first[1]:.1f} ms and {last[1]:.1f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default=str(MODEL), help="folder of a trained model")
    parser.add_argument("--window", type=int, default=50, help="turns the model sees")
    parser.add_argument("--utterances", type=int, default=300, help="utterances timed on both sides")
    parser.add_argument("--long", type=int, default=2000, help="utterances of the long conversation")
    parser.add_argument("--part", type=int, default=200, help="utterances compared at its ends")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable_progress_bar()
    model = AutoModelForSequenceClassification.from_pretrained(options.model, causal=True).eval()
    processor = AutoProcessor.from_pretrained(options.model)
    size = {"window": options.window}
    times = measure_latency(model, processor, number=options.utterances, **size)
    print("\n".join(describe_latency(times)), flush=True)
    growth = measure_growth(model, processor, number=options.long, **size)
    print(describe_growth(growth, part=options.part, **size))


if __name__ == "__main__":
    main()
