"""Live conversations, whose utterances arrive one by one."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from redifu.conversation import Conversation, Prediction, Utterance
from redifu.data.media_reading import read_media
from redifu.inference.feature_cache import embed_media, embed_texts
from redifu.inference.predictions import recognise

_NAME = "session"


@dataclass(frozen=True)
class _Turn:
    """What a session stores of an utterance.

    Attributes:
        spoken: its speaker and text.
        streams: (1, 1, 3) bool, the streams that it has in addition to its text.
        features: (1, 1, ...) float by name, as the processor returns them.
    """

    spoken: dict[str, Any]
    streams: Tensor
    features: dict[str, Tensor]


@dataclass(frozen=True)
class Step:
    """An utterance that was read and is not answered yet.

    Attributes:
        turns: the window, with it at the end.
        inputs: the model's inputs for them, with tokens in place of text features.
    """

    turns: list[_Turn]
    inputs: dict[str, Tensor]


class _KnownTokens:
    """A tokenizer that remembers the tokens of the texts of its last call."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self.sep_token = tokenizer.sep_token
        self._known: dict[str, list[int]] = {}

    def __call__(self, texts: list[str], *, max_length: int, **options: Any) -> dict[str, np.ndarray]:
        """Return input_ids and attention_mask, (texts, tokens); `options` are those of the processor."""
        known = self._known
        if new := [text for text in dict.fromkeys(texts) if text not in known]:
            tokens = self._tokenizer(new, truncation=True, max_length=max_length)["input_ids"]
            known = known | dict(zip(new, tokens, strict=True))
        self._known = {text: known[text] for text in texts}
        rows = [self._known[text] for text in texts]
        padded = self._tokenizer.pad({"input_ids": rows}, return_tensors="np")
        return {name: padded[name] for name in ("input_ids", "attention_mask")}


class ConversationSession:
    """Recognises the emotion of every utterance of a live conversation as soon as it arrives.

    The answer is the model's last row for the newest `window` utterances as one dialogue; older utterances
    are dropped. This also holds for a model that is not causal, because nothing follows the newest utterance.
    Its answer for the same utterance in the complete conversation may differ.

    Audio and video of an utterance are read once, and each text is tokenized and encoded once. One exception:
    if the processor adds `text_context_turns` earlier turns to a text, the first texts of a full window lose
    context as the window moves, and are encoded again.

    Speakers are numbered within the window, in order of appearance: names do not matter, and any number may
    come and go. Those beyond `num_speakers` share an embedding; the relations still distinguish them.
    """

    def __init__(self, model: Any, processor: Any, window: int = 50):
        """Start a conversation.

        Args:
            model: a ReDiFuForEmotionRecognition; its weights and device must not change during a session.
            processor: its ReDiFuProcessor.
            window: number of utterances that the model sees, including the newest.

        Raises:
            ValueError: the window is below 1.
        """
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        self.model = model
        self.processor = copy(processor)
        if processor.tokenizer is not None:
            self.processor.tokenizer = _KnownTokens(processor.tokenizer)
        self.window = window
        self._number = 0
        self._turns: list[_Turn] = []
        # Embeddings by the tokens of their text, only for texts in the window.
        self._embeddings: dict[tuple[int, ...], Tensor] = {}

    def add(self, utterance: Mapping[str, Any]) -> dict[str, Any]:
        """Recognise the emotion of the next utterance.

        Args:
            utterance: {"speaker": str, "text"?: str, ...}, as in a conversation file.

        Returns:
            {"emotion": str, "scores": {label: float}}, both None if the model can use none of its streams.

        Raises:
            ValueError: the utterance does not fit the checkpoint; the session is unchanged.
            FloatingPointError: a logit of the model is not finite; the session is unchanged.
        """
        return self.answer(self.read(utterance))

    def read(self, utterance: Mapping[str, Any]) -> "Step":
        """Do the part of `add` that does not need the model, except for the media that it reads itself.

        Raises:
            ValueError: the utterance does not fit the checkpoint.
        """
        turns = [*self._turns, self._read(utterance)][-self.window :]
        return Step(turns=turns, inputs=self._inputs(turns))

    def answer(self, step: "Step") -> dict[str, Any]:
        """Do the rest of `add`; the session must not have changed since `read`.

        Raises:
            FloatingPointError: a logit of the model is not finite; the session is unchanged.
        """
        inputs = dict(step.inputs)
        embeddings: dict[tuple[int, ...], Tensor] = {}
        if "input_ids" in inputs:
            self.model.eval()
            inputs["text_features"], embeddings = embed_texts(self.model, inputs, known=self._embeddings)
            del inputs["input_ids"], inputs["attention_mask"]
        probabilities, _ = recognise(self.model, inputs, names=[_NAME])
        answer = Prediction(
            turn=self._number,
            **step.turns[-1].spoken,
            start=None,
            end=None,
            labels=self.model.config.labels,
            probabilities=probabilities[0, -1].cpu().numpy(),
        )
        self._number, self._turns, self._embeddings = self._number + 1, step.turns, embeddings
        return {"emotion": answer.emotion, "scores": answer.scores}

    def _read(self, utterance: Mapping[str, Any]) -> _Turn:
        try:
            given = Utterance.from_dict(utterance, allow_media_objects=True)
            self.processor.check_utterance(given.to_inputs())
        except ValueError as error:
            raise ValueError(f"{_NAME}, utterance {self._number}: {error}") from None
        # Texts are encoded later, in the context of the window.
        mute = Conversation(id=_NAME, utterances=[replace(given, text=None)])
        read = read_media(mute, self.processor.feature_extractor)
        alone = self.processor.batch([read.to_inputs()]).to(self.model.device)
        features = {name: value for name, value in alone.items() if name.endswith("_features")}
        return _Turn(
            spoken={"speaker": given.speaker, "text": given.text},
            streams=alone["modality_mask"],
            features=features | {name: row[None] for name, row in embed_media(self.model, alone).items()},
        )

    def _inputs(self, turns: Sequence[_Turn]) -> dict[str, Tensor]:
        """Join turns into the dialogue for the model, with the tokens of its texts."""
        spoken = self.processor.batch([{"id": _NAME, "utterances": [turn.spoken for turn in turns]}])
        spoken = spoken.to(self.model.device)
        names = ("utterance_mask", "speaker_ids", "input_ids", "attention_mask")
        inputs = {name: spoken[name] for name in names if name in spoken}
        inputs["modality_mask"] = spoken["modality_mask"] | torch.cat([turn.streams for turn in turns], dim=1)
        given = {name: value for turn in turns for name, value in turn.features.items()}
        for name, value in given.items():
            missing = torch.zeros_like(value)
            inputs[name] = torch.cat([turn.features.get(name, missing) for turn in turns], dim=1)
        return inputs
