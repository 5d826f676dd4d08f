"""Writes every table and every picture of the stored results as one long page.

    python scripts/evidence/full_report.py --output runs/evidence/report.md
    python scripts/evidence/full_report.py rows.parquet --output report.md    # results of your own

Each row has a data set, model, seed, condition, severity, metric and value. train.py trains the runs, and
score.py writes the rows. Pictures go into a folder beside the page.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from pictures import plot_calibration, plot_label_f1
from rows import ALL_SEEDS, MAJORITY, read_rows

from redifu.evaluation.plots import CONDITIONS, plot_severity

RESULTS = Path(__file__).with_name("results")
STORED = ("meld-speech", "paired", "paired-changes", "paired-sounds", "cmu-mosi", "meld-text")

# A picture of more models is unreadable; these data sets get tables only.
MOST_DRAWN = 7
DIGITS = {"nll": 3, "ece": 3, "weight": 2, "reliability": 2}
CLEAN = {
    "weighted_f1": "weighted F1",
    "macro_f1": "macro F1",
    "accuracy": "accuracy",
    "nll": "NLL",
    "ece": "ECE",
    "gain_over_text": "gain over text only",
    "harm": "harm",
}
INTRODUCTION = """\
# Full report

Every model is scored under every condition with one set of weights. A cell is the mean ± standard deviation
over seeds; for gains it is the mean over seeds with a 95 % interval from a paired bootstrap over dialogues.
F1, accuracy and gain are in points of 100. Gain is measured against the text-only model on clean data. Harm
is the number of utterances in 100 that the text-only model gets right and this model gets wrong. ECE is
from 0 to 1, NLL in nats.
"""


def report(rows: pd.DataFrame, pictures: Path) -> Iterator[str]:
    """Yield the lines of the page, and draw its pictures.

    Args:
        rows: results of any number of data sets, models and seeds.
        pictures: an existing folder beside the page.
    """
    yield INTRODUCTION
    for dataset, of_dataset in rows.groupby("dataset", sort=False):
        seeds = of_dataset[of_dataset["seed"] != ALL_SEEDS].groupby("model", sort=False)["seed"].nunique()
        yield f"## {dataset}\n"
        yield f"Seeds: {', '.join(f'{model} {number}' for model, number in seeds.items())}.\n"
        yield from clean_table(of_dataset)
        yield from label_table(of_dataset)
        for condition in CONDITIONS:
            yield from condition_table(of_dataset, condition)
        yield from trust_table(of_dataset)
        # It scores so low that the other curves would be pressed together.
        drawn = of_dataset[of_dataset["model"] != MAJORITY]
        if drawn["model"].nunique() <= MOST_DRAWN:
            yield from draw(drawn, pictures, str(dataset))


def clean_table(rows: pd.DataFrame) -> Iterator[str]:
    """Yield every score of every model on the clean data."""
    yield "### Clean data\n"
    clean = rows[rows["condition"] == "clean"]
    cells = {
        model: [cell(one, metric) for metric in CLEAN] for model, one in clean.groupby("model", sort=False)
    }
    yield from table(["model", *CLEAN.values()], cells)


def label_table(rows: pd.DataFrame) -> Iterator[str]:
    """Yield the F1 of every label on the clean data."""
    clean = rows[(rows["condition"] == "clean") & rows["metric"].str.startswith("f1_")]
    metrics = list(dict.fromkeys(clean["metric"]))
    if metrics:
        yield "### F1 of every label, clean data\n"
        models = clean.groupby("model", sort=False)
        cells = {model: [cell(one, metric) for metric in metrics] for model, one in models}
        yield from table(["model", *(metric.removeprefix("f1_") for metric in metrics)], cells)


def condition_table(rows: pd.DataFrame, condition: str) -> Iterator[str]:
    """Yield weighted F1, gain and harm of every model at every severity of a condition."""
    found = rows[rows["condition"] == condition]
    if found.empty:
        return
    title, unit = CONDITIONS[condition]
    severities = list(dict.fromkeys(found["severity"]))
    yield f"### {title[0].upper()}{title[1:]} (`{condition}`)\n"
    for metric in ("weighted_f1", "gain_over_text", "harm"):
        cells = {}
        for model, one in found.groupby("model", sort=False):
            cells[model] = [cell(one[one["severity"] == severity], metric) for severity in severities]
        yield f"{CLEAN[metric][0].upper()}{CLEAN[metric][1:]}, by {unit}:\n"
        yield from table(["model", *severities], cells)


def trust_table(rows: pd.DataFrame) -> Iterator[str]:
    """Yield the learned weights of the streams, and their reliability on the clean data."""
    names = [f"weight_{name}" for name in ("text", "audio", "visual")]
    names += ["reliability_audio", "reliability_visual"]
    found = rows[rows["metric"].isin(names) & rows["condition"].isin(["clean", "weights"])]
    if not found.empty:
        yield "### Learned weights of the streams, and their reliability on clean data\n"
        cells = {
            model: [cell(one, name) for name in names] for model, one in found.groupby("model", sort=False)
        }
        yield from table(["model", *(name.replace("_", " of ") for name in names)], cells)


def draw(rows: pd.DataFrame, pictures: Path, dataset: str) -> Iterator[str]:
    """Draw the pictures that the rows allow, and yield the lines that show them."""
    yield "### Pictures\n"
    kinds = {
        "severity": ("Weighted F1 and gain over text only against severity", plot_severity, {}),
        "reliability": (
            "Estimated reliability of the streams against severity",
            plot_severity,
            {"metrics": ("reliability_audio", "reliability_visual")},
        ),
        "errors": (
            "Calibration error and negative log-likelihood against severity",
            plot_severity,
            {"metrics": ("ece", "nll")},
        ),
        "labels": ("F1 of every label on clean data", plot_label_f1, {}),
        "calibration": ("Calibration on clean data", plot_calibration, {}),
    }
    for kind, (title, plot, options) in kinds.items():
        wanted = options.get("metrics")
        if wanted and not rows["metric"].isin(wanted).any():
            continue
        path = pictures / f"{re.sub(r'[^a-z0-9]+', '-', dataset.lower()).strip('-')}-{kind}.png"
        plot(rows, path, **options)
        yield f"![{title}]({pictures.name}/{path.name})\n"


def cell(rows: pd.DataFrame, metric: str) -> str:
    """Write a metric of one model at one point: its mean, and the deviation over seeds or the interval."""
    mine = rows[rows["metric"] == metric]
    values = mine.loc[mine["seed"] != ALL_SEEDS, "value"]
    if values.empty:
        return ""
    digits = DIGITS.get(metric.split("_")[0], 2)
    if metric == "gain_over_text":
        low, high = (rows.loc[rows["metric"] == f"{metric}_{end}", "value"] for end in ("low", "high"))
        if len(low) and len(high):
            return f"{values.mean():+.2f} [{low.item():+.2f}, {high.item():+.2f}]"
    spread = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def table(header: Sequence[str], cells: dict[str, list[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table with a row for each model; empty columns are left out."""
    filled = [place for place in range(len(header) - 1) if any(row[place] for row in cells.values())]
    yield line([header[0], *(header[place + 1] for place in filled)])
    yield line(["---"] * (len(filled) + 1))
    for model, row in cells.items():
        yield line([model, *(row[place] for place in filled)])
    yield ""


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", type=Path, metavar="ROWS", help="default: the stored results")
    parser.add_argument("--output", type=Path, required=True, metavar="PAGE.md")
    options = parser.parse_args()
    pictures = options.output.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    rows = read_rows(options.rows or [RESULTS / f"{name}.parquet" for name in STORED])
    options.output.write_text("\n".join(report(rows, pictures)), encoding="utf-8")


if __name__ == "__main__":
    main()
