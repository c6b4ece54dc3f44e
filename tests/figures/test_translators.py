import hashlib

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from singflow.figures.plot_translators import draw_architectures, draw_training
from singflow.figures.style import COLOURS, save

MODELS = [
    "a",
    "b",
    "timm/swin_large_patch4_window7_224.ms_in22k_ft_in1k",
    "transformers/facebook/dinov2-large-imagenet1k-1-layer",
    "e",
]
KINDS = ["mlp3", "mlp4", "residual"]


def reports(models=2, spaces=2, epochs=12):
    generator = np.random.default_rng(0)

    def linear():
        level = generator.uniform(0.6, 0.7)
        return {
            "validation_cosine": level,
            "validation_mse": 0.1 - level / 10,
            "baseline_cosine": 0.5,
        }

    def nonlinear():
        losses = {}
        for loss in ("both", "cosine", "mse"):
            cosine, mse = (
                generator.uniform(0.5, 0.9, epochs),
                generator.uniform(0.02, 3 if loss == "cosine" else 0.04, epochs),
            )
            best = int(cosine.argmax())
            history = [
                {"epoch": n + 1, "validation_cosine": c, "validation_mse": m}
                for n, (c, m) in enumerate(zip(cosine, mse, strict=True))
            ]
            losses[loss] = {
                "best_epoch": best + 1,
                "history": history,
                "validation_cosine": cosine[best],
                "validation_mse": mse[best],
            }
        loss = min(losses, key=lambda name: losses[name]["validation_mse"])
        return {name: losses[loss][name] for name in ("validation_cosine", "validation_mse")} | {
            "loss": loss,
            "losses": losses,
        }

    return {
        s: {m: {"linear": linear()} | {k: nonlinear() for k in KINDS} for m in MODELS[:models]}
        for s in "st"[:spaces]
    }


def table(found, weak=()):
    rows = [
        {"space": s, "model": m, "marks": "weak translator" if (s, m) in weak else ""}
        for s in found
        for m in found[s]
    ]
    return pd.DataFrame(rows, columns=["space", "model", "marks"])


@pytest.mark.parametrize("draw", [draw_training, draw_architectures])
@pytest.mark.parametrize("size", [(0, 1, 12), (1, 1, 1), (5, 2, 12)])
def test_figures_of_any_size_are_written_twice_with_the_same_bytes_and_unclipped(
    draw, size, tmp_path
):
    found = reports(*size)
    digests = set()
    for attempt in "ab":
        png, pdf = tmp_path / f"{attempt}.png", tmp_path / f"{attempt}.pdf"
        save(draw(found, table(found)), png, pdf)
        digests.add(tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in (png, pdf)))
    assert len(digests) == 1
    pixels = np.asarray(Image.open(png).convert("L"))
    assert (np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]) == 255).all()
    assert pixels.shape[1] < 2200
    assert not plt.get_fignums()


@pytest.mark.parametrize("draw", [draw_training, draw_architectures])
@pytest.mark.parametrize(
    "untrained", [{"s": {}}, {"s": {"a": {"linear": {"validation_cosine": 0.5}}}}]
)
def test_without_nonlinear_translators_the_figure_says_so(draw, untrained):
    figure = draw(untrained, table(untrained))
    assert "no nonlinear translator was trained" in figure.texts[0].get_text()
    plt.close(figure)


def test_fig7_draws_every_history_and_marks_its_best_epoch_and_the_linear_level():
    found = reports(models=2, spaces=1)
    figure = draw_training(found, table(found, {("s", "b")}))
    panels = figure.subfigs[0].axes
    for number, kind in enumerate(KINDS):
        for panel, measure in zip(
            panels[2 * number : 2 * number + 2],
            ("validation_cosine", "validation_mse"),
            strict=True,
        ):
            curves = {tuple(line.get_ydata()): line for line in panel.lines}
            for model, runs in found["s"].items():
                assert tuple([runs["linear"][measure]] * 2) in curves
                for run in runs[kind]["losses"].values():
                    line = curves[tuple(record[measure] for record in run["history"])]
                    assert list(line.get_markevery()) == [
                        int(np.argmax([record["validation_cosine"] for record in run["history"]]))
                    ]
                    assert line.get_marker() == {"a": "o", "b": "s"}[model]
            assert panel.get_yscale() == ("log" if measure == "validation_mse" else "linear")
    colours = {
        to_hex(line.get_color()).upper() for line in panels[0].lines if len(line.get_ydata()) == 12
    }
    assert colours == set(COLOURS[:3])
    assert [text.get_text() for legend in figure.legends for text in legend.get_texts()] == [
        "loss MSE",
        "loss cosine",
        "loss MSE + cosine",
        "linear translator",
        "a",
        "b (weak translator)",
    ]
    plt.close(figure)


def test_fig8_shows_every_architecture_beside_the_linear_one_and_the_baseline():
    found = reports(models=3, spaces=2)
    figure = draw_architectures(found, table(found, {("t", "b")}))
    for row, (space, models) in enumerate(found.items()):
        cosine, mse = figure.axes[2 * row : 2 * row + 2]
        names = [name.get_text() for name in cosine.get_yticklabels()]
        for panel, measure in ((cosine, "validation_cosine"), (mse, "validation_mse")):
            points = [line for line in panel.lines if line.get_linestyle() == "None"]
            for line, runs in zip(points, models.values(), strict=True):
                assert list(line.get_xdata()) == [
                    runs[kind][measure] for kind in ("linear", *KINDS)
                ]
            low, high = panel.get_xlim()
            assert all(low < x < high for line in points for x in line.get_xdata())
        assert [line.get_xdata()[0] for line in cosine.lines if line.get_linestyle() == ":"] == [
            0.5
        ] * 3
        kept = {"both": "MSE + cosine", "cosine": "cosine", "mse": "MSE"}[
            models["a"]["mlp4"]["loss"]
        ]
        assert names[:3:2] == ["linear", f"4-layer MLP (loss {kept})"]
        captions = [text.get_text() for text in cosine.texts if text.get_fontweight() == "bold"]
        assert captions[1] == ("b (weak translator)" if space == "t" else "b")
        for place, (height, text) in enumerate(zip(cosine.get_yticks(), names, strict=True)):
            assert text.startswith(["linear", "3-layer", "4-layer", "residual"][place % 4])
            assert height == place + place // 4 + 1
    plt.close(figure)
