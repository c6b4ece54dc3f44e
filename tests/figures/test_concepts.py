import hashlib

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from singflow.errors import InputError
from singflow.figures import plot_concept_scans, plot_concepts
from singflow.figures.scans import choose_labels
from singflow.figures.style import save

LABELS = ["goose", "a label with <b>, $x$ and a rather long name"]


def scan(seed, labels=LABELS, concepts=30, n=4):
    generator = np.random.default_rng(seed)
    size = len(labels) * concepts
    score = generator.normal(size=size)
    return pd.DataFrame(
        {
            "label": np.repeat(labels, concepts),
            "concept": np.tile([f"concept {number}" for number in range(concepts)], len(labels)),
            "n": n,
            "angle_mean": generator.uniform(50, 80, size),
            "angle_std": 1.0 if n > 1 else 0.0,
            "as_mean": score,
            "as_std": 0.1 if n > 1 else 0.0,
            "as_abs_mean": np.abs(score),
        }
    )


def study(models, spaces="s", **options):
    names = [f"timm/model_{number}" for number in range(models)]
    rows = [
        {"space": s, "model": m, "marks": "" if m == names[0] else "weak translator", "null_dim": 9}
        for s in spaces
        for m in names
    ]
    table = pd.DataFrame(rows)
    return {
        s: {m: scan(number, **options) for number, m in enumerate(names)} for s in spaces
    }, table


def cues(rows=()):
    return pd.DataFrame(list(rows), columns=["space", "model", "label", "concept"])


def shown(axes):
    return [tick.get_text() for tick in axes.get_yticklabels()]


def panels(figure):
    return [axes for axes in figure.axes if axes.get_visible() and axes.get_title()]


def titles(figure):
    return [axes.get_title() for axes in panels(figure)]


@pytest.mark.parametrize(("models", "spaces"), [(1, "s"), (2, "s"), (16, "st")])
def test_figures_are_written_twice_with_the_same_bytes_and_are_not_clipped(
    tmp_path, models, spaces
):
    scans, table = study(models, spaces, concepts=8)
    for name, draw in {
        "5": lambda: plot_concepts.draw(scans, table, LABELS[1], 3),
        "15": lambda: plot_concept_scans.draw(scans, table, cues(), LABELS, 5),
    }.items():
        digests = set()
        for attempt in "ab":
            png, pdf = tmp_path / f"{attempt}{name}.png", tmp_path / f"{attempt}{name}.pdf"
            save(draw(), png, pdf)
            digests.add(hashlib.sha256(png.read_bytes() + pdf.read_bytes()).hexdigest())
        assert len(digests) == 1, name
        pixels = np.asarray(Image.open(png).convert("L"))
        assert (
            np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]) == 255
        ).all(), name


def test_more_than_six_models_become_one_table_a_space_ranked_by_the_mean_over_models():
    scans, table = study(7)
    figure = plot_concepts.draw(scans, table, "goose", 4)
    score = pd.DataFrame(
        {
            m: scan.query("label == 'goose'").set_index("concept")["as_mean"]
            for m, scan in scans["s"].items()
        }
    )
    ranked = (score - score.mean()).abs().mean(axis=1).sort_values()
    (axes,) = panels(figure)
    assert shown(axes) == [*ranked.index[:4], *ranked.index[-4:]]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [
        "model_0",
        *(f"model_{i} (weak translator)" for i in range(1, 7)),
    ]
    cells = axes.collections[0].get_array()
    for column, model in enumerate(scans["s"]):
        mine = scans["s"][model].query("label == 'goose'").set_index("concept").loc[shown(axes)]
        whole = scans["s"][model].query("label == 'goose'")["as_mean"]
        np.testing.assert_allclose(cells[:, column], mine["as_mean"] - whole.mean())
        texts = [
            text.get_text() for text in axes.texts if round(text.get_position()[0] - 0.5) == column
        ]
        assert texts == [f"{angle:.0f}" for angle in mine["angle_mean"]]
    plt.close(figure)


@pytest.mark.parametrize("models", [2, 8])
def test_a_model_without_null_space_is_drawn_and_named(models):
    scans, table = study(models)
    flat = scans["s"]["timm/model_1"].assign(as_mean=0.0, as_std=0.0, as_abs_mean=0.0)
    scans["s"]["timm/model_1"] = flat
    table.loc[table["model"] == "timm/model_1", "null_dim"] = 0
    figure = plot_concepts.draw(scans, table, "goose", 3)
    words = [text.get_text() for text in figure.findobj(plt.Text)]
    assert any("model_1 (weak translator) (no null space)" in text for text in words)
    assert not any("model_0 (no null space)" in text for text in words)
    plt.close(figure)
    alone = plot_concept_scans.draw({"s": {"timm/model_1": flat}}, table, cues(), ["goose"], 5)
    assert "(no null space)" in titles(alone)[0]
    plt.close(alone)


def test_the_nearest_concepts_are_shown_nearest_first_with_their_spread_and_score():
    scans, table = study(2)
    figure = plot_concept_scans.draw(scans, table, cues(), LABELS, 6)
    assert [title.splitlines()[:2] for title in titles(figure)] == [
        [f"{label}, 4 images", name]
        for label in LABELS
        for name in ("model_0", "model_1 (weak translator)")
    ]
    axes = panels(figure)[3]
    mine = (
        scans["s"]["timm/model_1"].query("label == @LABELS[1]").sort_values("angle_mean").iloc[:6]
    )
    assert shown(axes) == list(mine["concept"])
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    dots = axes.collections[1]
    np.testing.assert_allclose(dots.get_offsets(), np.column_stack([mine["angle_mean"], range(6)]))
    whiskers = [segment[:, 0] for segment in axes.collections[0].get_segments()]
    np.testing.assert_allclose(
        whiskers, np.column_stack([mine["angle_mean"] - 1, mine["angle_mean"] + 1])
    )
    red, _, blue, _ = dots.get_facecolors().T
    whole = scans["s"]["timm/model_1"].query("label == @LABELS[1]")["as_mean"]
    assert ((red > blue) == (mine["as_mean"] > whole.mean())).all()
    plt.close(figure)


def test_candidates_are_marked_in_their_own_panel_alone():
    scans, table = study(2)
    nearest = (
        scans["s"]["timm/model_0"].query("label == 'goose'").sort_values("angle_mean")["concept"]
    )
    marked = [("s", "timm/model_0", "goose", nearest.iloc[place]) for place in (1, 3)]
    figure = plot_concept_scans.draw(
        scans, table, cues([*marked, ("t", "timm/model_1", "goose", "concept 0")]), ["goose"], 5
    )
    first, second = panels(figure)
    assert list(first.collections[2].get_offsets()[:, 1]) == [1, 3]
    assert len(second.collections[2].get_offsets()) == 0
    assert "candidate for a spurious cue" in figure.legends[0].get_texts()[1].get_text()
    plt.close(figure)


def test_eight_panels_are_shown_and_the_rest_is_named():
    scans, table = study(5, "st", concepts=6)
    figure = plot_concept_scans.draw(scans, table, cues(), LABELS, 4)
    assert len(panels(figure)) == 8
    said = " ".join(figure.get_supxlabel().split())
    assert said == (
        "Not shown: model_4 (weak translator) in s; all models in t. "
        "The numbers are in concepts/<space>/<model>.parquet and tables/spurious.csv."
    )
    plt.close(figure)
    scans, table = study(1, labels=[f"label {number}" for number in range(9)], concepts=3)
    figure = plot_concept_scans.draw(
        scans, table, cues(), [f"label {number}" for number in range(9)], 4
    )
    assert len(panels(figure)) == 8 and figure.get_supxlabel().startswith(
        "Not shown: labels label 8."
    )
    plt.close(figure)
    figure = plot_concept_scans.draw(scans, table, cues(), ["label 0"], 4)
    assert figure.get_supxlabel() == ""
    plt.close(figure)


def test_one_image_and_three_concepts_can_be_drawn():
    scans, table = study(1, n=1, concepts=3)
    for figure in (
        plot_concept_scans.draw(scans, table, cues(), ["goose"], 40),
        plot_concepts.draw(scans, table, "goose", 8),
    ):
        assert any(
            "goose, 1 image" in text.get_text() and "images" not in text.get_text()
            for text in figure.findobj(plt.Text)
        )
        plt.close(figure)


def test_labels_with_most_images_are_chosen_with_ties_by_name_unless_others_are_wanted():
    block = pd.DataFrame({"label": ["b", "b", "a", "c", "d"], "n": [2, 2, 2, 3, 1]}).astype(
        {"label": "category"}
    )
    assert choose_labels(block, [], 2, "plot_concept_scans.labels") == ["c", "a"]
    assert choose_labels(block, ["d", "b"], 2, "plot_concept_scans.labels") == ["d", "b"]


def test_an_unknown_label_is_refused_with_the_nearest():
    block = pd.DataFrame({"label": ["goose", "jeep"], "n": 1})
    with pytest.raises(
        InputError,
        match=(
            r"plot_concept_scans.labels: no image has the label 'goosse' \(did you mean "
            r"'goose'\?\)"
        ),
    ):
        choose_labels(block, ["jeep", "goosse"], 2, "plot_concept_scans.labels")
    with pytest.raises(
        InputError,
        match=(
            r"plot_concepts.label: no image has the label 'xylophone' \(tables/labels.csv "
            r"lists them\)"
        ),
    ):
        choose_labels(block, ["xylophone"], 1, "plot_concepts.label")
