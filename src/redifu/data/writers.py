"""Conversations and predictions, written as they come and never left half-written under their name."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import ArrayLike

from redifu.atomic_files import check_output, replacing_text
from redifu.model.feature_extraction_redifu import FOLDER


def with_predictions(
    conversation: dict[str, Any], probabilities: ArrayLike, *, labels: Sequence[str]
) -> dict[str, Any]:
    """Copy a conversation with "emotion" and "scores" added to each utterance.

    Args:
        conversation: a conversation of N utterances; all it holds is kept.
        probabilities: (N, num_labels) float; a row with a NaN means no prediction.
        labels: names of the columns.

    Returns:
        The conversation with "emotion" (a label) and "scores" ({label: probability}) in each utterance, or
        None for both.

    Raises:
        ValueError: numbers of utterances, probabilities and labels differ.
    """
    rows = np.asarray(probabilities)
    expected = (len(conversation["utterances"]), len(labels))
    if rows.shape != expected:
        raise ValueError(
            f"dialogue {conversation.get('id')}: expected probabilities {expected}, got {rows.shape}"
        )
    predicted = []
    for utterance, row in zip(conversation["utterances"], rows, strict=True):
        usable = not np.isnan(row).any()
        predicted.append(
            {
                **utterance,
                "emotion": labels[int(row.argmax())] if usable else None,
                # The shortest decimals that give back the same float32: a plain float() would print noise.
                "scores": dict(zip(labels, (float(str(value)) for value in row), strict=True))
                if usable
                else None,
            }
        )
    kept = {name: value for name, value in conversation.items() if name != FOLDER}
    return {**kept, "utterances": predicted}


class PredictionWriter:
    """Writes predicted conversations one after another; made by `prediction_writer`."""

    def __init__(self, append: Callable[[dict[str, Any]], object], *, labels: Sequence[str]):
        """Build the writer.

        Args:
            append: takes a conversation that holds its predictions.
            labels: names of the columns of the probabilities.
        """
        self._append = append
        self._labels = tuple(labels)

    def write(self, conversation: dict[str, Any], probabilities: ArrayLike) -> None:
        """Write one conversation with its probabilities, (utterances, num_labels); see `with_predictions`."""
        self._append(with_predictions(conversation, probabilities, labels=self._labels))


@contextmanager
def prediction_writer(path: str | Path, labels: Sequence[str]) -> Iterator[PredictionWriter]:
    """Open a file of predictions, as a context.

    All goes to a file beside it, which takes the name `path` only when the context ends well; otherwise it is
    removed and what stood at `path` stays.

    Args:
        path: .csv (a row an utterance: dialogue_id, turn, speaker, text, emotion, probability, p_LABEL...) or
            .jsonl (a conversation a line, see `with_predictions`).
        labels: names of the columns of the probabilities.

    Yields:
        The writer.

    Raises:
        ValueError: another ending, or a folder that does not exist.
    """
    path = Path(path)
    check_output(path, _FORMATS)
    with replacing_text(path) as file:
        yield PredictionWriter(_FORMATS[path.suffix.lower()](file, labels), labels=labels)


def write_conversations(path: str | Path, conversations: Iterable[dict[str, Any]]) -> None:
    """Write a conversation file; what stood at `path` stays unless all goes well.

    Args:
        path: .json (an object, or a list of several) or .jsonl (an object a line).
        conversations: dicts with "utterances", as they are read.

    Raises:
        ValueError: another ending, or a folder that does not exist.
    """
    path = Path(path)
    check_output(path, (".json", ".jsonl"))
    with replacing_text(path) as file:
        if path.suffix.lower() == ".jsonl":
            append = _append_lines(file, [])
            for conversation in conversations:
                append(conversation)
        else:
            given = list(conversations)
            content = given[0] if len(given) == 1 else given
            file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _append_lines(file: TextIO, labels: Sequence[str]) -> Callable[[dict[str, Any]], None]:
    def append(conversation: dict[str, Any]) -> None:
        # Columns of a table that nobody asked for, dates for instance, come back as text.
        file.write(json.dumps(conversation, ensure_ascii=False, default=str) + "\n")

    return append


def _append_rows(file: TextIO, labels: Sequence[str]) -> Callable[[dict[str, Any]], None]:
    # With the line ends of RFC 4180: with others, Python leaves a lone carriage return in a cell unquoted.
    table = csv.writer(file)
    columns = ["dialogue_id", "turn", "speaker", "text", "emotion", "probability"]
    table.writerow(columns + [f"p_{label}" for label in labels])

    def append(conversation: dict[str, Any]) -> None:
        for turn, utterance in enumerate(conversation["utterances"]):
            emotion, scores = utterance["emotion"], utterance["scores"] or {}
            start = [conversation["id"], turn, utterance["speaker"], utterance.get("text")]
            table.writerow([*start, emotion, scores.get(emotion), *(scores.get(label) for label in labels)])

    return append


_FORMATS = {".csv": _append_rows, ".jsonl": _append_lines}
