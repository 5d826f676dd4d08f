"""Recordings with a speaker a channel: every utterance hears its own, on the whole way through the data."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from media.made_media import tone, write_sound
from redifu.conversation import Conversation
from redifu.data.extraction import extract_conversations
from redifu.data.media_reading import read_media
from redifu.data.noisy_copies import write_noisy_copies
from redifu.data.readers import read_conversations
from redifu.data.recordings import prepare_recording
from redifu.data.turns import read_turns
from redifu.model import ReDiFuFeatureExtractor

RTTM = "SPEAKER call {} 0.2 0.6 <NA> <NA> Ana <NA> <NA>\nSPEAKER call {} 0.3 0.6 <NA> <NA> Ben <NA> <NA>\n"
FREQUENCIES = {"Ana": 220.0, "Ben": 500.0}


@pytest.fixture
def call(tmp_path: Path) -> Conversation:
    """Two speakers at once, each a tone in a channel."""
    channels = np.stack([tone(1.0, frequency=frequency) for frequency in FREQUENCIES.values()])
    write_sound(tmp_path / "call.wav", channels)
    (tmp_path / "call.rttm").write_text(RTTM.format(1, 2), "utf-8")
    return prepare_recording(tmp_path / "call.wav", tmp_path / "call.rttm", folder=tmp_path)


def heard(conversation: Conversation) -> dict[str, float]:
    """The loudest frequency of each utterance, by speaker."""
    read = read_media(conversation, ReDiFuFeatureExtractor(audio_backend="backbone"), streams=["audio"])
    spectra = {one.speaker: np.abs(np.fft.rfft(one.audio_values, 16000)) for one in read.utterances}
    return {name: float(spectrum.argmax()) for name, spectrum in spectra.items()}


def test_an_utterance_hears_its_own_channel(call: Conversation) -> None:
    assert [one["audio_channel"] for one in call.to_dict()["utterances"]] == [1, 2]
    assert heard(call) == pytest.approx(FREQUENCIES, abs=2)


@pytest.mark.parametrize("channels", [(1, 1), ("<NA>", "<NA>"), (1, 3)])
def test_a_channel_that_tells_nothing_is_none(
    tmp_path: Path, call: Conversation, channels: tuple[object, object], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "call.rttm").write_text(RTTM.format(*channels), "utf-8")
    prepared = prepare_recording(tmp_path / "call.wav", tmp_path / "call.rttm", folder=tmp_path)
    assert [one.audio_channel for one in prepared.utterances] == [None, None]
    assert ("the turns name channel 3, but there are 2: their mean is used" in caplog.text) == (3 in channels)


@pytest.mark.parametrize("ending", [".json", ".csv", ".parquet"])
def test_a_file_may_name_the_channels(tmp_path: Path, call: Conversation, ending: str) -> None:
    path = tmp_path / f"talk{ending}"
    path.write_text(json.dumps(call.to_dict()))
    if ending != ".json":
        import pandas as pd

        rows = pd.DataFrame([{"dialogue_id": "a", **one} for one in call.to_dict()["utterances"]])
        rows.to_csv(path, index=False) if ending == ".csv" else rows.to_parquet(path)
    (read,) = read_conversations(path)
    assert [one.audio_channel for one in read.utterances] == [1, 2]
    assert heard(read) == pytest.approx(FREQUENCIES, abs=2)


def test_features_are_those_of_the_channel(tmp_path: Path, call: Conversation) -> None:
    extractor = ReDiFuFeatureExtractor(audio_backend="log_mel")
    expected = read_media(call, extractor).utterances
    assert extract_conversations([call], tmp_path / "out", extractor=extractor) == 0
    (read,) = read_conversations(tmp_path / "out")
    for one, other in zip(read.utterances, expected, strict=True):
        np.testing.assert_array_equal(one.audio_features, other.audio_features)
    assert [one.audio_channel for one in read.utterances] == [1, 2]
    assert not np.allclose(read.utterances[0].audio_features, read.utterances[1].audio_features)


def test_noisy_copies_keep_channels_apart(tmp_path: Path, call: Conversation) -> None:
    (copy,) = read_conversations(write_noisy_copies([call], tmp_path / "noisy", snr=(40, 40)))
    assert [one.audio_channel for one in copy.utterances] == [None, None]
    assert heard(copy) == pytest.approx(FREQUENCIES, abs=2)


def test_the_case_of_a_call(test_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = test_data / "cases" / "channels"
    assert [turn.channel for turn in read_turns(folder / "overlap.rttm")] == [1, 2, 1, 2]
    with caplog.at_level(logging.WARNING):
        call = prepare_recording(folder / "call_overlap.flac", folder / "overlap.rttm", folder=folder)
    read = read_media(call, ReDiFuFeatureExtractor(audio_backend="backbone"), streams=["audio"]).utterances
    assert caplog.text == "" and not np.allclose(read[0].audio_values, read[1].audio_values, atol=0.01)
