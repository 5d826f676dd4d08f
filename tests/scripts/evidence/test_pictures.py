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
