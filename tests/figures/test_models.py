import hashlib
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from singflow.errors import InputError
from singflow.figures import plot_concepts, plot_controls, plot_labels, plot_scores
from singflow.figures.plot_scores import FLOOR, covariance_ellipse
from singflow.figures.style import caption, save

LABELS = ["goose", "a label with <b>, $x$ and a rather long name", "jeep"]


def scores(seed, n=60):
    generator = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "label": np.array(LABELS)[np.arange(n) % 3],
            "as_deg": generator.normal(size=n),
            "is_deg": generator.gamma(8, size=n),
        }
    )


@pytest.fixture
def table():
    columns = [
        "is_mean",
        "is_low",
        "is_high",
        "as_abs_mean",
        "as_abs_low",
        "as_abs_high",
        "is_per_as",
        "is_per_as_low",
        "is_per_as_high",
    ]
    scores = dict(zip(columns, [8, 7, 9, 1, 0.8, 1.2, 8, 6, 10], strict=True)) | {
        "floor_is_mean": 5
    }
    facts = {"marks": "weak translator", "null_dim": 9}
    rows = [{"space": s, "model": m, **facts, **scores} for s in "st" for m in "mn"]
    return pd.DataFrame(rows)


@pytest.fixture
def scans():
    generator = np.random.default_rng(0)
    concepts = [f"concept {i}" for i in range(30)]
    size = generator.normal(size=30)
    frame = {
        "label": "goose",
        "concept": concepts,
        "n": 4,
        "angle_mean": 70 + size,
        "angle_std": 1.0,
        "as_mean": size,
        "as_std": 0.1,
        "as_abs_mean": np.abs(size),
    }
    return {s: {m: pd.DataFrame(frame) for m in "mn"} for s in "st"}


def control_tables(models, spaces="s", null_dim=280):
    """What tables/controls.csv and models.csv hold for some models."""
    ends = ["", "_low", "_high"]
    excess = [
        {
            "space": s,
            "model": m,
            "dimension": d,
            "own": d == null_dim,
            "is_deg_null": d / 40,
            "is_deg_random": d / 30 + i / 4,
        }
        | {
            f"{score}_excess_random{end}": value
            for score in ("is_deg", "as_abs_deg")
            for end, value in zip(ends, [i - 3, i - 4, i], strict=True)
        }
        for s in spaces
        for i, m in enumerate(models)
        for d in (8, 24, 280)
    ]
    table = [
        {
            "space": s,
            "model": m,
            "marks": "weak translator, known zero" if i == 1 else "",
            "null_dim": null_dim,
        }
        for s in spaces
        for i, m in enumerate(models)
    ]
    return pd.DataFrame(excess), pd.DataFrame(table)


def test_the_controls_show_every_model_by_its_excess_and_its_dimensions():
    models = [f"a_classifier_{number}" for number in range(16)]
    excess, table = control_tables(models, "st")
    figure = plot_controls.draw(["s", "t"], models, excess, table)
    figure.canvas.draw()
    for axes in (figure.axes[0], figure.axes[2]):
        assert [tick.get_text().split("\n")[0] for tick in axes.get_yticklabels()] == models
        boxes = sorted(
            (tick.get_window_extent() for tick in axes.get_yticklabels()), key=lambda box: box.y0
        )
        assert all(lower.y1 <= upper.y0 for lower, upper in itertools.pairwise(boxes))
    lines = [line for line in figure.axes[1].lines if line.get_linestyle() == "-"]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == len(lines) == 16
    assert all(
        list(line.get_xdata()) == [8, 24, 280] and list(line.get_ydata()) == [0.2, 0.6, 7.0]
        for line in lines
    )
    assert (
        figure.axes[0]
        .get_yticklabels()[1]
        .get_text()
        .startswith("a_classifier_1\n(weak translator, known zero)")
    )
    plt.close(figure)


def test_a_model_without_null_space_is_named_and_left_out_of_the_controls(tmp_path):
    excess, table = control_tables(["m", "n"])
    table.loc[table["model"] == "n", "null_dim"] = 0
    figure = plot_controls.draw(["s"], ["m", "n"], excess[excess["model"] == "m"], table)
    assert (
        "no null space: n" in figure.axes[0].get_xlabel()
        and len(figure.axes[0].get_yticklabels()) == 1
    )
    save(figure, tmp_path / "a.png", tmp_path / "a.pdf")
    figure = plot_controls.draw(["s"], ["m", "n"], excess[:0], table.assign(null_dim=0))
    assert figure.axes[0].texts[0].get_text() == "no model has a null space"
    plt.close(figure)


def test_a_floor_is_drawn_where_it_is_known(table):
    both = {"s": {"m": scores(0), "n": scores(1)}}
    for floors, drawn in (([5.0, np.nan], [5.0]), ([np.nan, np.nan], [])):
        rows = table[table["space"] == "s"].assign(floor_is_mean=floors)
        bars = plot_scores.draw(both, rows).axes[1]
        assert [
            x for line in bars.lines if line.get_label() == FLOOR for x in line.get_xdata()
        ] == drawn
        assert [text.get_text() for text in bars.get_legend().get_texts()].count(FLOOR) == len(
            drawn
        )
    plt.close("all")


def test_the_ellipse_holds_its_share_of_a_normal_cloud():
    generator = np.random.default_rng(0)
    points = generator.multivariate_normal([3, -1], [[4, 1.5], [1.5, 1]], 40000)
    centre, width, height, angle = covariance_ellipse(points, 0.95)
    turn = np.radians(angle)
    along = (points - centre) @ np.array([np.cos(turn), np.sin(turn)])
    across = (points - centre) @ np.array([-np.sin(turn), np.cos(turn)])
    inside = (2 * along / width) ** 2 + (2 * across / height) ** 2 <= 1
    assert abs(inside.mean() - 0.95) < 0.004
    assert width > height


def test_figures_are_written_twice_with_the_same_bytes_and_without_dates(tmp_path, table, scans):
    both = {s: {m: scores(i) for i, m in enumerate("mn")} for s in "st"}
    for name, draw in {
        "fig3": lambda: plot_scores.draw(both, table),
        "fig4": lambda: plot_labels.draw(both, table, []),
        "fig5": lambda: plot_concepts.draw(scans, table, "goose", 8),
        "controls": lambda: plot_controls.draw(
            ["s"], ["m", "n", "o"], *control_tables(["m", "n", "o"])
        ),
    }.items():
        digests = set()
        for attempt in "ab":
            save(draw(), tmp_path / f"{attempt}/{name}.png", tmp_path / f"{attempt}/{name}.pdf")
            digests.add(
                tuple(
                    hashlib.sha256((tmp_path / f"{attempt}/{name}.{kind}").read_bytes()).hexdigest()
                    for kind in ("png", "pdf")
                )
            )
        assert len(digests) == 1, name
        assert b"CreationDate" not in (tmp_path / f"a/{name}.pdf").read_bytes()
        pixels = np.asarray(Image.open(tmp_path / f"a/{name}.png").convert("L"))
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert (edge == 255).all(), f"{name} is clipped at its edge"
    assert not plt.get_fignums()


def test_the_concepts_shown_are_the_weakest_and_the_strongest(table, scans):
    figure = plot_concepts.draw(scans, table, "goose", 5)
    size = scans["s"]["m"]["as_mean"]
    scan = scans["s"]["m"].loc[(size - size.mean()).abs().sort_values().index, "concept"]
    shown = [tick.get_text() for tick in figure.subfigs[0].axes[0].get_yticklabels()]
    assert shown == [*scan[:5], *scan[-5:]]
    plt.close(figure)


def test_a_model_without_null_space_is_drawn_at_zero(table):
    flat = {"s": {"m": scores(0).assign(as_deg=0.0, is_deg=0.0), "n": scores(1)}}
    empty = table[table["space"] == "s"].copy()
    empty.loc[empty["model"] == "m", [c for c in empty if c.startswith("is_per_as")]] = None
    plt.close(plot_scores.draw(flat, empty))
    plt.close(plot_labels.draw(flat, empty, []))


def test_no_image_lies_outside_the_axes(table):
    both = {"s": {"m": scores(0), "n": scores(1).assign(as_deg=lambda f: 5 * f["as_deg"])}}
    for figure in (plot_scores.draw(both, table), plot_labels.draw(both, table, [])):
        for axes in figure.axes:
            for collection in axes.collections:
                points = np.ma.getdata(collection.get_offsets())
                (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
                assert ((points >= [left, low]) & (points <= [right, high])).all()
        plt.close(figure)


def test_fig4_shows_the_wanted_labels_and_refuses_one_that_no_image_has(table):
    both = {"s": {"m": scores(0), "n": scores(1)}}
    figure = plot_labels.draw(both, table, ["jeep", "goose"])
    assert sorted(tick.get_text() for tick in figure.axes[0].get_yticklabels()) == ["goose", "jeep"]
    assert "2 chosen labels of 3" in figure.get_supxlabel()
    plt.close(figure)
    with pytest.raises(
        InputError,
        match=r"plot_labels.labels: no image has the label 'goosse' \(did you mean 'goose'\?\)",
    ):
        plot_labels.draw(both, table, ["jeep", "goosse"])


def test_sixteen_models_are_told_apart_and_their_names_do_not_overlap(table):
    names = [f"a_classifier_{number}" for number in range(16)]
    row = table.iloc[0]
    many = pd.DataFrame([row.to_dict() | {"model": name} for name in names])
    figure = plot_scores.draw(
        {"s": {name: scores(number) for number, name in enumerate(names)}}, many
    )
    figure.canvas.draw()
    points = [
        collection for collection in figure.axes[0].collections if len(collection.get_offsets()) > 1
    ]
    looks = {
        (tuple(collection.get_facecolor()[0][:3]), collection.get_paths()[0].vertices.tobytes())
        for collection in points
    }
    assert len(looks) == 16
    boxes = sorted(
        (tick.get_window_extent() for tick in figure.axes[1].get_yticklabels()),
        key=lambda box: box.y0,
    )
    assert all(lower.y1 <= upper.y0 for lower, upper in itertools.pairwise(boxes))
    plt.close(figure)


def test_a_name_carries_the_marks_of_its_model_and_of_the_space_where_they_differ(table):
    rows = table.assign(model="timm/" + table["model"]).set_index("model")
    assert (
        caption("timm/m", rows) == "m (weak translator)"
        and caption("timm/m", rows, "\n") == "m\n(weak translator)"
    )
    assert caption("timm/m", rows.assign(marks="")) == "m"
    assert caption("timm/m", rows.assign(marks=["known zero", "", "", ""])) == "m (known zero in s)"
    figure = plot_scores.draw({"s": {"m": scores(0), "n": scores(1)}}, table)
    assert [tick.get_text() for tick in figure.axes[1].get_yticklabels()] == [
        "m\n(weak translator)",
        "n\n(weak translator)",
    ]
    plt.close(figure)
