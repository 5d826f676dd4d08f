"""Render the page of evidence, its tables and its pictures, from rows of results alone.

    cd scripts/evidence/results
    python ../../scripts/evidence/render.py paired.parquet paired-changes.parquet paired-sounds.parquet \\
        cmu-mosi.parquet meld-text.parquet --findings ../../scripts/evidence/findings.md \\
        --output ../evidence.md

Rows are dataset, model, seed, condition, severity, metric and value: of runs that `scripts/evidence/train.py`
trained and `scripts/evidence/score.py` scored. Pictures go into a folder of the page's name beside it.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from rows import ALL_SEEDS, MAJORITY, read_rows

from redifu.evaluation.plots import CONDITIONS, plot_calibration, plot_label_f1, plot_severity

# More could not be told apart in a picture; then there are tables alone.
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
# Evidence

Rendered by `scripts/evidence/render.py` from rows of results that `scripts/evidence/score.py` makes. Each run
is scored under every condition by one set of weights. A cell is the mean ± the standard deviation over seeds;
of gains it is the mean over seeds and its 95 % interval, by a paired bootstrap over dialogues. F1, accuracy
and gain are in points of 100. The gain is over the text-only model on the clean data, and the harm how many
utterances in 100 that model has right and this one wrong. ECE is from 0 to 1, NLL in nats.
"""


def page(rows: pd.DataFrame, pictures: Path, *, findings: str = "") -> Iterator[str]:
    """Give the lines of the page; draw the pictures into a folder that exists.

    Args:
        rows: of any number of data sets, models and seeds.
        findings: Markdown that says what they show.
        pictures: the folder, which stands beside the page.
    """
    yield INTRODUCTION
    yield findings
    for dataset, of_dataset in rows.groupby("dataset", sort=False):
        seeds = of_dataset[of_dataset["seed"] != ALL_SEEDS].groupby("model", sort=False)["seed"].nunique()
        yield f"## {dataset}\n"
        yield f"Seeds: {', '.join(f'{model} {number}' for model, number in seeds.items())}.\n"
        yield from clean_table(of_dataset)
        yield from label_table(of_dataset)
        for condition in CONDITIONS:
            yield from condition_table(of_dataset, condition)
        yield from trust_table(of_dataset)
        # Far below all else, it would press the others together.
        drawn = of_dataset[of_dataset["model"] != MAJORITY]
        if drawn["model"].nunique() <= MOST_DRAWN:
            yield from draw(drawn, pictures, str(dataset))


def clean_table(rows: pd.DataFrame) -> Iterator[str]:
    """Give every score of every model on the clean data."""
    yield "### Clean data\n"
    clean = rows[rows["condition"] == "clean"]
    cells = {
        model: [cell(one, metric) for metric in CLEAN] for model, one in clean.groupby("model", sort=False)
    }
    yield from table(["model", *CLEAN.values()], cells)


def label_table(rows: pd.DataFrame) -> Iterator[str]:
    """Give the F1 of every label on the clean data."""
    clean = rows[(rows["condition"] == "clean") & rows["metric"].str.startswith("f1_")]
    metrics = list(dict.fromkeys(clean["metric"]))
    if metrics:
        yield "### F1 of every label, clean data\n"
        models = clean.groupby("model", sort=False)
        cells = {model: [cell(one, metric) for metric in metrics] for model, one in models}
        yield from table(["model", *(metric.removeprefix("f1_") for metric in metrics)], cells)


def condition_table(rows: pd.DataFrame, condition: str) -> Iterator[str]:
    """Give weighted F1, gain and harm of every model at every severity of a condition."""
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
    """Give the learned weights of the streams, and their reliability on the clean data."""
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
    """Draw what the rows hold, and give the lines that show it."""
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
    """Return mean and standard deviation over seeds, or interval, of a metric of one model at one point."""
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
    """Give the lines of a Markdown table, a row for each model; columns without a value are left out."""
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
    parser.add_argument("rows", nargs="+", type=Path, metavar="ROWS")
    parser.add_argument("--output", type=Path, default=Path("model_cards/evidence.md"), metavar="PAGE.md")
    parser.add_argument("--findings", type=Path, metavar="FILE.md", help="what the rows show, in words")
    options = parser.parse_args()
    pictures = options.output.with_suffix("")
    pictures.mkdir(exist_ok=True)
    findings = options.findings.read_text(encoding="utf-8") if options.findings else ""
    lines = page(read_rows(options.rows), pictures, findings=findings)
    options.output.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
