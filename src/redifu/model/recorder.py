"""Stores intermediate results of a forward pass."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Recorder:
    """Stores hidden states and attention weights of one forward pass by name, if requested.

    Attributes:
        hidden_states: (batch, utterances, hidden) by name of the step; None if not requested.
        attentions: weights by name; None if not requested.
        prefix: prefix of every name.
    """

    hidden_states: dict[str, Tensor] | None = None
    attentions: dict[str, Tensor] | None = None
    prefix: str = ""

    def within(self, prefix: str) -> "Recorder":
        """Return a recorder that writes to the same dicts and adds `prefix` to its own."""
        return Recorder(self.hidden_states, self.attentions, self.prefix + prefix)

    def state(self, name: str, value: Tensor) -> Tensor:
        """Store the states of a step and return them."""
        if self.hidden_states is not None:
            self.hidden_states[self.prefix + name] = value
        return value

    def attention(self, name: str, weights: Tensor | None) -> None:
        """Store attention weights, unless they are None."""
        if self.attentions is not None and weights is not None:
            self.attentions[self.prefix + name] = weights


NOTHING = Recorder()
