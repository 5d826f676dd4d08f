"""Whole files as chunks, channels, and sound that changes on the way."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from media.made_media import tone, write_sound
from redifu.media.decoding import MediaError, Span, channels_of, read_sound, sound_chunks


def sound(source: object, *spans: Span, rate: int = 16000) -> list:
    got = dict(read_sound(source, spans or [Span()], sampling_rate=rate))
    return [got[number] for number in range(len(got))]


@pytest.mark.parametrize("seconds", [0.0001, 0.3, 1.0, 1.25, 60.0])
def test_chunks_are_the_whole_sound_and_equally_long(tmp_path: Path, seconds: float) -> None:
    path = write_sound(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 20000))
    chunks = list(sound_chunks(path, sampling_rate=16000, seconds=seconds))
    (whole,) = sound(path)
    assert {len(chunk) for chunk in chunks[:-1]} <= {round(seconds * 16000)}
    assert 0 < len(chunks[-1]) <= round(seconds * 16000) and chunks[0].dtype == np.float32
    np.testing.assert_array_equal(np.concatenate(chunks), whole)


def test_chunks_of_no_length_are_refused(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", tone(0.5))
    with pytest.raises(ValueError, match="at least one sample, got 0"):
        next(sound_chunks(path, sampling_rate=16000, seconds=0))


def test_a_channel_of_a_call(tmp_path: Path) -> None:
    left, right = tone(0.5), tone(0.5, frequency=330.0)
    path = write_sound(tmp_path / "call.wav", np.stack([left, right]))
    assert channels_of(path) == 2 and channels_of(write_sound(tmp_path / "mono.flac", left)) == 1
    for number, expected in enumerate([left, right]):
        (heard,) = sound_chunks(path, sampling_rate=16000, channel=number)
        np.testing.assert_allclose(heard, expected, atol=1e-4)
    (mixed,) = sound_chunks(path, sampling_rate=16000)
    np.testing.assert_allclose(mixed, (left + right) / 2, atol=1e-4)
    with pytest.raises(MediaError, match="no channel 2: expected 0 to 1"):
        next(sound_chunks(path, sampling_rate=16000, channel=2))


def test_the_last_moment_of_a_resampled_sound_is_kept(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", tone(1.0, rate=48000), rate=48000)
    assert len(sound(path)[0]) == 16000


def test_what_has_no_sound_is_said(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not a sound\n" * 99)
    for path, reason in ((tmp_path / "text.wav", "cannot be opened"), (tmp_path / "no.wav", "No such file")):
        with pytest.raises(MediaError, match=reason):
            next(sound_chunks(path, sampling_rate=16000))
        with pytest.raises(MediaError, match=reason):
            channels_of(path)


@pytest.mark.parametrize(
    ("layouts", "least"),
    [
        (["7.1", "16 channels", "64 channels", "65 channels"], 30),
        pytest.param([], 300, marks=pytest.mark.slow),
    ],
)
def test_no_number_of_channels_ends_the_process(tmp_path: Path, layouts: list[str], least: int) -> None:
    program = Path(__file__).with_name("strange_sounds.py")
    path = os.pathsep.join([str(program.parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, program, tmp_path, *layouts],
        env={**os.environ, "PYTHONPATH": path, "MALLOC_CHECK_": "3"},
        capture_output=True,
        text=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (lines[-1:], done.stderr[-500:])
    found = [line for line in lines if "channels" in line]
    assert len(found) >= least
    for one in found:
        if one["channels"] > 64:
            assert one["reason"] == f"sound has {one['channels']} channels: the limit is 64"
        elif one["exact"]:
            assert one["samples"] == 4800 and one["error"] < 1e-4, one
        else:
            assert 0.5 < one["level"] < 1.5, one


def test_a_file_of_too_many_channels_costs_no_other(tmp_path: Path) -> None:
    write_sound(tmp_path / "many.wav", np.stack([tone(0.3)] * 65), codec="pcm_f32le", layout="65 channels")
    write_sound(tmp_path / "one.wav", tone(0.3))
    many, one = (sound(tmp_path / name)[0] for name in ("many.wav", "one.wav"))
    assert str(many) == "sound has 65 channels: the limit is 64" and len(one) == 4800
