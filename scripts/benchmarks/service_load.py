"""Measures what batching gains a service under load, and checks that each client gets its own answer.

Two services run: one predicts waiting requests together, the other predicts each request alone. They take
turns, so that a busy machine slows both alike. Each reply is compared with its request and with a direct
prediction. The exit status is 1 if any reply is lost, wrong or meant for another client.

    python scripts/benchmarks/service_load.py
    python scripts/benchmarks/service_load.py --clients 16 --seconds 20 --utterances 16
"""

import argparse
import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import httpx2 as httpx
import numpy as np
from session import MODEL, utterances
from transformers.utils import logging

from redifu.data.writers import with_predictions
from redifu.inference.recogniser import Recogniser, load
from redifu.serving.service_limits import Limits

TOLERANCE = 1e-4
ROUNDS = 3


def make_conversations(number: int, *, longest: int) -> list[dict[str, Any]]:
    """Make conversations of 1 to `longest` utterances, all different."""
    lengths, stream = random.Random(0), utterances()
    return [{"utterances": list(islice(stream, lengths.randint(1, longest)))} for _ in range(number)]


def direct_predictions(recogniser: Recogniser, conversations: list[dict]) -> list[dict]:
    """Predict conversations one at a time, without a service."""
    predicted = recogniser.predict(recogniser.read(conversations), lookahead_utterances=1)
    return [with_predictions(*each) for each in predicted]


def complaint(reply: dict[str, Any], expected: dict[str, Any]) -> str | None:
    """Return what is wrong with a reply (another conversation, or other scores), or None."""
    if reply.get("id") != expected["id"]:
        return f"expected the reply to {expected['id']}, got {str(reply)[:200]}"
    given, wanted = reply["utterances"], expected["utterances"]
    if [each["text"] for each in given] != [each["text"] for each in wanted]:
        return f"{expected['id']}: expected its {len(wanted)} utterances, got others"
    scores = [[list(each["scores"].values()) for each in side] for side in (given, wanted)]
    difference = np.abs(np.subtract(*scores)).max()
    return f"{expected['id']}: scores differ by {difference:.1e}" if difference > TOLERANCE else None


async def client(
    http: httpx.AsyncClient, name: str, expected: list[dict], *, end: float, times: list[float]
) -> list[str]:
    """Send requests until `end`; return what was wrong, and append the seconds of each to `times`."""
    complaints = []
    generator = random.Random(name)
    number = 0
    while time.perf_counter() < end:
        wanted = {**generator.choice(expected), "id": f"{name}-{number}"}
        said = [{key: each[key] for key in ("speaker", "text")} for each in wanted["utterances"]]
        started = time.perf_counter()
        try:
            response = await http.post("/predict", json={"id": wanted["id"], "utterances": said})
            response.raise_for_status()
            found = complaint(response.json(), wanted)
        except httpx.HTTPError as error:
            found = f"{wanted['id']}: {error!r}"
        times.append(time.perf_counter() - started)
        complaints += [found] if found else []
        number += 1
    return complaints


async def put_under_load(
    address: str, expected: list[dict], *, clients: int, seconds: float, times: list[float]
) -> list[str]:
    """Run `clients` clients at once for `seconds` seconds; each finishes its last request."""
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=120) as http:
        end = time.perf_counter() + seconds
        asked = [client(http, f"client {n}", expected, end=end, times=times) for n in range(clients)]
        return [line for complaints in await asyncio.gather(*asked) for line in complaints]


@contextmanager
def running_service(model: str, *, max_batch: int) -> Iterator[str]:
    """Run the command, and yield its address as soon as it answers."""
    command = [
        sys.executable,
        "-m",
        "redifu.cli",
        "serve",
        model,
        "--port",
        "0",
        "--max-batch",
        str(max_batch),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            if not (address := process.stdout.readline().strip()):
                raise SystemExit("the service did not start")
            yield address
        finally:
            process.terminate()


def describe(name: str, times: list[float], elapsed: float) -> str:
    p50, p99 = np.percentile(times, [50, 99])
    return f"| {name} | {len(times):,} | {len(times) / elapsed:.1f} /s | {p50:.2f} s | {p99:.2f} s |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default=str(MODEL), help="folder of a trained model")
    parser.add_argument("--clients", type=int, default=64, help="concurrent clients")
    parser.add_argument("--seconds", type=float, default=60, help="seconds of load on each service")
    parser.add_argument("--utterances", type=int, default=4, help="maximum utterances per conversation")
    parser.add_argument(
        "--max-batch", type=int, default=Limits().max_batch, help="maximum batch of the batching service"
    )
    options = parser.parse_args()
    logging.disable_progress_bar()
    conversations = make_conversations(64, longest=options.utterances)
    expected = direct_predictions(load(options.model), conversations)
    names = {"batching": options.max_batch, "one by one": 1}
    times: dict[str, list[float]] = {name: [] for name in names}
    elapsed = dict.fromkeys(names, 0.0)
    complaints: list[str] = []
    with (
        running_service(options.model, max_batch=options.max_batch) as batching,
        running_service(options.model, max_batch=1) as alone,
    ):
        for _ in range(ROUNDS):
            for name, address in zip(names, (batching, alone), strict=True):
                started = time.perf_counter()
                complaints += asyncio.run(
                    put_under_load(
                        address,
                        expected,
                        clients=options.clients,
                        seconds=options.seconds / ROUNDS,
                        times=times[name],
                    )
                )
                elapsed[name] += time.perf_counter() - started
    print("| | requests | throughput | p50 | p99 |\n|---|---|---|---|---|")
    for name, values in times.items():
        print(describe(name, values, elapsed[name]))
    rates = [len(times[name]) / elapsed[name] for name in names]
    print(
        f"batching answers {rates[0] / rates[1]:.2f} times as many requests, {len(complaints)} wrong or lost"
    )
    if complaints:
        raise SystemExit("\n".join(complaints[:10]))


if __name__ == "__main__":
    main()
