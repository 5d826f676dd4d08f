"""What a forward pass keeps beside its result."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Recorder:
    """Keeps hidden states and attention weights of one forward pass by name, where they are asked for.

    Attributes:
        hidden_states: (batch, utterances, hidden) by name of the step; None where they are not asked for.
        attentions: weights by name; None where they are not asked for.
        prefix: what every name begins with.
    """

    hidden_states: dict[str, Tensor] | None = None
    attentions: dict[str, Tensor] | None = None
    prefix: str = ""

    def within(self, prefix: str) -> "Recorder":
        """Return a recorder into the same dicts whose names begin with `prefix`, too."""
        return Recorder(self.hidden_states, self.attentions, self.prefix + prefix)

    def state(self, name: str, value: Tensor) -> Tensor:
        """Keep the states of a step and return them."""
        if self.hidden_states is not None:
            self.hidden_states[self.prefix + name] = value
        return value

    def attention(self, name: str, weights: Tensor | None) -> None:
        """Keep attention weights, if there are any."""
        if self.attentions is not None and weights is not None:
            self.attentions[self.prefix + name] = weights


NOTHING = Recorder()
