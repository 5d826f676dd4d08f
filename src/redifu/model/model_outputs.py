"""What ReDiFu models return."""

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class ReDiFuModelOutput(ModelOutput):
    """What `ReDiFuModel` returns.

    Attributes:
        last_hidden_state: (batch, utterances, streams * hidden), the fused streams, zero where missing.
        present: (batch, utterances, streams) bool, the streams each real utterance has after the fusion.
        reliability: (batch, utterances, 3) in 0 to 1, of text, audio and visual; of text_diffusion only.
        consistency: (batch, utterances, streams beside the text) in 0 to 1, how likely sound and picture are
            the speaker's, below 0.5 they count as missing; of a model with `consistency_size` only.
        hidden_states: on request, (batch, utterances, hidden) by name of the step.
        attentions: on request (eager only), weights by name: (batch, heads, utterances, utterances); none of
            a subgraph of edges or of an attention with a window.
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
        logits: (batch, utterances, labels), un-normalised; what masks hide is finite and means nothing.
        text_logits: the same of the text stream alone, None where a fusion has no head per stream.
        audio_logits: the same of the audio stream.
        visual_logits: the same of the visual stream.
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
    reliability: Tensor | None = None
    consistency: Tensor | None = None
    hidden_states: dict[str, Tensor] | None = None
    attentions: dict[str, Tensor] | None = None
