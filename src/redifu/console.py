"""Output of the command line: tables, progress bars and summaries of what was written."""

import errno
import json
import logging
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from redifu.optional_packages import optional_package

# Needed inside words and emoji; unlike other invisible characters, they neither move nor reverse text.
_JOINERS = "\u200c\u200d"


def printable(text: str) -> str:
    """Escape control characters and direction marks, which a terminal would obey instead of showing them."""
    return "".join(each if _is_harmless(each) else ascii(each)[1:-1] for each in text)


def _is_harmless(character: str) -> bool:
    # isprintable rejects all spaces but one, and texts contain others.
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def say(line: str, *, error: bool = False) -> None:
    """Print a line that may contain names on stdout, or on stderr."""
    print(printable(line), file=sys.stderr if error else sys.stdout, flush=error)


def complain(command: str, mistake: object) -> None:
    """Print a mistake in one line on stderr."""
    say(f"redifu {command}: error: {' '.join(str(mistake).split())}", error=True)


def make_log_printable() -> None:
    """Escape the names in everything that this package logs from now on."""
    logging.setLogRecordFactory(_printable_record)


def _printable_record(*arguments: Any, **options: Any) -> logging.LogRecord:
    record = logging.LogRecord(*arguments, **options)
    if record.name.partition(".")[0] == "redifu":
        record.msg, record.args = printable(record.getMessage()), None
    return record


def exit_status(command: str, run: Callable[[], int | None], mistakes: tuple[type[Exception], ...]) -> int:
    """Run a command and return its exit status; a user's mistake, or a full disk, is printed in one line."""
    make_log_printable()
    try:
        status = run() or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        _drop_stdout()
        return 1
    except Exception as error:
        if not (isinstance(error, mistakes) or _is_storage_fault(error)):
            raise
        complain(command, error)
        _drop_stdout()
        return 2


def _is_storage_fault(error: Exception) -> bool:
    """Return whether an error says that a disk is full or cannot be written to."""
    faults = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
    # The writer of safetensors raises an error of its own, with the number in its message.
    said = any(f"(os error {fault})" in str(error) for fault in faults)
    return said or getattr(error, "errno", None) in faults


def _drop_stdout() -> None:
    """Drop what cannot be printed: Python would complain again when it flushes at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def number_of(count: int, noun: str) -> str:
    """Return "1 noun" or "2 nouns"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


class Tally:
    """Counts conversations and utterances, for the line that reports what was written."""

    def __init__(self) -> None:
        """Start at zero."""
        self._conversations = self._utterances = 0

    def add(self, utterances: Sized) -> None:
        """Count one conversation."""
        self._conversations += 1
        self._utterances += len(utterances)

    def counting(self, conversations: Iterable[Any]) -> Iterator[Any]:
        """Yield the conversations and count them."""
        for conversation in conversations:
            self.add(conversation.utterances)
            yield conversation

    def __str__(self) -> str:
        """Return both numbers in words."""
        return (
            f"{number_of(self._utterances, 'utterance')} in {number_of(self._conversations, 'conversation')}"
        )


def screen_writer(*, as_lines: bool) -> Callable[[Any, Any], None]:
    """Return a function that prints a conversation and its predictions, as a table or a JSON line."""
    from redifu.data.writers import with_predictions

    console = Console()

    def write(conversation: Any, predictions: Any) -> None:
        if as_lines:
            # In ASCII, because a character that the terminal cannot encode would raise an error.
            print(json.dumps(with_predictions(conversation, predictions), default=str), flush=True)
        else:
            console.print(_prediction_table(conversation.id, predictions))

    return write


def _prediction_table(name: str, predictions: Sequence[Any]) -> Table:
    table = Table("speaker", "text", "emotion", title=_cell(name), title_justify="left")
    table.add_column("probability", justify="right")
    if any(each.reasons for each in predictions):
        table.add_column("reasons")
    for each in predictions:
        probability = "-" if each.probability is None else f"{each.probability:.2f}"
        cells = (each.speaker, each.text or "", each.emotion or "-", probability, ", ".join(each.reasons))
        table.add_row(*map(_cell, cells[: len(table.columns)]))
    return table


def _cell(text: str) -> Text:
    """Return a cell that is shown as it is; rich would interpret brackets as markup."""
    return Text(printable(text))


def print_metrics(metrics: dict[str, Any]) -> None:
    """Print scores with their intervals, a table of the classes, and the scores at each coverage."""
    console = Console()
    scores = Table("metric", title=f"{metrics['num_utterances']:,} utterances", title_justify="left")
    scores.add_column("value", justify="right")
    scores.add_column("95 % interval", justify="right")
    for name in ("weighted_f1", "macro_f1", "accuracy", "nll", "ece", "aurc"):
        digits = 3 if name in ("nll", "ece", "aurc") else 2
        low_high = [f"{value:.{digits}f}" for value in metrics["intervals"].get(name, [])]
        scores.add_row(name, f"{metrics[name]:.{digits}f}", " to ".join(low_high))
    console.print(scores)
    classes = Table("label")
    for name in ("precision", "recall", "F1", "support"):
        classes.add_column(name, justify="right")
    for label, values in metrics["per_class"].items():
        numbers = [f"{values[name]:.2f}" for name in ("precision", "recall", "f1")]
        classes.add_row(_cell(label), *numbers, f"{values['support']:,}")
    console.print(classes)
    coverage = Table()
    for name in ("coverage", "accuracy", "weighted F1", "utterances", "predict --abstain-below"):
        coverage.add_column(name, justify="right")
    for row in metrics["coverage"]:
        numbers = [f"{100 * row['coverage']:.0f} %", f"{row['accuracy']:.2f}", f"{row['weighted_f1']:.2f}"]
        coverage.add_row(*numbers, f"{row['num_utterances']:,}", f"{row['threshold']:.3f}")
    console.print(coverage)


def plots_if_installed() -> Any:
    """Return the module that draws; without matplotlib say so on stderr and return None."""
    try:
        optional_package("matplotlib", extra="plots")
    except ImportError as error:
        say(f"redifu evaluate: no pictures: {error}", error=True)
        return None
    return import_module("redifu.evaluation.plots")


def print_robustness(rows: Iterable[dict[str, Any]]) -> None:
    """Print weighted F1, gain and harm of every condition; see `robustness.evaluate_robustness`."""
    table = Table("condition", "severity")
    titles = {"weighted_f1": "weighted F1", "gain_over_text": "gain over text only", "harm": "harm (%)"}
    for title in titles.values():
        table.add_column(title, justify="right")
    points: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        points.setdefault((row["condition"], row["severity"]), {})[row["metric"]] = row["value"]
    for point, values in points.items():
        if "weighted_f1" in values:
            cells = [f"{values[name]:.2f}" if name in values else "-" for name in titles]
            table.add_row(*map(_cell, point), *cells)
    Console().print(table)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f}/s")


def counted(answers: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """Yield the predictions; show on stderr how many utterances are done, and how fast."""
    console = Console(stderr=True)
    utterances = TextColumn("{task.completed:,} utterances")
    columns = (BarColumn(), utterances, _Rate(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        for conversation, predictions in answers:
            yield conversation, predictions
            progress.advance(task, len(predictions))


@contextmanager
def extraction_progress() -> Iterator[Callable[[int, int], None]]:
    """Show on stderr how many streams are done, how fast, and the time left."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), _Rate(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def recording_progress() -> Iterator[Callable[[str, float, float | None], None]]:
    """Show on stderr the step of the work on a recording, how much of it is done, and the time left."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    # The speed is measured over all parts of a recording, each of which can take minutes.
    hidden, period = not console.is_terminal, 3600.0
    with Progress(*columns, console=console, disable=hidden, speed_estimate_period=period) as progress:
        task = progress.add_task("loading models", total=None)
        step = ""

        def report(now: str, done: float, total: float | None) -> None:
            nonlocal step
            if now != step:
                progress.reset(task, description=now, total=total)
                step = now
            progress.update(task, completed=done, total=total)

        yield report


@contextmanager
def training_progress() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Print a line on stderr for each stage and epoch of a run; on a terminal, show its steps as well."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("training", total=None)

        def report(record: dict[str, Any]) -> None:
            if record["event"] == "step":
                said = f"epoch {record['epoch']}, loss {record['loss']:.3f}"
                progress.update(task, description=said, completed=record["step"], total=record["steps"])
            else:
                line = record["stage"] if record["event"] == "stage" else _epoch_line(record)
                console.print(printable(line), markup=False, highlight=False, soft_wrap=True)

        yield report


def _epoch_line(record: dict[str, Any]) -> str:
    line = f"epoch {record['epoch']}/{record['epochs']}: loss {record['loss']:.3f}"
    if "weighted_f1" in record:
        line += f", dev weighted F1 {record['weighted_f1']:.2f}"
    left = record["seconds"] * (record["epochs"] - record["epoch"])
    return f"{line}, {record['seconds']:,.0f} s" + (f", about {_duration(left)} left" if left else "")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def print_run(folder: Path) -> None:
    """Print the folder and the scores of a finished run, and on stderr the labels that it never predicts."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    scores = [f"best epoch {metrics['best_epoch']} of {metrics['epochs']}"]
    scores += [
        f"{name} weighted F1 {metrics[name]['weighted_f1']:.2f}"
        for name in ("dev", "test")
        if name in metrics
    ]
    say(f"{folder}: {', '.join(scores)}")
    for line in _never_predicted(metrics["dev"]) if "dev" in metrics else ():
        say(line, error=True)


def _never_predicted(metrics: dict[str, Any]) -> Iterator[str]:
    predicted = [sum(column) for column in zip(*metrics["confusion"], strict=True)]
    for (label, values), count in zip(metrics["per_class"].items(), predicted, strict=True):
        if count == 0:
            yield f"{label} is never predicted on dev ({number_of(values['support'], 'utterance')})"
