"""From files, waveforms and frames, good and bad, to features, quality, presence and reasons."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from media.crashing_decoder import let_decoder_crash
from media.made_media import tone, write_sound, write_video
from redifu.conversation import Conversation, Utterance
from redifu.data import media_reading
from redifu.data.media_reading import read_media, read_spans, turns_by_medium
from redifu.data.readers import read_conversations
from redifu.media.decoding import Span
from redifu.media.face_features import ACTION_UNITS, FACE_DESCRIPTOR_SIZE
from redifu.media.quality import QUALITY
from redifu.media.reading import read_waveforms
from redifu.model import ReDiFuFeatureExtractor
from redifu.model.audio_features import LOG_MEL_SIZE

SOUND, SIGHT, BOTH = (
    {"audio_backend": "log_mel"},
    {"visual_backend": "face_descriptor"},
    {"audio_backend": "log_mel", "visual_backend": "face_descriptor"},
)


def talk(*utterances: dict[str, Any], name: str = "d") -> Conversation:
    given = {"id": name, "utterances": [{"speaker": "Ana", **one} for one in utterances]}
    return Conversation.from_dict(given, allow_media_objects=True)


def read(utterances: list[dict[str, Any]], **backends: Any) -> list[Utterance]:
    return list(read_media(talk(*utterances), ReDiFuFeatureExtractor(**backends)).utterances)


def reason(key: str, medium: Any, **span: float) -> str:
    stream, backends = {"audio": ("audio", SOUND), "video": ("visual", SIGHT)}[key]
    (utterance,) = read([{key: medium, **span}], **backends)
    assert getattr(utterance, f"{stream}_features") is None
    return utterance.missing[stream]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, int]]:
    """The sounds that were really read, each with the number of its spans."""
    found: list[tuple[Any, int]] = []
    once = media_reading.read_waveforms

    def counted(medium: Any, spans: Any, **options: Any) -> Any:
        found.append((medium, len(spans)))
        return once(medium, spans, **options)

    monkeypatch.setattr(media_reading, "read_waveforms", counted)
    return found


def test_ways_to_give_a_sound_are_equal(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", tone(1.0) * (1 - 2**-15))
    samples = np.round(tone(1.0) * (1 - 2**-15) * 2**15) / 2**15
    ways = [
        str(path),
        path.read_bytes(),
        {"bytes": path.read_bytes(), "path": None},
        {"bytes": None, "path": str(path)},
        {"array": samples, "sampling_rate": 16000},
        {"array": np.stack([samples, samples]), "sampling_rate": 16000},
    ]
    read_all = read([{"audio": way} for way in ways], **SOUND)
    for one in read_all:
        assert one.audio_features.shape == (LOG_MEL_SIZE,) and one.audio_features.dtype == np.float32
        np.testing.assert_allclose(one.audio_features, read_all[0].audio_features, atol=2e-2)


def test_a_crash_costs_the_stream_of_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    let_decoder_crash(tmp_path, monkeypatch)
    names = ["a.wav", "crash.wav", "b.wav"]
    paths = [str(write_sound(tmp_path / name, tone(0.5))) for name in names]
    film = str(write_video(tmp_path / "crash.mp4", [np.zeros((64, 64, 3), np.uint8)] * 5))
    given = [{"audio": path} for path in paths] + [{"audio": paths[0], "video": film}]
    heard = read(given, **BOTH)
    assert [one.audio_features is not None for one in heard] == [True, False, True, True]
    crash = "is missing: {}: the process that decoded it crashed"
    assert [record.getMessage() for record in caplog.records] == [
        "dialogue d, utterance 1: audio " + crash.format(paths[1]),
        "dialogue d, utterance 3: visual " + crash.format(film),
    ]
    assert "crashed" in heard[1].missing["audio"] and "crashed" in heard[3].missing["visual"]


def test_a_span_of_a_waveform_may_be_of_one_channel() -> None:
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 16000)).astype(np.float32)
    spans = [Span(channel=number) for number in (0, 1, 2)]
    medium = {"array": waveform, "sampling_rate": 16000}
    first, second, none = (reading for _, reading in read_waveforms(medium, spans, sampling_rate=16000))
    np.testing.assert_array_equal(np.stack([first.values, second.values]), waveform)
    assert none.missing == "there is no channel 2: expected 0 to 1"


def test_a_waveform_of_another_rate_is_resampled_and_cut() -> None:
    (half,) = read([{"audio": {"array": tone(2.0, rate=44100), "sampling_rate": 44100}, "end": 1.0}], **SOUND)
    (whole,) = read([{"audio": {"array": tone(1.0), "sampling_rate": 16000}}], **SOUND)
    assert half.quality["audio"]["duration"] == pytest.approx(1.0)
    np.testing.assert_allclose(half.audio_features[-11:], whole.audio_features[-11:], atol=0.2)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (7, "expected a path, the bytes of a file or {'array', 'sampling_rate'}, got int"),
        ({"array": tone(1.0), "sampling_rate": 0}, "sampling_rate must be above 0, got 0"),
        ({"array": np.zeros((2, 2, 2)), "sampling_rate": 16000}, r"got shape \(2, 2, 2\)"),
    ],
)
def test_what_is_no_sound_is_refused_with_its_place(audio: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"dialogue d, utterance 1: audio: .*{message}"):
        read([{"text": "so"}, {"audio": audio}], **SOUND)


def test_utterances_that_share_a_file_get_their_own_spans(tmp_path: Path, reads: list) -> None:
    sound = np.concatenate([tone(1.0, frequency=110), tone(1.0, frequency=220)])
    path = str(write_sound(tmp_path / "both.wav", sound))
    late, early = read([{"audio": path, "start": 1.0}, {"audio": path, "end": 1.0}], **SOUND)
    assert reads == [(path, 2)]
    assert late.audio_features[-11] - early.audio_features[-11] == pytest.approx(12, abs=0.5)


def test_samples_that_are_not_numbers_cost_their_utterance(tmp_path: Path) -> None:
    bad = tone(2.0)
    bad[20000] = np.inf
    path = write_sound(tmp_path / "bad.wav", bad, codec="pcm_f32le")
    for sound in (str(path), path.read_bytes(), {"array": bad, "sampling_rate": 16000}):
        whole, early, late = read(
            [{"audio": sound}, {"audio": sound, "end": 1.0}, {"audio": sound, "start": 1.0}], **SOUND
        )
        assert np.isfinite(early.audio_features).all()
        for one in (whole, late):
            assert one.audio_features is None and one.quality == {}
            assert one.missing == {"audio": "the sound has samples that are not finite numbers"}


def test_channels_in_antiphase_are_heard() -> None:
    call = {"array": np.stack([tone(1.0), -tone(1.0)]), "sampling_rate": 16000}
    (heard,), (one,) = (
        read([{"audio": call}], **SOUND),
        read([{"audio": call | {"array": tone(1.0)}}], **SOUND),
    )
    np.testing.assert_array_equal(heard.audio_features, one.audio_features)


def test_utterances_share_a_medium_by_its_name_or_by_being_the_same_object() -> None:
    sound = {"array": tone(0.5), "sampling_rate": 16000}
    given = talk(
        {"audio": "a.wav"},
        {"audio": sound},
        {"text": "so"},
        {"audio": "./a.wav"},
        {"audio": sound, "start": 0.1},
    )
    found = turns_by_medium(replace(given, folder=Path("talks")), "audio")
    assert [turns for _, turns in found] == [[0, 3], [1, 4]]
    assert found[0][0] == str(Path("talks/a.wav")) and found[1][0] is sound
    assert turns_by_medium(given, "visual") == []


def test_ready_features_are_left_alone_and_a_missing_stream_is_not_read_again(
    tmp_path: Path, reads: list
) -> None:
    ready = {"audio_features": [0.0] * LOG_MEL_SIZE, "audio": str(tmp_path / "nowhere.wav")}
    gone = {"audio": str(tmp_path / "nowhere.wav"), "missing": {"audio": "it hissed", "visual": None}}
    given = talk(ready, gone)
    again = read_media(given, ReDiFuFeatureExtractor(**SOUND))
    assert [one is other for one, other in zip(again.utterances, given.utterances, strict=True)] == [True] * 2
    assert given.utterances[1].missing == {"audio": "it hissed"}
    assert reads == []


def test_what_is_read_is_not_written_and_changes_no_conversation(tmp_path: Path) -> None:
    given = talk({"audio": str(write_sound(tmp_path / "a.wav", tone(0.5)))}, {"audio": "nowhere.wav"})
    written = json.dumps(given.to_dict())
    heard = read_media(given, ReDiFuFeatureExtractor(**SOUND))
    assert heard.utterances[0].audio_features is not None and "audio" in heard.utterances[1].missing
    assert json.dumps(heard.to_dict()) == json.dumps(given.to_dict()) == written
    assert given.utterances[0].audio_features is None and given.utterances[1].missing == {}


def test_streams_that_are_not_asked_for_are_not_read(test_data: Path) -> None:
    film = {"audio": str(test_data / "fixtures/talking_face.mp4"), "end": 1.0}
    extractor = ReDiFuFeatureExtractor(**BOTH)
    given = talk({**film, "video": film["audio"]})
    for stream, other in (("audio", "visual"), ("visual", "audio")):
        (one,) = read_media(given, extractor, streams=[stream]).utterances
        assert getattr(one, f"{stream}_features").shape == (extractor.sizes[stream],)
        assert getattr(one, f"{other}_features") is None and set(one.quality) == {stream}
    (both,) = read_media(given, extractor).utterances
    assert set(both.quality) == {"audio", "visual"} and both.missing == {}


def test_readings_come_in_the_order_of_their_spans() -> None:
    sound = {
        "array": np.concatenate([tone(1.0, frequency=110), tone(1.0, frequency=220)]),
        "sampling_rate": 16000,
    }
    spans = [Span(start=1.0), Span(start=5.0), Span(end=1.0)]
    late, none, early = read_spans(ReDiFuFeatureExtractor(**SOUND), "audio", sound, spans)
    assert late.values[-11] - early.values[-11] == pytest.approx(12, abs=0.5)
    assert (
        none.values is None
        and none.missing == "the waveform has no samples from 5 s onward"
        and not none.failed
    )


def test_dirty_files_are_missing_streams_with_their_reasons(tmp_path: Path) -> None:
    black = [np.zeros((64, 64, 3), np.uint8)] * 10
    noise = [np.random.default_rng(n).integers(0, 255, (64, 64, 3), np.uint8) for n in range(10)]
    silent, seen = write_video(tmp_path / "black ü.mp4", black), write_video(tmp_path / "noise.mp4", noise)
    short = write_sound(tmp_path / "short.wav", tone(0.05))
    heard = write_sound(tmp_path / "heard.wav", tone(1.0))
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(seen.read_bytes()[:2000])
    text, empty = tmp_path / "text.mp4", tmp_path / "empty.mp4"
    text.write_text("no film\n" * 99)
    empty.touch()
    assert reason("video", str(silent)).startswith("face_share 0 is below")
    assert reason("video", str(seen)).startswith("face_share 0 is below")
    assert reason("audio", str(seen)) == "there is no audio stream"
    assert reason("video", str(heard)) == "there is no video stream"
    assert reason("audio", str(short)) == "duration 0.05 is below 0.1"
    assert (
        reason("audio", str(write_sound(tmp_path / "zero.wav", np.zeros(16000)))) == "silence 1 is above 0.99"
    )
    clipped = write_sound(tmp_path / "clipped.wav", np.sign(tone(1.0)))
    assert reason("audio", str(clipped)) == "clipping 1 is above 0.5"
    assert reason("audio", str(heard), start=3.0, end=4.0) == "no data found from 3 s onward"
    for path in (cut, text, empty):
        assert reason("video", str(path)).startswith("cannot be opened: Invalid data")
    assert reason("video", str(tmp_path / "nowhere.mp4")) == "cannot be opened: No such file or directory"
    assert reason("audio", str(tmp_path)) == "cannot be opened: Is a directory"


def test_noise_louder_than_the_voice_is_said_but_used() -> None:
    voice = tone(2.0) * (np.arange(32000) % 8000 < 4000)
    noise = np.random.default_rng(0).standard_normal(32000) * np.sqrt((voice**2).mean()) * 10**0.25
    noisy, clean = read(
        [
            {"audio": {"array": sound, "sampling_rate": 16000}}
            for sound in (voice + noise, voice + noise / 30)
        ],
        **SOUND,
    )
    assert noisy.audio_features is not None
    assert noisy.quality["audio"]["snr"] < 10 < clean.quality["audio"]["snr"]


def test_a_batch_marks_what_is_missing_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good, bad = str(write_sound(tmp_path / "a.wav", tone(1.0))), str(tmp_path / "b.wav")
    conversations = [talk({"audio": good}, {"audio": bad}, name="x"), talk({"audio": good}, name="y")]
    extractor = ReDiFuFeatureExtractor(**SOUND)
    with caplog.at_level("WARNING", logger="redifu.data.media_reading"):
        heard = [read_media(each, extractor) for each in conversations]
    why = "cannot be opened: No such file or directory"
    assert caplog.messages == [f"dialogue x, utterance 1: audio is missing: {bad}: {why}"]
    batch = extractor([each.to_inputs() for each in heard], return_tensors="np")
    assert batch["modality_mask"][..., 1].tolist() == [[True, False], [True, False]]
    assert batch["utterance_mask"].tolist() == [[True, True], [True, False]]
    assert batch["audio_features"].shape == (2, 2, LOG_MEL_SIZE)
    first, second = heard[0].utterances
    assert tuple(first.quality["audio"]) == QUALITY["audio"] and "visual" not in first.quality
    assert np.isfinite(list(first.quality["audio"].values())).all()
    assert (second.quality, second.missing) == ({}, {"audio": why})


def test_paths_begin_in_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clips").mkdir()
    write_sound(tmp_path / "clips/a b.wav", tone(0.5))
    file = tmp_path / "talk.json"
    file.write_text(json.dumps({"utterances": [{"speaker": "A", "audio": "clips/a b.wav"}]}))
    monkeypatch.chdir("/")
    (conversation,) = read_conversations(file)
    (utterance,) = read_media(conversation, ReDiFuFeatureExtractor(**SOUND)).utterances
    assert len(utterance.audio_features) == LOG_MEL_SIZE and utterance.audio == "clips/a b.wav"


def test_action_units_lie_beside_the_video(tmp_path: Path) -> None:
    names = ["frame", " timestamp", " success", *(f" {name}" for name in ACTION_UNITS)]
    rows = [[n, n / 10, int(n != 3), *([n] * len(ACTION_UNITS))] for n in range(10)]
    lines = [", ".join(map(str, row)) for row in [names, *rows]]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    clip = {"video": str(tmp_path / "a.mp4")}
    whole, part, none = read(
        [clip, {**clip, "start": 0.5}, {"video": str(tmp_path / "b.mp4")}], visual_backend="action_units"
    )
    assert whole.visual_features.shape == (len(ACTION_UNITS),)
    np.testing.assert_allclose(whole.visual_features, np.mean([0, 1, 2, 4, 5, 6, 7, 8, 9]), rtol=1e-6)
    np.testing.assert_allclose(part.visual_features, 7.0)
    assert whole.quality == {"visual": {"face_share": pytest.approx(0.9)}}
    assert "No such file" in none.missing["visual"]


def test_frames_are_as_good_as_their_file(test_data: Path, tmp_path: Path) -> None:
    from redifu.media.decoding import read_frames

    path = shutil.copy(test_data / "fixtures/talking_face.mp4", tmp_path / "face.mp4")
    ((_, frames),) = read_frames(path, [Span(end=2.0)], frames_per_second=5)
    given = {"frames": np.stack(frames.pictures), "frames_per_second": 5}
    file, array = read([{"video": str(path), "end": 2.0}, {"video": given}], **SIGHT)
    assert file.visual_features.shape == (FACE_DESCRIPTOR_SIZE,)
    np.testing.assert_allclose(file.visual_features, array.visual_features, atol=1e-6)
    assert file.quality == array.quality and file.quality["visual"]["face_share"] == 1.0


def test_a_face_in_some_frames_and_in_none(test_data: Path) -> None:
    comes, none = read(
        [
            {"video": str(test_data / "fixtures" / name)}
            for name in ("face_comes_and_goes.mov", "no_face.mp4")
        ],
        **SIGHT,
    )
    assert 0.2 < comes.quality["visual"]["face_share"] < 0.8 and comes.visual_features is not None
    assert none.missing["visual"].startswith("face_share 0 is below")
