import struct

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="pictures need the extra `plots`")
from evaluation.drawn_rows import CURVES, drawn, rows_of
from redifu.evaluation.plots import plot_confusion, plot_coverage, plot_severity

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
    (axes,) = drawn(monkeypatch, plot_confusion, metrics(counts), labels, path)
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


def test_the_risk_coverage_curve_is_that_of_the_rows(monkeypatch, tmp_path):
    rows = [
        {"coverage": 1.0, "threshold": 0.2, "num_utterances": 200, "accuracy": 60.0},
        # Ties: more are covered than half.
        {"coverage": 0.5, "threshold": 0.612, "num_utterances": 110, "accuracy": 75.0},
    ]
    metrics = {"coverage": rows, "num_utterances": 200, "aurc": 0.2345}
    (axes,) = drawn(monkeypatch, plot_coverage, metrics, tmp_path / "coverage.png")
    (line,) = axes.get_lines()
    assert line.get_xydata() == pytest.approx(np.array([[100, 40], [55, 25]]))
    assert [text.get_text() for text in axes.texts] == ["0.20", "0.61"]
    assert axes.get_title() == "Area under the curve 0.234, 200 utterances"
    assert (tmp_path / "coverage.png").read_bytes().startswith(b"\x89PNG")


def test_curves_begin_at_the_clean_result_and_go_by_severity(monkeypatch, tmp_path):
    rows = [row for row in rows_of(CURVES) if (row["model"], row["severity"]) != ("plain", "t")]
    panels = drawn(monkeypatch, plot_severity, rows, tmp_path / "curves.png", metrics=["weighted_f1"])
    subsets, missing, sound = panels
    names = [tick.get_text() for tick in subsets.get_xticklabels()]
    assert names == ["t", "a", "v", "ta", "tv", "av", "tav"]
    points = [dots.lines[0].get_xydata().round().tolist() for dots in subsets.containers]
    # The one that has no result for text alone has the other one where it belongs.
    assert points == [[[0, 55], [3, 58]], [[3, 68]]]
    for line, above in zip(missing.get_lines(), (0, 10), strict=True):
        assert line.get_xdata().tolist() == [0, 0.1, 0.5]
        assert line.get_ydata() == pytest.approx([60 + above, 50 + above, 40 + above])
    assert sound.xaxis_inverted() and not missing.xaxis_inverted()
    levels = [line for line in sound.get_lines() if line.get_linestyle() == "--"]
    assert [line.get_ydata()[0] for line in levels] == pytest.approx([60, 70])
    assert sound.get_xlabel() == "signal-to-noise ratio (dB)"
    assert {axes.get_ylabel() for axes in panels} == {"weighted F1 (0 to 100)"}


@pytest.mark.parametrize("pooled", [False, True])
def test_shaded_is_the_interval_or_else_the_deviation_over_seeds(monkeypatch, tmp_path, pooled):
    rows = rows_of(CURVES, models=["fused"])
    if pooled:
        ends = {("missing", "0.1", "weighted_f1_low"): 44, ("missing", "0.1", "weighted_f1_high"): 57}
        ends[("missing", "0.1", "weighted_f1")] = 50
        rows += [{**row, "seed": "all"} for row in rows_of(ends, models=["fused"], seeds=["2"])]
    panels = drawn(monkeypatch, plot_severity, rows, tmp_path / "curves.png", metrics=["weighted_f1"])
    (shade,) = panels[1].collections
    at = {y for x, y in shade.get_paths()[0].vertices.tolist() if x == 0.1}
    assert at == ({44, 57} if pooled else {49, 51})


def test_rows_of_the_clean_data_alone_have_no_curve(tmp_path):
    rows = rows_of({("clean", "0", "weighted_f1"): 60})
    with pytest.raises(ValueError, match="under a condition that is not clean"):
        plot_severity(rows, tmp_path / "curves.png")
