import re

import numpy as np
import pandas as pd

from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.tables import write_parquet
from singflow.figures import plot_labels, plot_scores, style
from singflow.figures.plot_scores import FLOOR
from singflow.figures.style import caption, save
from tests.figures.drawn import finding, models_table, names, words
from tests.refusals import refused
from tests.results import Results

LABELS = ["goose", "a label with <b>, $x$ and a rather long name", "jeep"]


def scores(seed, n=60):
    generator = np.random.default_rng(seed)
    columns = {"label": np.array(LABELS)[np.arange(n) % 3], "as_deg": generator.normal(size=n)}
    return pd.DataFrame(columns).assign(is_deg=generator.gamma(8, size=n))


def table_of(models, spaces="s"):
    columns = {"is_per_as": 8, "is_per_as_low": 6, "is_per_as_high": 10, "floor_is_mean": 5.0}
    columns |= {"known_zero": False, "known_leak": False, "is_mean": 8, "is_low": 7, "is_high": 9}
    columns |= {"as_abs_mean": 1, "as_abs_low": 0.8, "as_abs_high": 1.2}
    table = models_table(models, spaces, null_dim=9, n_images=60, **columns)
    return table.assign(marks="weak translator")


BOTH = {"s": {"m": scores(0), "n": scores(1)}}
TABLE = table_of("mn")


def test_a_floor_is_drawn_where_it_is_known_and_a_whisker_from_three_images_on():
    for floors, drawn, images in (([5.0, np.nan], [5.0], 2), ([np.nan, np.nan], [], 3)):
        figure = plot_scores.draw(BOTH, TABLE.assign(floor_is_mean=floors, n_images=images))
        above = "IS is farthest above its floor in m (weak translator): 8.0°, floor 5.0°"
        assert finding(figure) == (above if drawn else "")
        axes = figure.axes[0]
        marks = [line for line in axes.lines if line.get_label() == FLOOR]
        found = [x for line in marks for x in line.get_xdata() if not np.isnan(x)]
        assert found == drawn
        (whiskers,) = axes.containers[0].lines[2]
        assert bool(np.concatenate(whiskers.get_segments()).size) == (images >= 3)


def test_a_figure_whose_models_all_lie_at_their_floor_says_so():
    at_floor = TABLE.assign(floor_is_mean=7.5, known_leak=[False, True])
    said = "IS of every model is at its floor (controls aside)"
    assert finding(plot_scores.draw(BOTH, at_floor)) == said


def test_sixty_four_models_are_told_apart():
    assert len({tuple(style.look_of(number).values()) for number in range(64)}) == 64


def test_a_model_without_null_space_is_drawn_at_zero():
    flat = {"s": {"m": scores(0).assign(as_deg=0.0, is_deg=0.0), "n": scores(1)}}
    figure = plot_scores.draw(flat, TABLE.assign(is_mean=[0, 8], is_per_as=[None, 8]))
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0, 8, 1, 1]
    assert "1.0 (IS/|AS|: 8.0)" in words(figure) and "nan" not in words(figure)
    plot_labels.draw(flat, TABLE, [])


def test_controls_have_bars_but_no_images_unless_there_are_only_controls():
    for leaks, shown in (([False, True], 1), ([True, True], 2)):
        figure = plot_scores.draw(BOTH, TABLE.assign(known_leak=leaks))
        bars, images = figure.axes
        assert len(bars.get_yticks()) == 2 and len(images.collections) == shown


def test_last_bits_of_a_layout_do_not_reach_the_file(tmp_path):
    for name, left in (("one", 0.2), ("other", np.nextafter(0.2, 1))):
        figure = style.new_figure((2, 2), "none")
        figure.add_axes((left, 0.2, 0.7, 0.7)).plot([0, 1])
        save(figure, tmp_path / f"{name}.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()


def test_fig4_shows_the_wanted_labels_and_refuses_one_that_no_image_has():
    figure = plot_labels.draw(BOTH, TABLE, ["jeep", "goose"])
    assert sorted(names(figure.axes[0])) == ["goose", "jeep"]
    assert re.fullmatch(r"Median \|AS\| goes from .*° \(\w+\) to .*° \(\w+\)", finding(figure))
    four = plot_labels.draw(BOTH | {"t": BOTH["s"]}, table_of("mn", "st"), [])
    assert [axes.get_title("left") for axes in four.axes] == [
        f"{model}\n(weak translator)\n{space}" for space in "st" for model in "mn"
    ]
    near = r"plot_labels.labels: no image has the label 'goosse' \(did you mean 'goose'\?\)"
    refused(near, plot_labels.draw, BOTH, TABLE, ["jeep", "goosse"])


def test_a_name_carries_the_marks_of_its_model_and_of_the_space_where_they_differ():
    rows = table_of(["timm/m", "timm/n"], "st").set_index("model")
    assert caption("timm/m", rows) == "m (weak translator)"
    assert caption("timm/m", rows, "\n") == "m\n(weak translator)"
    assert caption("timm/m", rows.assign(marks="")) == "m"
    assert caption("timm/m", rows.assign(marks=["known zero", "", "", ""])) == "m (known zero in s)"
    figure = plot_scores.draw(BOTH, TABLE)
    assert names(figure.axes[0]) == ["m\n(weak translator)", "n\n(weak translator)"]


def test_fig4_says_what_it_needs_where_no_label_has_three_images(tmp_path, monkeypatch):
    results, written = Results(tmp_path), []
    results.models({"m": 4})
    monkeypatch.setattr(style, "write_figure", lambda *made: written.append(made[2:]))
    kinds = CATALOG["scores"].columns
    zeros = {name: 0 if kind == "i" else 0.0 for name, kind in kinds.items()}
    table = pd.DataFrame(zeros, range(3)).assign(**scores(0, 3))
    write_parquet(results.of("m").path("scores"), table)
    results.run("plot_labels", models=["m"], labels=[])
    assert written == [(None, plot_labels.NEEDS)]
