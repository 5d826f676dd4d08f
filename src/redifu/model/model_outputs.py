"""What ReDiFu models return."""

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class ReDiFuModelOutput(ModelOutput):
    """What `ReDiFuModel` returns.

    Attributes:
        last_hidden_state: (batch, utterances, streams * hidden), the fused streams, zero where missing.
        present: (batch, utterances, streams of the model) bool, the streams of each real utterance that were
            read: without those whose consistency is too low, and with a text that the fusion fills in.
        reliability: (batch, utterances, 3) in 0 to 1, of text, audio and visual; of text_diffusion only.
        consistency: (batch, utterances, streams beside the text) in 0 to 1, how likely sound and picture are
            the speaker's: a stream below 0.5 counts as missing; of a model with `consistency_size` only.
        hidden_states: on request, (batch, utterances, hidden) by name of the step.
        attentions: on request, weights by name: (batch, heads, utterances, utterances); none of subgraphs of
            more than 512 utterances or of an attention with a window.
    """

    last_hidden_state: Tensor | None = None
    present: Tensor | None = None
    reliability: Tensor | None = None
    consistency: Tensor | None = None
    hidden_states: dict[str, Tensor] | None = None
    attentions: dict[str, Tensor] | None = None


@dataclass
class ReDiFuEmotionRecognitionOutput(ModelOutput):
    """What `ReDiFuForEmotionRecognition` returns.

    Attributes:
        loss: scalar, with labels.
        logits: (batch, utterances, labels), already divided by `config.temperature`: their softmax is
            calibrated. What masks hide is finite and means nothing.
        text_logits: (batch, utterances, labels) of the text stream alone, not divided; None where a fusion
            has no head per stream.
        audio_logits: the same of the audio stream.
        visual_logits: the same of the visual stream.
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
