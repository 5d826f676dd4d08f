"""Notes about texts that a model cannot read, or not to their end."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from redifu.conversation import Conversation, Prediction

logger = logging.getLogger(__name__)


def with_text_notes(
    answers: Iterable[tuple[Conversation, list[Prediction]]], processor: Any
) -> Iterator[tuple[Conversation, list[Prediction]]]:
    """Add what texts lost to the reasons of their predictions; at the end, log one line about all of them.

    Args:
        answers: conversations and their predictions.
        processor: the model's ReDiFuProcessor.

    Yields:
        The conversations and predictions, with "text: WHY" among the reasons where `processor.text_loss` is
        not None.
    """
    first, count = "", 0
    try:
        for conversation, predictions in answers:
            noted = list(predictions)
            for turn, utterance in enumerate(conversation.utterances):
                loss = None if utterance.text is None else processor.text_loss(utterance.to_inputs())
                if loss is not None:
                    said = predictions[turn]
                    noted[turn] = replace(said, reasons=[*said.reasons, f"text: {loss}"])
                    first, count = first or f"{conversation.where(turn)}: text: {loss}", count + 1
            yield conversation, noted
    finally:
        if count:
            logger.warning(
                first if count == 1 else f"{first}; likewise {count - 1:,} more: see their reasons"
            )
