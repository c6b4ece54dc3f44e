import numpy as np
import pandas as pd
import pytest

from singflow.analyses.null_validation import PERTURBATIONS
from singflow.figures import plot_null_validation
from tests.figures.drawn import finding, models_table, names

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
    return table, plot_null_validation.draw(models, table, named)


STUDIES = {
    "one image": {"m": effects(0, n=1)},
    "no null space": {"m": nothing(effects(0))},
    "both": {"m": effects(0), "flat": nothing(effects(1))},
}


@pytest.mark.parametrize("models", STUDIES.values(), ids=STUDIES)
def test_medians_and_shares_stand_where_the_table_says_inside_the_axes(models):
    table, figure = draw(models)
    wanted = {0: table["logit_change_median"], 2: 100 * table["top1_changed_share"]}
    for number, axes in enumerate(figure.axes):
        points = [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 1]
        np.testing.assert_allclose(sorted(points), sorted(wanted.get(number, points)))
        (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
        lines = [line for line in axes.lines if line.get_transform() == axes.transData]
        marks = np.concatenate([line.get_xydata() for line in lines])
        assert ((marks >= [left, low]) & (marks <= [right, high])).all()
    every = pd.concat(models)
    changed = every["top1_changed"][every["perturbation"] == "principal"]
    assert f"{changed.sum()} of {len(changed)} (principal)" in finding(figure)
    if "flat" in models:
        assert names(figure.axes[0]) == ["m", "flat\n(known zero)\n(no null space)"]
