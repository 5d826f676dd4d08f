"""The benchmark of live streams tells lost utterances from none, at toy size; nothing about speed."""

import asyncio
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from media.made_media import write_sound
from redifu.transcription import live_turns
from script_modules import load_script
from transcription.loud_stream import LoudActivity, Models, loud, quiet

pytest.importorskip("redifu.serving.http_service", reason="serving needs the extra `serve`")
pytest.importorskip("av", reason="reading sound needs the extra `media`")


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_script("benchmarks/live")


def test_recordings_follow_each_other_and_are_repeated(benchmark: ModuleType, tmp_path: Path) -> None:
    paths = [write_sound(tmp_path / f"{n}.wav", loud(0.5, level=0.2 * n)) for n in (1, 2)]
    once = benchmark.pcm_of([str(path) for path in paths], seconds=None)
    assert len(once) == 3 * 16000
    again = benchmark.pcm_of([str(path) for path in paths], seconds=6.0)
    np.testing.assert_array_equal(again, np.concatenate([once, once]))


def test_a_stream_of_a_service_is_what_is_heard_alone(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_turns, "VoiceActivity", LoudActivity)
    from serving.test_live_streams import service

    sound = np.concatenate([loud(0.9, level=0.3), quiet(0.6), loud(0.9, level=0.8)])
    samples = (32767 * sound).astype("<i2")
    late: list[float] = []
    with service() as one:
        streams = [samples, samples[: 16000 * 3 // 2]]
        answers = asyncio.run(benchmark.load(f"http://{one.address}", streams, speakers=2, late=late))
    alone = [benchmark.heard_alone(Models(), each, speakers=2) for each in streams]
    assert [benchmark.said(frames) for frames in answers] == alone
    assert [len(each) for each in alone] == [2, 1]
    assert len(late) == 3 and min(late) > 0 and max(late) < 10
    assert benchmark.said(answers[0][:1]) != alone[0]
