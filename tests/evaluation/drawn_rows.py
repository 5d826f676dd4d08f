"""Rows of results to draw, and the panels that a plot draws of them."""

from matplotlib.figure import Figure


def drawn(monkeypatch, plot, *arguments, **options):
    """The panels of the figure that a function saves."""
    figures = []
    save = Figure.savefig

    def remember(figure, *arguments, **options):
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", remember)
    plot(*arguments, **options)
    return figures[0].axes


def rows_of(points, *, models=("fused", "plain"), seeds=("1", "2", "3")):
    """A row for each model, seed and point {(condition, severity, metric): value}; seeds differ by 1."""
    return [
        {
            "model": model,
            "seed": seed,
            "condition": condition,
            "severity": severity,
            "metric": metric,
            "value": value + 10 * models.index(model) + int(seed) - 2,
        }
        for model in models
        for seed in seeds
        for (condition, severity, metric), value in points.items()
    ]


CURVES = {("clean", "0", "weighted_f1"): 60, ("missing", "0.5", "weighted_f1"): 40} | {
    ("missing", "0.1", "weighted_f1"): 50,
    ("white_noise", "20", "weighted_f1"): 45,
    ("white_noise", "-5", "weighted_f1"): 30,
    ("subsets", "t", "weighted_f1"): 55,
    ("subsets", "ta", "weighted_f1"): 58,
}
