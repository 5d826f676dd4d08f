"""Processor: turns conversations into the inputs of a ReDiFu model."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import BatchFeature, ProcessorMixin
from transformers.utils import PROCESSOR_NAME, cached_file, logging

from .accepted_inputs import STREAM_KEYS, as_conversation, check_keys, has_content, is_one_input
from .configuration_redifu import MODALITIES, changed_labels
from .losses import IGNORED_LABEL
from .remote_code import CarriesCode

logger = logging.get_logger(__name__)

_MOST_CHARACTERS_OF_A_TOKEN = 100

# The work for a dialogue grows with the square of its utterances.
MOST_UTTERANCES = 10_000
TEXT = MODALITIES.index("text")


class ReDiFuProcessor(CarriesCode, ProcessorMixin):
    """Bundles the tokenizer and the feature extractor of a checkpoint with its labels."""

    def __init__(
        self,
        feature_extractor: Any = None,
        tokenizer: Any = None,
        labels: list[str] | None = None,
        speaker_in_text: bool = False,
        text_context_turns: int = 0,
        max_text_tokens: int = 128,
        max_utterances: int = 512,
        **kwargs: Any,
    ):
        """Build the processor.

        Args:
            feature_extractor: a `ReDiFuFeatureExtractor`.
            tokenizer: tokenizer of the text backbone; None for a checkpoint without one.
            labels: label names, in the order of the logits.
            speaker_in_text: whether to put the speaker's name before the text.
            text_context_turns: number of earlier turns to append to the text, nearest first.
            max_text_tokens: longer texts are cut at the end; context and special tokens count.
            max_utterances: longer dialogues are split.
            kwargs: further values that transformers stores.
        """
        if max_text_tokens < 1:
            raise ValueError(f"max_text_tokens must be at least 1, got {max_text_tokens}")
        counts = (("text_context_turns", text_context_turns, 0), ("max_utterances", max_utterances, 1))
        for name, value, least in counts:
            if not least <= value <= MOST_UTTERANCES:
                raise ValueError(f"{name} must be from {least} to {MOST_UTTERANCES:,}, got {value:,}")
        self.labels = list(labels or [])
        self.speaker_in_text = speaker_in_text
        self.text_context_turns = text_context_turns
        self.max_text_tokens = max_text_tokens
        self.max_utterances = max_utterances
        super().__init__(feature_extractor, tokenizer, **kwargs)
        if tokenizer is not None:
            special, most = tokenizer.num_special_tokens_to_add(), tokenizer.model_max_length
            if not special < max_text_tokens <= most:
                raise ValueError(
                    f"max_text_tokens must be from {special + 1} to {most}, got {max_text_tokens}"
                )

    def check(self, conversation: Mapping[str, Any]) -> None:
        """Reject a conversation that is invalid for the checkpoint; media may still be files.

        Raises:
            ValueError: a missing speaker, an unknown label or invalid features; the message names the
                dialogue and the utterance.
        """
        speakers = conversation.get("speakers") or ()
        if (
            isinstance(speakers, str)
            or not isinstance(speakers, Sequence)
            or not all(isinstance(name, str) for name in speakers)
        ):
            raise ValueError(
                f"dialogue {conversation.get('id')}: speakers must be a list of names, got {speakers!r:.80}"
            )
        for turn, utterance in enumerate(conversation["utterances"]):
            try:
                self.check_utterance(utterance)
            except ValueError as error:
                raise ValueError(f"dialogue {conversation.get('id')}, utterance {turn}: {error}") from None
        self._warn_of_ignored(conversation)

    def check_utterance(self, utterance: Mapping[str, Any]) -> None:
        """Raise ValueError for an utterance that is invalid for the checkpoint."""
        if not isinstance(utterance, Mapping):
            raise ValueError(f"expected an object, got {utterance!r:.80}")
        check_keys(utterance)
        speaker, text, label = (utterance.get(name) for name in ("speaker", "text", "label"))
        if not isinstance(speaker, str):
            raise ValueError(f"speaker must be a string, got {speaker!r:.80}")
        if text is not None and not isinstance(text, str):
            raise ValueError(f"text must be a string, got {text!r:.80}")
        if label is not None and self.labels and label not in self.labels:
            raise ValueError(f"label must be one of {', '.join(self.labels)}, got {label!r}")
        self.feature_extractor.check(utterance)

    def text_loss(self, utterance: Mapping[str, Any]) -> str | None:
        """Say what the tokens of an utterance's text lack of it; None if nothing.

        Args:
            utterance: an utterance with a text, as for `__call__`.

        Returns:
            That it is cut at `max_text_tokens`, or that all its words are unknown to the tokenizer; earlier
            turns in its context do not count.
        """
        if self.tokenizer is None or not has_content(utterance, "text"):
            return None
        # A long word can be a single token, but a text beyond this number of characters never fits.
        text, most = utterance["text"], _MOST_CHARACTERS_OF_A_TOKEN * self.max_text_tokens
        ids = self.tokenizer(text[:most], add_special_tokens=False, verbose=False)["input_ids"]
        tokens = self.tokenizer.convert_ids_to_tokens(ids)
        known = (token for token in tokens if token != self.tokenizer.unk_token)
        if self.tokenizer.unk_token in tokens and not any(map(str.isalnum, "".join(known))):
            return "all its words are unknown to the model"
        spoken = self._text_in_context([utterance], 0)[: most + len(utterance["speaker"])]
        if len(text) > most or len(self.tokenizer(spoken, verbose=False)["input_ids"]) > self.max_text_tokens:
            return f"cut after {self.max_text_tokens} tokens"
        return None

    def __call__(
        self, conversations: Mapping[str, Any] | Sequence[Any] | str, return_tensors: str = "pt"
    ) -> BatchFeature:
        """Turn conversations into the inputs of a model.

        Args:
            conversations: one or several dicts with "utterances", as in a conversation file, but with
                arrays instead of media files. A list of utterances is one conversation; a string is one
                utterance. If a dialogue was split, "speakers" may list the speakers of the whole dialogue.
            return_tensors: "pt" or "np".

        Returns:
            utterance_mask (batch, utterances), modality_mask (batch, utterances, 3), speaker_ids (batch,
            utterances) and, if present, NAME_features (batch, utterances, size), input_ids and
            attention_mask (texts, tokens), and labels (batch, utterances), -100 where an utterance has none.

        Raises:
            ValueError: a conversation has no utterances, has a file instead of an array, or fails `check`.
        """
        given = [conversations] if is_one_input(conversations) else list(conversations)
        conversations = [as_conversation(each)[0] for each in given]
        if not conversations:
            raise ValueError("expected at least one conversation, got none")
        ready = []
        for conversation in conversations:
            self.check(conversation)
            ready.append(self._with_arrays(conversation))
        return self.batch(ready, return_tensors=return_tensors)

    def batch(self, conversations: Sequence[Mapping[str, Any]], return_tensors: str = "pt") -> BatchFeature:
        """Turn conversations that were already checked and contain arrays, not files, into model inputs."""
        batch = self.feature_extractor(conversations)
        batch.update(self._speakers_and_labels(conversations, batch["utterance_mask"].shape))
        if self.tokenizer is not None:
            texts = []
            for row, conversation in enumerate(conversations):
                for turn, text in self.texts_of(conversation["utterances"]).items():
                    batch["modality_mask"][row, turn, TEXT] = True
                    texts.append(text)
            if texts:
                batch.update(self._tokenize(texts))
        return BatchFeature(dict(batch), tensor_type=return_tensors)

    def texts_of(self, utterances: Sequence[Mapping[str, Any]]) -> dict[int, str]:
        """Return what is tokenized for each utterance with text: its text in context, by its index."""
        return {
            turn: self._text_in_context(utterances, turn)
            for turn, utterance in enumerate(utterances)
            if has_content(utterance, "text")
        }

    @classmethod
    def from_pretrained(
        cls,
        *args: Any,
        labels: Sequence[str] | None = None,
        id2label: Mapping[Any, str] | None = None,
        label2id: Mapping[str, int] | None = None,
        num_labels: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Load like any processor; `id2label` and `num_labels` change its labels as they do a model's."""
        processor = super().from_pretrained(*args, **kwargs)
        old = dict(enumerate(processor.labels if labels is None else labels))
        processor.labels = changed_labels(old, id2label, num_labels)
        return processor

    # ProcessorMixin requires every part, but a checkpoint on precomputed features has no tokenizer.

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        """Accept None as the tokenizer."""
        if argument_name == "tokenizer" and argument is None:
            return None
        return super().check_argument_for_proper_class(argument_name, argument)

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """Save all parts; without a tokenizer, only processor_config.json."""
        if self.tokenizer is not None:
            return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        self.to_json_file(Path(save_directory, PROCESSOR_NAME))
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", Path(save_directory).name), **kwargs)
        return [str(Path(save_directory, PROCESSOR_NAME))]

    @classmethod
    def _load_tokenizer_from_pretrained(
        cls, sub_processor_type: Any, pretrained_model_name_or_path: Any, subfolder: Any = "", **kwargs: Any
    ) -> Any:
        place, options = pretrained_model_name_or_path, {"subfolder": subfolder, **kwargs}
        find: Any = partial(cached_file, place, _raise_exceptions_for_missing_entries=False, **options)
        if not find("tokenizer_config.json"):
            return None
        tokenizer = super()._load_tokenizer_from_pretrained(sub_processor_type, place, **options)
        # Without its vocabulary, transformers builds a tokenizer to which all words are the same.
        names = sorted(tokenizer.vocab_files_names.values())
        if names and not any(map(find, names)):
            raise ValueError(f"the tokenizer has no vocabulary: expected {' or '.join(names)}")
        return tokenizer

    def _with_arrays(self, conversation: Mapping[str, Any]) -> dict[str, Any]:
        utterances = []
        for turn, utterance in enumerate(conversation["utterances"]):
            try:
                utterances.append(self.feature_extractor.with_arrays(utterance))
            except ValueError as error:
                raise ValueError(f"dialogue {conversation.get('id')}, utterance {turn}: {error}") from None
        return {**conversation, "utterances": utterances}

    def _speakers_and_labels(
        self, conversations: Sequence[Mapping[str, Any]], shape: tuple[int, int]
    ) -> dict[str, np.ndarray]:
        """Number the speakers of each dialogue in order of appearance, and map the labels."""
        speaker_ids = np.zeros(shape, dtype=np.int64)
        labels = np.full(shape, IGNORED_LABEL, dtype=np.int64)
        for row, conversation in enumerate(conversations):
            numbers = {name: number for number, name in enumerate(conversation.get("speakers") or ())}
            for turn, utterance in enumerate(conversation["utterances"]):
                speaker_ids[row, turn] = numbers.setdefault(utterance["speaker"], len(numbers))
                if self.labels and utterance.get("label") is not None:
                    labels[row, turn] = self.labels.index(utterance["label"])
        named = {"speaker_ids": speaker_ids}
        return named | {"labels": labels} if (labels != IGNORED_LABEL).any() else named

    def _text_in_context(self, utterances: Sequence[Mapping[str, Any]], turn: int) -> str:
        """Join the text of a turn with earlier ones, nearest first, so that truncation drops the oldest."""
        first = max(turn - self.text_context_turns, 0)
        turns = [
            utterance for utterance in utterances[first : turn + 1][::-1] if has_content(utterance, "text")
        ]
        named = [
            f"{each['speaker']}: {each['text']}" if self.speaker_in_text else each["text"] for each in turns
        ]
        return f" {self.tokenizer.sep_token or ''} ".join(named)

    def _tokenize(self, texts: list[str]) -> dict[str, np.ndarray]:
        tokens = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.max_text_tokens, return_tensors="np"
        )
        return {name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask")}

    def _warn_of_ignored(self, conversation: Mapping[str, Any]) -> None:
        readable = {f"{name}_features" for name in self.feature_extractor.sizes}
        readable |= {"video" if name == "visual" else name for name in self.feature_extractor.backends}
        if self.tokenizer is not None:
            readable.add("text")
        for key in STREAM_KEYS:
            if key not in readable and any(
                utterance.get(key) is not None for utterance in conversation["utterances"]
            ):
                logger.warning_once(f"this checkpoint does not read {key!r}, which is ignored")
