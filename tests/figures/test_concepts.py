from itertools import product

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from singflow.artifacts.tables import write_parquet
from singflow.figures import plot_concept_scans, plot_concepts, style
from singflow.figures.scans import choose_labels
from tests.figures.drawn import models_table, names, words
from tests.refusals import refused
from tests.results import Results

LABELS = ["goose", "a label with <b>, $x$ and a rather long name"]


def scan(seed, labels=LABELS, concepts=30, n=4):
    generator = np.random.default_rng(seed)
    size = len(labels) * concepts
    score = generator.normal(size=size)
    names = np.tile([f"concept {number}" for number in range(concepts)], len(labels))
    found = {"label": np.repeat(labels, concepts), "concept": names, "as_mean": score}
    found |= {"angle_mean": generator.uniform(50, 80, size), "as_abs_mean": np.abs(score)}
    spread = {"n": n, "angle_std": 1.0 * (n > 1), "as_std": 0.1 * (n > 1)}
    return pd.DataFrame(found).assign(**spread)


def study(models, spaces="s", **options):
    named = [f"timm/model_{number}" for number in range(models)]
    scans = {s: {m: scan(i, **options) for i, m in enumerate(named)} for s in spaces}
    return scans, models_table(named, spaces, null_dim=9)


def cues(*rows):
    return pd.DataFrame(rows, columns=["space", "model", "label", "concept"])


def panels(figure):
    return [axes for axes in figure.axes if axes.get_title("left")]


def of_label(scan, label="goose"):
    return scan[scan["label"] == label]


def test_every_label_has_its_own_panels_and_models_keep_their_colours():
    scans, table = study(3)
    del scans["s"]["timm/model_0"]
    figure = plot_concepts.draw(scans, table, LABELS, 2)
    boxes = [box for box in figure.subfigs if box.axes]
    for box, (label, number) in zip(boxes, product(LABELS, (1, 2)), strict=True):
        title = f"{label}, 4 images\nmodel_{number} (weak translator), s"
        assert box.get_suptitle() == title
        mine = of_label(scans["s"][f"timm/model_{number}"], label).set_index("concept")["as_mean"]
        ranked = (mine - mine.mean()).abs().sort_values().index
        assert names(box.axes[0]) == [*ranked[:2], *ranked[-2:]]
        assert to_hex(box.axes[1].patches[0].get_facecolor()) == style.colour(number).lower()


def test_several_labels_of_many_models_become_one_table_a_label():
    scans, table = study(4)
    figure = plot_concepts.draw(scans, table, LABELS, 2)
    assert [axes.get_title("left").split("\n")[0] for axes in panels(figure)] == [
        f"{label}, 4 images, s" for label in LABELS
    ]
    for axes, label in zip(panels(figure), LABELS, strict=True):
        angles = [of_label(scan, label).set_index("concept") for scan in scans["s"].values()]
        shown = [f"{angle:.0f}" for angle in angles[0].loc[names(axes), "angle_mean"]]
        assert [t.get_text() for t in axes.texts][::4] == shown


def test_figure_5_shows_the_wanted_labels_and_models_alone(tmp_path, monkeypatch):
    scans, _ = study(3)
    results, models = Results(tmp_path), scans["s"]
    for model, found in models.items():
        write_parquet(results.path("concepts", model=model), found)
    results.models(dict.fromkeys(models, 9))
    figures = []
    monkeypatch.setattr(style, "write_figure", lambda *made: figures.append(made[-1]))

    def titles(**chosen):
        flags = {"models": list(models), "extremes": 2, "labels": [], "shown": []}
        results.run("plot_concepts", **flags | chosen)
        return [box.get_suptitle() for box in figures[-1].subfigs]

    assert titles(labels=LABELS[1:], shown=["timm/model_2"]) == [
        f"{LABELS[1]}, 4 images\nmodel_2 (weak translator), s"
    ]
    assert [title.startswith(min(LABELS)) for title in titles()] == [True] * 3
    refused(r"plot_concepts.labels: no image has the label 'gose'", titles, labels=["gose"])


def test_more_than_six_models_become_one_table_a_space_ranked_by_the_mean_over_models():
    scans, table = study(7)
    figure = plot_concepts.draw(scans, table, ["goose"], 4)
    mine = {model: of_label(scan).set_index("concept") for model, scan in scans["s"].items()}
    score = pd.DataFrame({model: scan["as_mean"] for model, scan in mine.items()})
    ranked = (score - score.mean()).abs().mean(axis=1).sort_values().index
    (axes,) = panels(figure)
    assert names(axes) == [*ranked[:4], *ranked[-4:]]
    expected = (score - score.mean()).loc[names(axes)]
    np.testing.assert_allclose(axes.collections[0].get_array(), expected)
    for column, scan in enumerate(mine.values()):
        texts = [t.get_text() for t in axes.texts if round(t.get_position()[0] - 0.5) == column]
        assert texts == [f"{angle:.0f}" for angle in scan.loc[names(axes), "angle_mean"]]


@pytest.mark.parametrize("models", [2, 8])
def test_a_model_without_null_space_is_drawn_and_named(models):
    scans, table = study(models)
    flat = scans["s"]["timm/model_1"].assign(as_mean=0.0, as_std=0.0, as_abs_mean=0.0)
    scans["s"]["timm/model_1"] = flat
    table.loc[table["model"] == "timm/model_1", "null_dim"] = 0
    text = words(plot_concepts.draw(scans, table, ["goose"], 3))
    assert "model_1 (weak translator) (no null space)" in text
    assert "model_0 (no null space)" not in text
    alone = plot_concept_scans.draw({"s": {"timm/model_1": flat}}, table, cues(), ["goose"], 5)
    assert "(no null space)" in panels(alone)[0].get_title("left")


def test_the_nearest_concepts_are_shown_nearest_first_with_their_spread_and_score():
    scans, table = study(2)
    figure = plot_concept_scans.draw(scans, table, cues(), LABELS, 6)
    assert [axes.get_title("left").splitlines() for axes in panels(figure)] == [
        [f"{label}, 4 images", f"{name}, s"]
        for label in LABELS
        for name in ("model_0", "model_1 (weak translator)")
    ]
    axes, whole = panels(figure)[3], of_label(scans["s"]["timm/model_1"], LABELS[1])
    mine = whole.sort_values("angle_mean").iloc[:6]
    angles = mine["angle_mean"].to_numpy()
    assert names(axes) == list(mine["concept"]) and axes.get_ylim()[0] > axes.get_ylim()[1]
    dots = axes.collections[1]
    np.testing.assert_allclose(dots.get_offsets(), np.column_stack([angles, range(6)]))
    whiskers = [segment[:, 0] for segment in axes.collections[0].get_segments()]
    np.testing.assert_allclose(whiskers, np.column_stack([angles - 1, angles + 1]))
    red, _, blue, _ = dots.get_facecolors().T
    assert ((red > blue) == (mine["as_mean"] > whole["as_mean"].mean())).all()


def test_candidates_are_marked_in_their_own_panel_alone():
    scans, table = study(2)
    nearest = of_label(scans["s"]["timm/model_0"]).sort_values("angle_mean")["concept"]
    marked = [("s", "timm/model_0", "goose", nearest.iloc[place]) for place in (1, 3)]
    elsewhere = ("t", "timm/model_1", "goose", "concept 0")
    figure = plot_concept_scans.draw(scans, table, cues(*marked, elsewhere), ["goose"], 5)
    first, second = panels(figure)
    assert list(first.collections[2].get_offsets()[:, 1]) == [1, 3]
    assert len(second.collections[2].get_offsets()) == 0
    assert "candidate for a spurious cue" in figure.legends[0].get_texts()[1].get_text()


def test_four_panels_are_shown_and_the_rest_is_named():
    def drawn(wanted, *size, **options):
        figure = plot_concept_scans.draw(*study(*size, **options), cues(), wanted, 4)
        return len(panels(figure)), " ".join(figure.legends[0].get_title().get_text().split())

    assert drawn(LABELS, 5, "st", concepts=6) == (
        4,
        "Not shown: model_2 (weak translator), model_3 (weak translator), model_4 (weak "
        "translator) in s; all models in t. "
        "The numbers are in concepts/<space>/<model>.parquet and tables/spurious.csv.",
    )
    five = [f"label {number}" for number in range(5)]
    count, note = drawn(five, 1, labels=five, concepts=3)
    assert count == 4 and note.startswith("Not shown: labels label 4.")
    assert drawn(["label 0"], 1, labels=five, concepts=3) == (1, "")


@pytest.mark.parametrize(("n", "said"), [(1, "1 image\n"), (2, "2 images\n"), (3, "3 images\n")])
def test_few_images_and_three_concepts_can_be_drawn_with_whiskers_from_three_images_on(n, said):
    scans, table = study(1, n=n, concepts=3)
    figures = (
        plot_concept_scans.draw(scans, table, cues(), ["goose"], 40),
        plot_concepts.draw(scans, table, ["goose"], 8),
    )
    for figure in figures:
        assert f"goose, {said}" in words(figure)
    bars = figures[0].axes[0].containers + figures[1].subfigs[0].axes[0].containers
    assert [bool(bar.has_xerr) for bar in bars] == [n >= 3] * 2
    assert ("whisker" in words(figures[0])) == (n >= 3)


def test_labels_with_most_images_are_chosen_with_ties_by_name_unless_others_are_wanted():
    block = pd.DataFrame({"label": list("bbacd"), "n": [2, 2, 2, 3, 1]})
    block = block.astype({"label": "category"})
    assert choose_labels(block, [], 2, "key") == ["c", "a"]
    assert choose_labels(block, ["d", "b"], 2, "key") == ["d", "b"]
    message = r"key: no image has the label 'x' \(labels are '"
    refused(message, choose_labels, block, ["b", "x"], 2, "key")
