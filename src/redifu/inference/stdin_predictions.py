"""Predictions for JSON lines, one at a time."""

from collections.abc import Callable, Iterable, Iterator

from redifu.conversation import Conversation, Prediction
from redifu.data.conversation_tables import Check
from redifu.data.readers import conversation_from_line


def answer_lines(
    predict: Callable[[Iterable[Conversation]], Iterator[tuple[Conversation, list[Prediction]]]],
    lines: Iterable[str | bytes],
    *,
    check: Check,
    source: str,
    refuse: Callable[[str], None],
) -> Iterator[tuple[Conversation, list[Prediction]]]:
    """Predict the conversation of each line before the next line is read.

    Args:
        predict: predicts conversations, like `Recogniser.predict`.
        lines: one JSON object per line; blank lines are skipped.
        check: see `read_conversations`.
        source: name of the input, for errors and for the ids of conversations without one.
        refuse: called with the error of an invalid line, including its number; the line is skipped.

    Yields:
        The conversation and its predictions.

    Raises:
        ValueError: the input holds no line.
    """
    index = -1
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        index += 1
        try:
            conversation = conversation_from_line(
                line, source=source, number=number, index=index, check=check
            )
            yield from predict([conversation])
        except FloatingPointError as error:
            refuse(f"{source}: line {number}: {error}")
        except ValueError as error:
            refuse(str(error))
    if index < 0:
        raise ValueError(f"{source}: expected at least one conversation, got none")
