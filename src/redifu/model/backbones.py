"""Utterance embeddings from texts, waveforms and pictures, by pretrained backbones inside the model."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, PreTrainedConfig

from .configuration_redifu import BACKBONE_CONFIGS
from .whisper_encoder import WhisperBackbone, encode_pieces

# These bound the memory of a backbone; 1,024 tokens at once were faster on a CPU than 4,096 or 8,192.
TEXT_CHUNK_TOKENS = 1024
AUDIO_CHUNK_SAMPLES = 480_000  # 30 s
VISUAL_CHUNK_PICTURES = 32

# Of these, if each frame is normed by itself, masked padding is zero where convolutions reach it, and changes
# nothing; of other families that is not so, or not known.
_PADDED_FAMILIES = ("wav2vec2", "hubert", "wavlm")


def build_backbone(config: PreTrainedConfig) -> nn.Module:
    """Build an untrained backbone without the parts that nothing here would train.

    Those are the pooler, as mean pooling reads the states, SpecAugment, which fails on clips shorter than its
    masks, and the decoder of a Whisper.
    """
    if config.model_type == "whisper":
        return WhisperBackbone(config)
    for field in ("mask_time_prob", "mask_feature_prob"):
        if hasattr(config, field):
            setattr(config, field, 0.0)
    if not getattr(MODEL_MAPPING.get(type(config), None), "_supports_sdpa", True):
        config._attn_implementation = "eager"  # the only one of WavLM, for instance, whatever the fusion has
    backbone = AutoModel.from_config(config, dtype=torch.get_default_dtype())
    if hasattr(backbone, "pooler"):
        backbone.pooler = None
    return backbone


def read_backbone_configs(
    places: Mapping[str, str | None], changes: Mapping[str, Mapping[str, Any] | None]
) -> dict[str, PreTrainedConfig]:
    """Read the configurations of pretrained backbones, with some fields set otherwise.

    Args:
        places: by stream a folder or Hub id that AutoConfig loads, or None.
        changes: by stream the fields to set otherwise, or None.

    Returns:
        By their fields of `ReDiFuConfig`.

    Raises:
        ValueError: a field is unknown to this kind of backbone, or there is no backbone to change.
    """
    configs = {}
    for name, place in places.items():
        field, fields = BACKBONE_CONFIGS[name], changes[name] or {}
        if place is None and fields:
            raise ValueError(f"{field} changes a backbone of {name}, and there is none")
        if place is not None:
            config, unknown = AutoConfig.from_pretrained(place, return_unused_kwargs=True, **fields)
            if unknown:
                raise ValueError(f"{field}: {', '.join(unknown)} is unknown to {config.model_type}")
            config.name_or_path = ""  # a place on this machine is no part of the new checkpoint
            configs[field] = config
    return configs


def load_backbones(model: nn.Module, places: Mapping[str, str | None]) -> None:
    """Load the weights of pretrained backbones into those of a model, built of their configurations.

    Args:
        model: a ReDiFuModel.
        places: by stream a folder or Hub id that AutoModel loads, or None.

    Raises:
        ValueError: weights are missing, or of other shapes.
    """
    for name, place in places.items():
        if place is None:
            continue
        backbone = model.get_submodule(f"{name}_backbone")
        loader = WhisperBackbone if isinstance(backbone, WhisperBackbone) else AutoModel
        pretrained, report = loader.from_pretrained(
            place, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
        try:
            found = backbone.load_state_dict(pretrained.state_dict(), strict=False)
        except RuntimeError as error:
            field = BACKBONE_CONFIGS[name]
            raise ValueError(f"{field} does not fit the weights of {place}: {error}") from None
        # What the file lacks was drawn at random, which is no loss for a pooler that is not used here.
        drawn = set(report["missing_keys"]) & set(backbone.state_dict())
        if missing := sorted({*found.missing_keys, *drawn}):
            raise ValueError(f"{place} lacks weights: {', '.join(missing)}")


def text_backbone_of(model: nn.Module) -> Any:
    """Return the text backbone of a ReDiFuModel.

    Raises:
        NotImplementedError: there is none; transformers expects this error.
    """
    if (backbone := getattr(model, "text_backbone", None)) is None:
        raise NotImplementedError("this model has no text backbone, so it has no token embeddings")
    return backbone


def mean_pooling(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real states: (rows, states, hidden) and (rows, states) bool to (rows, hidden)."""
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
    """Embed texts of similar length together, so that little padding is computed and memory stays bounded.

    Args:
        embed: turns input_ids and mask of some texts into their embeddings, (texts, hidden).
        input_ids: (texts, tokens) int.
        mask: (texts, tokens) bool, True for real tokens.
        chunk_tokens: at most so many tokens, padding included, are encoded at once (a longer text alone).

    Returns:
        (texts, hidden).
    """

    def encode(rows: Tensor, width: int) -> Tensor:
        return embed(input_ids[rows, :width], mask[rows, :width])

    # The width of a text is the place of its last real token: only trailing padding is cut.
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return _by_width((mask * places).amax(dim=1).clamp_min(1), chunk_tokens, encode)


def encode_waveforms(
    backbone: Any, audio_values: Tensor, mask: Tensor, *, chunk_samples: int = AUDIO_CHUNK_SAMPLES
) -> Tensor:
    """Embed waveforms by mean pooling of the backbone's frames, padded ones left out.

    A waveform gives the same alone and beside longer ones. So only backbones of which that is known are given
    waveforms of different lengths together; others, as all whose first norm runs over time
    (feat_extract_norm "group"), take those of one length together. Whisper takes pieces of 30 s; see
    `encode_pieces`.

    Args:
        backbone: a model that takes input_values and returns last_hidden_state, or a `WhisperBackbone`.
        audio_values: (audios, samples) float, whatever stands in the padding.
        mask: (audios, samples) bool, True for real samples, padding at the end.
        chunk_samples: at most so many samples, padding included, are encoded at once (a longer one alone).

    Returns:
        (audios, hidden).

    Raises:
        ValueError: a waveform is too short for a single frame.
    """
    config = backbone.config
    widths, least = mask.sum(dim=1), shortest_waveform(config)
    if (widths < least).any():
        raise ValueError(f"audio_values must hold at least {least} samples each, got {int(widths.min())}")
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

    return _by_width(widths, chunk_samples, encode, same_width=not padded)


def encode_pictures(
    backbone: Any, pixel_values: Tensor, *, chunk_pictures: int = VISUAL_CHUNK_PICTURES
) -> Tensor:
    """Embed the pictures of utterances by the mean of the backbone's states, then of the pictures.

    Args:
        backbone: a model that takes pixel_values and returns last_hidden_state (pictures, states, hidden).
        pixel_values: (utterances, pictures, channels, height, width) float.
        chunk_pictures: at most so many pictures are encoded at once.

    Returns:
        (utterances, hidden).
    """
    pictures = pixel_values.flatten(0, 1).to(backbone.dtype).split(chunk_pictures)
    pooled = [backbone(pixel_values=chunk).last_hidden_state.mean(dim=1) for chunk in pictures]
    return torch.cat(pooled).unflatten(0, pixel_values.shape[:2]).mean(dim=1)


def shortest_waveform(config: Any) -> int:
    """Return the samples of one frame of a backbone on waveforms; Whisper pads to whole ones itself."""
    if config.model_type == "whisper":
        return 1
    samples = 1
    for kernel, stride in zip(config.conv_kernel[::-1], config.conv_stride[::-1], strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def takes_padding(config: Any) -> bool:
    """Say whether a backbone on waveforms gives the same for a waveform with and without masked padding."""
    per_frame = getattr(config, "feat_extract_norm", None) == "layer"
    return (
        config.model_type in _PADDED_FAMILIES and per_frame and not getattr(config, "conv_pos_batch_norm", 0)
    )


# Compiled, it would be compiled anew for each number and length of rows; `encode` is still compiled.
@torch.compiler.disable(recursive=False)
def _by_width(
    widths: Tensor, most: int, encode: Callable[[Tensor, int], Tensor], *, same_width: bool = False
) -> Tensor:
    """Encode rows of similar width together, (rows, hidden); `encode` takes their places and the widest."""
    order = widths.argsort(stable=True)
    ascending = widths[order].tolist()
    chunks = _chunks(ascending, most, same_width=same_width)
    return torch.cat([encode(order[chunk], ascending[chunk][-1]) for chunk in chunks])[order.argsort()]


def _chunks(ascending_widths: list[int], most: int, *, same_width: bool) -> list[slice]:
    """Cut ascending widths into slices whose padded size stays within `most`, perhaps of one width each."""
    slices, start = [], 0
    for index, width in enumerate(ascending_widths):
        too_large = (index + 1 - start) * width > most
        if index > start and (too_large or (same_width and width > ascending_widths[start])):
            slices.append(slice(start, index))
            start = index
    return [*slices, slice(start, len(ascending_widths))]
