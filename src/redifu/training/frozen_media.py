"""Prepares the backbones that read sounds and pictures, before the first epoch."""

from typing import Any

import numpy as np
import torch

from redifu.conversation import Conversation
from redifu.inference.feature_cache import FeatureCache

MEASURED_DIALOGUES = 200


def normalise_pooling(model: Any, processor: Any, conversations: list[Conversation]) -> None:
    """Set the normalisation of a Whisper backbone's pooled layers from the training data.

    Args:
        model: a ReDiFuForEmotionRecognition with `audio_layers`.
        processor: its ReDiFuProcessor.
        conversations: the training data; about `MEASURED_DIALOGUES` of them, evenly spaced, are heard.
    """
    cache = FeatureCache(model, processor)
    measured = conversations[:: max(1, len(conversations) // MEASURED_DIALOGUES)]
    read = [one for each in measured for one in cache.read(each).utterances]
    if rows := [one.audio_features for one in read if one.audio_features is not None]:
        model.redifu.audio_backbone.normalise_by(torch.from_numpy(np.stack(rows)))


def embed_media_once(
    model: Any, processor: Any, data: dict[str, list[Conversation]]
) -> tuple[Any, dict[str, list[Conversation]]]:
    """Embed the sounds and pictures of all data of a run, for backbones that do not change.

    Each utterance is embedded alone, so that its bits do not depend on where a run was interrupted.

    Returns:
        A processor that reads the embeddings as features, and the embedded data.
    """
    cache = FeatureCache(model, processor)
    return cache.processor, {name: [cache.read(each) for each in given] for name, given in data.items()}
