"""Pictures of the rows of many runs: the F1 of each label, and calibration."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from redifu.evaluation.plots import add_legend, model_styles, new_figure, summarize_rows


def plot_label_f1(rows: pd.DataFrame | Iterable[dict[str, Any]], path: str | Path) -> None:
    """Draw the F1 of every label on the clean data: a bar for each model, one standard deviation over seeds.

    Args:
        rows: see `redifu.evaluation.plots.plot_severity`.
        path: file to write.

    Raises:
        ValueError: the rows hold no F1 of labels.
    """
    table = summarize_rows(rows)
    table = table[(table["condition"] == "clean") & table["metric"].str.match("f1_")]
    if table.empty:
        raise ValueError("expected rows of the F1 of labels on clean data, got none")
    labels = list(dict.fromkeys(table["metric"]))
    figure = new_figure(height=4.5)
    axes = figure.subplots()
    styles = model_styles(table["model"])
    width = 0.8 / len(styles)
    for number, (model, style) in enumerate(styles.items()):
        mine = table[table["model"] == model].set_index("metric").reindex(labels)
        places = np.arange(len(labels)) + (number - (len(styles) - 1) / 2) * width
        error = (mine["high"] - mine["low"]) / 2
        axes.bar(places, mine["value"], width, yerr=error, capsize=2, color=style["color"], label=model)
    axes.set_xticks(range(len(labels)), [label.removeprefix("f1_") for label in labels], fontsize=11)
    axes.set_ylabel("F1 (0 to 100)", fontsize=11)
    axes.grid(axis="y", alpha=0.3)
    add_legend(figure)
    figure.savefig(path)


def plot_calibration(rows: pd.DataFrame | Iterable[dict[str, Any]], path: str | Path) -> None:
    """Draw how often the clean data's top probabilities are right; markers grow with the share of a bin.

    Args:
        rows: see `redifu.evaluation.plots.plot_severity`.
        path: file to write.

    Raises:
        ValueError: the rows hold no calibration.
    """
    table = summarize_rows(rows)
    table = table[table["condition"] == "calibration"]
    if table.empty:
        raise ValueError("expected rows of calibration, got none")
    figure = new_figure(height=7)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--", label="calibrated")
    for model, style in model_styles(table["model"]).items():
        bins = table[table["model"] == model].pivot(index="severity", columns="metric", values="value")
        bins = bins[bins["share"] > 0].sort_values("confidence")
        axes.plot(bins["confidence"], bins["accuracy"], label=model, **style)
        axes.scatter(
            bins["confidence"], bins["accuracy"], s=1500 * bins["share"], color=style["color"], alpha=0.3
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("top probability (mean of a bin)", fontsize=12)
    axes.set_ylabel("share of utterances that are right", fontsize=12)
    axes.grid(alpha=0.3)
    add_legend(figure)
    figure.savefig(path)


def plot_scores(rows: pd.DataFrame | Iterable[dict[str, Any]], path: str | Path) -> None:
    """Draw the weighted F1 of each model on the clean data, with its 95 % interval.

    Args:
        rows: see `redifu.evaluation.plots.plot_severity`.
        path: file to write.

    Raises:
        ValueError: the rows hold no weighted F1 on the clean data.
    """
    table = summarize_rows(rows)
    table = table[(table["condition"] == "clean") & (table["metric"] == "weighted_f1")]
    if table.empty:
        raise ValueError("expected rows of weighted F1 on clean data, got none")
    figure = new_figure(height=0.8 + 0.3 * len(table))
    axes = figure.subplots()
    errors = [table["value"] - table["low"], table["high"] - table["value"]]
    axes.errorbar(table["value"], range(len(table)), xerr=errors, fmt="o", capsize=3, color="#0072b2")
    axes.set_yticks(range(len(table)), table["model"], fontsize=11)
    axes.invert_yaxis()
    axes.set_xlabel("weighted F1 (0 to 100), 95 % interval", fontsize=11)
    axes.grid(alpha=0.3)
    figure.savefig(path)
