from itertools import product

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from singflow.analyses.concepts import MOMENTS, Scan
from singflow.artifacts.files import write_json
from singflow.figures import plot_concepts, style
from tests.figures.drawn import finding, models_table, names
from tests.refusals import refused
from tests.results import Results

LABELS = ["goose", "a label with <b>, $x$ and a rather long name"]


def scan(seed, labels=LABELS, concepts=30, n=4):
    generator = np.random.default_rng(seed)
    size = len(labels), concepts
    spread = np.full(size, 0.1, np.float32)
    moments = dict.fromkeys(MOMENTS, spread) | {"angle_std": 10 * spread}
    moments["angle_mean"] = generator.uniform(50, 80, size).astype(np.float32)
    moments["as_mean"] = generator.normal(size=size).astype(np.float32)
    named = [f"concept {number}" for number in range(concepts)]
    return Scan(list(labels), named, np.full(len(labels), n), moments)


def study(models, spaces="s", **options):
    named = [f"timm/model_{number}" for number in range(models)]
    scans = {s: {m: scan(i, **options) for i, m in enumerate(named)} for s in spaces}
    return scans, models_table(named, spaces, null_dim=9)


def cues(*rows):
    return pd.DataFrame(rows, columns=["space", "model", "label", "concept"])


def drawn(scans, table, labels, extremes, *marked):
    return plot_concepts.draw(scans, table, cues(*marked), labels, extremes)


def boxes(figure):
    """Title, axes of angles and axes of AS of every panel."""
    panels = [box.axes for box in figure.subfigs if box.axes]
    titles = [box.get_suptitle() for box in figure.subfigs if box.axes]
    return [(title, *axes) for title, axes in zip(titles, panels, strict=True)]


def test_a_panel_shows_the_nearest_the_strongest_and_the_weakest_concepts_in_their_order():
    scans, table = study(3)
    del scans["s"]["timm/model_0"]
    figure, strongest = drawn(scans, table, LABELS, 4), 0.0
    for (title, left, right), (row, number) in zip(
        boxes(figure), product(range(2), (1, 2)), strict=True
    ):
        assert title == f"{LABELS[row]}, 4 images\nmodel_{number} (weak translator), s"
        found = scans["s"][f"timm/model_{number}"].moments
        angle, score = (
            pd.Series(found[name][row], index=scans["s"][f"timm/model_{number}"].concepts)
            for name in ("angle_mean", "as_mean")
        )
        near = angle.sort_values().index[:4]
        size = (score - score.mean()).abs()
        strongest = max(strongest, size.max())
        ranked = size.drop(near).sort_values(ascending=False).index
        shown = [*near, *ranked[:4], *ranked[-4:]]
        assert names(left) == shown and left.get_ylim()[0] > left.get_ylim()[1]
        groups = [tick.get_text() for tick in left.get_yticklabels(minor=True)]
        assert groups == ["nearest", "others: strongest", "others: weakest"]
        positions = [1, 2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 14]
        dots, whiskers = left.containers[0][0], left.containers[0][2][0].get_segments()
        np.testing.assert_allclose(dots.get_xydata(), np.column_stack([angle[shown], positions]))
        ends = np.column_stack([angle[shown] - 1, angle[shown] + 1])
        np.testing.assert_allclose([segment[:, 0] for segment in whiskers], ends)
        bars = right.patches
        assert to_hex(bars[0].get_facecolor()) == style.colour(number).lower()
        ends = [bar.get_x() + bar.get_width() for bar in bars]
        np.testing.assert_allclose(ends, score[shown], atol=1e-6)
    assert f"by {strongest:.1f}° against the mean of all concepts, in model_" in finding(figure)


def test_the_wanted_labels_and_models_alone_are_shown(tmp_path, monkeypatch):
    scans, _ = study(3)
    results, models = Results(tmp_path), scans["s"]
    for model, found in models.items():
        results.of(model).tensors("concepts", n=np.array([4, 5]), **found.moments)
    write_json(results.path("names"), {"labels": LABELS, "concepts": found.concepts})
    results.models(dict.fromkeys(models, 9))
    cues().to_csv(results.path("tables/spurious.csv"), index=False)
    figures = []
    monkeypatch.setattr(style, "write_figure", lambda *made: figures.append(made[2]))

    def titles(**chosen):
        flags = {"models": list(models), "extremes": 2, "labels": [], "shown": []}
        results.run("plot_concepts", **flags | chosen)
        return [title for title, *_ in boxes(figures[-1])]

    assert titles(labels=LABELS[:1], shown=["timm/model_2"]) == [
        f"{LABELS[0]}, 4 images\nmodel_2 (weak translator), s"
    ]
    assert [title.startswith(f"{LABELS[1]}, 5 images") for title in titles()] == [True] * 3
    refused(r"plot_concepts.labels: no image has the label 'gose'", titles, labels=["gose"])


def test_candidates_are_marked_in_their_own_panel_alone():
    scans, table = study(2)
    found = scans["s"]["timm/model_0"]
    nearest = np.argsort(found.moments["angle_mean"][0])
    marked = [("s", "timm/model_0", "goose", found.concepts[nearest[place]]) for place in (1, 3)]
    elsewhere = ("t", "timm/model_1", "goose", "concept 0")
    figure = drawn(scans, table, ["goose"], 5, *marked, elsewhere)
    (_, first, _), (_, second, _) = boxes(figure)
    assert list(first.lines[-1].get_ydata()) == [2, 4]
    assert len(second.lines[-1].get_ydata()) == 0


def test_six_panels_are_shown_with_as_many_models_for_every_label():
    def shown(wanted, *size, **options):
        return len(boxes(drawn(*study(*size, **options), wanted, 4)))

    six = [f"label {number}" for number in range(6)]
    assert shown(LABELS, 4, "st", concepts=6) == shown(six, 2, labels=six, concepts=3) == 6
    assert shown(six[:1], 1, labels=six, concepts=3) == 1


def test_few_images_and_concepts_can_be_drawn_with_whiskers_from_three_images_on():
    for n, words_of_n in ((1, "1 image\n"), (3, "3 images\n")):
        scans, table = study(1, n=n, concepts=10)
        ((title, left, right),) = boxes(drawn(scans, table.assign(null_dim=0), ["goose"], 8))
        assert title == f"goose, {words_of_n}model_0 (no null space), s" and len(names(left)) == 10
        assert bool(left.containers[0].has_xerr) == (len(right.containers) == 2) == (n >= 3)
