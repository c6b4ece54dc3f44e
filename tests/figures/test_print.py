"""Every figure as it is printed: its width, its sizes of text, and nothing outside the page."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from singflow.figures import evidence
from singflow.figures.plot_pictures import FIGURES as PICTURES
from singflow.figures.style import COLUMN, PAGE, STYLE, TALLEST, new_figure, save
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
FEW, MANY = (["m"], "s"), ([LONG, *(f"a_classifier_{n}" for n in range(7))], ["conse", "clip"])
D = {"unique_r2": 0.05, "unique_r2_low": 0.04, "unique_r2_high": 0.06, "n_evidence": 500}


def of_scores(draw, models, spaces, *labels):
    found = {s: {m: test_models.scores(n) for n, m in enumerate(models)} for s in spaces}
    return draw(found, test_models.table_of(models, spaces), *labels)


def of_translators(draw, models, spaces):
    found = test_translators.reports(min(len(models), 5), len(spaces))
    return draw(found, test_translators.table(found))


def hidden_texts(models, spaces):
    found = [test_hidden_texts.texts(m, np.linspace(0, 1, 40), s) for s in spaces for m in models]
    table = models_table(models, spaces, margin=0.005, verdict="meaning")
    return test_hidden_texts.draw(pd.concat(found[:6]), table[:6])


def groups(models, spaces):
    found = pd.DataFrame({"group": [f"a group {n}" for n in range(12)], "n": 30, **D})
    sets = {s: dict.fromkeys(models, found.assign(hidden=True, by="column")) for s in spaces}
    return test_models.plot_labels.draw_groups(sets, models_table(models, spaces, margin=0.005))


def of_one_model(*_):
    planted = [
        {"control": f"leak, {kind}", "share": share, "unique_r2": share / 3}
        for kind in ("even", "first")
        for share in (0.01, 0.1)
    ]
    images = test_models.scores(0).assign(floor_is_deg=4.0)
    return evidence.draw(D | {"margin": 0.005}, pd.DataFrame(planted), images)


CASES = {
    "hidden_texts": hidden_texts,
    "groups": groups,
    "evidence": of_one_model,
    "scores": lambda m, s: of_scores(test_models.plot_scores.draw, m, s),
    "labels": lambda m, s: of_scores(test_models.plot_labels.draw, m, s, []),
    "training": lambda m, s: of_translators(test_translators.draw_training, m, s),
    "architectures": lambda m, s: of_translators(test_translators.draw_architectures, m, s),
    "concepts": lambda m, s: test_concepts.drawn(
        *test_concepts.study(len(m), s), test_concepts.LABELS, 8
    ),
    "null_validation": lambda m, _: test_null_validation.draw(
        {model: test_null_validation.effects(n) for n, model in enumerate(m)}
    )[1],
    "probes": lambda m, s: test_probes.drawn({of: test_probes.reports(len(m)) for of in s})[1],
    **{
        name: lambda m, s, name=name: test_pictures.draw(
            name, {of: {model: test_pictures.pictures() for model in m} for of in s}
        )
        for name in test_pictures.FIGURES
    },
}
# Other widths and panels in a study of one model or one space.
FEWER = ("hidden_texts", "concepts")
HIGH = (*PICTURES, "fig10")  # that end with the page


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "study"),
    [*((name, MANY) for name in CASES), *((name, FEW) for name in FEWER)],
    ids=[*CASES, *(f"{name}, one model" for name in FEWER)],
)
def test_a_figure_is_a_column_or_a_page_wide_and_has_no_small_text(name, study, tmp_path):
    figure = CASES[name](*study)
    save(figure, tmp_path / "a.svg")
    width, height = figure.get_size_inches()
    edges = figure.get_tightbbox()
    assert edges.x0 >= 0 and edges.x1 <= width and edges.y0 >= -0.01 and edges.y1 <= height + 0.01
    assert height <= TALLEST or name not in HIGH
    shown = [text for text in figure.findobj(plt.Text) if text.get_visible() and text.get_text()]
    assert min(text.get_fontsize() for text in shown) >= STYLE["font.size"] == 7
    written = (tmp_path / "a.svg").read_text()
    assert width in (COLUMN, PAGE)
    assert f'width="{72 * width:g}pt"' in written and len(written) < 1e6


def test_photos_in_an_svg_are_small_and_pictures_that_are_not_opaque_stay(tmp_path):
    figure = new_figure((COLUMN, 2))
    left, right = figure.subplots(1, 2)
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 4), dtype=np.uint8)
    left.imshow(noise[..., :3])
    right.imshow(noise)
    save(figure, tmp_path / "a.svg")
    written = (tmp_path / "a.svg").read_text()
    assert written.count("data:image/jpeg") == written.count("data:image/png") == 1
