"""Write conversations and predictions as a stream; output files appear only when complete."""

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
        path: .csv (one row per utterance: dialogue_id, turn, speaker, text, emotion, probability, p_LABEL...)
            or .jsonl (one conversation per line, see `with_predictions`).
        labels: emotion names, used for the probability columns.

    Yields:
        A function that writes a conversation and its predictions.

    Raises:
        ValueError: the extension is not supported or the folder does not exist.
    """
    path = Path(path)
    check_output(path, _FORMATS)
    with replacing_text(path) as file:
        yield _FORMATS[path.suffix.lower()](file, labels)


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


def _lines(file: TextIO, labels: Sequence[str]) -> Write:
    return lambda conversation, predictions: _write_line(file, with_predictions(conversation, predictions))


def _rows(file: TextIO, labels: Sequence[str]) -> Write:
    # Keep RFC 4180 line endings: with others, Python does not quote a lone carriage return in a cell.
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
