import struct

import numpy as np
import pytest
from matplotlib.figure import Figure

from redifu.evaluation.plots import plot_confusion

LABELS = ["neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"]


def metrics(counts):
    counts = np.asarray(counts)
    return {
        "confusion": counts.tolist(),
        "weighted_f1": 61.54,
        "accuracy": 62.5,
        "num_utterances": int(counts.sum()),
    }


def drawn_texts(monkeypatch, counts, labels, path):
    figures = []
    save = Figure.savefig

    def remember(figure, *arguments, **options):
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", remember)
    plot_confusion(metrics(counts), labels, path)
    (axes,) = figures[0].axes
    return axes


def test_cells_show_shares_of_their_row_and_counts(monkeypatch, tmp_path):
    axes = drawn_texts(monkeypatch, [[3, 1], [0, 2000]], ["calm", "joy"], tmp_path / "confusion.png")
    cells = {}
    for text in axes.texts:
        column, row = (round(place) for place in text.get_position())
        cells.setdefault((row, column), []).append(text.get_text())
    assert cells == {
        (0, 0): ["75%", "3"],
        (0, 1): ["25%", "1"],
        (1, 0): ["0%", "0"],
        (1, 1): ["100%", "2,000"],
    }
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["calm", "joy"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["calm\n(4)", "joy\n(2,000)"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "predicted (share of the true label, and count)",
        "true (utterances)",
    )
    assert axes.get_title() == "Weighted F1 61.5, accuracy 62.5, 2,004 utterances"


def test_the_picture_is_800_pixels_wide(tmp_path):
    path = tmp_path / "confusion.png"
    plot_confusion(metrics(np.arange(49).reshape(7, 7)), LABELS, path)
    header = path.read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    assert struct.unpack(">I", header[16:20]) == (800,)


def test_a_label_that_never_occurs_is_drawn_as_zeros(monkeypatch, tmp_path):
    axes = drawn_texts(monkeypatch, [[0, 0], [1, 1]], ["calm", "joy"], tmp_path / "confusion.png")
    assert [text.get_text() for text in axes.texts[:4]] == ["0%", "0", "0%", "0"]


@pytest.mark.parametrize("num_labels", [2, 7, 12])
def test_no_cell_text_reaches_into_the_next_cell(monkeypatch, tmp_path, num_labels):
    counts = np.full((num_labels, num_labels), 1234)
    labels = [f"label {index}" for index in range(num_labels)]
    axes = drawn_texts(monkeypatch, counts, labels, tmp_path / "confusion.png")
    cell = axes.get_window_extent().width / num_labels
    assert max(text.get_window_extent().width for text in axes.texts) < cell


def test_labels_that_do_not_fit_the_matrix_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"of 3 labels, got shape \(2, 2\)"):
        plot_confusion(metrics(np.eye(2, dtype=int)), ["a", "b", "c"], tmp_path / "confusion.png")
