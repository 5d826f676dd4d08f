"""A transformers pipeline that recognises the emotions in conversations."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor
from transformers import AutoProcessor, TextClassificationPipeline
from transformers.pipelines.base import ChunkPipeline

from redifu.conversation import Conversation
from redifu.data.media_reading import read_media
from redifu.inference.loading import check_processor
from redifu.inference.predictions import recognise
from redifu.model.accepted_inputs import as_conversation, is_one_input

TASK = "conversation-emotion-recognition"


@dataclass(frozen=True)
class _Piece:
    """A piece of a dialogue, as an object of its own so that transformers does not treat it as tensors.

    Attributes:
        conversation: the piece as a conversation.
        keep: the utterances to keep, because pieces overlap; an int for a single utterance without a list.
    """

    conversation: Conversation
    keep: slice | int


class ConversationEmotionRecognitionPipeline(ChunkPipeline):
    """Recognises the emotion of every utterance of conversations.

    Build it with `pipeline("conversation-emotion-recognition", model=...)`. The answer for an utterance is a
    list of {"label": str, "score": float}, most probable first; it is empty if the model can use none of the
    utterance's streams. Accepted inputs and their results:

    - a text, or one utterance {"text": ...}: its labels; the speaker is called "Speaker" unless named;
    - a conversation {"utterances": [...]}, or the list of its utterances: a list with the labels of each;
    - a list of texts or of conversations: a list of results. The texts of a list are independent, as in every
      transformers pipeline: pass the turns of one conversation as utterances;
    - a generator, or a Dataset with a conversation per row: an iterator that predicts as it reads.

    `top_k` keeps only the most probable labels; `batch_size` does not change any score.
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
            processor: its ReDiFuProcessor; None loads it from the folder of the model.
            kwargs: `top_k`, `batch_size`, `device` and whatever else transformers passes.

        Raises:
            ValueError: no processor for a model that was not loaded from a folder; or an unknown parameter.
        """
        if processor is None:
            if not model.name_or_path:
                raise ValueError("this model was not loaded from a folder: pass its processor as well")
            processor = AutoProcessor.from_pretrained(model.name_or_path)
            processor.labels = model.config.labels
        check_processor(model.config, processor)
        super().__init__(model, processor=processor, **kwargs)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Recognise conversations; see the class.

        Raises:
            ValueError: a parameter is unknown, or the input is of none of the accepted kinds.
        """
        if is_one_input(inputs):
            # transformers would treat a list as several inputs.
            one = inputs if isinstance(inputs, Mapping | str) else {"utterances": inputs}
            return super().__call__(one, *args, **kwargs)
        if isinstance(inputs, Sequence):
            return super().__call__(list(inputs), *args, **kwargs) if len(inputs) else []
        # Iterating over a table would yield its column names.
        if hasattr(inputs, "columns") or not (isinstance(inputs, Iterable) or hasattr(inputs, "__getitem__")):
            raise ValueError(
                f"expected conversations, got {type(inputs).__name__}: "
                'pass a list of utterances, [{"speaker": ..., "text": ...}, ...], one for each row of a table'
            )
        # transformers would treat a datasets Dataset, or any other iterator, as one input.
        return super().__call__((conversation for conversation in inputs), *args, **kwargs)

    def _sanitize_parameters(self, **parameters: Any) -> tuple[dict, dict, dict]:
        if unknown := sorted(set(parameters) - {"top_k"}):
            raise ValueError(f"unknown parameter {', '.join(unknown)}: the only one is top_k")
        top_k = parameters.get("top_k")
        if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
            raise ValueError(f"top_k must be an integer of at least 1 or None, got {top_k!r}")
        return {}, {}, parameters

    def preprocess(self, input_: Any, **preprocess_parameters: Any) -> Any:
        """Check a conversation and cut it into pieces that are not too long."""
        value, alone = as_conversation(input_)
        if isinstance(input_, str) and self.processor.tokenizer is None:
            raise ValueError(f"this model does not read text, got {input_!r:.80}")
        self.processor.check(value)
        conversation = Conversation.from_dict(value, allow_media_objects=True)
        read = read_media(conversation, self.processor.feature_extractor)
        pieces = read.pieces(self.processor.max_utterances)
        for number, (piece, keep) in enumerate(pieces, start=1):
            yield {"piece": _Piece(piece, 0 if alone else keep), "is_last": number == len(pieces)}

    def _forward(self, input_tensors: dict[str, Any], **forward_parameters: Any) -> Any:
        # A batch of pieces arrives as a list. Tensors are made only here: the processor pads them.
        given = input_tensors["piece"]
        pieces = given if isinstance(given, list) else [given]
        inputs = self.processor.batch([piece.conversation.to_inputs() for piece in pieces]).to(self.device)
        names = [piece.conversation.id for piece in pieces]
        probabilities, _ = recognise(self.model, inputs, names=names)
        rows = [row[piece.keep] for row, piece in zip(probabilities, pieces, strict=True)]
        return {"probabilities": rows, "is_last": input_tensors["is_last"]}

    def postprocess(self, model_outputs: Any, top_k: Any = None, **postprocess_parameters: Any) -> Any:
        """Join the pieces of a conversation and rank the labels of each utterance."""
        rows = [output["probabilities"][0] for output in model_outputs]
        if rows[0].dim() == 1:
            return self._ranked(rows[0])[:top_k]
        return [self._ranked(row)[:top_k] for row in torch.cat(rows)]

    def _ranked(self, probabilities: Tensor) -> list[dict[str, Any]]:
        if probabilities.isnan().any():
            return []
        labels = self.model.config.labels
        order = probabilities.argsort(descending=True, stable=True).tolist()
        return [{"label": labels[index], "score": probabilities[index].item()} for index in order]

    def save_pretrained(self, save_directory: str | PathLike, **kwargs: Any) -> None:
        """Save model and processor in a folder that all of transformers' loaders accept.

        The pipeline itself is registered by this package and is not part of the folder.
        """
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


class TextClassification(TextClassificationPipeline):
    """transformers' own pipeline for "text-classification", except for models of this package.

    transformers chooses a pipeline by task alone, and the Hub uses this task for models that read text. A
    ReDiFu model gets the pipeline above; nothing changes for other models.
    """

    def __new__(cls, *args: Any, model: Any, **kwargs: Any) -> Any:
        """Build the pipeline that fits the model."""
        if model.config.model_type == "redifu":
            return ConversationEmotionRecognitionPipeline(model, *args, **kwargs)
        return TextClassificationPipeline(*args, model=model, **kwargs)
