"""The outputs of ReDiFu models."""

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class ReDiFuModelOutput(ModelOutput):
    """Output of `ReDiFuModel`.

    Attributes:
        last_hidden_state: (batch, utterances, streams * hidden), the fused streams, zero where missing.
        present: (batch, utterances, streams of the model) bool, the streams used for each real utterance.
            Streams with low consistency are excluded; text that the fusion fills in is included.
        reliability: (batch, utterances, 3) in 0 to 1, for text, audio and visual; only with text_diffusion.
        consistency: (batch, utterances, streams other than text), only with `consistency_size`: the
            probability that the stream belongs to the speaker; below 0.5 it counts as missing.
        hidden_states: on request, (batch, utterances, hidden) by name of the step.
        attentions: on request, weights by name, (batch, heads, utterances, utterances); not available for
            subgraphs of more than 512 utterances or attention with a window.
    """

    last_hidden_state: Tensor | None = None
    present: Tensor | None = None
    reliability: Tensor | None = None
    consistency: Tensor | None = None
    hidden_states: dict[str, Tensor] | None = None
    attentions: dict[str, Tensor] | None = None


@dataclass
class ReDiFuEmotionRecognitionOutput(ModelOutput):
    """Output of `ReDiFuForEmotionRecognition`.

    Attributes:
        loss: scalar, if labels were passed.
        logits: (batch, utterances, labels), divided by `config.temperature`, so their softmax is calibrated.
            Masked utterances have finite, meaningless values.
        text_logits: (batch, utterances, labels) from the text stream alone, not divided by the temperature;
            None if the fusion has no heads per stream.
        audio_logits: the same for the audio stream.
        visual_logits: the same for the visual stream.
        present: see `ReDiFuModelOutput`.
        reliability: see `ReDiFuModelOutput`.
        consistency: see `ReDiFuModelOutput`.
        hidden_states: see `ReDiFuModelOutput`.
        attentions: see `ReDiFuModelOutput`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    text_logits: Tensor | None = None
    audio_logits: Tensor | None = None
    visual_logits: Tensor | None = None
    present: Tensor | None = None
    reliability: Tensor | None = None
    consistency: Tensor | None = None
    hidden_states: dict[str, Tensor] | None = None
    attentions: dict[str, Tensor] | None = None
