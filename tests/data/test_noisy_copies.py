"""Copies in noise: as much noise as was asked for, where the utterances are, and nothing else changed."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from media.made_media import tone, write_sound
from redifu.conversation import Conversation
from redifu.data.media_reading import read_media
from redifu.data.noisy_copies import write_noisy_copies
from redifu.data.readers import read_conversations
from redifu.model import ReDiFuFeatureExtractor

RATE = 16000


def write_talk(folder: Path, dialogues: int = 6) -> Path:
    """Dialogues of two utterances in one recording, with a pause between, and one in its own file."""
    folder.mkdir()
    talk = []
    for number in range(dialogues):
        recording, clip = f"talk-{number}.wav", f"clip-{number}.flac"
        write_sound(folder / recording, tone(1.5, frequency=100 + 30 * number))
        write_sound(folder / clip, tone(0.4, frequency=500 + 30 * number))
        spans = [{"start": 0.2, "end": 0.6}, {"start": 0.9, "end": 1.4}]
        utterances = [{"audio": recording, **span} for span in spans] + [{"audio": clip}]
        said = {"speaker": "A", "text": "So?", "label": "joy", "visual_features": [1.0, 2.0]}
        talk.append(
            {
                "id": f"d{number}",
                "split": "train",
                "utterances": [said | one | {"audio_features": [0.0]} for one in utterances],
            }
        )
    path = folder / "talk.json"
    path.write_text(json.dumps(talk))
    return path


def waveforms(conversation: Conversation) -> list[np.ndarray]:
    unread = [one.with_fields(audio_features=None) for one in conversation.utterances]
    extractor = ReDiFuFeatureExtractor(audio_backend="backbone")
    read = read_media(replace(conversation, utterances=unread), extractor, streams=["audio"])
    return [one.audio_values for one in read.utterances]


def ratio(noisy: np.ndarray, clean: np.ndarray) -> float:
    """The signal-to-noise ratio in dB of a sound that may have been turned down."""
    # White noise and other voices tell nothing of the sound, up to what chance has in common with it.
    scale = float(noisy @ clean / (clean @ clean))
    noise = noisy / scale - clean
    return float(10 * np.log10(np.square(clean).mean() / np.square(noise).mean()))


def test_a_dialogue_has_one_ratio_from_the_range(tmp_path: Path) -> None:
    source = write_talk(tmp_path / "in")
    copies = list(read_conversations(write_noisy_copies(read_conversations(source), tmp_path, snr=(0, 20))))
    levels = []
    for copy, given in zip(copies, read_conversations(source), strict=True):
        pairs = zip(waveforms(copy), waveforms(given), strict=True)
        levels.append([ratio(noisy, clean) for noisy, clean in pairs])
    means = [np.mean(each) for each in levels]
    assert all(np.ptp(each) < 1.0 for each in levels)
    assert all(-0.5 < mean < 20.5 for mean in means) and np.ptp(means) > 5


def test_the_ratio_is_the_one_asked_for(tmp_path: Path) -> None:
    source = write_talk(tmp_path / "in", dialogues=1)
    for level in (-5, 15):
        path = write_noisy_copies(read_conversations(source), tmp_path / "out", snr=(level, level))
        (copy,), (given,) = read_conversations(path), read_conversations(source)
        for noisy, clean in zip(waveforms(copy), waveforms(given), strict=True):
            assert ratio(noisy, clean) == pytest.approx(level, abs=1.0)


def test_spans_stay_and_it_is_silent_between_them(tmp_path: Path) -> None:
    source = write_talk(tmp_path / "in", dialogues=1)
    (copy,) = read_conversations(write_noisy_copies(read_conversations(source), tmp_path, snr=(5, 5)))
    first, second, third = copy.utterances
    assert first.audio == second.audio != third.audio
    assert (first.start, second.end) == (0.2, 1.4)
    (whole,) = waveforms(replace(copy, utterances=[first.with_fields(start=None, end=None)]))
    assert len(whole) == 1.4 * RATE
    spoken = np.zeros(len(whole), dtype=bool)
    for begin, end in ((0.2, 0.6), (0.9, 1.4)):
        spoken[round(begin * RATE) : round(end * RATE)] = True
    assert not whole[~spoken].any() and (np.abs(whole[spoken]) > 0.001).mean() > 0.9
    assert np.abs(whole).max() <= 0.991


def test_all_but_the_sound_stays(tmp_path: Path) -> None:
    source = write_talk(tmp_path / "in")
    copies = read_conversations(write_noisy_copies(read_conversations(source), tmp_path / "out", snr=(5, 5)))
    for copy, given in zip(copies, read_conversations(source), strict=True):
        assert (copy.id, copy.split) == (given.id, given.split) != (given.id, None)
        for one, other in zip(copy.to_dict()["utterances"], given.to_dict()["utterances"], strict=True):
            kept = {key: value for key, value in other.items() if key not in ("audio", "audio_features")}
            assert {key: value for key, value in one.items() if key != "audio"} == kept


def test_the_seed_alone_decides_what_is_drawn(tmp_path: Path) -> None:
    source = write_talk(tmp_path / "in")

    def sounds(name: str, seed: int) -> list[bytes]:
        write_noisy_copies(read_conversations(source), tmp_path / name, snr=(-5, 20), seed=seed)
        return [path.read_bytes() for path in sorted((tmp_path / name / "sounds").iterdir())]

    once = sounds("once", 1)
    assert len(once) == 12
    assert once == sounds("again", 1)
    assert all(one != other for one, other in zip(once, sounds("other", 2), strict=True))


def test_both_kinds_of_noise_are_heard(tmp_path: Path) -> None:
    """Tones in a babble of tones have peaks in the spectrum; white noise has none."""
    source = write_talk(tmp_path / "in", dialogues=12)
    copies = list(read_conversations(write_noisy_copies(read_conversations(source), tmp_path, snr=(0, 0))))
    flat = []
    for copy in copies:
        power = np.square(np.abs(np.fft.rfft(waveforms(copy)[1])))
        flat.append(float(np.exp(np.log(power + 1e-12).mean()) / power.mean()))
    white = [each > 0.1 for each in flat]
    assert all(white[:2])  # too few have spoken by then
    assert 3 <= sum(white) <= 10


def test_what_cannot_be_read_stays_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_talk(tmp_path / "in", dialogues=2)
    (tmp_path / "in" / "clip-1.flac").write_bytes(b"no sound")
    with caplog.at_level(logging.WARNING):
        path = write_noisy_copies(read_conversations(source), tmp_path / "out", snr=(5, 5))
    assert len(caplog.messages) == 1
    assert "dialogue d1, utterance 2: audio left unchanged" in caplog.messages[0]
    _, second = read_conversations(path)
    assert (path.parent / second.utterances[2].audio).resolve() == tmp_path / "in" / "clip-1.flac"
    assert second.utterances[2].audio_features.tolist() == [0.0]


def test_without_any_sound_nothing_is_written(tmp_path: Path) -> None:
    silent = Conversation.from_dict({"id": "d", "utterances": [{"speaker": "A", "text": "So?"}]})
    with pytest.raises(ValueError, match="expected at least one utterance with readable audio, got none"):
        write_noisy_copies([silent], tmp_path, snr=(5, 5))
    assert not list(tmp_path.glob("*.jsonl"))


def test_the_conversations_are_not_overwritten(tmp_path: Path) -> None:
    source = write_talk(tmp_path / "in").rename(tmp_path / "in" / "conversations.json")
    with pytest.raises(ValueError, match="output must not be the folder of the conversations"):
        write_noisy_copies(read_conversations(source), tmp_path / "in", snr=(5, 5))
    assert not {"conversations.jsonl", "sounds"} & {path.name for path in (tmp_path / "in").iterdir()}


@pytest.mark.parametrize("snr", [(5, 4), (float("nan"), 5), (-200, 5)])
def test_ratios_that_are_no_range_are_refused(snr: tuple[float, float], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="snr must be two ratios from -100 to 100 dB, the lower first, got"):
        write_noisy_copies([], tmp_path, snr=snr)


def test_a_sound_that_is_not_a_number_spoils_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_talk(tmp_path / "in")
    bad = tone(0.4)
    bad[100] = np.nan
    write_sound(tmp_path / "in" / "bad.wav", bad, codec="pcm_f32le")
    talk = json.loads(source.read_text())
    talk[0]["utterances"][2]["audio"] = "bad.wav"
    source.write_text(json.dumps(talk))
    path = write_noisy_copies(read_conversations(source), tmp_path / "out", snr=(5, 5))
    (message,) = caplog.messages
    assert message.startswith("dialogue d0, utterance 2: audio left unchanged: ")
    for copy, given in zip(read_conversations(path), read_conversations(source), strict=True):
        for noisy, clean in zip(waveforms(copy), waveforms(given), strict=True):
            assert (noisy is None) == (clean is None)
            if clean is not None:
                assert ratio(noisy, clean) == pytest.approx(5, abs=1.0)
