"""Measures how soon after the end of a turn a service sends its utterance, with real WebSocket clients.

Clients send recordings at the speed of speech, all at the same time. Latency is measured by the client, from
the moment it sent the last sample of the turn to the moment the utterance arrived. Each stream is compared
with the same recording heard alone; the exit status is 1 if an utterance is lost, doubled or of another
stream. The memory of the service is printed at the begin and at the end.

    python scripts/benchmarks/live.py call.wav
    python scripts/benchmarks/live.py call.wav meeting.flac --streams 4 --minutes 30
"""

import argparse
import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from session import MODEL
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from redifu.media.decoding import sound_chunks
from redifu.transcription.live_turns import LiveModels, LiveTurns
from redifu.transcription.speech_recognition import SAMPLING_RATE

CHUNK = SAMPLING_RATE // 10


def pcm_of(recordings: list[str], *, seconds: float | None) -> np.ndarray:
    """Return the recordings one after the other, with a second of silence in between, as int16 samples."""
    silence = np.zeros(SAMPLING_RATE, np.float32)
    parts = [
        part for path in recordings for part in (*sound_chunks(path, sampling_rate=SAMPLING_RATE), silence)
    ]
    samples = (np.concatenate(parts).clip(-1, 1) * 32767).astype("<i2")
    return samples if seconds is None else np.resize(samples, round(seconds * SAMPLING_RATE))


def heard_alone(models: LiveModels, samples: np.ndarray, *, speakers: int | None) -> list[tuple]:
    """Hear a stream without a service: speaker, text, start and end of each turn."""
    turns = LiveTurns(models.speech, models.speakers, most_speakers=speakers)
    found = [*turns.feed(samples.astype(np.float32) / 32768), *turns.finish()]
    return [
        (t.spoken.speaker, t.spoken.text, round(t.spoken.start, 3), round(t.spoken.end, 3)) for t in found
    ]


async def client(address: str, samples: np.ndarray, *, speakers: int | None, late: list[float]) -> list[dict]:
    """Send a stream at the speed of speech; return the utterances, and append their latencies."""
    frames: list[dict] = []
    async with connect(f"{address.replace('http', 'ws', 1)}/live") as socket:
        await socket.send(json.dumps({"speakers": speakers}))
        began = time.perf_counter()

        async def read() -> None:
            async for message in socket:
                frames.append(json.loads(message))
                if frames[-1]["type"] == "utterance":
                    late.append(time.perf_counter() - began - frames[-1]["end"])

        reading = asyncio.create_task(read())
        with suppress(ConnectionClosed):  # after an error, which is among the frames
            for first in range(0, len(samples), CHUNK):
                chunk = samples[first : first + CHUNK]
                await asyncio.sleep(began + (first + len(chunk)) / SAMPLING_RATE - time.perf_counter())
                await socket.send(chunk.tobytes())
            await socket.send(b"")
        with suppress(ConnectionClosed):
            await reading
    return frames


@contextmanager
def running_service(model: str) -> Iterator[tuple[str, int]]:
    """Run the command, and yield its address and process id as soon as it answers."""
    command = [sys.executable, "-m", "redifu.cli", "serve", model, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            if not (address := process.stdout.readline().strip()):
                raise SystemExit("the service did not start")
            yield address, process.pid
        finally:
            process.terminate()


def memory_of(process: int) -> float:
    """Return the resident memory of a process in MB."""
    status = Path(f"/proc/{process}/status").read_text("utf-8")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1000 if found else float("nan")


async def load(address: str, streams: list[np.ndarray], *, speakers: int | None, late: list[float]) -> list:
    """Run a client for each stream at the same time."""
    return await asyncio.gather(*[client(address, each, speakers=speakers, late=late) for each in streams])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recordings", nargs="+", help="audio or video files")
    parser.add_argument("--model", default=str(MODEL), help="folder of a trained model")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4], help="streams at the same time")
    parser.add_argument("--speakers", type=int, help="largest number of speakers")
    parser.add_argument("--minutes", type=float, help="length of a stream (default: the recordings once)")
    options = parser.parse_args()
    models, speakers = LiveModels(), options.speakers
    seconds = None if options.minutes is None else 60 * options.minutes
    wrong = 0
    print("| streams | utterances | p50 | p95 | largest | lost, doubled or mixed | memory (MB) |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with running_service(options.model) as (address, process):
        warm = pcm_of(options.recordings[:1], seconds=10)
        asyncio.run(load(address, [warm], speakers=speakers, late=[]))
        for count in options.streams:
            # The streams begin with different recordings.
            orders = [options.recordings[n:] + options.recordings[:n] for n in range(len(options.recordings))]
            given = [pcm_of(orders[n % len(orders)], seconds=seconds) for n in range(count)]
            late: list[float] = []
            before = memory_of(process)
            answers = asyncio.run(load(address, given, speakers=speakers, late=late))
            after = memory_of(process)
            bad = sum(
                said(frames) != heard_alone(models, samples, speakers=speakers)
                for frames, samples in zip(answers, given, strict=True)
            )
            wrong += bad
            p50, p95 = np.percentile(late, [50, 95])
            print(
                f"| {count} | {len(late)} | {p50:.2f} s | {p95:.2f} s | {max(late):.2f} s | {bad} streams "
                f"| {before:.0f} to {after:.0f} |",
                flush=True,
            )
    if wrong:
        raise SystemExit(1)


def said(frames: list[dict[str, Any]]) -> list[tuple]:
    """Return speaker, text, start and end of each utterance, and errors as they are."""
    names = ("speaker", "text", "start", "end")
    return [
        tuple(frame[name] for name in names) if frame["type"] == "utterance" else tuple(frame.values())
        for frame in frames
    ]


if __name__ == "__main__":
    main()
