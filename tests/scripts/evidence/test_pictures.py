"""Pictures of the evidence show the rows they are given."""

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="pictures need the extra `plots`")
from evaluation.drawn_rows import CURVES, drawn, rows_of
from script_modules import load_script

pictures = load_script("evidence/pictures")


def test_bars_are_the_means_of_the_labels(monkeypatch, tmp_path):
    rows = rows_of({("clean", "0", "f1_calm"): 60, ("clean", "0", "f1_joy"): 40, **CURVES})
    (axes,) = drawn(monkeypatch, pictures.plot_label_f1, rows, tmp_path / "labels.png")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["calm", "joy"]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([60, 40, 70, 50])
    with pytest.raises(ValueError, match="F1 of labels"):
        pictures.plot_label_f1(rows_of(CURVES), tmp_path / "labels.png")


def test_calibration_leaves_empty_bins_out(monkeypatch, tmp_path):
    bins = {"1": (0, 0, 0), "2": (0.25, 0.5, 0.4), "3": (0.75, 0.9, 0.7)}
    points = {
        ("calibration", number, name): value
        for number, values in bins.items()
        for name, value in zip(("share", "confidence", "accuracy"), values, strict=True)
    }
    rows = rows_of(points, models=["fused"], seeds=["2"])
    (axes,) = drawn(monkeypatch, pictures.plot_calibration, rows, tmp_path / "calibration.png")
    diagonal, line = axes.get_lines()
    np.testing.assert_allclose(line.get_xydata(), [[0.5, 0.4], [0.9, 0.7]])
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    with pytest.raises(ValueError, match="rows of calibration"):
        pictures.plot_calibration(rows_of(CURVES), tmp_path / "calibration.png")


def test_scores_have_the_interval_of_their_rows(monkeypatch, tmp_path):
    rows = rows_of(CURVES)
    ends = {("clean", "0", "weighted_f1_low"): 57, ("clean", "0", "weighted_f1_high"): 64}
    rows += [{**row, "seed": "all"} for row in rows_of(ends, seeds=["2"])]
    (axes,) = drawn(monkeypatch, pictures.plot_scores, rows, tmp_path / "scores.png")
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["fused", "plain"]
    (dots,) = axes.containers
    assert dots.lines[0].get_xdata() == pytest.approx([60, 70])
    segments = dots.lines[2][0].get_segments()
    assert [segment[:, 0].tolist() for segment in segments] == [[57, 64], [67, 74]]
    with pytest.raises(ValueError, match="weighted F1 on clean data"):
        pictures.plot_scores(rows_of({("missing", "0.1", "weighted_f1"): 50}), tmp_path / "scores.png")
