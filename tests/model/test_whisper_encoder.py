"""Whisper as a backbone: what it hears, where it is pooled, and that its decoder stays behind."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperModel,
)

from model.tiny_models import AUDIO_CONFIGS, IMPLEMENTATIONS, tiny_model
from redifu.model import ReDiFuForEmotionRecognition
from redifu.model.backbones import build_backbone, encode_waveforms
from redifu.model.whisper_encoder import FRAME, HOP, log_mel_spectrogram

PIECE = 3200  # samples that the tiny one hears at once
FUSION: dict[str, Any] = {"text_size": None, "visual_size": None, "hidden_size": 16, "num_attention_heads": 4}


def whisper(**fields: Any) -> WhisperConfig:
    return WhisperConfig(**{**AUDIO_CONFIGS["whisper"].to_dict(), **fields})


@pytest.fixture(scope="module")
def backbone() -> Any:
    torch.manual_seed(0)
    return build_backbone(whisper()).eval()


def sounds(*widths: int) -> tuple[Tensor, Tensor]:
    """Noise of so many samples, louder and louder, and its mask; what is padded is no number."""
    mask = torch.arange(max(widths)) < torch.tensor(widths)[:, None]
    noise = 0.1 * torch.randn(mask.shape, generator=torch.Generator().manual_seed(0))
    return (noise * torch.linspace(0.1, 1, max(widths))).masked_fill(~mask, float("nan")), mask


def literal(encoder: Any, waveform: Tensor) -> Tensor:
    """The mean of what the extractor and the encoder of transformers make of each piece, where it is real."""
    config = encoder.config
    extractor = WhisperFeatureExtractor(feature_size=config.num_mel_bins)
    length = 320 * config.max_source_positions
    heard = []
    for piece in waveform.split(length):
        given = extractor(
            piece.numpy(),
            sampling_rate=16000,
            max_length=length,
            return_attention_mask=True,
            return_tensors="pt",
        )
        states = encoder(given["input_features"]).last_hidden_state[0]
        heard.append(states[: encoder._get_feat_extract_output_lengths(given["attention_mask"].sum())])
    return torch.cat(heard).mean(dim=0)


@pytest.mark.parametrize("chunk_samples", [1, 3 * PIECE, 10**6])
def test_a_waveform_is_heard_as_transformers_has_it(backbone: Any, chunk_samples: int) -> None:
    values, mask = sounds(1, 160, 161, 320, 321, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE - 100)
    pieces: list[int] = []
    hook = backbone.register_forward_pre_hook(
        lambda _, args, kwargs: pieces.append(len(kwargs["input_features"])), with_kwargs=True
    )
    found = encode_waveforms(backbone, values, mask, chunk_samples=chunk_samples)
    hook.remove()
    assert sum(pieces) == 7 + 2 + 3 and max(pieces) <= max(1, chunk_samples // PIECE)
    expected = [literal(backbone, row[real]) for row, real in zip(values, mask, strict=True)]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize("bins", [80, 128])
def test_half_a_minute_is_heard_at_once(bins: int) -> None:
    encoder = build_backbone(whisper(max_source_positions=1500, num_mel_bins=bins)).eval()
    values, mask = sounds(20_000, 485_000)
    found = encode_waveforms(encoder, values, mask)
    expected = [literal(encoder, row[real]) for row, real in zip(values, mask, strict=True)]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-5)


def test_the_silence_that_follows_is_heard_but_not_pooled(backbone: Any) -> None:
    values, _ = sounds(1000)
    padded = torch.nn.functional.pad(values, (0, 1000))
    short = encode_waveforms(backbone, padded, torch.arange(2000)[None] < 1000)
    whole = encode_waveforms(backbone, padded, torch.ones(1, 2000, dtype=torch.bool))
    torch.testing.assert_close(short, encode_waveforms(backbone, values, values.isfinite()))
    assert (short - whole).abs().max() > 1e-3


def test_silence_is_a_number_and_no_sound_is_refused(backbone: Any) -> None:
    here = torch.ones(1, 100, dtype=torch.bool)
    assert encode_waveforms(backbone, torch.zeros(1, 100), here).isfinite().all()
    with pytest.raises(ValueError, match="at least 1 samples, got 0"):
        encode_waveforms(backbone, torch.zeros(1, 100), ~here)


@pytest.mark.parametrize("bins", [80, 128])
def test_spectrograms_are_those_of_transformers(bins: int) -> None:
    extractor = WhisperFeatureExtractor(feature_size=bins)
    assert (extractor.n_fft, extractor.hop_length) == (FRAME, HOP)
    values = sounds(PIECE)[0].expand(2, -1) * torch.tensor([[1.0], [1e-3]])
    # Each waveform has a floor of its own, so that a loud one beside it changes nothing.
    alone = [extractor(row.numpy(), sampling_rate=16000, max_length=PIECE) for row in values]
    expected = torch.stack([torch.from_numpy(each["input_features"][0]) for each in alone])
    torch.testing.assert_close(log_mel_spectrogram(values, bins), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_spectrograms_are_made_in_single_precision(dtype: torch.dtype) -> None:
    values = 1e-4 * sounds(PIECE)[0]
    expected = log_mel_spectrogram(values, 80)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(log_mel_spectrogram(values, 80), expected)


def test_both_implementations_of_attention_hear_the_same() -> None:
    values, mask = sounds(5000)
    eager, sdpa = (
        tiny_model(implementation=name, audio_config=AUDIO_CONFIGS["whisper"].to_dict()).redifu
        for name in IMPLEMENTATIONS
    )
    assert eager.audio_backbone.config._attn_implementation == "eager"
    expected = sdpa.embed("audio", values, mask)
    torch.testing.assert_close(eager.embed("audio", values, mask), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [WhisperModel, WhisperForConditionalGeneration])
def test_of_a_whole_whisper_the_encoder_is_kept(
    kind: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = kind(whisper()).eval()
    whole.save_pretrained(tmp_path / "whole")
    capfd.readouterr()
    model = ReDiFuForEmotionRecognition.from_backbones(audio=str(tmp_path / "whole"), **FUSION).eval()
    assert "UNEXPECTED" not in "".join(capfd.readouterr())  # a line for each of a decoder's weights
    encoder = whole.get_encoder()
    own = model.redifu.audio_backbone.state_dict()
    assert own.keys() == encoder.state_dict().keys()
    assert all(torch.equal(own[name], value) for name, value in encoder.state_dict().items())
    values, mask = sounds(5000)
    expected = literal(encoder, values[0])[None]
    torch.testing.assert_close(model.redifu.embed("audio", values, mask), expected, rtol=0, atol=1e-5)
    model.save_pretrained(tmp_path / "saved")
    saved = load_file(tmp_path / "saved/model.safetensors")
    assert {name for name in saved if "audio_backbone" in name} == {
        f"redifu.audio_backbone.{name}" for name in own
    }


def test_the_positions_are_not_trained(tmp_path: Path) -> None:
    ReDiFuForEmotionRecognition.from_backbones(audio=written(tmp_path), **FUSION).save_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    encoder = model.redifu.audio_backbone.requires_grad_(True)
    positions = WhisperModel(whisper()).get_encoder().embed_positions.weight
    assert torch.equal(encoder.embed_positions.weight, positions)
    values, mask = sounds(400, 900)
    encode_waveforms(encoder, values, mask).square().sum().backward()
    assert not encoder.embed_positions.weight.requires_grad
    assert all(value.grad.any() for value in encoder.parameters())


def test_an_encoder_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    whole = WhisperModel(whisper())
    kept = {name: value for name, value in whole.state_dict().items() if "encoder.conv1" not in name}
    whole.save_pretrained(tmp_path, state_dict=kept)
    with pytest.raises(ValueError, match="has no weights for conv1.bias, conv1.weight"):
        ReDiFuForEmotionRecognition.from_backbones(audio=str(tmp_path), **FUSION)


def test_the_settings_of_a_decoder_do_not_hinder(tmp_path: Path) -> None:
    place = written(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    decoding = {"max_length": 448, "suppress_tokens": [1, 2], "forced_decoder_ids": [[1, 3]]}
    (tmp_path / "config.json").write_text(json.dumps(config | decoding))
    model = ReDiFuForEmotionRecognition.from_backbones(audio=place, **FUSION)
    model.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert loaded.config.audio_size == 12


def written(folder: Path) -> str:
    WhisperModel(whisper()).save_pretrained(folder)
    return str(folder)
