"""Sound and pictures at their times, whatever the container: a click and a flash at the same moment."""

import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from media.made_media import turn_mp4, write_film, write_video
from redifu.media.decoding import Frames, MediaError, Span, read_frames, read_sound, sound_chunks

RATE = 16000
MOMENT = 2.0  # of the click and the flash, in seconds
CODECS: dict[str, dict[str, Any]] = {
    ".mp4": {},
    ".mov": {"sound_codec": "pcm_s16le"},
    ".mkv": {"sound_codec": "libopus"},
    ".webm": {"video_codec": "libvpx", "sound_codec": "libopus"},
    ".avi": {"sound_codec": "pcm_s16le"},
    ".ts": {"video_codec": "libx264"},
    ".flv": {"video_codec": "libx264"},
    ".mpg": {"video_codec": "mpeg2video", "sound_codec": "mp2", "rate": 25},
}


def flash(*, times: list[float], moment: float = MOMENT, width: int = 64) -> list[np.ndarray]:
    """Dark pictures, and one that is bright from `moment` on."""
    at = max(index for index, time in enumerate(times) if time <= moment + 1e-6)
    return [np.full((48, width, 3), 230 if index == at else 20, np.uint8) for index in range(len(times))]


def click(seconds: float, *, moment: float = MOMENT) -> np.ndarray:
    """Silence with 10 ms of sound at `moment`, at 48 kHz."""
    waveform = np.zeros(round(seconds * 48000), np.float32)
    start = round(moment * 48000)
    waveform[start : start + 480] = 0.8 * np.sin(2 * np.pi * 1000 * np.arange(480) / 48000)
    return waveform


def film(path: Path, *, late: float = 0.0, seconds: float = 3.0, **options: Any) -> Path:
    options = {**CODECS.get(path.suffix, {}), **options}
    rate = options.get("rate", 10)
    times = options.pop("times", None) or [index / rate for index in range(round(seconds * rate))]
    sound = click(seconds - late, moment=MOMENT - late)
    return write_film(path, flash(times=times), sound, times=times, late=late, **options)


def heard(path: Path, *spans: Span) -> list[float]:
    """When the click is in each span, in seconds since the start of the medium."""
    spans = spans or (Span(),)
    found = dict(read_sound(path, spans, sampling_rate=RATE))
    assert not any(isinstance(one, MediaError) for one in found.values())
    places = [np.flatnonzero(np.abs(found[number]) > 0.2)[0] / RATE for number in range(len(spans))]
    return [place + span.start for place, span in zip(places, spans, strict=True)]


def seen(path: Path, *, moment: float = MOMENT) -> float:
    """When the flash is first shown, if that is near a moment."""
    span = Span(start=moment - 0.7, end=moment + 0.7)
    ((_, frames),) = read_frames(path, [span], frames_per_second=50)
    assert isinstance(frames, Frames)
    bright = [time for time, one in zip(frames.times, frames.pictures, strict=True) if one.mean() > 120]
    return bright[0]


@pytest.mark.parametrize("ending", CODECS)
def test_click_and_flash_are_at_their_moment(tmp_path: Path, ending: str) -> None:
    path = film(tmp_path / f"a{ending}")
    assert heard(path, Span(), Span(start=1.5, end=2.5)) == pytest.approx([MOMENT] * 2, abs=0.03)
    assert seen(path) == pytest.approx(MOMENT, abs=0.045)


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv", ".webm", ".ts", ".flv", ".mpg"])
@pytest.mark.parametrize("late", [0.3, 1.3])
def test_a_sound_that_begins_late_stays_late(tmp_path: Path, ending: str, late: float) -> None:
    path = film(tmp_path / f"a{ending}", late=late)
    assert heard(path) == pytest.approx([MOMENT], abs=0.03)
    assert seen(path) == pytest.approx(MOMENT, abs=0.045)
    whole = np.concatenate(list(sound_chunks(path, sampling_rate=RATE, seconds=0.7)))
    assert not whole[: round((late - 0.1) * RATE)].any()
    assert np.flatnonzero(np.abs(whole) > 0.2)[0] / RATE == pytest.approx(MOMENT, abs=0.03)


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_pictures_that_begin_late_stay_late(tmp_path: Path, ending: str) -> None:
    times = [1.0 + index / 10 for index in range(20)]
    path = film(tmp_path / f"a{ending}", times=times)
    assert heard(path) == pytest.approx([MOMENT], abs=0.03)
    assert seen(path) == pytest.approx(MOMENT, abs=0.045)
    ((_, early),) = read_frames(path, [Span(end=0.8)], frames_per_second=5)
    assert isinstance(early, MediaError)


def test_an_edit_list_cuts_the_start_of_the_sound(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mov")
    content = bytearray(path.read_bytes())
    # The second track is the sound; its edit begins half a second into its samples.
    place = content.rindex(b"elst") + 4
    version, count, _, start = struct.unpack(">iiii", content[place : place + 16])
    assert (version, count, start) == (0, 1, 0)
    content[place + 12 : place + 16] = struct.pack(">i", 24000)
    path.write_bytes(content)
    assert heard(path) == pytest.approx([MOMENT - 0.5], abs=0.03)
    assert seen(path) == pytest.approx(MOMENT, abs=0.045)


def test_a_phone_that_was_turned_keeps_its_times(tmp_path: Path) -> None:
    path = turn_mp4(film(tmp_path / "a.mp4"))
    ((_, frames),) = read_frames(path, [Span()], frames_per_second=5)
    assert frames.pictures[0].shape == (64, 48, 3)
    assert seen(path) == pytest.approx(MOMENT, abs=0.045)
    assert heard(path) == pytest.approx([MOMENT], abs=0.03)


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".mov"])
def test_a_variable_frame_rate_keeps_its_times(tmp_path: Path, ending: str) -> None:
    times = [*(index / 30 for index in range(30)), 1.05, 1.1, 1.9, MOMENT, 2.03, 2.5, 2.9]
    path = film(tmp_path / f"a{ending}", times=times, rate=30)
    assert seen(path) == pytest.approx(MOMENT, abs=0.045)
    assert heard(path) == pytest.approx([MOMENT], abs=0.03)


def join(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize("ending", [".ts", ".mpg"])
def test_a_part_whose_clock_restarts_follows_the_part_before_it(tmp_path: Path, ending: str) -> None:
    parts = [
        film(tmp_path / f"{number}{ending}", seconds=seconds) for number, seconds in enumerate((3, 4, 3))
    ]
    path = join(tmp_path / f"a{ending}", *parts)
    spans = [Span(start=start, end=start + 3) for start in (0, 3, 7)]
    assert heard(path, *spans) == pytest.approx([2.0, 5.0, 9.0], abs=0.1)
    assert [seen(path, moment=moment) for moment in (2, 5, 9)] == pytest.approx([2.0, 5.0, 9.0], abs=0.1)
    whole = np.concatenate(list(sound_chunks(path, sampling_rate=RATE)))
    assert len(whole) / RATE == pytest.approx(10.0, abs=0.15)
    loud = np.flatnonzero(np.abs(whole) > 0.2) / RATE
    assert 1 + np.count_nonzero(np.diff(loud) > 0.5) == 3


def test_chained_sounds_follow_each_other(tmp_path: Path) -> None:
    from media.made_media import tone, write_sound

    parts = [
        write_sound(tmp_path / f"{number}.ogg", tone(2.0, frequency=frequency))
        for number, frequency in enumerate((220.0, 440.0))
    ]
    ((_, whole),) = read_sound(join(tmp_path / "a.ogg", *parts), [Span()], sampling_rate=RATE)
    assert len(whole) / RATE == pytest.approx(4.0, abs=0.1)
    for start, expected in ((0.5, 220), (2.5, 440)):
        part = whole[round(start * RATE) :][:RATE]
        assert np.abs(np.fft.rfft(part)).argmax() == pytest.approx(expected, abs=2)


def numbered(count: int) -> list[np.ndarray]:
    """Dark pictures that tell their number by the place of a bright bar."""
    pictures = [np.full((48, 8 * count, 3), 20, np.uint8) for _ in range(count)]
    for number, picture in enumerate(pictures):
        picture[:, 8 * number : 8 * number + 8] = 230
    return pictures


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.avi", "libx264", {"bf": "3"}),
        ("a.avi", "mpeg4", {"bf": "2"}),
        ("a.avi", "mpeg4", {}),
        ("a.h264", "libx264", {"bf": "3"}),
        ("a.h264", "libx264", {"bf": "0"}),
        ("a.m4v", "mpeg4", {"bf": "2"}),
        ("a.mp4", "libx264", {"bf": "3"}),
        ("a.ts", "libx264", {"bf": "3"}),
    ],
)
def test_pictures_that_are_stored_out_of_order_are_shown_at_their_times(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    path = write_video(tmp_path / name, numbered(24), codec=codec, options=options)
    ((_, frames),) = read_frames(path, [Span()], frames_per_second=10)
    np.testing.assert_allclose(frames.times, np.arange(24) / 10, atol=1e-6)
    bars = [picture.mean(axis=(0, 2)).reshape(24, 8).mean(axis=1).argmax() for picture in frames.pictures]
    assert bars == list(range(24))


def test_the_default_track_is_heard_and_the_others_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        from media.made_media import sound_packets, tone

        for number, title in enumerate(["Mic", "Desktop", "Music"]):
            stream = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
            stream.metadata["title"] = title
            stream.disposition = av.stream.Disposition.default if number == 1 else 0
        streams = list(container.streams.audio)
        for number, stream in enumerate(streams):
            planes = tone(1.0, frequency=200 + 100 * number)[None]
            for packet in sound_packets(stream, planes, rate=RATE, layout="mono"):
                container.mux(packet)
    ((_, whole),) = read_sound(path, [Span()], sampling_rate=RATE)
    assert np.abs(np.fft.rfft(whole)).argmax() == pytest.approx(300, abs=2)
    assert caplog.messages == [f"{path}: audio track 'Desktop' is used, and left out: 'Mic', 'Music'"]


def test_the_second_track_of_a_case_is_its_default(test_data: Path) -> None:
    folder = test_data / "cases"
    spans = [Span(start=start, end=end) for start, end in ((0.5, 4.4), (5, 8.4), (9, 12.5), (13, 15.8))]
    found = dict(read_sound(folder / "tracks" / "second_default.mp4", spans, sampling_rate=RATE))
    expected = dict(read_sound(folder / "mix.flac", spans, sampling_rate=RATE))
    for number in range(4):
        assert np.corrcoef(found[number], expected[number])[0, 1] > 0.95
