import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from singflow.figures import plot_probes
from singflow.figures.style import save

NAMES = [f"timm/a_classifier_with_a_long_name_{number}" for number in range(16)]
NULL = dict.fromkeys(["accuracy_principal", "accuracy_translated", "chance"])
NULL |= dict.fromkeys(
    [f"accuracy_{kind}_{end}" for kind in ("principal", "translated") for end in ("low", "high")]
)
SAID = {"classifier": "logistic", "n_labels_left_out": 0, "n_test_in_sample": 0}
NULL |= SAID | {
    "n_test": 1,
    "n_labels": 1,
    "note": "a probe needs two labels of two images or more; there are 1",
}


def report(before, after, chance=0.1):
    accuracies = {"principal": before, "translated": after}
    ends = {
        f"accuracy_{kind}_{end}": value + step
        for kind, value in accuracies.items()
        for end, step in (("low", -0.02), ("high", 0.02))
    }
    report = {
        "accuracy_principal": before,
        "accuracy_translated": after,
        "chance": chance,
        "n_test": 50,
        "n_labels": 5,
        "note": "",
    }
    return SAID | report | ends


def reports(models=16, chance=0.1):
    accuracies = np.random.default_rng(0).uniform(0.5, 0.9, (models, 2))
    return {
        name: report(*pair, chance=chance) for name, pair in zip(NAMES, accuracies, strict=False)
    }


def drawn(probes):
    rows = [
        {"space": s, "model": m, "rank_rule": "exact", "null_dim": 3, "validation_r2": 0.1}
        for s in probes
        for m in probes[s]
    ]
    models = pd.DataFrame(rows).assign(translator="weak", marks="weak translator", seed=0)
    table = plot_probes.tabulate(probes, models, 0.9)
    return table, plot_probes.draw(table, models, 0.9)


@pytest.mark.parametrize(("spaces", "models"), [(1, 1), (1, 3), (2, 16)])
def test_every_model_is_a_point_of_its_own_look_with_its_intervals_inside_the_axes(
    tmp_path, spaces, models
):
    table, figure = drawn({space: reports(models) for space in "st"[:spaces]})
    figure.canvas.draw()
    assert len(figure.axes) == spaces
    for axes, (_, rows) in zip(figure.axes, table.groupby("space"), strict=True):
        points = [container[0] for container in axes.containers]
        np.testing.assert_allclose(
            np.vstack([p.get_xydata() for p in points]),
            rows[["accuracy_principal", "accuracy_translated"]],
        )
        assert len({(p.get_color(), p.get_marker()) for p in points}) == models
        bars = np.vstack(
            [
                segment
                for container in axes.containers
                for lines in container[2]
                for segment in lines.get_segments()
            ]
        )
        assert axes.get_xlim() == axes.get_ylim()
        assert axes.get_xlim()[0] < bars.min() < bars.max() < axes.get_xlim()[1]
        np.testing.assert_allclose(np.ptp(bars.reshape(-1, 2, 2), axis=1).max(1), 0.04)
    for legend in (axes.get_legend() for axes in figure.axes):
        boxes = sorted(
            (text.get_window_extent() for text in legend.get_texts()), key=lambda box: box.y0
        )
        assert all(lower.y1 <= upper.y0 + 1 for lower, upper in itertools.pairwise(boxes))
        assert sum("(weak translator)" in text.get_text() for text in legend.get_texts()) == models
        assert legend.get_window_extent().x0 >= figure.axes[0].get_window_extent().x1
    save(figure, tmp_path / "a.png", tmp_path / "a.pdf")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
    assert (np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]) == 255).all()


def test_the_title_gives_the_correlation_with_its_interval_or_why_there_is_none():
    table, figure = drawn({"s": reports(16), "t": reports(3), "u": reports(1)})
    titles = [axes.get_title(loc="left").splitlines()[0] for axes in figure.axes]
    first, second = (table[table["space"] == space].iloc[0] for space in "st")
    assert titles == [
        (
            f"space s: Pearson {first['pearson']:.3f} [{first['pearson_low']:.3f}, "
            f"{first['pearson_high']:.3f}], 16 models"
        ),
        f"space t: Pearson {second['pearson']:.3f}, no interval, 3 models",
        "space u: a correlation needs three models with an accuracy",
    ]
    plt.close(figure)


def test_the_title_says_what_is_probed_how_and_what_is_left_out():
    said = {"n_labels_left_out": 2, "n_test_in_sample": 3, "classifier": "ridge"}
    _, figure = drawn(
        {"s": reports(3), "t": {name: facts | said for name, facts in reports(3).items()}}
    )
    assert [axes.get_title(loc="left").splitlines()[1] for axes in figure.axes] == [
        "logistic; test images: 50, labels: 5",
        (
            "ridge; test images: 50 (3 in the translator's sample), labels: "
            "5 (2 of one image left out)"
        ),
    ]
    plt.close(figure)


def test_chance_far_below_all_points_stays_outside_and_is_said():
    for chance, label in ((0.1, "chance: 0.100"), (-3.0, "chance: -3.000, outside")):
        _, figure = drawn({"s": reports(4, chance)})
        assert label in [
            text.get_text() for text in figure.subfigs[0].axes[0].get_legend().get_texts()
        ]
        assert (figure.axes[0].get_xlim()[0] < chance) == (chance == 0.1)
        plt.close(figure)


def test_a_panel_without_numbers_says_why_and_a_model_without_is_named():
    _, figure = drawn(
        {
            "s": {"m": NULL, "n": NULL},
            "t": reports(3) | {"m": NULL | {"note": "the head has no principal space"}},
        }
    )
    empty, full = figure.axes
    assert [" ".join(text.get_text().split()) for text in empty.texts] == [
        f"nothing can be probed: {NULL['note']}"
    ]
    assert not empty.containers
    assert len(full.containers) == 3
    assert "m (weak translator): the head has no principal space" in [
        text.get_text() for text in figure.subfigs[1].axes[0].get_legend().get_texts()
    ]
    plt.close(figure)
