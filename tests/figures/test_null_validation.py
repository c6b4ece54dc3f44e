import itertools

import numpy as np
import pandas as pd
import pytest

from singflow.analyses.null_validation import PERTURBATIONS
from singflow.figures import plot_null_validation
from tests.figures.drawn import assert_apart, models_table, names

SIZES = {"null": 1e-6, "random": 3.0, "principal": 10.0}


def effects(seed, n=20):
    kinds = np.tile(PERTURBATIONS, n)
    sizes = np.random.default_rng(seed).uniform(0.5, 2, len(kinds))
    change = np.array([SIZES[kind] for kind in kinds]) * sizes
    columns = {"image_id": np.repeat(np.arange(n), 3), "perturbation": kinds, "norm": 1.0}
    columns |= {"logit_change": change, "top1_changed": change > 10}
    return pd.DataFrame(columns).assign(softmax_change=np.minimum(change / 20, 1))


def nothing(frame):
    return frame.assign(norm=0.0, logit_change=0.0, top1_changed=False, softmax_change=0.0)


def draw(models):
    """The table, and the figure."""
    basis = {"rank_rule": "exact", "validation_r2": 0.1, "translator": "not weak", "seed": 0}
    named = models_table(models, "st", "known zero", **basis)
    sizes = {model: int(table["norm"].any()) for model, table in models.items()}
    named["null_dim"] = named["model"].map(sizes)
    table = plot_null_validation.tabulate(models, named, 0.9)
    figure = plot_null_validation.draw(models, table, named, 0.9)
    figure.canvas.draw()
    return table, figure


LONG = "timm/a_rather_long_name.with_a_tag_in1k"
STUDIES = {
    "one image": {"m": effects(0, n=1)},
    "no null space": {"m": nothing(effects(0))},
    "both": {"m": effects(0), LONG: nothing(effects(1))},
    "sixteen": {f"a_classifier_{number}": effects(number) for number in range(16)},
}


@pytest.mark.parametrize("models", STUDIES.values(), ids=STUDIES)
def test_all_marks_lie_inside_the_axes_and_no_text_overlaps(models):
    _, figure = draw(models)
    labels = [[axes.xaxis.label for axes in figure.axes]]
    for axes in figure.axes:
        (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
        lines = [line for line in axes.lines if line.get_transform() == axes.transData]
        marks = np.concatenate([line.get_xydata() for line in lines])
        assert ((marks >= [left, low]) & (marks <= [right, high])).all()
        assert np.isfinite(marks).all()
        labels.append(axes.get_xticklabels())
    for texts in labels:
        boxes = sorted((text.get_window_extent() for text in texts), key=lambda box: box.x0)
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    assert_apart(figure.axes[0].get_yticklabels())


def test_medians_and_shares_stand_where_the_table_says():
    table, figure = draw({"m": effects(0), "n": effects(1)})
    markers = [
        sorted(line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 1)
        for axes in figure.axes
    ]
    np.testing.assert_allclose(markers[0], sorted(table["logit_change_median"]))
    np.testing.assert_allclose(markers[2], sorted(100 * table["top1_changed_share"]))
    assert names(figure.axes[0]) == ["m", "n\n(known zero)"]


def test_an_exact_zero_has_its_own_mark_left_of_every_other_value():
    _, figure = draw({"m": effects(0), "flat": nothing(effects(1))})
    axes = figure.axes[0]
    labels = [tick.get_text() for tick in axes.get_xticklabels()]
    ticks = dict(zip(labels, axes.get_xticks(), strict=True))
    assert 0 < ticks["0"] < effects(0)["logit_change"].min() / 10
    assert "exactly 0 at the mark 0" in axes.get_xlabel()
    assert names(axes)[1] == "flat\n(known zero)\n(no null space)"
    without = draw({"m": effects(0)})[1].axes[0]
    assert "0" not in [tick.get_text() for tick in without.get_xticklabels()]
