import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from singflow.analyses.null_validation import PERTURBATIONS
from singflow.figures import plot_null_validation
from singflow.figures.style import save

SIZES = {"null": 1e-6, "random": 3.0, "principal": 10.0}


def effects(seed, n=20):
    generator = np.random.default_rng(seed)
    kinds = np.tile(PERTURBATIONS, n)
    change = np.array([SIZES[kind] for kind in kinds]) * generator.uniform(0.5, 2, len(kinds))
    frame = pd.DataFrame(
        {
            "image_id": np.repeat(np.arange(n), 3),
            "perturbation": kinds,
            "norm": 1.0,
            "logit_change": change,
        }
    )
    return frame.assign(top1_changed=change > 10, softmax_change=np.minimum(change / 20, 1))


def nothing(frame):
    return frame.assign(norm=0.0, logit_change=0.0, top1_changed=False, softmax_change=0.0)


def draw(models):
    """The table, and the figure."""
    named = pd.DataFrame(
        [
            {"space": s, "model": model, "rank_rule": "exact", "null_dim": int(table["norm"].any())}
            | {"validation_r2": 0.1, "translator": "good", "seed": 0}
            | {"marks": "known zero" * (model == "n")}
            for model, table in models.items()
            for s in "st"
        ]
    )
    table = plot_null_validation.tabulate(models, named, 0.9)
    figure = plot_null_validation.draw(models, table, named, 0.9)
    figure.canvas.draw()
    return table, figure


@pytest.mark.parametrize(
    "models",
    [
        {"m": effects(0)},
        {"m": effects(0, n=1)},
        {"m": nothing(effects(0))},
        {"m": effects(0), "timm/a_rather_long_name.with_a_tag_in1k": nothing(effects(1))},
        {f"a_classifier_{number}": effects(number) for number in range(16)},
    ],
    ids=["one", "one image", "no null space", "both", "sixteen"],
)
def test_all_marks_lie_inside_the_axes_and_all_text_inside_the_figure(tmp_path, models):
    _, figure = draw(models)
    for axes in figure.axes:
        (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
        marks = np.concatenate(
            [line.get_xydata() for line in axes.lines if line.get_transform() == axes.transData]
        )
        assert ((marks >= [left, low]) & (marks <= [right, high])).all()
        assert np.isfinite(marks).all()
        boxes = sorted(
            (tick.get_window_extent() for tick in axes.get_xticklabels()), key=lambda box: box.x0
        )
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    labels = [axes.xaxis.label.get_window_extent() for axes in figure.axes]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(labels))
    boxes = sorted(
        (tick.get_window_extent() for tick in figure.axes[0].get_yticklabels()),
        key=lambda box: box.y0,
    )
    assert all(lower.y1 <= upper.y0 for lower, upper in itertools.pairwise(boxes))
    save(figure, tmp_path / "a.png", tmp_path / "a.pdf")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
    assert (np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]) == 255).all()


def test_medians_and_shares_stand_where_the_table_says():
    models = {"m": effects(0), "n": effects(1)}
    table, figure = draw(models)
    markers = [
        sorted(line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 1)
        for axes in figure.axes
    ]
    np.testing.assert_allclose(markers[0], sorted(table["logit_change_median"]))
    np.testing.assert_allclose(markers[2], sorted(100 * table["top1_changed_share"]))
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == [
        "m",
        "n\n(known zero)",
    ]
    plt.close(figure)


def test_an_exact_zero_has_its_own_mark_left_of_every_other_value():
    _, figure = draw({"m": effects(0), "flat": nothing(effects(1))})
    axes = figure.axes[0]
    ticks = dict(
        zip([tick.get_text() for tick in axes.get_xticklabels()], axes.get_xticks(), strict=True)
    )
    assert 0 < ticks["0"] < effects(0)["logit_change"].min() / 10
    assert "exactly 0 at the mark 0" in axes.get_xlabel()
    assert axes.get_yticklabels()[1].get_text() == "flat\n(no null space)"
    _, figure_without = draw({"m": effects(0)})
    assert "0" not in [tick.get_text() for tick in figure_without.axes[0].get_xticklabels()]
    plt.close("all")


def test_two_drawings_are_the_same_bytes(tmp_path):
    for name in "ab":
        save(
            draw({"m": effects(0), "n": nothing(effects(1))})[1],
            tmp_path / f"{name}.png",
            tmp_path / f"{name}.pdf",
        )
    for kind in ("png", "pdf"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
