"""Renders the page of findings, its tables and its pictures, from the stored rows of results.

    python scripts/evidence/render.py

findings.md holds the sentences; the tables and pictures come from results/*.parquet. Pictures go into a
folder beside the page. For every table and picture of every model, see full_report.py.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd
from full_report import RESULTS, cell, table
from jinja2 import Environment, StrictUndefined
from pictures import plot_label_f1, plot_scores
from PIL import Image
from rows import read_rows

from redifu.evaluation.plots import plot_severity

PAGE = Path(__file__).resolve().parents[2] / "examples" / "guides" / "evidence.md"
MAIN = ("text-only", "concat-mlp", "plain-attention", "released", "default")
F1, GAIN = "weighted_f1", "gain_over_text"
CLEAN = ("clean", "0")
COLOURS = 128  # a third of the size, and no visible difference


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One table and one picture.

    Attributes:
        rows: the file in results/ that they come from.
        models: the models to show, in this order.
        columns: by heading the condition, the severity and the metric.
        shows: what the picture shows.
        plot: draws rows into a file.
        drawn: the conditions that the picture shows; none leaves all.
    """

    rows: str
    models: Sequence[str]
    columns: Mapping[str, tuple[str, str, str]]
    shows: str
    plot: Callable[[pd.DataFrame, Path], None]
    drawn: Sequence[str] = field(default=())


SCORES = {
    "weighted F1": (*CLEAN, F1),
    "macro F1": (*CLEAN, "macro_f1"),
    "gain over text only": (*CLEAN, GAIN),
}
plot_gain = partial(plot_severity, metrics=[GAIN])
FINDINGS = {
    "meld-speech": Finding(
        rows="meld-speech",
        models=(*MAIN, "consistency-none"),
        columns={
            **SCORES,
            "70 % missing": ("missing_side", "0.7", GAIN),
            "of other utterances": ("permuted", "1", GAIN),
        },
        shows="Weighted F1 on real speech",
        plot=plot_scores,
    ),
    "clean": Finding(
        rows="paired",
        models=MAIN,
        columns={**SCORES, "F1 of fear": (*CLEAN, "f1_fear"), "harm": (*CLEAN, "harm")},
        shows="F1 of each label on clean data",
        plot=plot_label_f1,
    ),
    "failing-streams": Finding(
        rows="paired",
        models=MAIN,
        columns={
            "clean": (*CLEAN, GAIN),
            "70 % missing": ("missing_side", "0.7", GAIN),
            "noise of 2 SD": ("noise", "2", GAIN),
            "of other utterances": ("permuted", "1", GAIN),
        },
        shows="Gain over text only when sounds and faces are missing, noisy or of other utterances",
        plot=plot_gain,
        drawn=("missing_side", "noise", "permuted"),
    ),
    "noisy-sound": Finding(
        rows="paired-sounds",
        models=("concat-mlp", "concat-mlp-in-noise", "default", "default-in-noise"),
        columns={
            "clean": (*CLEAN, GAIN),
            "white noise, -5 dB": ("white_noise", "-5", GAIN),
            "pink noise, -5 dB": ("pink_noise", "-5", GAIN),
            "other voices, -5 dB": ("babble_noise", "-5", GAIN),
        },
        shows="Gain over text only in noise, by signal-to-noise ratio",
        plot=plot_gain,
        drawn=("white_noise", "pink_noise", "babble_noise"),
    ),
    "parts": Finding(
        rows="paired-changes",
        models=(
            "default",
            "relations-none",
            "differential-none",
            "fusion-concat",
            "consistency-none",
            "default-no-modality-dropout",
            "default-causal",
        ),
        columns={
            "weighted F1": (*CLEAN, F1),
            "gain, clean": (*CLEAN, GAIN),
            "gain, 70 % missing": ("missing_side", "0.7", GAIN),
            "gain, of other utterances": ("permuted", "1", GAIN),
        },
        shows="Weighted F1 on clean data with one part changed",
        plot=plot_scores,
    ),
    "cmu-mosi": Finding(
        rows="cmu-mosi",
        models=MAIN,
        columns=SCORES,
        shows="Weighted F1 on CMU-MOSI",
        plot=plot_scores,
    ),
    "meld-text": Finding(
        rows="meld-text",
        models=("utterance-only", "relations-none", "default"),
        columns={
            "weighted F1": (*CLEAN, F1),
            "accuracy": (*CLEAN, "accuracy"),
            "gain over utterance-only": (*CLEAN, GAIN),
        },
        shows="Weighted F1 on MELD, text only",
        plot=plot_scores,
    ),
}


def page(pictures: Path) -> str:
    """Return the page, and draw its pictures into a folder that exists and stands beside it."""

    def show(name: str) -> str:
        finding = FINDINGS[name]
        rows = read_rows([RESULTS / f"{finding.rows}.parquet"])
        drawn = rows[rows["model"].isin(finding.models)]
        if finding.drawn:
            drawn = drawn[drawn["condition"].isin(["clean", *finding.drawn])]
        path = pictures / f"{name}.png"
        finding.plot(drawn, path)
        Image.open(path).convert("RGB").quantize(COLOURS).save(path, optimize=True)
        picture = f"![{finding.shows}]({pictures.name}/{path.name})"
        return "\n".join([*table_of(rows, finding), picture])

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    findings = Path(__file__).with_name("findings.md").read_text(encoding="utf-8")
    return environment.from_string(findings).render(show=show)


def table_of(rows: pd.DataFrame, finding: Finding) -> list[str]:
    """Return the lines of a finding's table."""
    cells = {}
    for model in finding.models:
        mine = rows[rows["model"] == model]
        cells[model] = [
            cell(mine[(mine["condition"] == condition) & (mine["severity"] == severity)], metric)
            for condition, severity, metric in finding.columns.values()
        ]
    return list(table(["model", *finding.columns], cells))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=PAGE, metavar="PAGE.md", help=f"default: {PAGE.name}")
    options = parser.parse_args()
    pictures = options.output.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page(pictures), encoding="utf-8")


if __name__ == "__main__":
    main()
