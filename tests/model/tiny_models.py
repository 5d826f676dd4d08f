"""Models, batches and text backbones small enough to build in every test."""

from typing import Any

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    Data2VecAudioConfig,
    Dinov2Config,
    HubertConfig,
    ModernBertConfig,
    PreTrainedConfig,
    RobertaConfig,
    ViTConfig,
    Wav2Vec2Config,
    WavLMConfig,
    WhisperConfig,
)

from redifu.model import MODALITIES, ReDiFuConfig, ReDiFuForEmotionRecognition
from redifu.model.relation_attention import Subgraphs

SIZES = {"text": 6, "audio": 5, "visual": 4}
LABELS = ["calm", "glad", "cross"]
IMPLEMENTATIONS = ("eager", "sdpa")
# Every value of every choice occurs in one of them.
VARIANTS: dict[str, dict[str, Any]] = {
    "meld": {},
    "iemocap": {"released": "iemocap"},
    "baseline": {"differential_attention": "none", "fusion": "concat", "relation_modalities": []},
    "causal": {"causal": True},
    "whole": {
        "differential_attention": "dual_maps",
        "relation_modalities": list(MODALITIES),
        "cross_modal_relations": True,
        "fusion": "text_diffusion",
    },
    "windowed": {"attention_window": 2, "fusion": "text_diffusion"},
    "consistent": {"consistency_size": 3, "fusion": "text_diffusion"},
    "sparse": {
        "edges": True,
        "relation_modalities": ["text", "visual"],
        "cross_modal_relations": True,
    },
}
# Two encoders with learned positions and one with rotary ones, whose frequencies are buffers.
TEXT_CONFIGS: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(
        vocab_size=40,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    ),
    "roberta": RobertaConfig(
        vocab_size=40,
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=34,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    ),
    "modernbert": ModernBertConfig(
        vocab_size=40,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        pad_token_id=1,
        bos_token_id=2,
        eos_token_id=3,
        cls_token_id=2,
        sep_token_id=3,
    ),
}
_WAVEFORM_SHAPE: dict[str, Any] = {
    "conv_dim": (8, 8),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "hidden_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    **dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout"), 0.0),
    **dict.fromkeys(("feat_proj_dropout", "layerdrop"), 0.0),
}
SHORTEST_WAVEFORM = 20  # samples of one frame of these
# Norms over time and per frame, before and after the attention; the last mixes padded frames into others.
AUDIO_CONFIGS: dict[str, PreTrainedConfig] = {
    "wav2vec2_group": Wav2Vec2Config(feat_extract_norm="group", **_WAVEFORM_SHAPE),
    "wav2vec2_layer": Wav2Vec2Config(
        feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True, **_WAVEFORM_SHAPE
    ),
    "hubert_group": HubertConfig(feat_extract_norm="group", **_WAVEFORM_SHAPE),
    "hubert_layer": HubertConfig(feat_extract_norm="layer", **_WAVEFORM_SHAPE),
    "wavlm_layer": WavLMConfig(feat_extract_norm="layer", **_WAVEFORM_SHAPE),
    "data2vec": Data2VecAudioConfig(**_WAVEFORM_SHAPE),
    "whisper": WhisperConfig(
        d_model=12,
        num_mel_bins=8,
        max_source_positions=10,  # a fifth of a second
        vocab_size=40,
        begin_suppress_tokens=None,
        **dict.fromkeys((f"{name}_token_id" for name in ("pad", "bos", "eos", "decoder_start")), 1),
        **dict.fromkeys(("encoder_layers", "decoder_layers"), 1),
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
        **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 16),
    ),
}
_PICTURE_SHAPE: dict[str, Any] = {
    "hidden_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 8,
    "patch_size": 4,
}
VISION_CONFIGS: dict[str, PreTrainedConfig] = {
    "vit": ViTConfig(**_PICTURE_SHAPE),
    "dinov2": Dinov2Config(**_PICTURE_SHAPE),
}


def tiny_config(*, released: str = "meld", edges: bool = False, **fields: Any) -> ReDiFuConfig:
    """A released recipe at toy sizes, without dropout; `edges` is for `tiny_model` alone."""
    sizes = {f"{name}_size": size for name, size in SIZES.items()}
    toy = {
        "hidden_size": 16,
        "num_attention_heads": 4,
        "num_speakers": 3,
        "relation_window": 3,
        "dropout": 0.0,
        "relation_dropout": 0.0,
        "id2label": dict(enumerate(LABELS)),
    }
    return ReDiFuConfig.released(released, **{**sizes, **toy, **fields})


def tiny_model(
    *, implementation: str = "sdpa", seed: int = 0, edges: bool = False, **fields: Any
) -> ReDiFuForEmotionRecognition:
    """A model in evaluation mode, every parameter moved off its starting value so that nothing hides.

    With `edges`, dialogues of any length are related by edges.
    """
    torch.manual_seed(seed)
    model = ReDiFuForEmotionRecognition(tiny_config(attn_implementation=implementation, **fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        for module in model.modules():
            if edges and isinstance(module, Subgraphs):
                module._edges_above = 0
        if model.config.consistency_size is not None:
            for buffer in model.redifu.consistency.buffers():
                buffer.normal_()  # so that some streams are dropped
    return model


def text_model(family: str, **fields: Any) -> ReDiFuForEmotionRecognition:
    """A model whose text stream comes from a backbone of `TEXT_CONFIGS`."""
    return tiny_model(text_config=TEXT_CONFIGS[family].to_dict(), **fields)


def raw_model(text: str = "roberta", audio: str = "wav2vec2_layer", visual: str = "vit") -> Any:
    """A model that reads tokens, waveforms and pixels."""
    return tiny_model(
        text_config=TEXT_CONFIGS[text].to_dict(),
        audio_config=AUDIO_CONFIGS[audio].to_dict(),
        vision_config=VISION_CONFIGS[visual].to_dict(),
    )


def tiny_batch(*lengths: int, seed: int = 0) -> dict[str, Tensor]:
    """Dialogues of so many utterances, padded on the right with zeros: all that a model takes but labels."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    mask = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    batch = {
        f"{name}_features": torch.randn(*shape, size, generator=generator) * mask[..., None]
        for name, size in SIZES.items()
    }
    speaker_ids = torch.randint(0, 3, shape, generator=generator) * mask
    return {**batch, "utterance_mask": mask, "speaker_ids": speaker_ids}


def random_labels(batch: dict[str, Tensor], seed: int = 1) -> Tensor:
    """A label for every real utterance, -100 elsewhere."""
    mask = batch["utterance_mask"]
    labels = torch.randint(0, len(LABELS), mask.shape, generator=torch.Generator().manual_seed(seed))
    return labels.where(mask, -100)


def random_modality_mask(utterance_mask: Tensor, seed: int = 2) -> Tensor:
    """A non-empty subset of the streams for each utterance."""
    generator = torch.Generator().manual_seed(seed)
    subsets = torch.randint(1, 2 ** len(MODALITIES), utterance_mask.shape, generator=generator)
    return (subsets[..., None] >> torch.arange(len(MODALITIES))) % 2 == 1


def gradients(model: torch.nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """The gradient of a loss in every parameter that it reaches, and in no other."""
    named = dict(model.named_parameters())
    values = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: value for name, value in zip(named, values, strict=True) if value is not None}


def assert_gradients_close(
    actual: dict[str, Tensor], expected: dict[str, Tensor], *, tolerance: float, rounding: float = 1e-6
) -> None:
    """Each tensor within `tolerance` of its own largest entry, those almost zero within `rounding`."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        largest = value.abs().max().item()
        difference = (actual[name] - value).abs().max().item()
        assert difference <= max(tolerance * largest, rounding), f"{name}: {difference} of {largest}"
