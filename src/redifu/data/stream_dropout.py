"""Hide random streams of utterances and of whole conversations."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from redifu.conversation import MEDIA, Conversation


def hide_streams(
    conversation: Conversation,
    *,
    keys: Collection[str],
    probability: float,
    generator: np.random.Generator,
    spared: Collection[str] = (),
) -> Conversation:
    """Hide each stream of each utterance with a given probability, but keep at least one per utterance.

    Args:
        conversation: not modified.
        keys: utterance fields that hold the streams; other fields are ignored, so at least one of these
            remains.
        probability: probability of hiding a stream.
        generator: draws one number for each utterance and key, even if the stream is missing.
        spared: keys that are never hidden.

    Returns:
        A copy of the conversation with hidden streams set to None.
    """
    draws = generator.random((len(conversation.utterances), len(keys)))
    utterances = []
    for utterance, row in zip(conversation.utterances, draws, strict=True):
        given = {
            key: draw for key, draw in zip(keys, row, strict=True) if getattr(utterance, key) is not None
        }
        hidden = {key for key, draw in given.items() if draw < probability and key not in spared}
        if hidden == given.keys():
            # If all would be hidden, keep the one with the largest draw, which is uniformly random.
            hidden -= {max(given, key=given.__getitem__, default=None)}
        utterances.append(utterance.with_fields(**dict.fromkeys(hidden)))
    return replace(conversation, utterances=utterances)


def hide_sides(
    conversation: Conversation, *, probability: float, generator: np.random.Generator
) -> Conversation:
    """Hide sound, and hide pictures, in a whole conversation with a given probability each.

    Args:
        conversation: not modified.
        probability: probability of hiding a stream.
        generator: draws two numbers.

    Returns:
        A copy of the conversation. Utterances without text keep their streams.
    """
    hidden = [
        name for name, draw in zip(MEDIA, generator.random(len(MEDIA)), strict=True) if draw < probability
    ]
    nothing = dict.fromkeys(key for name in hidden for key in (MEDIA[name], f"{name}_features"))
    utterances = [
        one if one.text is one.text_features is None else one.with_fields(**nothing)
        for one in conversation.utterances
    ]
    return replace(conversation, utterances=utterances)
