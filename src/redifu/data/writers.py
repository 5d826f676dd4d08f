"""Write conversations and predictions as a stream; output files appear only when complete."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from redifu.atomic_files import check_output, replacing_text
from redifu.conversation import Conversation, Prediction
from redifu.data.csv_rows import as_data

_COLUMNS = ("dialogue_id", "turn", "speaker", "text", "emotion", "probability")

Write = Callable[[Conversation, Sequence[Prediction]], object]


def with_predictions(conversation: Conversation, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return the JSON value of a conversation with predictions added to its utterances.

    Args:
        conversation: all its keys are kept.
        predictions: one for each utterance.

    Returns:
        The conversation with "emotion" (a label), "scores" ({label: probability}) and, if requested,
        "explanation" in each utterance; None if the model cannot use any stream of the utterance. Where the
        model abstains, only "emotion" is None. "reasons" is added where there are any.
    """
    explained = any(prediction.explanation is not None for prediction in predictions)
    utterances = []
    for utterance, prediction in zip(conversation.utterances, predictions, strict=True):
        answer: dict[str, Any] = {"emotion": prediction.emotion, "scores": prediction.scores}
        if explained:
            answer["explanation"] = prediction.explanation
        # Reasons in the input are those of an earlier prediction.
        if prediction.reasons or "reasons" in utterance.given:
            answer["reasons"] = list(prediction.reasons)
        utterances.append({**utterance.given, **answer})
    return {**conversation.given, "utterances": utterances}


@contextmanager
def prediction_writer(path: str | Path, labels: Sequence[str]) -> Iterator[Write]:
    """Open a context that writes predictions to a file.

    The output goes to a temporary file that replaces `path` when the context succeeds. After an error, the
    temporary file is removed and an existing file at `path` is unchanged.

    Args:
        path: .csv (one row per utterance: dialogue_id, turn, speaker, text, emotion, probability, p_LABEL...,
            and then the other columns of the first conversation's table) or .jsonl (one conversation per
            line, see `with_predictions`). `turn` is the input's own where it has one, and speakers stand as
            they were written. Cells that a spreadsheet would run as formulas get an apostrophe, which our
            reader removes.
        labels: emotion names, used for the probability columns.

    Yields:
        A function that writes a conversation and its predictions.

    Raises:
        ValueError: the extension is not supported or the folder does not exist.
    """
    path = Path(path)
    check_output(path, _FORMATS)
    with replacing_text(path) as file, _FORMATS[path.suffix.lower()](file, labels) as write:
        yield write


def write_conversations(path: str | Path, conversations: Iterable[Conversation]) -> None:
    """Write a conversation file; after an error, an existing file at `path` is unchanged.

    Args:
        path: .json (one object, or a list if there are several) or .jsonl (one object per line).
        conversations: the conversations to write; .jsonl writes each one as it arrives.

    Raises:
        ValueError: the extension is not supported or the folder does not exist.
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
    # Values of extra table columns that JSON cannot hold, such as dates, are written as text.
    file.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")


@contextmanager
def _lines(file: TextIO, labels: Sequence[str]) -> Iterator[Write]:
    yield lambda conversation, predictions: _write_line(file, with_predictions(conversation, predictions))


@contextmanager
def _rows(file: TextIO, labels: Sequence[str]) -> Iterator[Write]:
    table = _Table(file, labels)
    yield table.write
    table.finish()


class _Table:
    """Writes rows, the header with the first of them."""

    def __init__(self, file: TextIO, labels: Sequence[str]):
        # Keep RFC 4180 line endings: with others, Python does not quote a lone carriage return in a cell.
        self._table = csv.writer(file)
        self._labels = labels
        self._names = [*_COLUMNS, *(f"p_{label}" for label in labels)]
        self._extras: list[str] | None = None

    def write(self, conversation: Conversation, predictions: Sequence[Prediction]) -> None:
        if self._extras is None:
            self._extras = self._begin(conversation)
        utterances = zip(conversation.utterances, conversation.turns, predictions, strict=True)
        for utterance, turn, said in utterances:
            given = {"speaker": utterance.speaker, "split": conversation.split, **utterance.given}
            scores = said.scores or {}
            start = [conversation.id, turn, given["speaker"], given.get("text")]
            numbers = [said.emotion, said.probability, *(scores.get(label) for label in self._labels)]
            self._put([*start, *numbers, *(given.get(name) for name in self._extras)])

    def finish(self) -> None:
        """Write the header of an empty table."""
        if self._extras is None:
            self._begin(None)

    def _begin(self, conversation: Conversation | None) -> list[str]:
        """Write the header and return the columns that only the input has."""
        columns = dict.fromkeys(conversation.columns if conversation else ())
        if conversation and conversation.split is not None:
            columns["split"] = None
        extras = [name for name in columns if name not in self._names]
        self._put([*self._names, *extras])
        return extras

    def _put(self, cells: Iterable[Any]) -> None:
        self._table.writerow([as_data(cell) if isinstance(cell, str) else cell for cell in cells])


_FORMATS = {".csv": _rows, ".jsonl": _lines}
