"""Pictures of metrics: the confusion matrix, risk against coverage, and scores against severity."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from redifu.atomic_files import replacing
from redifu.evaluation.corruptions import subsets_of
from redifu.model.configuration_redifu import MODALITIES

# 8 inches at 100 dots give the 800 pixels at which the picture must be legible.
WIDTH_INCHES, DOTS_PER_INCH = 8, 100
# Cells shrink with the number of labels; text that fits seven of them shrinks along.
LABELS_AT_FULL_SIZE = 7


def plot_confusion(metrics: Mapping[str, Any], labels: Sequence[str], path: str | Path) -> None:
    """Draw the confusion matrix: each cell holds the share of its row in percent, and the count below.

    Args:
        metrics: what `evaluate_conversations` returns.
        labels: names of the labels, in the order of their ids.
        path: file to write; its ending sets the format (.png is 800 pixels wide).

    Raises:
        ValueError: the matrix is not as wide as there are labels.
    """
    counts = np.asarray(metrics["confusion"])
    if counts.shape != (len(labels), len(labels)):
        raise ValueError(f"expected a confusion matrix of {len(labels)} labels, got shape {counts.shape}")
    figure = new_figure(height=WIDTH_INCHES)
    axes = figure.subplots()
    shares = 100 * counts / counts.sum(1, keepdims=True).clip(min=1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    scale = min(1.0, LABELS_AT_FULL_SIZE / len(labels))
    _write_cells(axes, shares, counts, font_scale=scale)
    _write_axes(axes, counts, labels, font_scale=scale)
    axes.set_title(
        f"Weighted F1 {metrics['weighted_f1']:.1f}, accuracy {metrics['accuracy']:.1f}, "
        f"{metrics['num_utterances']:,} utterances",
        fontsize=13,
    )
    _save(figure, Path(path))


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as partial:
        figure.savefig(partial, format=path.suffix[1:])


def _write_cells(axes: Axes, shares: np.ndarray, counts: np.ndarray, *, font_scale: float) -> None:
    for (row, column), share in np.ndenumerate(shares):
        style: dict[str, Any] = {"ha": "center", "color": "white" if share > 70 else "black"}
        axes.text(column, row, f"{share:.0f}%", va="bottom", fontsize=14 * font_scale, **style)
        axes.text(column, row + 0.08, f"{counts[row, column]:,}", va="top", fontsize=10 * font_scale, **style)


def _write_axes(axes: Axes, counts: np.ndarray, labels: Sequence[str], *, font_scale: float) -> None:
    places = range(len(labels))
    supports = [f"{label}\n({support:,})" for label, support in zip(labels, counts.sum(1), strict=True)]
    size = 11 * max(font_scale, 0.6)
    axes.set_xticks(places, labels, rotation=40, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(places, supports, fontsize=size)
    axes.set_xlabel("predicted (share of the true label, and count)", fontsize=13)
    axes.set_ylabel("true (utterances)", fontsize=13)


def plot_coverage(metrics: Mapping[str, Any], path: str | Path) -> None:
    """Draw the risk-coverage curve: the error rate among the most confident utterances, by their share.

    Args:
        metrics: what `evaluate_conversations` returns.
        path: file to write; its ending sets the format (.png is 800 pixels wide).
    """
    rows, total = metrics["coverage"], metrics["num_utterances"]
    figure = new_figure(height=WIDTH_INCHES / 2)
    axes = figure.subplots()
    # Tied utterances are covered together, so the real share may be above the requested one.
    shares = [100 * row["num_utterances"] / total for row in rows]
    risks = [100 - row["accuracy"] for row in rows]
    axes.plot(shares, risks, color=COLOURS[0], marker=MARKERS[0], markersize=4)
    for share, risk, row in zip(shares, risks, rows, strict=True):
        axes.annotate(
            f"{row['threshold']:.2f}",
            (share, risk),
            xytext=(0, 7),
            textcoords="offset points",
            ha="right",
            fontsize=9,
        )
    axes.set_xlim(0, 103)
    axes.set_ylim(0, 1.15 * max(*risks, 1))
    axes.set_xlabel("coverage (% of utterances; at each point its lowest probability)", fontsize=13)
    axes.set_ylabel("error rate (%)", fontsize=13)
    axes.set_title(f"Area under the curve {metrics['aurc']:.3f}, {total:,} utterances", fontsize=13)
    axes.grid(alpha=0.3)
    figure.savefig(path)


# The title of a condition and the name of its axis. More dB are less noise, so that axis is inverted.
CONDITIONS = {
    "subsets": ("only some streams", "streams (initials)"),
    "missing": ("any stream missing", "probability that a stream is missing"),
    "missing_side": ("audio and visual missing", "probability that a stream is missing"),
    "bursts": ("audio and visual missing in consecutive utterances", "length of a gap (utterances)"),
    "noise": ("noise on audio and visual features", "noise (standard deviations of a feature)"),
    "noise_audio": ("noise on audio features", "noise (standard deviations of a feature)"),
    "noise_visual": ("noise on visual features", "noise (standard deviations of a feature)"),
    "permuted": ("audio and visual from other utterances", "features"),
    "white_noise": ("white noise in the sound", "signal-to-noise ratio (dB)"),
    "pink_noise": ("pink noise in the sound", "signal-to-noise ratio (dB)"),
    "babble_noise": ("other voices in the sound", "signal-to-noise ratio (dB)"),
}
SUBSETS = subsets_of(MODALITIES)
WITHOUT_DEGREES = ("subsets", "permuted")
DECIBELS = ("white_noise", "pink_noise", "babble_noise")
METRICS = {
    "weighted_f1": "weighted F1 (0 to 100)",
    "gain_over_text": "gain over text only (points)",
    "reliability_audio": "reliability of audio (0 to 1)",
    "reliability_visual": "reliability of visual (0 to 1)",
    "ece": "calibration error (0 to 1)",
    "nll": "negative log-likelihood (nats)",
}
PANEL_INCHES = 2.6
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
MARKERS = "osD^vPX"


def plot_severity(
    rows: pd.DataFrame | Iterable[dict[str, Any]],
    path: str | Path,
    *,
    metrics: Sequence[str] = ("weighted_f1", "gain_over_text"),
) -> None:
    """Draw metrics against severity: a row of panels for each condition, a column for each metric.

    The clean result is the point of severity 0 or, of ratios in dB, the dashed line. Shaded are 95 %
    intervals where rows of all seeds give them, otherwise one standard deviation over the seeds.

    Args:
        rows: with model, seed, condition, severity, metric and value, of any number of models.
        path: file to write; a .png is 800 pixels wide.
        metrics: keys of `METRICS`.

    Raises:
        ValueError: the rows hold none of the metrics under any condition but the clean one.
    """
    table = summarize_rows(rows)
    table = table[table["metric"].isin(metrics)]
    conditions = [name for name in CONDITIONS if (table["condition"] == name).any()]
    if not conditions:
        raise ValueError(
            f"expected rows of {', '.join(metrics)} under a condition that is not clean, got none"
        )
    figure = new_figure(height=PANEL_INCHES * len(conditions) + 0.5)
    panels = figure.subplots(len(conditions), len(metrics), squeeze=False)
    styles = model_styles(table["model"])
    for condition, row in zip(conditions, panels, strict=True):
        for metric, axes in zip(metrics, row, strict=True):
            for number, (model, style) in enumerate(styles.items()):
                mine = table[(table["model"] == model) & (table["metric"] == metric)]
                _draw_curve(axes, mine, condition, style, aside=number - (len(styles) - 1) / 2)
            if metric == "gain_over_text":
                axes.axhline(0, color="black", linewidth=0.8)
            if metric.startswith("reliability"):
                axes.set_ylim(-0.02, 1.02)
            if condition in DECIBELS:
                axes.invert_xaxis()
            axes.set_title(CONDITIONS[condition][0], fontsize=11)
            axes.set_xlabel(CONDITIONS[condition][1], fontsize=10)
            axes.set_ylabel(METRICS[metric], fontsize=10)
            axes.grid(alpha=0.3)
    add_legend(figure)
    _save(figure, Path(path))


def summarize_rows(rows: pd.DataFrame | Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return value, low and high of each model, condition, severity and metric, in the order of the rows.

    Low and high are the ends of the 95 % interval where the rows have one, else one standard deviation over
    the seeds below and above the mean.
    """
    table = pd.DataFrame(rows)
    pooled = table["seed"] == "all"
    point = ["model", "condition", "severity", "metric"]
    grouped = table[~pooled].groupby(point, sort=False)["value"]
    summary = grouped.agg(["mean", "std"]).reset_index().rename(columns={"mean": "value"})
    for end, sign in (("low", -1), ("high", 1)):
        ends = table[pooled & table["metric"].str.endswith(f"_{end}")].copy()
        ends["metric"] = ends["metric"].str.removesuffix(f"_{end}")
        ends = ends.rename(columns={"value": end})[[*point, end]]
        summary = summary.merge(ends, on=point, how="left")
        summary[end] = summary[end].fillna(summary["value"] + sign * summary["std"].fillna(0.0))
    return summary


def _draw_curve(
    axes: Axes, table: pd.DataFrame, condition: str, style: dict[str, Any], *, aside: float
) -> None:
    """Draw one metric of one model under one condition; points without degrees stand a little aside."""
    clean = table[table["condition"] == "clean"]
    curve = table[table["condition"] == condition]
    if curve.empty:
        return
    if condition in WITHOUT_DEGREES:
        # A model with fewer streams has fewer subsets: each stands at its own place.
        subsets = condition == "subsets"
        names = SUBSETS if subsets else ["clean", condition]
        curve = curve if subsets else pd.concat([clean, curve])
        places = np.array([names.index(name) for name in curve["severity" if subsets else "condition"]])
        errors = [curve["value"] - curve["low"], curve["high"] - curve["value"]]
        dots = {**style, "linestyle": "none", "capsize": 2, "label": curve["model"].iloc[0]}
        axes.errorbar(places + 0.08 * aside, curve["value"], yerr=errors, **dots)
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
        return
    if condition in DECIBELS:
        for value in clean["value"]:
            axes.axhline(value, color=style["color"], linestyle="--", linewidth=1)
    else:
        curve = pd.concat([clean, curve])
    curve = curve.assign(severity=curve["severity"].astype(float)).sort_values("severity")
    axes.plot(curve["severity"], curve["value"], label=curve["model"].iloc[0], **style)
    shade = {"color": style["color"], "alpha": 0.2, "linewidth": 0}
    axes.fill_between(curve["severity"], curve["low"], curve["high"], **shade)


def model_styles(models: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Give each model a colour and a marker, in order of appearance."""
    names = list(dict.fromkeys(models))
    return {
        name: {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[number % len(MARKERS)],
            "markersize": 4,
        }
        for number, name in enumerate(names)
    }


def new_figure(*, height: float) -> Figure:
    """Return an empty figure, 800 pixels wide and `height` inches high."""
    layout = ConstrainedLayoutEngine(h_pad=0.08)
    return Figure(figsize=(WIDTH_INCHES, height), dpi=DOTS_PER_INCH, layout=layout)


def add_legend(figure: Figure) -> None:
    """Put one legend for all panels above them."""
    drawn = [axes.get_legend_handles_labels() for axes in figure.axes]
    handles = {name: handle for each in drawn for handle, name in zip(*each, strict=True)}
    names = list(handles)
    figure.legend(
        list(handles.values()), names, loc="outside upper center", ncols=min(len(names), 3), fontsize=10
    )
