"""Whole files as chunks, channels, and sound that changes on the way."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from media.made_media import tone, write_sound
from redifu.media import decoding
from redifu.media.decoder_process import DecoderCrashedError
from redifu.media.decoding import MediaError, Span, channels_of, read_sound, sound_chunks
from redifu.media.quality import audio_quality
from redifu.media.sound import LARGEST_DRIFT


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


def test_a_span_may_be_of_one_channel(tmp_path: Path) -> None:
    left, right = tone(0.5), tone(0.5, frequency=330.0)
    path = write_sound(tmp_path / "call.wav", np.stack([left, right]), codec="pcm_f32le")
    first, second, both, none = sound(path, *(Span(channel=number) for number in (0, 1, None, 2)))
    for heard, expected in ((first, left), (second, right), (both, (left + right) / 2)):
        np.testing.assert_allclose(heard, expected, atol=1e-6)
    assert str(none) == "there is no channel 2: expected 0 to 1"


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


def test_what_was_heard_before_a_crash_is_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def crashing(*_: object, **options: object) -> Iterator[np.ndarray]:
        yield np.ones(8000, np.float32)
        raise DecoderCrashedError("the process that decoded it crashed")

    monkeypatch.setattr(decoding, "decode_apart", crashing)
    (chunk,) = sound_chunks("a.wav", sampling_rate=16000, seconds=0.5)
    assert len(chunk) == 8000
    assert caplog.messages == ["a.wav: the sound ends at 0.50 s: the process that decoded it crashed"]


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


def join(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def frequency(waveform: np.ndarray, *, rate: int = 16000) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(spectrum.argmax() * rate / len(waveform))


@pytest.mark.parametrize(("rate", "channels"), [(48000, 1), (44100, 2), (22050, 2)])
def test_sound_may_change_its_format_on_the_way(tmp_path: Path, rate: int, channels: int) -> None:
    first = write_sound(tmp_path / "1.mp3", tone(2.0, rate=44100), rate=44100)
    later = np.stack([tone(2.0, rate=rate, frequency=330.0)] * channels)
    joined = join(tmp_path / "a.mp3", first, write_sound(tmp_path / "2.mp3", later, rate=rate))
    (whole,) = sound(joined)
    assert abs(len(whole) / 16000 - 4.0) < 0.15
    for start, expected in ((0.2, 220), (1.2, 220), (2.3, 330), (3.2, 330)):
        part = whole[round(start * 16000) :][:9600]
        assert frequency(part) == pytest.approx(expected, abs=2)
        assert np.abs(part).max() == pytest.approx(0.3, abs=0.03)


def test_the_call_that_changes_its_format(test_data: Path) -> None:
    folder = test_data / "cases" / "format-change"
    spans = [Span(start=start, end=end) for start, end in ((0.5, 4.4), (5, 8.4), (9, 12.5), (13, 15.8))]
    expected = sound(folder / "fixed.flac", *spans)
    for one, other in zip(sound(folder / "call.mp3", *spans), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    heard = sound(folder / "stereo_after_mono.mp3", *spans)
    levels = [audio_quality(one, 16000)["snr"] for one in heard]
    assert levels == pytest.approx([45.8, 42.6, 45.0, 39.5], abs=0.5)


def test_samples_that_are_not_numbers_cost_their_own_span(tmp_path: Path) -> None:
    samples = tone(3.0)
    samples[20000], samples[24000] = np.nan, np.inf
    path = write_sound(tmp_path / "a.wav", samples, codec="pcm_f32le")
    before, within, after = sound(path, Span(end=1.0), Span(start=1, end=2), Span(start=2))
    np.testing.assert_array_equal(before, samples[:16000])
    np.testing.assert_array_equal(after, samples[32000:])
    assert str(within) == "the sound has samples that are not finite numbers"
    chunks = sound_chunks(path, sampling_rate=16000, seconds=1.0)
    np.testing.assert_array_equal(next(chunks), samples[:16000])
    with pytest.raises(MediaError, match="not finite numbers"):
        next(chunks)


@pytest.mark.parametrize("value", [1e10, -1e38])
def test_samples_whose_power_is_no_number_cost_their_span(tmp_path: Path, value: float) -> None:
    samples = tone(1.0)
    samples[8000] = value
    (heard,) = sound(write_sound(tmp_path / "a.wav", samples, codec="pcm_f32le"))
    assert "not finite numbers" in str(heard)


@pytest.mark.parametrize("gain", [1.0, 0.95])
def test_channels_in_antiphase_do_not_cancel_each_other(tmp_path: Path, gain: float) -> None:
    voice = np.random.default_rng(0).uniform(-0.5, 0.5, 16000)
    for planes in ([voice, -gain * voice], [0 * voice, voice, -gain * voice]):
        path = write_sound(
            tmp_path / "a.wav",
            np.stack(planes),
            codec="pcm_f32le",
            layout=f"{len(planes)} channels",
        )
        (heard,) = sound(path)
        np.testing.assert_allclose(heard, voice, atol=1e-6)
        (chunk,) = sound_chunks(path, sampling_rate=16000)
        np.testing.assert_array_equal(chunk, heard)


def test_channels_that_cancel_only_in_part_are_averaged(tmp_path: Path) -> None:
    left, right = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 16000))
    for planes in ([left, right], [left, -0.5 * left], [left, 0 * left], [left] * 2):
        path = write_sound(tmp_path / "a.wav", np.stack(planes), codec="pcm_f32le")
        np.testing.assert_allclose(sound(path)[0], np.mean(planes, axis=0), atol=1e-6)
    (silent,) = sound(write_sound(tmp_path / "b.wav", np.zeros((2, 16000))))
    assert not silent.any()


def media_of(folder: Path) -> list[Path]:
    endings = (".wav", ".mp3", ".flac", ".aac", ".mp4", ".mov", ".mkv", ".webm")
    return sorted(path for path in folder.rglob("*") if path.suffix in endings)


def test_real_sounds_are_as_ffmpeg_decodes_them(test_data: Path) -> None:
    compared = 0
    for path in [*media_of(test_data / "cases"), *media_of(test_data / "fixtures")]:
        with av.open(str(path)) as container:
            default = [one for one in container.streams.audio if one.disposition & 1]
            stream = next(iter([*default, *container.streams.audio]), None)
            decoded = [] if stream is None else list(container.decode(stream))
            start = (container.start_time or 0) / 1e6
        if len({(one.rate, one.layout.name) for one in decoded}) != 1 or "nan" in str(path):
            continue  # others have tests of their own
        rate, channels = decoded[0].rate, decoded[0].layout.nb_channels
        planes = np.concatenate([samples_of(one) for one in decoded], axis=1)
        expected = planes[0] if "antiphase" in path.name else planes.mean(axis=0)
        pieces = list(sound_chunks(path, sampling_rate=rate))
        late = decoded[0].time - start
        whole = np.concatenate(pieces)[round(late * rate) if late > LARGEST_DRIFT else 0 :]
        assert channels_of(path) == channels
        assert abs(len(whole) - len(expected)) <= 1, path
        shared = min(len(whole), len(expected))
        np.testing.assert_allclose(whole[:shared], expected[:shared], atol=1e-6, err_msg=str(path))
        compared += 1
    assert compared > 15


def samples_of(frame: av.AudioFrame) -> np.ndarray:
    """Return (channels, samples) of a frame, full scale 1."""
    values = frame.to_ndarray()
    values = values if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels).T
    return values if values.dtype.kind == "f" else values / np.float32(2 ** (8 * values.itemsize - 1))
