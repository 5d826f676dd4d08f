"""Classification heads: fused streams to logits."""

import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_redifu import MODALITIES, ReDiFuConfig
from .dropout import dropout


class StreamHeads(nn.Module):
    """One linear head per stream; the fused logits are a weighted sum over the streams present."""

    def __init__(self, config: ReDiFuConfig):
        """Build a head for each stream."""
        super().__init__()
        self.config = config
        weights = dict(zip(MODALITIES, config.modality_weights, strict=True))
        self.weights = {name: float(weights[name]) for name in config.modalities}
        self.outputs = nn.ModuleDict(
            {name: nn.Linear(config.hidden_size, len(config.labels)) for name in config.modalities}
        )

    def forward(self, states: Tensor, present: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the fused logits and the logits by stream for (batch, utterances, streams * hidden)."""
        activation = F.relu if self.config.head_activation == "relu" else F.leaky_relu
        total = states.new_zeros(*states.shape[:2], len(self.config.labels))
        logits = {}
        for index, (name, part) in enumerate(
            zip(self.config.modalities, states.split(self.config.hidden_size, -1), strict=True)
        ):
            hidden = dropout(activation(part), self.config.dropout, self.training)
            logits[name] = self.outputs[name](hidden)
            total = total + self.weights[name] * logits[name] * present[..., index, None]
        return total, logits


class ConcatHead(nn.Module):
    """One MLP on the concatenated streams."""

    def __init__(self, config: ReDiFuConfig):
        """Build the hidden layer and the output layer."""
        super().__init__()
        self.dropout = config.dropout
        self.hidden = nn.Linear(len(config.modalities) * config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, len(config.labels))

    def forward(self, states: Tensor, present: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the fused logits and an empty dict, as there are no logits by stream."""
        hidden = dropout(F.relu(self.hidden(states)), self.dropout, self.training)
        return self.output(hidden), {}


def build_head(config: ReDiFuConfig) -> nn.Module:
    """Build the head for `config.fusion`."""
    return ConcatHead(config) if config.fusion == "concat" else StreamHeads(config)
