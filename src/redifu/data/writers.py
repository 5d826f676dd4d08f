"""Conversations and predictions, written as they come and never left half-written under their name."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from redifu.atomic_files import check_output, replacing_text
from redifu.conversation import Conversation, Prediction

Write = Callable[[Conversation, Sequence[Prediction]], object]


def with_predictions(conversation: Conversation, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return a conversation as JSON holds it, with the predictions in its utterances.

    Args:
        conversation: all it holds is kept.
        predictions: one for each utterance.

    Returns:
        The conversation with "emotion" (a label), "scores" ({label: probability}) and, where there is one,
        "explanation" in each utterance; None where the model can use no stream of it.
    """
    explained = any(prediction.explanation is not None for prediction in predictions)
    utterances = []
    for utterance, prediction in zip(conversation.utterances, predictions, strict=True):
        answer: dict[str, Any] = {"emotion": prediction.emotion, "scores": prediction.scores}
        if explained:
            answer["explanation"] = prediction.explanation
        utterances.append({**utterance.given, **answer})
    return {**conversation.given, "utterances": utterances}


@contextmanager
def prediction_writer(path: str | Path, labels: Sequence[str]) -> Iterator[Write]:
    """Open a file of predictions, as a context.

    All goes to a file beside it, which takes the name `path` only when the context ends well; otherwise it is
    removed and what stood at `path` stays.

    Args:
        path: .csv (a row an utterance: dialogue_id, turn, speaker, text, emotion, probability, p_LABEL...) or
            .jsonl (a conversation a line, as of `with_predictions`).
        labels: names of the columns of the probabilities.

    Yields:
        A function that writes a conversation and its predictions.

    Raises:
        ValueError: another ending, or a folder that does not exist.
    """
    path = Path(path)
    check_output(path, _FORMATS)
    with replacing_text(path) as file:
        yield _FORMATS[path.suffix.lower()](file, labels)


def write_conversations(path: str | Path, conversations: Iterable[Conversation]) -> None:
    """Write a conversation file; what stood at `path` stays unless all goes well.

    Args:
        path: .json (an object, or a list of several) or .jsonl (an object a line).
        conversations: as they are read.

    Raises:
        ValueError: another ending, or a folder that does not exist.
    """
    path = Path(path)
    check_output(path, (".json", ".jsonl"))
    with replacing_text(path) as file:
        if path.suffix.lower() == ".jsonl":
            for conversation in conversations:
                _write_line(file, conversation.to_dict())
        else:
            given = [conversation.to_dict() for conversation in conversations]
            content = given[0] if len(given) == 1 else given
            file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _write_line(file: TextIO, value: dict[str, Any]) -> None:
    # Columns of a table that nobody asked for, dates for instance, come back as text.
    file.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")


def _lines(file: TextIO, labels: Sequence[str]) -> Write:
    return lambda conversation, predictions: _write_line(file, with_predictions(conversation, predictions))


def _rows(file: TextIO, labels: Sequence[str]) -> Write:
    # With the line ends of RFC 4180: with others, Python leaves a lone carriage return in a cell unquoted.
    table = csv.writer(file)
    columns = ["dialogue_id", "turn", "speaker", "text", "emotion", "probability"]
    table.writerow(columns + [f"p_{label}" for label in labels])

    def write(conversation: Conversation, predictions: Sequence[Prediction]) -> None:
        for utterance, said in zip(conversation.utterances, predictions, strict=True):
            scores = said.scores or {}
            start = [conversation.id, said.turn, said.speaker, utterance.given.get("text")]
            table.writerow([*start, said.emotion, said.probability, *(scores.get(label) for label in labels)])

    return write


_FORMATS = {".csv": _rows, ".jsonl": _lines}
