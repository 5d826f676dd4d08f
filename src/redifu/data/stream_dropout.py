"""Conversations of which some streams are hidden."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from redifu.conversation import Conversation


def hide_streams(
    conversation: Conversation,
    *,
    keys: Collection[str],
    probability: float,
    generator: np.random.Generator,
    spared: Collection[str] = (),
) -> Conversation:
    """Hide each stream of each utterance with a probability, but never the last one of an utterance.

    Args:
        conversation: left as it is.
        keys: fields of utterances that hold the streams; others are neither hidden nor a reason to hide the
            last one of these.
        probability: of hiding a stream.
        generator: draws one number for each utterance and key, whatever is there.
        spared: those of `keys` that are never hidden.

    Returns:
        The conversation with hidden streams None.
    """
    draws = generator.random((len(conversation.utterances), len(keys)))
    utterances = []
    for utterance, row in zip(conversation.utterances, draws, strict=True):
        given = {
            key: draw for key, draw in zip(keys, row, strict=True) if getattr(utterance, key) is not None
        }
        hidden = {key for key, draw in given.items() if draw < probability and key not in spared}
        if hidden == given.keys():
            # Where all would go, the one with the greatest draw stays: each equally often.
            hidden -= {max(given, key=given.__getitem__, default=None)}
        utterances.append(utterance.with_fields(**dict.fromkeys(hidden)))
    return replace(conversation, utterances=utterances)
