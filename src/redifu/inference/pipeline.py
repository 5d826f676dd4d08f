"""A transformers pipeline: conversations in, the emotions of their utterances out."""

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
from redifu.inference.loading import check_same_labels
from redifu.inference.predictions import recognise
from redifu.model.accepted_inputs import as_conversation, is_one_input

TASK = "conversation-emotion-recognition"


@dataclass(frozen=True)
class _Piece:
    """A piece of a dialogue; as an object of its own, transformers looks for no tensors among its numbers.

    Attributes:
        conversation: the piece as a conversation.
        keep: the utterances that count, where pieces overlap; an int where one utterance was given alone.
    """

    conversation: Conversation
    keep: slice | int


class ConversationEmotionRecognitionPipeline(ChunkPipeline):
    """Recognises the emotion of every utterance of conversations.

    Build it with `pipeline("conversation-emotion-recognition", model=...)`. One utterance is answered by its
    labels, each as {"label": str, "score": float}, most probable first, or by an empty list if the model can
    use none of its streams. What may be given, and what comes back:

    - a text, or one utterance {"text": ...}: its labels;
    - a conversation {"utterances": [...]}, or the list of its utterances: a list with the labels of each;
    - a list of texts or of conversations: a list of answers. Texts in a list do not see each other, as in
      every pipeline of transformers: give the turns of one conversation as utterances;
    - a generator or a Dataset with a conversation a row: an iterator that answers as it reads.

    `top_k` keeps only the first labels; `batch_size` changes no score.
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
            processor.labels = model.config.labels
        check_same_labels(model, processor)
        super().__init__(model, processor=processor, **kwargs)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Recognise conversations; see the class.

        Raises:
            ValueError: for an unknown parameter, or an input that is none of those of the class.
        """
        if is_one_input(inputs):
            # transformers would take a list for several inputs.
            one = inputs if isinstance(inputs, Mapping | str) else {"utterances": inputs}
            return super().__call__(one, *args, **kwargs)
        if isinstance(inputs, Sequence):
            return super().__call__(list(inputs), *args, **kwargs) if len(inputs) else []
        # A table would be read as the names of its columns.
        if hasattr(inputs, "columns") or not (isinstance(inputs, Iterable) or hasattr(inputs, "__getitem__")):
            raise ValueError(
                f"expected conversations, got {type(inputs).__name__}: "
                'give a list of utterances, [{"speaker": ..., "text": ...}, ...], as of a table\'s rows'
            )
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
        value, alone = as_conversation(input_)
        if isinstance(input_, str) and self.processor.tokenizer is None:
            raise ValueError(f"this model reads no text, got {input_!r:.80}")
        self.processor.check(value)
        conversation = Conversation.from_dict(value, allow_media_objects=True)
        read = read_media(conversation, self.processor.feature_extractor)
        pieces = read.pieces(self.processor.max_utterances)
        for number, (piece, keep) in enumerate(pieces, start=1):
            yield {"piece": _Piece(piece, 0 if alone else keep), "is_last": number == len(pieces)}

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
        """Save model and processor: a folder that all of transformers' loaders take.

        The pipeline itself is registered by this package and is not part of the folder.
        """
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


class TextClassification(TextClassificationPipeline):
    """transformers' own pipeline of "text-classification", except for a model of this package.

    transformers chooses a pipeline by its task alone. The Hub names this task for models that read text, so a
    ReDiFu model gets the pipeline above; for all others nothing changes.
    """

    def __new__(cls, *args: Any, model: Any, **kwargs: Any) -> Any:
        """Build the pipeline that fits the model."""
        if model.config.model_type == "redifu":
            return ConversationEmotionRecognitionPipeline(model, *args, **kwargs)
        return TextClassificationPipeline(*args, model=model, **kwargs)
