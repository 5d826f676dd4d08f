"""The inputs of ReDiFu models: a single definition of the arguments of `forward`."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from inspect import Parameter, Signature, signature
from typing import Any

from torch import Tensor

from .configuration_redifu import MODALITIES
from .recorder import Recorder

# The inputs that backbones take in place of a stream's features, and their masks.
RAW_INPUTS = {"text": "input_ids", "audio": "audio_values", "visual": "pixel_values"}
RAW_MASKS = {"text": "attention_mask", "audio": "audio_values_mask"}


@dataclass
class ReDiFuInputs:
    """A batch of dialogues, and options for the output.

    Attributes:
        text_features: (batch, utterances, text size) float.
        audio_features: (batch, utterances, audio size) float.
        visual_features: (batch, utterances, visual size) float.
        utterance_mask: (batch, utterances) bool or 0/1, True for real utterances; None for all.
        modality_mask: (batch, utterances, 3) bool or 0/1, streams present; None for all streams in the input.
        speaker_ids: (batch, utterances) int, numbered from 0 in each dialogue; None for one speaker.
        input_ids: (real utterances with text, tokens) int, in order, in place of `text_features`.
        attention_mask: (real utterances with text, tokens), 1 for real tokens; None for all.
        audio_values: (real utterances with audio, samples) float, in place of `audio_features`.
        audio_values_mask: (real utterances with audio, samples), 1 for real samples; None for all.
        pixel_values: (real utterances with visual, pictures, channels, height, width) float, in place of
            `visual_features`.
        output_hidden_states: whether to return the states of every step; None uses the configuration.
        output_attentions: whether to return attention weights, which are then computed eagerly; None uses
            the configuration.
    """

    text_features: Tensor | None = None
    audio_features: Tensor | None = None
    visual_features: Tensor | None = None
    _: KW_ONLY
    utterance_mask: Tensor | None = None
    modality_mask: Tensor | None = None
    speaker_ids: Tensor | None = None
    input_ids: Tensor | None = None
    attention_mask: Tensor | None = None
    audio_values: Tensor | None = None
    audio_values_mask: Tensor | None = None
    pixel_values: Tensor | None = None
    output_hidden_states: bool | None = None
    output_attentions: bool | None = None

    @property
    def features(self) -> dict[str, Tensor | None]:
        """Precomputed features by stream."""
        return {name: getattr(self, f"{name}_features") for name in MODALITIES}

    @property
    def raw(self) -> dict[str, Tensor | None]:
        """Backbone inputs by stream."""
        return {name: getattr(self, field) for name, field in RAW_INPUTS.items()}

    @property
    def raw_masks(self) -> dict[str, Tensor | None]:
        """Masks of backbone inputs, by stream."""
        return {name: getattr(self, field) for name, field in RAW_MASKS.items()}


@dataclass
class Dialogues:
    """A batch after its inputs were embedded and checked.

    Attributes:
        features: (batch, utterances, size) float by stream, None where no utterance has it.
        present: (batch, utterances) bool, for each stream of the model.
        speaker_ids: (batch, utterances) int, 0 for padding.
        positions: (batch, utterances) int, positions in the dialogue; padding comes last.
        consistency: see `ReDiFuModelOutput`.
        record: stores intermediate states and attention weights.
    """

    features: Mapping[str, Tensor | None]
    present: Mapping[str, Tensor]
    speaker_ids: Tensor
    positions: Tensor
    consistency: Tensor | None
    record: Recorder

    def of(self, name: str) -> dict[str, Any]:
        """Return the layer arguments for one stream, other than its states."""
        record = self.record.within(f"{name}_")
        return {"positions": self.positions, "present": self.present[name], "record": record}

    def of_all(self) -> dict[str, Any]:
        """Return the layer arguments for all streams, other than their states."""
        return {"positions": self.positions, "present": self.present, "record": self.record}


def takes_inputs(forward: Any) -> Any:
    """Add the fields of `ReDiFuInputs` to the signature of a method that takes * and ** arguments.

    Trainer uses the signature to select columns, and torch.export to assign dynamic shapes.
    """
    variable = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    own = [each for each in signature(forward).parameters.values() if each.kind not in variable]
    every = [*own, *signature(ReDiFuInputs).parameters.values()]
    forward.__signature__ = Signature(sorted(every, key=lambda each: each.kind))
    return forward
