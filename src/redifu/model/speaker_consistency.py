"""Estimates whether the sound and picture of an utterance belong to its speaker."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_redifu import ReDiFuConfig

# Similarity and number of compared pairs, each for the utterance and for its dialogue.
MEASURES = 4


class SpeakerConsistency(nn.Module):
    """Compares an utterance's sound and picture with those of the same speaker's other utterances.

    A stream is mapped to a unit vector, V x / |V x|. Its measures are the mean cosine to the speaker's other
    utterances, the mean of such cosines over the dialogue, and the number of pairs n in each as n / (n + 1).
    A logistic regression on the measures of both streams gives the probability that a stream is the
    speaker's; it is constant if nothing can be compared. The weights are not trained with the model. They
    are zero, and no stream is dropped, until `training.consistency_fit.fit_consistency` sets them.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, config: ReDiFuConfig):
        """Build for all streams except text."""
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
        """Set all weights to zero, which drops no stream."""
        for buffer in self.buffers():
            nn.init.zeros_(buffer)

    def forward(
        self, features: Mapping[str, Tensor | None], speaker_ids: Tensor, present: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the log-odds that each stream is the speaker's, (batch, utterances, streams) float32.

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
        """Return (batch, utterances) bool by stream, the streams to keep; no utterance loses all streams.

        Args:
            likely: (batch, utterances, streams), the probability that a stream is the speaker's.
            present: (batch, utterances) bool, for each stream of the model.
        """
        stay = dict(present)
        for index, name in enumerate(self.streams):
            stay[name] = present[name] & (likely[..., index] >= 0.5)
        nothing = ~torch.stack(list(stay.values())).any(dim=0)
        return {name: here | (nothing & present[name]) for name, here in stay.items()}

    def _compared(self, vectors: Tensor, groups: Tensor) -> list[Tensor]:
        """Return `MEASURES` tensors (batch, utterances)."""
        # Sums by speaker avoid all pairs of utterances: memory is linear in them, not quadratic.
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
        """Sum over the dialogue or, in a causal model, up to and including each utterance."""
        return values.cumsum(dim=1) if self.causal else values.sum(dim=1, keepdim=True)
