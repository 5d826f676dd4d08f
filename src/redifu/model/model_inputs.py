"""What ReDiFu models are called with: the one list of the arguments of `forward`."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from inspect import Parameter, Signature, signature
from typing import Any

from torch import Tensor

from .configuration_redifu import MODALITIES
from .recorder import Recorder

# What a model with a backbone takes in place of a stream's features, and its mask.
RAW_INPUTS = {"text": "input_ids", "audio": "audio_values", "visual": "pixel_values"}
RAW_MASKS = {"text": "attention_mask", "audio": "audio_values_mask"}


@dataclass
class ReDiFuInputs:
    """A batch of dialogues, and what to return of it.

    Attributes:
        text_features: (batch, utterances, text size) float.
        audio_features: (batch, utterances, audio size) float.
        visual_features: (batch, utterances, visual size) float.
        utterance_mask: (batch, utterances) bool or 0/1, True for real utterances; None for all.
        modality_mask: (batch, utterances, 3) bool or 0/1, streams present; None for what is given.
        speaker_ids: (batch, utterances) int, numbered from 0 in each dialogue; None for one speaker.
        input_ids: (real utterances with text, tokens) int, row by row, in place of `text_features`.
        attention_mask: (real utterances with text, tokens), 1 for real tokens; None for all.
        audio_values: (real utterances with audio, samples) float, in place of `audio_features`.
        audio_values_mask: (real utterances with audio, samples), 1 for real samples; None for all.
        pixel_values: (real utterances with visual, pictures, channels, height, width) float, in place of
            `visual_features`.
        output_hidden_states: whether to return the states of every step; None for the configuration's choice.
        output_attentions: whether to return attention weights, which this call then computes eagerly; None
            for the configuration's choice.
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
        """Ready features by stream."""
        return {name: getattr(self, f"{name}_features") for name in MODALITIES}

    @property
    def raw(self) -> dict[str, Tensor | None]:
        """What backbones read, by stream."""
        return {name: getattr(self, field) for name, field in RAW_INPUTS.items()}

    @property
    def raw_masks(self) -> dict[str, Tensor | None]:
        """The masks of what backbones read, by stream."""
        return {name: getattr(self, field) for name, field in RAW_MASKS.items()}


@dataclass
class Dialogues:
    """A batch as the model reads it.

    Attributes:
        features: (batch, utterances, size) float by stream, None where no utterance has it.
        present: (batch, utterances) bool by stream of the model.
        speaker_ids: (batch, utterances) int, 0 for padding.
        positions: (batch, utterances) int, places within the dialogue; those of padding come last.
        consistency: as in `ReDiFuModelOutput`.
        record: keeps states and weights on the way.
    """

    features: Mapping[str, Tensor | None]
    present: Mapping[str, Tensor]
    speaker_ids: Tensor
    positions: Tensor
    consistency: Tensor | None
    record: Recorder

    def of(self, name: str) -> dict[str, Any]:
        """Return what layers of one stream are told beside its states."""
        record = self.record.within(f"{name}_")
        return {"positions": self.positions, "present": self.present[name], "record": record}

    def of_all(self) -> dict[str, Any]:
        """Return what layers of all streams are told beside their states."""
        return {"positions": self.positions, "present": self.present, "record": self.record}


def takes_inputs(forward: Any) -> Any:
    """Show each field of `ReDiFuInputs` in the signature of a method that takes them by * and **.

    Trainer reads from it which columns a model takes, and torch.export what its dynamic shapes belong to.
    """
    variable = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    own = [each for each in signature(forward).parameters.values() if each.kind not in variable]
    every = [*own, *signature(ReDiFuInputs).parameters.values()]
    forward.__signature__ = Signature(sorted(every, key=lambda each: each.kind))
    return forward
