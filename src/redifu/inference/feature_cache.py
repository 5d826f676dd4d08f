"""Caches for conversations that are read once and predicted many times."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from redifu.conversation import Conversation, Utterance
from redifu.data.media_reading import read_media
from redifu.model.audio_features import SAMPLING_RATE
from redifu.model.configuration_redifu import MODALITIES
from redifu.model.feature_extraction_redifu import BACKBONE
from redifu.model.model_inputs import RAW_INPUTS, RAW_MASKS

TEXT = MODALITIES.index("text")


def embed_texts(
    model: Any, inputs: Mapping[str, Tensor], *, known: Mapping[tuple[int, ...], Tensor], alone: bool = False
) -> tuple[Tensor, dict[tuple[int, ...], Tensor]]:
    """Embed the texts of a batch with the model's text backbone, each distinct text once.

    Args:
        model: a ReDiFuForEmotionRecognition whose text backbone is in evaluation mode.
        inputs: the inputs that its processor made, with input_ids, on the model's device.
        known: embeddings, (size,), by the tokens of their text; these are not computed again.
        alone: whether to embed each text separately; slower, but bit for bit independent of other texts.

    Returns:
        text_features (batch, utterances, size) to replace input_ids, zero for utterances without text; and
        the embeddings of these texts by their tokens.
    """
    keys, rows = _rows_of_texts(model, inputs, known=known, alone=alone)
    embeddings = torch.stack([rows[key] for key in keys])
    written = inputs["modality_mask"][..., TEXT].bool()
    grid = embeddings.new_zeros(*written.shape, embeddings.shape[-1])
    grid[written] = embeddings
    return grid, rows


def _rows_of_texts(
    model: Any, inputs: Mapping[str, Tensor], *, known: Mapping[tuple[int, ...], Tensor], alone: bool
) -> tuple[list[tuple[int, ...]], dict[tuple[int, ...], Tensor]]:
    """Return the tokens of each text, and the embeddings of these texts by their tokens."""
    masks = inputs["attention_mask"].bool()
    keys = [tuple(ids[mask].tolist()) for ids, mask in zip(inputs["input_ids"], masks, strict=True)]
    rows = {key: known[key] for key in keys if key in known}
    if new := {key: row for row, key in enumerate(keys) if key not in rows}:
        groups = [[place] for place in new.values()] if alone else [list(new.values())]
        with torch.no_grad():
            embedded = [
                model.redifu.embed("text", inputs["input_ids"][places], masks[places]) for places in groups
            ]
        rows |= dict(zip(new, torch.cat(embedded), strict=True))
    return keys, rows


def embed_media(model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Embed the audio and video of a batch with the model's backbones.

    Args:
        model: a ReDiFuForEmotionRecognition; it is put in evaluation mode.
        inputs: the inputs that its processor made, on the model's device.

    Returns:
        audio_features and visual_features, (utterances with the stream, size), of the streams that a
        backbone reads.
    """
    model.eval()
    with torch.no_grad():
        return {
            f"{name}_features": model.redifu.embed(name, inputs[key], inputs.get(RAW_MASKS.get(name, "")))
            for name, key in RAW_INPUTS.items()
            if name != "text" and key in inputs
        }


class EmbeddedTexts:
    """Replaces tokens by the text_features of a model's text backbone, computing each once."""

    def __init__(self, model: Any, *, alone: bool = False):
        """Start an empty cache.

        Args:
            model: a ReDiFuForEmotionRecognition whose text backbone does not change.
            alone: see `embed_texts`.
        """
        self.model = model
        self.alone = alone
        self._known: dict[tuple[int, ...], Tensor] = {}

    def embed(self, inputs: Mapping[str, Tensor]) -> None:
        """Embed the texts of a batch in advance, grouping those of similar length."""
        self._known |= _rows_of_texts(self.model, inputs, known=self._known, alone=False)[1]

    def __call__(self, batch: Any) -> Any:
        """Replace input_ids and attention_mask, if present, of a batch on the model's device."""
        if "input_ids" in batch:
            batch["text_features"], rows = embed_texts(self.model, batch, known=self._known, alone=self.alone)
            self._known |= rows
            del batch["input_ids"], batch["attention_mask"]
        return batch


class FeatureCache:
    """A processor in two steps: `read` conversations once, then predict them as often as needed.

    It accepts all or part of what `read` returned, and gives the model the same inputs as the model's own
    processor, but with features in place of the texts and media that backbones read.
    """

    def __init__(self, model: Any, processor: Any):
        """Build it for a ReDiFuForEmotionRecognition, whose weights must not change, and its processor."""
        self.model = model
        self.extractor = processor.feature_extractor
        self.max_utterances = processor.max_utterances
        self.feature_extractor = self._of_features(processor.feature_extractor)
        self.processor = copy(processor)
        self.processor.feature_extractor = self.feature_extractor
        self._embedded_texts = EmbeddedTexts(model)
        reads_text = processor.tokenizer is not None
        self.keys = {
            name: "text" if name == "text" and reads_text else f"{name}_features" for name in MODALITIES
        }

    def batch(self, conversations: Sequence[Mapping[str, Any]]) -> Any:
        """Return the model's inputs, with text_features in place of input_ids."""
        batch = self.processor.batch(conversations)
        self.model.eval()
        return self._embedded_texts(batch.to(self.model.device))

    def read(self, conversation: Conversation) -> Conversation:
        """Read the media of a conversation, and embed those that backbones read.

        Precomputed features are kept; streams that the model does not read are removed.
        """
        read = read_media(conversation, self.extractor)
        return replace(read, utterances=[self._kept(each) for each in read.utterances])

    def with_sounds(self, conversation: Conversation, prepared: Conversation) -> Conversation:
        """Replace the audio features that were read from files by waveforms, {"array", "sampling_rate"}.

        Args:
            conversation: the conversation as in its file.
            prepared: what `read` returned for it.

        Returns:
            A conversation for `read`, to call again after changing the waveforms.
        """
        listener = copy(self.extractor)
        listener.audio_backend = BACKBONE
        unread = [replace(each, audio_features=None) for each in conversation.utterances]
        heard = read_media(replace(conversation, utterances=unread), listener, streams=["audio"])
        utterances = []
        for one, sound in zip(prepared.utterances, heard.utterances, strict=True):
            if (waveform := sound.audio_values) is not None:
                audio = {"array": waveform, "sampling_rate": SAMPLING_RATE}
                one = replace(one, audio=audio, audio_features=None, start=None, end=None)
            utterances.append(one)
        return replace(prepared, utterances=utterances)

    def _of_features(self, extractor: Any) -> Any:
        """Return an extractor that expects precomputed features for every stream but text."""
        ready = copy(extractor)
        for name in extractor.raw:
            setattr(ready, f"{name}_size", getattr(self.model.config, f"{name}_size"))
        ready.audio_backend = ready.visual_backend = None
        # Convert lists to arrays once, not for every utterance.
        ready.statistics = {
            name: {key: np.asarray(values, dtype=np.float32) for key, values in measured.items()}
            for name, measured in extractor.statistics.items()
        }
        return ready

    def _kept(self, utterance: Utterance) -> Utterance:
        unread = {f"{name}_features": None for name in MODALITIES if name not in self.feature_extractor.sizes}
        text = utterance.text if self.keys["text"] == "text" else None
        media = dict.fromkeys(("audio", "video", "audio_values", "pixel_values"))
        return utterance.with_fields(text=text, **{**unread, **media, **self._embedded(utterance)})

    def _embedded(self, utterance: Utterance) -> dict[str, np.ndarray]:
        """Embed the audio and video that backbones read."""
        if all(getattr(utterance, key) is None for key in self.extractor.raw.values()):
            return {}
        batch = self.extractor([{"utterances": [utterance.to_inputs()]}], return_tensors="pt")
        rows = embed_media(self.model, batch.to(self.model.device))
        return {name: row[0].cpu().numpy() for name, row in rows.items()}
