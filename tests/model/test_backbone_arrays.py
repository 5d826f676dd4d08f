"""The extractor of a model with backbones: from files to waveforms and face crops, and on to logits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import Wav2Vec2FeatureExtractor

from media.made_media import tone, write_sound
from model.tiny_models import LABELS, raw_model
from model.tiny_processors import tokenizer
from redifu.conversation import Conversation
from redifu.data.extraction import extract_conversations
from redifu.data.media_reading import read_media
from redifu.model import ReDiFuFeatureExtractor, ReDiFuProcessor
from redifu.model.backbone_arrays import pad_waveforms, stack_pictures

SOUND = {"audio_backend": "backbone"}
SIGHT = {"visual_backend": "backbone", "picture_count": 3, "picture_size": 8}


def conversation(*utterances: dict[str, Any]) -> Conversation:
    given = {"id": "d", "utterances": [{"speaker": "Ana", **each} for each in utterances]}
    return Conversation.from_dict(given, allow_media_objects=True)


def read(extractor: ReDiFuFeatureExtractor, *conversations: Conversation) -> list[dict[str, Any]]:
    """What a processor takes, after reading."""
    return [read_media(each, extractor).to_inputs() for each in conversations]


def sound(waveform: np.ndarray) -> dict[str, Any]:
    return {"array": waveform, "sampling_rate": 16000}


def test_waveforms_come_row_by_row_with_a_mask() -> None:
    first = conversation({"audio": sound(tone(0.2))}, {"text": "no"}, {"audio": sound(tone(0.5))})
    second = conversation({"audio": sound(tone(0.3))})
    extractor = ReDiFuFeatureExtractor(**SOUND)
    heard = [read_media(each, extractor) for each in (first, second)]
    batch = extractor([each.to_inputs() for each in heard], return_tensors="np")
    assert batch["audio_values_mask"].sum(1).tolist() == [3200, 8000, 4800]
    assert batch["modality_mask"][..., 1].tolist() == [[True, False, True], [True, False, False]]
    for row, seconds in zip(batch["audio_values"], (0.2, 0.5, 0.3), strict=True):
        np.testing.assert_array_equal(row[: round(seconds * 16000)], tone(seconds))
        assert not row[round(seconds * 16000) :].any()
    quality = [[one.quality.get("audio") for one in each.utterances] for each in heard]
    durations = [[None if one is None else one["duration"] for one in each] for each in quality]
    assert durations == [[pytest.approx(0.2), None, pytest.approx(0.5)], [pytest.approx(0.3)]]
    assert "audio_features" not in batch
    # A processor makes the same of the waveforms themselves.
    processed = ReDiFuProcessor(extractor)([each.to_inputs() for each in (first, second)], "np")
    np.testing.assert_array_equal(processed["audio_values"], batch["audio_values"])
    np.testing.assert_array_equal(processed["modality_mask"], batch["modality_mask"])


def test_waveforms_are_normalised_as_the_backbones_were_trained() -> None:
    waveforms = [tone(0.2, level=0.01) + 0.3, tone(0.5)]
    theirs = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)(
        waveforms, sampling_rate=16000, padding=True, return_tensors="np"
    )
    ours = pad_waveforms(waveforms, normalize=True)
    np.testing.assert_allclose(ours["audio_values"], theirs["input_values"], atol=1e-4)
    np.testing.assert_array_equal(ours["audio_values_mask"], theirs["attention_mask"])


def test_pictures_are_scaled_and_normalised_by_channel() -> None:
    pictures = np.zeros((2, 4, 4, 3), np.uint8) + np.array([0, 51, 255], np.uint8)
    values = stack_pictures([pictures], mean=[0.5, 0.2, 0.0], std=[0.5, 1.0, 2.0])["pixel_values"]
    assert values.shape == (1, 2, 3, 4, 4) and values.dtype == np.float32
    np.testing.assert_allclose(values[0, 0, :, 0, 0], [-1, 0, 0.5], atol=1e-6)
    assert (values == values[:, :, :, :1, :1]).all()


def test_faces_come_as_pixels_and_missing_ones_with_their_reason(
    test_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    talk = conversation(
        {"video": str(test_data / "fixtures/talking_face.mp4"), "end": 1.0},
        {"video": str(test_data / "fixtures/no_face.mp4"), "end": 1.0},
    )
    extractor = ReDiFuFeatureExtractor(**SIGHT)
    with caplog.at_level("WARNING", logger="redifu.data.media_reading"):
        seen = read_media(talk, extractor)
    batch = extractor([seen.to_inputs()], return_tensors="np")
    assert batch["pixel_values"].shape == (1, 3, 3, 8, 8)
    assert np.abs(batch["pixel_values"]).max() <= 1 and batch["pixel_values"].std() > 0.05
    assert batch["modality_mask"][0, :, 2].tolist() == [True, False]
    assert [one.quality["visual"]["face_share"] for one in seen.utterances] == [1, 0]
    assert "utterance 1: visual is missing" in caplog.text and "face_share 0 is below" in caplog.text


def test_a_broken_file_is_a_missing_stream(tmp_path: Path) -> None:
    talk = conversation({"audio": str(tmp_path / "none.wav")}, {"audio": sound(tone(0.01))}, {"text": "no"})
    extractor = ReDiFuFeatureExtractor(**SOUND)
    batch = extractor(read(extractor, talk))
    assert "audio_values" not in batch and not batch["modality_mask"].any()


def test_backends_and_options_are_saved(tmp_path: Path) -> None:
    extractor = ReDiFuFeatureExtractor(
        **SOUND, **SIGHT, normalize_waveform=True, picture_mean=[0.1, 0.2, 0.3], picture_std=[1.0, 2.0, 3.0]
    )
    assert extractor.sizes == {} and extractor.raw == {"audio": "audio_values", "visual": "pixel_values"}
    extractor.save_pretrained(tmp_path)
    assert ReDiFuFeatureExtractor.from_pretrained(tmp_path).to_dict() == extractor.to_dict()


@pytest.mark.parametrize(
    "options",
    [{"picture_count": 0}, {"picture_size": 0}, {"picture_mean": [0.5]}, {"picture_std": [1, 0, 1]}],
)
def test_pictures_that_can_not_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="picture_count and picture_size must be at least 1"):
        ReDiFuFeatureExtractor(**options)


def test_what_goes_to_a_backbone_is_neither_measured_nor_written(tmp_path: Path) -> None:
    extractor = ReDiFuFeatureExtractor(text_size=1, **SOUND)
    # Statistics are of features alone: the audio, which can not be, is not read.
    talk = conversation({"text_features": [1.0], "audio": 7}, {"text_features": [3.0]})
    assert set(extractor.fit([talk.to_inputs()]).statistics) == {"text"}
    with pytest.raises(ValueError, match="audio_backend must produce features to save; 'backbone' does not"):
        extract_conversations([talk], tmp_path, extractor=extractor)


def test_a_processor_feeds_the_model_from_end_to_end(test_data: Path, tmp_path: Path) -> None:
    extractor = ReDiFuFeatureExtractor(**SOUND, **SIGHT, normalize_waveform=True)
    processor = ReDiFuProcessor(extractor, tokenizer(), labels=LABELS)
    path = str(write_sound(tmp_path / "a.wav", tone(1.0)))
    face = {"video": str(test_data / "fixtures/talking_face.mp4"), "end": 1.0}
    model = raw_model()
    talks = [
        conversation({"text": "hello", "audio": path, "end": 0.5}, {"audio": path}, face),
        conversation({"text": "you came", **face}),
    ]
    inputs = read(extractor, *talks)
    logits = model(**processor(inputs)).logits
    assert logits.shape == (2, 3, len(LABELS)) and logits.isfinite().all()
    alone = model(**processor(inputs[1])).logits
    assert (alone - logits[1:, :1]).abs().max() < 1e-5
    silence = {"audio": None, "audio_values": None}
    deaf = [{**each, "utterances": [{**one, **silence} for one in each["utterances"]]} for each in inputs]
    assert (model(**processor(deaf)).logits[0, 0] - logits[0, 0]).abs().max() > 1e-3


def test_a_processor_takes_utterances_of_nothing_but_arrays() -> None:
    processor = ReDiFuProcessor(ReDiFuFeatureExtractor(**SOUND, **SIGHT))
    said = [{"audio_values": tone(0.2)}, {"pixel_values": np.zeros((3, 8, 8, 3), np.uint8)}]
    batch = processor({"utterances": [{"speaker": "Ana", **one} for one in said]}, return_tensors="np")
    assert batch["modality_mask"][0].tolist() == [[False, True, False], [False, False, True]]
    assert batch["audio_values"].shape == (1, 3200) and batch["pixel_values"].shape == (1, 3, 3, 8, 8)
