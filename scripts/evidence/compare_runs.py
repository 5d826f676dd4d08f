"""Scores several seeds of several systems on the same dialogues, and tests their differences.

    python scripts/evidence/compare_runs.py $MELD/test.csv --system "with relations" runs/full-* \
        --system "no relations" runs/plain-* --output comparison.json

Prints a Markdown table: the mean and standard deviation over a system's runs, and the difference in weighted
F1 to the first system with the 95 % interval and p value of a paired bootstrap over dialogues. The last row
gives every utterance the most frequent label, with the label shares as probabilities.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from redifu.conversation import Conversation
from redifu.data.readers import read_conversations
from redifu.evaluation.metrics import paired_bootstrap, score_predictions
from redifu.evaluation.scoring import reference_ids
from redifu.inference.recogniser import load
from redifu.model.losses import IGNORED_LABEL

DIGITS = {"weighted_f1": 2, "macro_f1": 2, "accuracy": 2, "nll": 3, "ece": 3}
HEADER = ["system", "seeds", "weighted F1", "macro F1", "accuracy", "NLL", "ECE", "difference", "p"]


def predict_run(run: Path, conversations: list[Conversation]) -> np.ndarray:
    """Return the probabilities of the labelled utterances, (utterances, labels)."""
    recogniser = load(run)
    rows = [
        prediction.probabilities
        for conversation, predictions in recogniser.predict(conversations)
        for prediction, utterance in zip(predictions, conversation.utterances, strict=True)
        if utterance.label is not None
    ]
    return np.stack(rows)


def compare(systems: dict[str, list[Path]], data: Path, *, split: str | None = None) -> dict[str, Any]:
    """Score every run of every system.

    Args:
        systems: folders of finished runs by system name; all must have the same labels.
        data: labelled conversations.
        split: the split to read, for a file with several.

    Returns:
        For each system: `runs` {metric: [one value per run]} and `difference`, see `paired_bootstrap` (None
        for the first system). `most frequent label` has the same form.
    """
    conversations = list(read_conversations(data, split=split))
    labels = load(next(iter(systems.values()))[0]).labels
    ids = [reference_ids(conversation, labels) for conversation in conversations]
    dialogues = [place for place, each in enumerate(ids) for _ in range((each != IGNORED_LABEL).sum())]
    references = np.concatenate(ids)
    references = references[references != IGNORED_LABEL]
    result: dict[str, Any] = {}
    first: np.ndarray | None = None
    for name, probabilities in _predictions(systems, conversations, references, len(labels)):
        scores = [
            score_predictions(one, references, dialogues=dialogues, labels=labels, resamples=1)
            for one in probabilities
        ]
        difference = None
        if first is None:
            first = probabilities
        else:
            difference = paired_bootstrap(probabilities, first, references, dialogues=dialogues)
        runs = {metric: [score[metric] for score in scores] for metric in DIGITS}
        result[name] = {"runs": runs, "difference": difference}
    return result


def table_of(result: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a Markdown table of the result of `compare`."""
    yield _line(HEADER)
    yield _line(["---"] * len(HEADER))
    for name, system in result.items():
        cells = [name, str(len(system["runs"]["weighted_f1"]))]
        for metric, digits in DIGITS.items():
            values = np.array(system["runs"][metric])
            spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.{digits}f}{spread}")
        difference = system["difference"]
        if difference is None:
            cells += ["", ""]
        else:
            low, high = difference["interval"]
            cells += [f"{difference['difference']:+.2f} ({low:+.2f} to {high:+.2f})"]
            cells += [f"{difference['p_value']:.4f}"]
        yield _line(cells)


def _predictions(
    systems: dict[str, list[Path]], conversations: list[Conversation], references: np.ndarray, num_labels: int
) -> Iterator[tuple[str, np.ndarray]]:
    for name, runs in systems.items():
        yield name, np.stack([predict_run(run, conversations) for run in runs])
    shares = np.bincount(references, minlength=num_labels) / len(references)
    yield "most frequent label", np.tile(shares, (1, len(references), 1))


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="labelled conversations")
    parser.add_argument("--split", help="split to read, for a file with several")
    parser.add_argument(
        "--system",
        nargs="+",
        action="append",
        required=True,
        metavar="NAME RUN",
        help="a name and the folders of finished runs",
    )
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="also write every number")
    arguments = parser.parse_args()
    compared = compare(
        {name: [Path(run) for run in runs] for name, *runs in arguments.system},
        arguments.data,
        split=arguments.split,
    )
    print("\n".join(table_of(compared)))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(compared, indent=2, ensure_ascii=False) + "\n", "utf-8")
