"""What the command line shows: tables and progress bars."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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


def print_predictions(answers: Iterable[tuple[Any, Any]], *, as_lines: bool) -> None:
    """Print each conversation as soon as it is there, as a table or as a JSON line."""
    from redifu.data.writers import with_predictions

    console = Console()
    for conversation, predictions in answers:
        if as_lines:
            # In ASCII: what cannot be written would end the stream.
            print(json.dumps(with_predictions(conversation, predictions), default=str), flush=True)
        else:
            console.print(_prediction_table(conversation.id, predictions))


def _prediction_table(name: str, predictions: Iterable[Any]) -> Table:
    table = Table("speaker", "text", "emotion", title=Text(name), title_justify="left")
    table.add_column("probability", justify="right")
    for each in predictions:
        # Text: a bracket in what somebody said is no markup.
        cells = map(Text, (each.speaker, each.text or "", each.emotion or "-"))
        table.add_row(*cells, "-" if each.probability is None else f"{each.probability:.2f}")
    return table


def print_metrics(metrics: dict[str, Any]) -> None:
    """Print scores with their intervals, and a table of the classes."""
    console = Console()
    scores = Table("metric", title=f"{metrics['num_utterances']:,} utterances", title_justify="left")
    scores.add_column("value", justify="right")
    scores.add_column("95 % interval", justify="right")
    for name in ("weighted_f1", "macro_f1", "accuracy", "nll", "ece"):
        digits = 3 if name in ("nll", "ece") else 2
        low_high = [f"{value:.{digits}f}" for value in metrics["intervals"].get(name, [])]
        scores.add_row(name, f"{metrics[name]:.{digits}f}", " to ".join(low_high))
    console.print(scores)
    classes = Table("label")
    for name in ("precision", "recall", "F1", "support"):
        classes.add_column(name, justify="right")
    for label, values in metrics["per_class"].items():
        numbers = [f"{values[name]:.2f}" for name in ("precision", "recall", "f1")]
        classes.add_row(Text(label), *numbers, f"{values['support']:,}")
    console.print(classes)


def print_robustness(rows: Iterable[dict[str, Any]]) -> None:
    """Print weighted F1, gain and harm of every condition of `robustness.evaluate_robustness`."""
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
            table.add_row(*point, *cells)
    Console().print(table)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f}/s")


def mapping(text: str) -> dict[str, str]:
    """Read "text=Utterance,speaker=Speaker"; argparse names this function where it cannot be read."""
    return dict(pair.split("=", 1) for pair in text.split(","))


def counted(answers: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """Pass predictions on; show on stderr how many utterances are done, and how fast."""
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
    """Show how many streams of utterances are read, how fast, and the time left."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), _Rate(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def training_progress() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Show the steps of a run, and a line for each epoch; nothing where stderr is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("training", total=None)

        def report(record: dict[str, Any]) -> None:
            if record["event"] == "step":
                said = f"epoch {record['epoch']}, loss {record['loss']:.3f}"
                progress.update(task, description=said, completed=record["step"], total=record["steps"])
            elif console.is_terminal:
                score = f": dev weighted F1 {record['weighted_f1']:.2f}" if "weighted_f1" in record else ""
                console.print(f"epoch {record['epoch']}{score}")

        yield report
