"""Whether the sound and the picture of an utterance are those of who speaks."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_redifu import ReDiFuConfig

# For an utterance and for its dialogue: how alike its streams are, and on how many pairs that rests.
MEASURES = 4


class SpeakerConsistency(nn.Module):
    """Compares an utterance's sound, and its picture, with those of the same speaker's other utterances.

    A stream is mapped to a vector of length 1, V x / |V x|. What counts is the mean cosine to the speaker's
    other utterances, the mean of such cosines over the dialogue, and their number of pairs n as n / (n + 1).
    The probability that a stream is the speaker's is a logistic regression on these numbers of both streams.
    Where nothing can be compared it is a constant. The weights are not trained with the model: they are zero,
    and nothing is dropped, until `training.consistency_fit.fit_consistency` sets them.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, config: ReDiFuConfig):
        """Build for the streams beside the text."""
        super().__init__()
        size = config.consistency_size or 0
        self.causal = config.causal
        self.num_speakers = config.num_speakers
        self.streams = tuple(name for name in config.modalities if name != "text")
        for name in self.streams:
            self.register_buffer(name, torch.empty(size, getattr(config, f"{name}_size")))
        self.register_buffer("weight", torch.empty(len(self.streams), MEASURES * len(self.streams)))
        self.register_buffer("bias", torch.empty(len(self.streams)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with nothing to tell speakers by."""
        for buffer in self.buffers():
            nn.init.zeros_(buffer)

    def forward(
        self, features: Mapping[str, Tensor | None], speaker_ids: Tensor, present: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the log-odds that a stream is the speaker's, (batch, utterances, streams) float32.

        Args:
            features: (batch, utterances, size) by stream, None where no utterance has it.
            speaker_ids: (batch, utterances) int; those beyond `config.num_speakers` are not compared.
            present: (batch, utterances) bool by stream.
        """
        speakers = torch.arange(self.num_speakers, device=speaker_ids.device)
        spoken = speaker_ids[..., None] == speakers
        measures: list[Tensor] = []
        for name in self.streams:
            groups = (spoken & present[name][..., None]).float()
            values = features[name]
            if values is None:
                vectors = groups.new_zeros(*groups.shape[:2], 1)
            else:
                given = values.float().masked_fill(~present[name][..., None], 0.0)
                vectors = F.normalize(given @ self.get_buffer(name).float().T, dim=-1)
            measures += self._compared(vectors, groups)
        return F.linear(torch.stack(measures, dim=-1), self.weight.float(), self.bias.float())

    def kept(self, likely: Tensor, present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return (batch, utterances) bool by stream, the streams that stay; no utterance loses all of them.

        Args:
            likely: (batch, utterances, streams), the probability that a stream is the speaker's.
            present: (batch, utterances) bool by stream of the model.
        """
        stay = dict(present)
        for index, name in enumerate(self.streams):
            stay[name] = present[name] & (likely[..., index] >= 0.5)
        nothing = ~torch.stack(list(stay.values())).any(dim=0)
        return {name: here | (nothing & present[name]) for name, here in stay.items()}

    def _compared(self, vectors: Tensor, groups: Tensor) -> list[Tensor]:
        """Return `MEASURES` tensors (batch, utterances)."""
        # Sums by speaker, and not cosines of all pairs: memory grows with the utterances, not their square.
        sums = self._so_far(groups[..., None] * vectors[:, :, None])
        counts = self._so_far(groups)
        of_speaker = (groups[..., None] * sums).sum(dim=2)
        alike = (of_speaker * vectors).sum(dim=-1) - groups.sum(dim=-1) * vectors.square().sum(dim=-1)
        pairs = (groups * (counts - 1)).sum(dim=-1)
        measures = []
        for total, number in ((alike, pairs), (self._so_far(alike), self._so_far(pairs))):
            measures += [total / (number + 1), number / (number + 1)]
        return [measure.expand_as(pairs) for measure in measures]

    def _so_far(self, values: Tensor) -> Tensor:
        """Sum over a dialogue; in a causal model, over the utterances up to each one."""
        return values.cumsum(dim=1) if self.causal else values.sum(dim=1, keepdim=True)
