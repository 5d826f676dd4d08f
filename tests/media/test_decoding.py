import os
from pathlib import Path

import numpy as np
import pytest

from media.made_media import tone, turn_mp4, write_sound, write_video
from redifu.media import containers, decoding
from redifu.media import sound as sound_module
from redifu.media.decoding import Frames, MediaError, Span, read_frames, read_sound


def sound(source: object, *spans: Span, rate: int = 16000) -> list:
    got = dict(read_sound(source, spans or [Span()], sampling_rate=rate))
    return [got[number] for number in range(len(got))]


def frames(source: object, *spans: Span, rate: float = 5) -> list:
    got = dict(read_frames(source, spans or [Span()], frames_per_second=rate))
    return [got[number] for number in range(len(got))]


def numbered(count: int, *, height: int = 32, width: int = 48) -> list[np.ndarray]:
    """Grey pictures that tell their number by their brightness: 10, 20, ..."""
    return [np.full((height, width, 3), 10 * (number + 1), np.uint8) for number in range(count)]


def brightness(pictures: list[np.ndarray]) -> list[int]:
    return [round(float(picture.mean()) / 10) for picture in pictures]


@pytest.mark.parametrize("ending", ["wav", "flac", "mp3", "ogg"])
@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_sound_of_any_format_and_rate_is_the_tone_that_was_written(
    tmp_path: Path, ending: str, rate: int
) -> None:
    path = write_sound(tmp_path / f"t ö.{ending}", tone(1.0, rate=rate), rate=rate)
    (waveform,) = sound(path)
    assert waveform.dtype == np.float32 and abs(len(waveform) / 16000 - 1) < 0.1
    spectrum = np.abs(np.fft.rfft(waveform[:16000] * np.hanning(len(waveform[:16000]))))
    assert abs(spectrum.argmax() * 16000 / len(waveform[:16000]) - 220) < 3
    assert 0.27 < np.abs(waveform[2000:-2000]).max() < 0.33


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8000, 22050, 48000])
@pytest.mark.parametrize(
    ("ending", "subtype"),
    [
        *(("wav", kind) for kind in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
        *(("flac", kind) for kind in ("PCM_S8", "PCM_16", "PCM_24")),
    ],
)
def test_samples_are_those_that_libsndfile_reads(
    tmp_path: Path, ending: str, subtype: str, rate: int, channels: int
) -> None:
    soundfile = pytest.importorskip("soundfile", reason="the extra media is not installed")
    written = np.random.default_rng(0).uniform(-0.9, 0.9, (rate // 4, channels))
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, written, rate, subtype=subtype)
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    (waveform,) = sound(path, rate=rate)
    np.testing.assert_array_equal(waveform, expected.mean(axis=1))


@pytest.mark.parametrize(("ending", "subtype"), [("mp3", "MPEG_LAYER_III"), ("ogg", "VORBIS")])
def test_lossy_samples_are_those_that_libsndfile_reads(tmp_path: Path, ending: str, subtype: str) -> None:
    soundfile = pytest.importorskip("soundfile", reason="the extra media is not installed")
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, tone(1.0), 16000, subtype=subtype)
    expected, _ = soundfile.read(path, dtype="float32")
    (waveform,) = sound(path)
    shared = min(len(waveform), len(expected))
    assert shared > 15600  # the decoders part in the last block only
    np.testing.assert_allclose(waveform[:shared], expected[:shared], atol=1e-5)


def test_two_channels_become_their_mean(tmp_path: Path) -> None:
    left, right = tone(0.5), tone(0.5, level=0.1)
    (waveform,) = sound(write_sound(tmp_path / "stereo.wav", np.stack([left, right])))
    np.testing.assert_allclose(waveform, (left + right) / 2, atol=1e-3)


def test_spans_are_the_parts_of_the_whole_in_any_order_and_overlap(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 48000))
    spans = [Span(start=1.5, end=2.5), Span(), Span(start=0.25, end=1.75), Span(start=2.9, end=9.0)]
    late, whole, early, cut = sound(path, *spans)
    assert len(whole) == 48000
    assert np.array_equal(late, whole[24000:40000])
    assert np.array_equal(early, whole[4000:28000])
    assert np.array_equal(cut, whole[46400:])


def test_bytes_are_as_good_as_a_path(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.flac", tone(0.5))
    assert np.array_equal(sound(path)[0], sound(path.read_bytes())[0])


def test_no_more_is_decoded_than_the_last_span_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sound(tmp_path / "a.wav", tone(20.0))
    count = 0
    decoded = sound_module.decoded

    def counted(*arguments: object) -> object:
        nonlocal count
        for each in decoded(*arguments):
            count += 1
            yield each

    monkeypatch.setattr(sound_module, "decoded", counted)
    sound(path)
    whole, count = count, 0
    sound(path, Span(start=0.0, end=1.0))
    assert count < whole / 10


def test_a_span_is_given_out_before_the_file_is_read_to_its_end(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", tone(20.0))
    reading = read_sound(path, [Span(start=10.0), Span(start=0.0, end=1.0)], sampling_rate=16000)
    number, waveform = next(iter(reading))
    assert number == 1 and len(waveform) == 16000


def test_what_is_longer_than_an_utterance_can_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "LONGEST_UTTERANCE", 1.0)
    heard = sound(write_sound(tmp_path / "a.wav", tone(2.0)), Span(), Span(end=0.9), Span(end=1.5))
    seen = frames(write_video(tmp_path / "a.mp4", numbered(20)), Span(), Span(end=0.9), Span(end=1.5))
    for whole, short, long in (heard, seen):
        assert not isinstance(short, MediaError)
        for refused in (whole, long):
            assert "at most 1 s long: set its start and end" in str(refused)


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "avi", "webm"])
def test_pictures_are_those_that_a_player_shows(tmp_path: Path, ending: str) -> None:
    path = write_video(tmp_path / f"a.{ending}", numbered(20))
    whole, part = frames(path, Span(), Span(start=0.55, end=1.2))
    assert whole.times == [0.2 * number for number in range(10)] or np.allclose(
        whole.times, np.arange(10) / 5
    )
    assert brightness(whole.pictures) == list(range(1, 21, 2))
    np.testing.assert_allclose(part.times, [0.55, 0.75, 0.95, 1.15])
    assert brightness(part.pictures) == [6, 8, 10, 12]


def test_a_variable_frame_rate_shows_each_picture_as_long_as_it_stands(tmp_path: Path) -> None:
    times = [0.0, 0.1, 1.1, 1.2, 1.9]
    (shown,) = frames(write_video(tmp_path / "a.mkv", numbered(5), times=times))
    assert brightness(shown.pictures) == [1, 2, 2, 2, 2, 2, 4, 4, 4, 4, 5, 5, 5]


def test_a_quarter_turn_of_the_file_is_followed(tmp_path: Path) -> None:
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:16, :32] = 255  # upper left, which a turn clockwise takes to the upper right
    path = write_video(tmp_path / "a.mp4", [picture] * 3)
    (turned,) = frames(turn_mp4(path))
    assert turned.pictures[0].shape == (64, 32, 3)
    bright = turned.pictures[0].mean(axis=2) > 128
    assert bright[:30, 18:].all() and not bright[:30, :14].any() and not bright[34:].any()


def test_odd_sizes_and_large_pictures(tmp_path: Path) -> None:
    (odd,) = frames(write_video(tmp_path / "odd.mkv", numbered(2, height=33, width=47)))
    assert odd.pictures[0].shape == (33, 47, 3)
    (large,) = frames(write_video(tmp_path / "large.mp4", numbered(2, height=200, width=1920)))
    assert large.pictures[0].shape == (100, 960, 3)


def test_of_a_long_span_fewer_pictures_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MOST_PICTURES", 8)
    (thinned,) = frames(write_video(tmp_path / "a.mp4", numbered(20)), rate=10)
    assert len(thinned.times) < 8
    steps = np.diff(thinned.times)
    assert np.allclose(steps, steps[0]) and thinned.times[0] == 0 and thinned.times[-1] >= 1.6
    assert brightness(thinned.pictures) == [round(10 * time) + 1 for time in thinned.times]


def reasons(source: object) -> list[str]:
    found = [*sound(source), *frames(source)]
    assert all(isinstance(one, MediaError) for one in found)
    return [str(one) for one in found]


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is not a film\n" * 100)
    for name in ("empty.mp4", "text.mp4"):
        assert all("cannot be opened: Invalid data" in reason for reason in reasons(tmp_path / name))
    assert all("No such file" in reason for reason in reasons(tmp_path / "nowhere.mp4"))
    assert all("Is a directory" in reason for reason in reasons(tmp_path))
    assert all("cannot be opened" in reason for reason in reasons(b""))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", tone(0.5))
    path.chmod(0)
    assert all("Permission denied" in reason for reason in reasons(path))


def test_a_stream_that_is_not_there_and_a_span_beyond_the_end(tmp_path: Path) -> None:
    heard, seen = write_sound(tmp_path / "a.wav", tone(0.5)), write_video(tmp_path / "a.mp4", numbered(4))
    assert str(frames(heard)[0]) == "there is no video stream"
    assert str(sound(seen)[0]) == "there is no audio stream"
    for read, path in ((sound, heard), (frames, seen)):
        assert str(read(path, Span(start=5.0, end=6.0))[0]) == "no data found from 5 s onward"


def test_of_a_damaged_file_what_comes_before_the_damage_is_used(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "a.avi",
        [np.random.default_rng(n).integers(0, 255, (64, 64, 3), np.uint8) for n in range(40)],
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    early, late = frames(path, Span(start=0.0, end=1.0), Span(start=3.5, end=4.0))
    assert isinstance(early, Frames) and len(early.times) == 5
    assert isinstance(late, MediaError)


def test_limits_of_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(4))
    monkeypatch.setattr(containers, "LARGEST_PICTURE", 40)
    assert "the limit is 40 per side" in str(frames(path)[0])
    monkeypatch.undo()
    monkeypatch.setattr(containers, "DECODING_LIMIT", 0.0)
    assert isinstance(frames(path)[0], MediaError)


@pytest.mark.parametrize(
    ("name", "seconds", "pictures"),
    [("talking_face.mp4", 8.0, 40), ("faces_1080p.mp4", 4.2, 21), ("face_comes_and_goes.mov", 6.4, 33)],
)
def test_real_files(test_data: Path, name: str, seconds: float, pictures: int) -> None:
    (waveform,), (shown,) = sound(test_data / "fixtures" / name), frames(test_data / "fixtures" / name)
    assert abs(len(waveform) / 16000 - seconds) < 0.05 and abs(len(shown.times) - pictures) <= 1
    if name == "face_comes_and_goes.mov":  # its sound begins 2.43 s after its pictures
        begins = np.flatnonzero(waveform)[0] / 16000
        assert 2.3 < begins < 2.6
