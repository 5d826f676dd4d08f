"""Pictures of metrics."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
    figure = Figure(figsize=(WIDTH_INCHES, WIDTH_INCHES), dpi=DOTS_PER_INCH, layout="constrained")
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
    figure.savefig(path)


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
