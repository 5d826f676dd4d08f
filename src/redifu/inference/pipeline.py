"""A transformers pipeline: conversations in, the emotions of their utterances out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor
from transformers import AutoProcessor
from transformers.pipelines.base import ChunkPipeline

from redifu.conversation import Conversation
from redifu.data.media_reading import read_media
from redifu.inference.predictions import recognise

TASK = "conversation-emotion-recognition"


@dataclass(frozen=True)
class _Piece:
    """A piece of a dialogue; as an object of its own, transformers looks for no tensors among its numbers.

    Attributes:
        conversation: the piece as a conversation.
        keep: the utterances that count, where pieces overlap.
    """

    conversation: Conversation
    keep: slice


class ConversationEmotionRecognitionPipeline(ChunkPipeline):
    """Recognises the emotion of every utterance of conversations.

    `pipeline("conversation-emotion-recognition", model=...)` takes a conversation, {"utterances": [...]} or
    its list of utterances, and gives a list with, for each utterance, its labels as {"label": str, "score":
    float}, most probable first; the list is empty where the model can use no stream of the utterance. A list
    of conversations gives a list of these; of a generator or a Dataset with a conversation a row, an
    iterator answers as it reads. `top_k` gives so many labels instead of all; `batch_size` changes no score.
    """

    model: Any
    processor: Any
    # Parts of the processor, or not used at all.
    _load_tokenizer: Any = False
    _load_feature_extractor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False

    def __init__(self, model: Any, *, processor: Any = None, **kwargs: Any):
        """Build the pipeline.

        Args:
            model: a ReDiFuForEmotionRecognition.
            processor: its ReDiFuProcessor; None for that of the folder the model was loaded from.
            kwargs: `top_k`, `batch_size`, `device` and what else transformers passes.

        Raises:
            ValueError: a model that was not loaded, without a processor; or an unknown parameter.
        """
        if processor is None:
            if not model.name_or_path:
                raise ValueError("expected a processor beside a model that was not loaded from a folder")
            processor = AutoProcessor.from_pretrained(model.name_or_path)
        super().__init__(model, processor=processor, **kwargs)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Recognise conversations; see the class.

        Raises:
            ValueError: an unknown parameter, or what the processor refuses.
        """
        if isinstance(inputs, Mapping) or _are_utterances(inputs):
            return super().__call__(_as_conversation(inputs), *args, **kwargs)
        if isinstance(inputs, Sequence) and not isinstance(inputs, str):
            return super().__call__(list(inputs), *args, **kwargs) if len(inputs) else []
        # transformers would take a datasets Dataset, or any other iterator, for one input.
        return super().__call__((conversation for conversation in inputs), *args, **kwargs)

    def _sanitize_parameters(self, **parameters: Any) -> tuple[dict, dict, dict]:
        if unknown := sorted(set(parameters) - {"top_k"}):
            raise ValueError(f"expected no parameter but top_k, got {', '.join(unknown)}")
        top_k = parameters.get("top_k")
        if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
            raise ValueError(f"top_k must be an integer of at least 1 or None, got {top_k!r}")
        return {}, {}, parameters

    def preprocess(self, input_: Any, **preprocess_parameters: Any) -> Any:
        """Check a conversation and cut it into pieces that are not too long."""
        conversation = _as_conversation(input_)
        given = Conversation.from_dict(conversation, allow_media_objects=True)
        self.processor.check(given.to_inputs())
        read = read_media(given, self.processor.feature_extractor)
        pieces = read.pieces(self.processor.max_utterances)
        for number, (piece, keep) in enumerate(pieces, start=1):
            yield {"piece": _Piece(piece, keep), "is_last": number == len(pieces)}

    def _forward(self, input_tensors: dict[str, Any], **forward_parameters: Any) -> Any:
        # A batch of pieces comes as a list. The processor makes its tensors only here: it knows how to pad.
        given = input_tensors["piece"]
        pieces = given if isinstance(given, list) else [given]
        inputs = self.processor.batch([piece.conversation.to_inputs() for piece in pieces]).to(self.device)
        names = [piece.conversation.id for piece in pieces]
        probabilities, _ = recognise(self.model, inputs, names=names)
        rows = [row[piece.keep] for row, piece in zip(probabilities, pieces, strict=True)]
        return {"probabilities": rows, "is_last": input_tensors["is_last"]}

    def postprocess(self, model_outputs: Any, top_k: Any = None, **postprocess_parameters: Any) -> Any:
        """Join the pieces of a conversation and rank the labels of each utterance."""
        probabilities = torch.cat([output["probabilities"][0] for output in model_outputs])
        return [self._ranked(row)[:top_k] for row in probabilities]

    def _ranked(self, probabilities: Tensor) -> list[dict[str, Any]]:
        if probabilities.isnan().any():
            return []
        labels = self.model.config.labels
        order = probabilities.argsort(descending=True, stable=True).tolist()
        return [{"label": labels[index], "score": probabilities[index].item()} for index in order]

    def save_pretrained(self, save_directory: str | PathLike, **kwargs: Any) -> None:
        """Save model and processor: a folder that all of transformers' loaders take.

        The pipeline itself is registered by this package, and no part of the folder.
        """
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


def _are_utterances(inputs: Any) -> bool:
    """Say whether a list is one conversation, of utterances, and not a list of conversations."""
    first = inputs[0] if isinstance(inputs, Sequence) and len(inputs) else None
    return isinstance(first, Mapping) and "utterances" not in first


def _as_conversation(given: Any) -> Mapping[str, Any]:
    conversation = {"utterances": given} if _are_utterances(given) else given
    if not isinstance(conversation, Mapping) or not conversation.get("utterances"):
        raise ValueError(f"expected a conversation with utterances, got {given!r:.80}")
    return conversation
