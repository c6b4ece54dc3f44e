"""Every figure as it is printed: width, sizes of text, nothing outside the page, no overlaps."""

import itertools
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.transforms import Bbox

from singflow.figures import evidence, verdicts
from singflow.figures.picture_grid import TALLEST
from singflow.figures.style import COLUMN, PAGE, STYLE, save
from tests.figures import (
    test_concepts,
    test_hidden_texts,
    test_models,
    test_null_validation,
    test_pictures,
    test_probes,
    test_translators,
)
from tests.figures.drawn import models_table

LONG = "timm/swin_large_patch4_window7_224.ms_in22k_ft_in1k"
STUDIES = {
    "small": (["m"], "s"),
    "large": ([LONG, *(f"a_classifier_{n}" for n in range(7))], ["conse", "clip"]),
}
D = {"unique_r2": 0.05, "unique_r2_low": 0.04, "unique_r2_high": 0.06, "n_evidence": 500}


def of_verdicts(models, spaces):
    facts = D | {"margin": 0.005, "detectable": 0.02, "verdict": "meaning", "known_leak": False}
    return verdicts.draw(models_table(models, spaces, known_zero=False, **facts), 0.9)


def of_scores(draw, models, spaces, *labels):
    found = {s: {m: test_models.scores(n) for n, m in enumerate(models)} for s in spaces}
    return draw(found, test_models.table_of(models, spaces), *labels)


def of_translators(draw, models, spaces):
    found = test_translators.reports(min(len(models), 5), len(spaces))
    return draw(found, test_translators.table(found))


def hidden_texts(models, spaces):
    found = [test_hidden_texts.texts(m, np.linspace(0, 1, 40), s) for s in spaces for m in models]
    table = models_table(models, spaces, margin=0.005, verdict="meaning")
    return test_hidden_texts.drawn(pd.concat(found[:6]), table[:6])


def of_one_model(*_):
    planted = [
        {"control": f"leak, {kind}", "share": share, "unique_r2": share / 3}
        for kind in ("even", "first")
        for share in (0.01, 0.1)
    ]
    images = test_models.scores(0).assign(floor_is_deg=4.0)
    return evidence.draw(D | {"margin": 0.005}, pd.DataFrame(planted), images)


def pictures(name, models, spaces):
    frame = test_pictures.pictures(after=test_pictures.LONG)
    return test_pictures.draw(name, {of: dict.fromkeys(models, frame) for of in spaces})


CASES = {
    "verdicts": of_verdicts,
    "hidden_texts": hidden_texts,
    "evidence": of_one_model,
    "scores": partial(of_scores, test_models.plot_scores.draw),
    "labels": lambda m, s: of_scores(test_models.plot_labels.draw, m, s, []),
    "training": partial(of_translators, test_translators.draw_training),
    "architectures": partial(of_translators, test_translators.draw_architectures),
    "concepts": lambda m, s: test_concepts.drawn(
        *test_concepts.study(len(m), s), test_concepts.LABELS, 8
    ),
    "null_validation": lambda m, _: test_null_validation.draw(
        {model: test_null_validation.effects(n) for n, model in enumerate(m)}
    )[1],
    "probes": lambda m, s: test_probes.drawn({of: test_probes.reports(len(m)) for of in s})[1],
    **{name: partial(pictures, name) for name in test_pictures.FIGURES},
}


def unseen_ticks(figure):
    """Labels of ticks that lie beyond the ends of an axis or that another panel shows."""
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            if not low <= tick.get_loc() <= high or not axis.axes.get_visible():
                yield tick.label1


@pytest.mark.parametrize("study", ["small", pytest.param("large", marks=pytest.mark.nightly)])
@pytest.mark.parametrize("name", CASES)
def test_a_figure_can_be_printed(name, study, tmp_path):
    figure = CASES[name](*STUDIES[study])
    figure.draw_without_rendering()
    (width, height), edges = figure.get_size_inches(), figure.get_tightbbox()
    assert width in (COLUMN, PAGE, verdicts.WIDTH) and (
        height <= TALLEST + 1 or name not in test_pictures.FIGURES
    )
    assert edges.x0 >= 0 and edges.x1 <= width and edges.y0 >= -0.01 and edges.y1 <= height + 0.01
    shown = [text for text in figure.findobj(plt.Text) if text.get_visible() and text.get_text()]
    assert min(text.get_fontsize() for text in shown) >= STYLE["font.size"] == 7
    hidden = set(unseen_ticks(figure))
    boxes = [(text.get_window_extent(), text.get_text()) for text in shown if text not in hidden]
    boxes += [(axes.get_window_extent(), "picture") for axes in figure.axes if axes.images]
    for (one, said), (other, too) in itertools.combinations(boxes, 2):
        assert not Bbox.intersection(one.padded(-1), other.padded(-1)), (said, too)
    save(figure, tmp_path / "a.svg")
    assert f'width="{72 * width:g}pt"' in (tmp_path / "a.svg").read_text()
