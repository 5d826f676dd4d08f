"""Live conversations, whose utterances arrive one by one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

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


class ConversationSession:
    """Recognises the emotion of every utterance of a live conversation as soon as it arrives.

    The answer is the model's last row for the newest `window` utterances as one dialogue; older utterances
    are dropped. This also holds for a model that is not causal, because nothing follows the newest utterance.
    Its answer for the same utterance in the complete conversation may differ.

    Audio and video of an utterance are read once, and each text is encoded once. One exception: if the
    processor adds `text_context_turns` earlier turns to a text, the first texts of a full window lose context
    as the window moves, and are encoded again.

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
        self.processor = processor
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
        turns = [*self._turns, newest := self._read(utterance)][-self.window :]
        inputs, embeddings = self._inputs(turns)
        probabilities, _ = recognise(self.model, inputs, names=[_NAME])
        answer = Prediction(
            turn=self._number,
            **newest.spoken,
            start=None,
            end=None,
            labels=self.model.config.labels,
            probabilities=probabilities[0, -1].cpu().numpy(),
        )
        self._number, self._turns, self._embeddings = self._number + 1, turns, embeddings
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

    def _inputs(self, turns: Sequence[_Turn]) -> tuple[dict[str, Tensor], dict[tuple[int, ...], Tensor]]:
        """Join turns into the dialogue for the model; also return the embeddings of its texts."""
        spoken = self.processor.batch([{"id": _NAME, "utterances": [turn.spoken for turn in turns]}])
        spoken = spoken.to(self.model.device)
        inputs = {name: spoken[name] for name in ("utterance_mask", "speaker_ids")}
        inputs["modality_mask"] = spoken["modality_mask"] | torch.cat([turn.streams for turn in turns], dim=1)
        given = {name: value for turn in turns for name, value in turn.features.items()}
        for name, value in given.items():
            missing = torch.zeros_like(value)
            inputs[name] = torch.cat([turn.features.get(name, missing) for turn in turns], dim=1)
        embeddings: dict[tuple[int, ...], Tensor] = {}
        if "input_ids" in spoken:
            self.model.eval()
            inputs["text_features"], embeddings = embed_texts(self.model, spoken, known=self._embeddings)
        return inputs, embeddings
