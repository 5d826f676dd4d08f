"""JSON lines answered one by one."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from redifu.data.readers import conversation_from_line
from redifu.evaluation.inference import predict_conversations


def answer_lines(
    model: Any, processor: Any, lines: Iterable[str | bytes], *, source: str, refuse: Callable[[str], None]
) -> Iterator[tuple[dict, np.ndarray]]:
    """Predict the conversation of each line before the next line is read.

    Args:
        model: a ReDiFuForEmotionRecognition.
        processor: its ReDiFuProcessor.
        lines: one JSON object a line; blank lines are skipped.
        source: where they come from, named in complaints and in the ids of conversations without one.
        refuse: called with what is wrong with a line, its number included; the line is skipped.

    Yields:
        The conversation and its probabilities, as of `predict_conversations`.

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
                line, source=source, number=number, index=index, check=processor.check
            )
            yield from predict_conversations(model, processor, [conversation])
        except FloatingPointError as error:
            refuse(f"{source}: line {number}: {error}")
        except ValueError as error:
            refuse(str(error))
    if index < 0:
        raise ValueError(f"{source}: expected at least one conversation, got none")
