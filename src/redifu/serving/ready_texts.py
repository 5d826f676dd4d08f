"""Texts of a conversation, tokenized and embedded in small parts before the model reads the conversation."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace

from torch import Tensor

from redifu.conversation import Conversation
from redifu.inference.recogniser import Recogniser

# Tokenizing this many characters takes some hundredths of a second.
PART_CHARACTERS = 20_000


class ReadyTexts:
    """Replaces the texts of conversations by their embeddings, if the model has a text backbone.

    Attributes:
        recogniser: predicts conversations with embeddings in place of texts.
    """

    def __init__(self, recogniser: Recogniser):
        """Build it for a recogniser."""
        self.recogniser = recogniser
        self._processor = processor = recogniser.processor
        self._reads_text = processor.tokenizer is not None
        if self._reads_text:
            ready = copy(processor)
            ready.tokenizer = None
            ready.feature_extractor = copy(processor.feature_extractor)
            ready.feature_extractor.text_size = recogniser.model.config.text_size
            self.recogniser = Recogniser(recogniser.model, ready, name=recogniser.name)

    def of(self, conversation: Conversation) -> list[str]:
        """Return the texts to tokenize, in the context that the processor gives them."""
        if not self._reads_text:
            return []
        return list(self._processor.texts_of(conversation.to_inputs()["utterances"]).values())

    @staticmethod
    def parts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
        """Cut a list of texts into parts of about `PART_CHARACTERS`."""
        first = characters = 0
        for number, text in enumerate(texts):
            if number > first and characters + len(text) > PART_CHARACTERS:
                yield texts[first:number]
                first, characters = number, 0
            characters += len(text)
        yield texts[first:]

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize texts; call it from one thread only."""
        longest = self._processor.max_text_tokens
        return self._processor.tokenizer(list(texts), truncation=True, max_length=longest)["input_ids"]

    def embedded(self, conversation: Conversation, rows: Tensor) -> Conversation:
        """Replace the texts by their embeddings, (texts, text size)."""
        turns = self._processor.texts_of(conversation.to_inputs()["utterances"])
        embeddings = dict(zip(turns, rows.numpy(), strict=True))
        utterances = [
            replace(utterance, text=None, text_features=embeddings.get(turn))
            for turn, utterance in enumerate(conversation.utterances)
        ]
        return replace(conversation, utterances=utterances)
