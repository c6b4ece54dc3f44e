import re

import numpy as np
from matplotlib.colors import to_hex

from singflow.figures.plot_translators import draw_architectures, draw_training
from singflow.figures.style import COLOURS
from tests.figures.drawn import finding, models_table, names, said

LONG = ["timm/swin_large_patch4_window7_224.ms_in22k_ft_in1k", "transformers/facebook/dinov2-large"]
MODELS = ["a", "b", *LONG, "e"]
NETWORKS = ["mlp3", "mlp4", "residual"]
MEASURES = ("validation_cosine", "validation_mse")


def reports(models=2, spaces=2, epochs=12):
    draw = np.random.default_rng(0).uniform

    def linear():
        level = draw(0.6, 0.7)
        return {MEASURES[0]: level, MEASURES[1]: 0.1 - level / 10, "baseline_cosine": 0.5}

    def nonlinear():
        losses = {}
        for loss in ("both", "cosine", "mse"):
            cosine = draw(0.5, 0.9, epochs)
            mse = draw(0.02, 3 if loss == "cosine" else 0.04, epochs)
            points = enumerate(zip(cosine, mse, strict=True), 1)
            history = [{"epoch": n, MEASURES[0]: c, MEASURES[1]: m} for n, (c, m) in points]
            best = history[cosine.argmax()]
            losses[loss] = best | {"best_epoch": best["epoch"], "history": history}
        loss = min(losses, key=lambda name: losses[name]["validation_mse"])
        return {name: losses[loss][name] for name in MEASURES} | {"loss": loss, "losses": losses}

    return {
        s: {m: {"linear": linear()} | {k: nonlinear() for k in NETWORKS} for m in MODELS[:models]}
        for s in "st"[:spaces]
    }


def table(found):
    return models_table(dict.fromkeys(m for models in found.values() for m in models), found)


def test_fig7_draws_every_history_and_marks_its_best_epoch_and_the_linear_level():
    found = reports(models=2, spaces=1)
    figure = draw_training(found, table(found))
    wanted = [(kind, measure) for measure in MEASURES for kind in NETWORKS]
    for panel, (kind, measure) in zip(figure.axes, wanted, strict=True):
        curves = {tuple(line.get_ydata()): line for line in panel.lines}
        for (model, runs), shape in zip(found["s"].items(), "os", strict=True):
            assert tuple([runs["linear"][measure]] * 2) in curves, model
            for run in runs[kind]["losses"].values():
                line = curves[tuple(record[measure] for record in run["history"])]
                best = np.argmax([record["validation_cosine"] for record in run["history"]])
                assert list(line.get_markevery()) == [best] and line.get_marker() == shape
        assert panel.get_yscale() == ("log" if measure == "validation_mse" else "linear")
    assert re.match("[0-6] of 6 networks have a smaller", finding(figure))
    lines = [line for line in figure.axes[0].lines if len(line.get_ydata()) == 12]
    assert {to_hex(line.get_color()).upper() for line in lines} == set(COLOURS[:3])
    losses = ["loss MSE", "loss cosine", "loss MSE + cosine", "linear translator"]
    assert said(figure.legends[0]) == [*losses, "a", "b (weak translator)"]


def test_fig8_shows_every_architecture_beside_the_linear_one_and_the_baseline():
    found = reports(models=3, spaces=2)
    figure = draw_architectures(found, table(found))
    for row, models in enumerate(found.values()):
        cosine, _ = panels = figure.axes[2 * row : 2 * row + 2]
        for panel, measure in zip(panels, MEASURES, strict=True):
            points = [line for line in panel.lines if line.get_linestyle() == "None"]
            for line, runs in zip(points, models.values(), strict=True):
                values = [runs[kind][measure] for kind in ("linear", *NETWORKS)]
                assert list(line.get_xdata()) == values
        baselines = [line.get_xdata()[0] for line in cosine.lines if line.get_linestyle() == ":"]
        assert baselines == [0.5] * 3
    assert names(figure.axes[0]) == ["linear", "3-layer MLP", "4-layer MLP", "residual MLP"]
    assert said(figure.legends[0])[1] == "b (weak translator)"
