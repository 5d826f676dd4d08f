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
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from model.tiny_models import AUDIO_CONFIGS, IMPLEMENTATIONS, tiny_model
from redifu.model import ReDiFuConfig, ReDiFuForEmotionRecognition
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


def states_of(encoder: Any, waveform: Tensor, layer: int | None = None) -> Tensor:
    """The states that transformers computes, (positions, hidden), each piece in an encoder of its length."""
    config, states = encoder.config, []
    extractor = WhisperFeatureExtractor(feature_size=config.num_mel_bins)
    for piece in waveform.split(320 * config.max_source_positions):
        positions = -(-len(piece) // 320)
        given = extractor(piece.numpy(), sampling_rate=16000, max_length=320 * positions, return_tensors="pt")
        fields = {"max_source_positions": positions, "encoder_layers": layer or config.encoder_layers}
        cut = WhisperEncoder(whisper(num_mel_bins=config.num_mel_bins, **fields)).eval()
        weights = {**encoder.state_dict()}
        weights["embed_positions.weight"] = weights["embed_positions.weight"][:positions]
        assert not cut.load_state_dict(weights, strict=False).missing_keys
        states.append(cut(given["input_features"]).last_hidden_state[0])
    return torch.cat(states)


def literal(encoder: Any, waveform: Tensor) -> Tensor:
    return states_of(encoder, waveform).mean(dim=0)


@pytest.mark.parametrize("chunk_samples", [1, 3 * PIECE, 10**6])
def test_a_waveform_is_heard_as_transformers_has_it(backbone: Any, chunk_samples: int) -> None:
    values, mask = sounds(1, 160, 161, 320, 321, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE - 100)
    sizes: list[torch.Size] = []
    hook = backbone.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(kwargs["input_features"].shape), with_kwargs=True
    )
    found = encode_waveforms(backbone, values, mask, chunk_samples=chunk_samples)
    hook.remove()
    assert sum(pieces for pieces, _, _ in sizes) == 7 + 2 + 3
    assert all(pieces == 1 or 160 * pieces * frames <= chunk_samples for pieces, _, frames in sizes)
    expected = [literal(backbone, row[real]) for row, real in zip(values, mask, strict=True)]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize("bins", [80, 128])
def test_half_a_minute_is_heard_at_once(bins: int) -> None:
    encoder = build_backbone(whisper(max_source_positions=1500, num_mel_bins=bins)).eval()
    values, mask = sounds(20_000, 485_000)
    found = encode_waveforms(encoder, values, mask)
    expected = [literal(encoder, row[real]) for row, real in zip(values, mask, strict=True)]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize("layers", [[1], [1, 2]])
def test_layers_are_pooled_by_mean_and_deviation(layers: list[int]) -> None:
    full = build_backbone(whisper(encoder_layers=3)).eval()
    chosen = build_backbone(whisper(encoder_layers=3), layers).eval()
    assert len(chosen.layers) == max(layers)
    chosen.load_state_dict(full.state_dict(), strict=False)
    values, mask = sounds(900, 2000, 2 * PIECE + 1500)
    found = encode_waveforms(chosen, values, mask)
    for row, real, embedding in zip(values, mask, found, strict=True):
        states = [states_of(full, row[real], layer) for layer in layers]
        moments = [each.mean(dim=0) for each in states] + [each.std(dim=0, correction=0) for each in states]
        torch.testing.assert_close(embedding, torch.cat(moments), rtol=0, atol=1e-4)


def test_an_embedding_does_not_depend_on_its_batch(backbone: Any) -> None:
    values, mask = sounds(400, 1000, 2900, 2 * PIECE + 10)
    clips = zip(values, mask, strict=True)
    alone = [encode_waveforms(backbone, row[real][None], real[real][None]) for row, real in clips]
    found = encode_waveforms(backbone, values, mask)
    torch.testing.assert_close(found, torch.cat(alone), rtol=0, atol=1e-5)


def test_a_constant_sound_has_a_gradient() -> None:
    encoder = build_backbone(whisper(), [1])
    encode_waveforms(encoder, torch.zeros(1, 320), torch.ones(1, 320, dtype=torch.bool)).sum().backward()
    assert all(value.grad.isfinite().all() for value in encoder.parameters() if value.grad is not None)


@pytest.mark.parametrize("layers", [[], [0], [3], [2, 1], [1, 1]])
def test_layers_that_do_not_exist_are_refused(layers: list[int]) -> None:
    with pytest.raises(ValueError, match="audio_layers must be ascending numbers from 1 to 2, got"):
        ReDiFuConfig(audio_config=whisper(encoder_layers=2), audio_layers=layers, **FUSION)


def test_layers_of_another_family_are_refused() -> None:
    with pytest.raises(ValueError, match="audio_layers requires an audio_config of whisper"):
        ReDiFuConfig(audio_config=AUDIO_CONFIGS["wav2vec2_layer"], audio_layers=[1], **FUSION)


def test_a_model_with_chosen_layers_is_saved_and_loaded(tmp_path: Path) -> None:
    place = written(tmp_path / "whisper")
    model = ReDiFuForEmotionRecognition.from_backbones(audio=place, audio_layers=[1], **FUSION).eval()
    assert model.config.audio_size == 2 * whisper().d_model
    model.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    values, mask = sounds(500, 1500)
    expected = model.redifu.embed("audio", values, mask)
    assert expected.shape == (2, model.config.audio_size)
    assert torch.equal(loaded.redifu.embed("audio", values, mask), expected)


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
