"""JSON lines answered one by one."""

from collections.abc import Callable, Iterable, Iterator

from redifu.conversation import Conversation, Prediction
from redifu.data.readers import Check, conversation_from_line


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
        predict: answers conversations, as `Recogniser.predict` does.
        lines: one JSON object a line; blank lines are skipped.
        check: see `read_conversations`.
        source: where they come from, named in complaints and in the ids of conversations without one.
        refuse: called with what is wrong with a line, its number included; the line is skipped.

    Yields:
        The conversation and its predictions.

    Raises:
        ValueError: there is no line.
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
