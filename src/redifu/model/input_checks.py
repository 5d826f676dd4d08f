"""Checks of model inputs, and the presence masks derived from them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .configuration_redifu import BACKBONE_CONFIGS, MODALITIES, ReDiFuConfig
from .model_inputs import RAW_INPUTS, RAW_MASKS, ReDiFuInputs

_RAW_LAYOUT = {
    "text": "(texts, tokens)",
    "audio": "(audios, samples)",
    "visual": "(utterances with pictures, pictures, channels, height, width)",
}


def check_inputs(config: ReDiFuConfig, given: ReDiFuInputs) -> None:
    """Check that inputs are consistent with the model and with each other.

    Raises:
        ValueError: the message says what was expected and what was given.
    """
    _check_streams(config, given.features, given.raw)
    _check_raw(config, given.raw, given.raw_masks)
    grids = {f"{name}_features": value for name, value in given.features.items()}
    grids |= {name: getattr(given, name) for name in ("utterance_mask", "modality_mask", "speaker_ids")}
    for name in ("utterance_mask", "speaker_ids"):
        if (grid := grids[name]) is not None and grid.dim() != 2:
            raise ValueError(f"{name} must be (batch, utterances), got {tuple(grid.shape)}")
    shapes = {name: tuple(value.shape[:2]) for name, value in grids.items() if value is not None}
    # Compare instead of hashing: during export these are symbols.
    if any(shape != next(iter(shapes.values())) for shape in shapes.values()):
        raise ValueError(f"inputs must have the same (batch, utterances), got {shapes}")
    if not shapes:
        names = " and ".join(RAW_INPUTS[name] for name, value in given.raw.items() if value is not None)
        raise ValueError(
            f"utterance_mask, modality_mask or speaker_ids is required to assign {names} to dialogues"
        )
    if 0 in next(iter(shapes.values())):
        raise ValueError(f"a batch must have at least one dialogue and one utterance, got {shapes}")
    mask = given.modality_mask
    if mask is not None and mask.shape[2:] != (len(MODALITIES),):
        raise ValueError(f"modality_mask must be (batch, utterances, 3), got {tuple(mask.shape)}")
    for name in ("utterance_mask", "modality_mask"):
        _check_mask(name, grids[name])


def _check_streams(
    config: ReDiFuConfig, features: Mapping[str, Tensor | None], raw: Mapping[str, Tensor | None]
) -> None:
    for name, value in features.items():
        expected = getattr(config, f"{name}_size")
        if value is None:
            continue
        if expected is None:
            raise ValueError(f"got {name}_features, but this model has no {name} stream")
        if value.dim() != 3 or value.shape[2] != expected:
            raise ValueError(
                f"{name}_features must be (batch, utterances, {expected}), got {tuple(value.shape)}"
            )
    if all(value is None for value in (*features.values(), *raw.values())):
        raise ValueError(f"no inputs: pass features for at least one of {', '.join(config.modalities)}")
    for name, value in raw.items():
        given = RAW_INPUTS[name]
        if value is not None and getattr(config, BACKBONE_CONFIGS[name]) is None:
            raise ValueError(f"got {given}, but this model has no {name} backbone: pass {name}_features")
        if value is not None and features[name] is not None:
            raise ValueError(f"pass {given} or {name}_features, not both")


def _check_raw(
    config: ReDiFuConfig, raw: Mapping[str, Tensor | None], masks: Mapping[str, Tensor | None]
) -> None:
    for name, value in raw.items():
        if value is not None and value.dim() != (5 if name == "visual" else 2):
            raise ValueError(f"{RAW_INPUTS[name]} must be {_RAW_LAYOUT[name]}, got {tuple(value.shape)}")
    for name, mask in masks.items():
        given, value = RAW_MASKS[name], raw[name]
        if mask is not None and (value is None or mask.shape != value.shape):
            raise ValueError(f"{given} must have the shape of {RAW_INPUTS[name]}, got {tuple(mask.shape)}")
        _check_mask(given, mask)
    # Waveform backbones assume that the real samples come first.
    if (mask := masks["audio"]) is not None and _has_gap(mask):
        raise ValueError("audio_values_mask may mask only the end of a waveform, got a gap")
    if (pictures := raw["visual"]) is not None:
        backbone: Any = config.vision_config
        size = backbone.image_size
        height, width = (size, size) if isinstance(size, int) else size
        expected = (backbone.num_channels, height, width)
        if not pictures.shape[1] or tuple(pictures.shape[2:]) != expected:
            raise ValueError(
                f"pixel_values must be {_RAW_LAYOUT['visual']} with at least one picture of {expected}, "
                f"got {tuple(pictures.shape)}"
            )


def check_ids(name: str, ids: Tensor, *, counted: Tensor, least: int = 0, most: int | None = None) -> None:
    """Check that ids are integers and, where `counted` (a bool mask), from `least` to `most`."""
    if ids.is_floating_point():
        raise ValueError(f"{name} must be integers, got {ids.dtype}")
    # Reading values would break the graph, so a compiled model does not check ids.
    if torch.compiler.is_compiling():
        return
    wrong = counted & ((ids < least) | (ids > (ids if most is None else most)))
    if wrong.any():
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} must be {bounds}, got {ids[wrong][0].item()}")


def _check_mask(name: str, mask: Tensor | None) -> None:
    # Reading values would break the graph, so a compiled model does not check masks.
    if mask is None or mask.dtype == torch.bool or torch.compiler.is_compiling():
        return
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError(f"{name} must contain only 0 and 1, got values from {mask.min()} to {mask.max()}")


def _has_gap(mask: Tensor) -> bool:
    real = mask.bool()
    return not torch.compiler.is_compiling() and bool((real[:, 1:] & ~real[:, :-1]).any())


def check_labels(
    labels: Tensor, class_weights: Tensor | None, *, shape: tuple[int, ...], num_labels: int
) -> None:
    """Check the shape and range of labels, and the number of class weights."""
    if labels.shape != shape:
        raise ValueError(f"labels must be {shape}, got {tuple(labels.shape)}")
    check_ids("labels other than -100", labels, counted=labels != -100, most=num_labels - 1)
    if class_weights is not None and class_weights.shape != (num_labels,):
        raise ValueError(f"class_weights must be ({num_labels},), got {tuple(class_weights.shape)}")


def stream_presence(given: ReDiFuInputs) -> tuple[Tensor, dict[str, Tensor]]:
    """Determine which utterances are real and which streams they have.

    Returns:
        (batch, utterances) bool for real utterances, and the same by stream. A stream in the input is present
        in every real utterance, unless the modality mask says otherwise.
    """
    grids = [*given.features.values(), given.utterance_mask, given.modality_mask, given.speaker_ids]
    grid = next(value for value in grids if value is not None)
    real = torch.ones(grid.shape[:2], dtype=torch.bool, device=grid.device)
    if given.utterance_mask is not None:
        real = given.utterance_mask.bool()
    present = {}
    for index, (name, features) in enumerate(given.features.items()):
        here = real if given.modality_mask is None else real & given.modality_mask[..., index].bool()
        is_given = features is not None or given.raw[name] is not None
        present[name] = here if is_given else torch.zeros_like(real)
    return real, present
