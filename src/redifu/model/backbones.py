"""Pretrained backbones inside the model, which embed texts, waveforms and pictures."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, PreTrainedConfig

from .configuration_redifu import BACKBONE_CONFIGS
from .weight_files import check_weight_files
from .whisper_encoder import POOLING_STATISTICS, WhisperBackbone, encode_pieces
from .width_groups import encode_by_width

# These limits bound a backbone's memory; on a CPU, 1,024 tokens were faster than 4,096 or 8,192.
TEXT_CHUNK_TOKENS = 1024
AUDIO_CHUNK_SAMPLES = 480_000  # 30 s
VISUAL_CHUNK_PICTURES = 32

# In these families, if each frame is normalised separately, masked padding is zero wherever convolutions
# reach it and changes nothing. For other families this is false or unknown.
_PADDED_FAMILIES = ("wav2vec2", "hubert", "wavlm")


def build_backbone(config: PreTrainedConfig, pooled_layers: Sequence[int] | None = None) -> nn.Module:
    """Build an untrained backbone without the parts that the model does not use.

    These are the pooler (mean pooling reads the hidden states), SpecAugment (it fails on clips shorter than
    its masks) and the decoder of Whisper.

    Args:
        config: the backbone's configuration.
        pooled_layers: for Whisper, see `WhisperBackbone`.
    """
    if config.model_type == "whisper":
        return WhisperBackbone(config, pooled_layers)
    for field in ("mask_time_prob", "mask_feature_prob"):
        if hasattr(config, field):
            setattr(config, field, 0.0)
    if not getattr(MODEL_MAPPING.get(type(config), None), "_supports_sdpa", True):
        config._attn_implementation = "eager"  # the only one that WavLM, for example, supports
    backbone = AutoModel.from_config(config, dtype=torch.get_default_dtype())
    if hasattr(backbone, "pooler"):
        backbone.pooler = None
    return backbone


def read_backbone_configs(
    places: Mapping[str, str | None], changes: Mapping[str, Mapping[str, Any] | None]
) -> dict[str, PreTrainedConfig]:
    """Read the configurations of pretrained backbones and override some of their fields.

    Args:
        places: by stream, a folder or Hub id for AutoConfig, or None.
        changes: by stream, the fields to override, or None.

    Returns:
        The configurations, by the names of their `ReDiFuConfig` fields.

    Raises:
        ValueError: the backbone has no such field, or fields are given for a stream without a backbone.
    """
    configs = {}
    for name, place in places.items():
        field, fields = BACKBONE_CONFIGS[name], changes[name] or {}
        if place is None and fields:
            raise ValueError(f"{field} requires a pretrained {name} backbone")
        if place is not None:
            config, unknown = AutoConfig.from_pretrained(place, return_unused_kwargs=True, **fields)
            if unknown:
                raise ValueError(f"{field}: {config.model_type} has no field {', '.join(unknown)}")
            config.name_or_path = ""  # keep local paths out of the new checkpoint
            configs[field] = config
    return configs


def load_backbones(model: nn.Module, places: Mapping[str, str | None]) -> None:
    """Load pretrained weights into the backbones of a model built from their configurations.

    Args:
        model: a ReDiFuModel.
        places: by stream, a folder or Hub id for AutoModel, or None.

    Raises:
        ValueError: weights are missing, have the wrong shape, or are not safetensors files of the backbone.
    """
    for name, place in places.items():
        if place is None:
            continue
        backbone = model.get_submodule(f"{name}_backbone")
        check_weight_files(place, {})
        loader = WhisperBackbone if isinstance(backbone, WhisperBackbone) else AutoModel
        pretrained, report = loader.from_pretrained(
            place, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
        try:
            found = backbone.load_state_dict(pretrained.state_dict(), strict=False)
        except RuntimeError as error:
            field = BACKBONE_CONFIGS[name]
            raise ValueError(f"{field} does not match the weights of {place}: {error}") from None
        # Weights missing from the file were initialised at random. For the unused pooler, that is harmless.
        drawn = set(report["missing_keys"]) & set(backbone.state_dict())
        if missing := sorted({*found.missing_keys, *drawn} - POOLING_STATISTICS):
            raise ValueError(f"{place} has no weights for {', '.join(missing)}")


def text_backbone_of(model: nn.Module) -> Any:
    """Return the text backbone of a ReDiFuModel.

    Raises:
        NotImplementedError: there is none; transformers expects this error.
    """
    if (backbone := getattr(model, "text_backbone", None)) is None:
        raise NotImplementedError("this model has no text backbone, so it has no token embeddings")
    return backbone


def mean_pooling(states: Tensor, mask: Tensor) -> Tensor:
    """Average the unmasked states: (rows, states, hidden) and (rows, states) bool to (rows, hidden)."""
    weights = mask[..., None].to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)


def encode_texts(
    backbone: Any, input_ids: Tensor, mask: Tensor, *, chunk_tokens: int = TEXT_CHUNK_TOKENS
) -> Tensor:
    """Embed any number of texts; see `embed_texts` and `embed_by_length`."""
    return embed_by_length(partial(embed_texts, backbone), input_ids, mask, chunk_tokens=chunk_tokens)


def embed_texts(backbone: Any, input_ids: Tensor, mask: Tensor) -> Tensor:
    """Embed texts by masked mean pooling of the backbone's last hidden states.

    Args:
        backbone: a model that takes input_ids and attention_mask and returns last_hidden_state.
        input_ids: (texts, tokens) int.
        mask: (texts, tokens) bool, True for real tokens.

    Returns:
        (texts, hidden).
    """
    states = backbone(input_ids=input_ids, attention_mask=mask.long()).last_hidden_state
    return mean_pooling(states, mask)


def embed_by_length(
    embed: Callable[[Tensor, Tensor], Tensor],
    input_ids: Tensor,
    mask: Tensor,
    *,
    chunk_tokens: int = TEXT_CHUNK_TOKENS,
) -> Tensor:
    """Embed texts of similar length together, to reduce padding and bound memory.

    Args:
        embed: maps input_ids and mask of some texts to their embeddings, (texts, hidden).
        input_ids: (texts, tokens) int.
        mask: (texts, tokens) bool, True for real tokens.
        chunk_tokens: maximum tokens per forward pass, padding included (a longer text runs alone).

    Returns:
        (texts, hidden).
    """

    def encode(rows: Tensor, width: int) -> Tensor:
        return embed(input_ids[rows, :width], mask[rows, :width])

    # A text's width ends at its last real token, so only trailing padding is cut.
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return encode_by_width((mask * places).amax(dim=1).clamp_min(1), chunk_tokens, encode)


def encode_waveforms(
    backbone: Any, audio_values: Tensor, mask: Tensor, *, chunk_samples: int = AUDIO_CHUNK_SAMPLES
) -> Tensor:
    """Embed waveforms by mean pooling of the backbone's frames, excluding padding.

    The embedding of a waveform does not depend on the others in the batch. So waveforms of different lengths
    share a batch only in backbones that are known to ignore padding; other backbones, such as those whose
    first norm runs over time (feat_extract_norm "group"), get batches of equal length. Whisper gets pieces of
    at most 30 s; see `encode_pieces`.

    Args:
        backbone: a model that takes input_values and returns last_hidden_state, or a `WhisperBackbone`.
        audio_values: (audios, samples) float; the padding may hold any values.
        mask: (audios, samples) bool, True for real samples, padding at the end.
        chunk_samples: maximum samples per forward pass, padding included (a longer waveform runs alone).

    Returns:
        (audios, size of the stream).

    Raises:
        ValueError: a waveform is shorter than one frame.
    """
    config = backbone.config
    widths, least = mask.sum(dim=1), shortest_waveform(config)
    if (widths < least).any():
        raise ValueError(f"each waveform must have at least {least} samples, got {int(widths.min())}")
    if isinstance(backbone, WhisperBackbone):
        return encode_pieces(backbone, audio_values, mask, chunk_samples=chunk_samples)
    padded = takes_padding(config)

    def encode(rows: Tensor, width: int) -> Tensor:
        kept = mask[rows, :width]
        waveforms = audio_values[rows, :width].masked_fill(~kept, 0.0).to(backbone.dtype)
        if not padded:
            return backbone(input_values=waveforms).last_hidden_state.mean(dim=1)
        states = backbone(input_values=waveforms, attention_mask=kept.long()).last_hidden_state
        return mean_pooling(
            states, backbone._get_feature_vector_attention_mask(states.shape[1], kept.long()).bool()
        )

    return encode_by_width(widths, chunk_samples, encode, same_width=not padded)


def encode_pictures(
    backbone: Any, pixel_values: Tensor, *, chunk_pictures: int = VISUAL_CHUNK_PICTURES
) -> Tensor:
    """Embed utterances by averaging the backbone's states over each picture, then over the pictures.

    Args:
        backbone: a model that takes pixel_values and returns last_hidden_state (pictures, states, hidden).
        pixel_values: (utterances, pictures, channels, height, width) float.
        chunk_pictures: maximum pictures per forward pass.

    Returns:
        (utterances, hidden).
    """
    pictures = pixel_values.flatten(0, 1).to(backbone.dtype).split(chunk_pictures)
    pooled = [backbone(pixel_values=chunk).last_hidden_state.mean(dim=1) for chunk in pictures]
    return torch.cat(pooled).unflatten(0, pixel_values.shape[:2]).mean(dim=1)


def shortest_waveform(config: Any) -> int:
    """Return the number of samples in one frame of a waveform backbone; 1 for Whisper, which pads."""
    if config.model_type == "whisper":
        return 1
    samples = 1
    for kernel, stride in zip(config.conv_kernel[::-1], config.conv_stride[::-1], strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def takes_padding(config: Any) -> bool:
    """Return whether masked padding leaves the output of a waveform backbone unchanged."""
    per_frame = getattr(config, "feat_extract_norm", None) == "layer"
    return (
        config.model_type in _PADDED_FAMILIES and per_frame and not getattr(config, "conv_pos_batch_norm", 0)
    )
