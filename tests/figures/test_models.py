import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image

from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.tables import write_parquet
from singflow.figures import plot_labels, plot_scores, style
from singflow.figures.plot_scores import FLOOR, covariance_ellipse
from singflow.figures.style import caption, save
from tests.figures.drawn import models_table, names, said
from tests.refusals import refused
from tests.results import Results

LABELS = ["goose", "a label with <b>, $x$ and a rather long name", "jeep"]


def scores(seed, n=60):
    generator = np.random.default_rng(seed)
    columns = {"label": np.array(LABELS)[np.arange(n) % 3], "as_deg": generator.normal(size=n)}
    return pd.DataFrame(columns).assign(is_deg=generator.gamma(8, size=n))


def table_of(models, spaces="s"):
    columns = {"is_per_as": 8, "is_per_as_low": 6, "is_per_as_high": 10, "floor_is_mean": 5.0}
    columns |= {"is_mean": 8, "is_low": 7, "is_high": 9}
    columns |= {"as_abs_mean": 1, "as_abs_low": 0.8, "as_abs_high": 1.2}
    table = models_table(models, spaces, null_dim=9, n_images=60, **columns)
    return table.assign(marks="weak translator")


BOTH = {"s": {"m": scores(0), "n": scores(1)}}
TABLE = table_of("mn")


def test_a_floor_is_drawn_where_it_is_known_and_a_whisker_from_three_images_on():
    for floors, drawn, images in (([5.0, np.nan], [5.0], 2), ([np.nan, np.nan], [], 3)):
        figure = plot_scores.draw(BOTH, TABLE.assign(floor_is_mean=floors, n_images=images))
        axes = figure.axes[1]
        marks = [line for line in axes.lines if line.get_label() == FLOOR]
        found = [x for line in marks for x in line.get_xdata() if not np.isnan(x)]
        assert found == drawn
        (whiskers,) = axes.containers[0].lines[2]
        assert bool(np.concatenate(whiskers.get_segments()).size) == (images >= 3)


def test_the_ellipse_holds_its_share_of_a_normal_cloud():
    generator = np.random.default_rng(0)
    points = generator.multivariate_normal([3, -1], [[4, 1.5], [1.5, 1]], 40000)
    centre, width, height, angle = covariance_ellipse(points, 0.95)
    turn = np.radians(angle)
    along = (points - centre) @ np.array([np.cos(turn), np.sin(turn)])
    across = (points - centre) @ np.array([-np.sin(turn), np.cos(turn)])
    inside = (2 * along / width) ** 2 + (2 * across / height) ** 2 <= 1
    assert abs(inside.mean() - 0.95) < 0.004 and width > height


def test_sixty_four_models_are_told_apart():
    assert len({tuple(style.look_of(number).values()) for number in range(64)}) == 64


def test_a_model_without_null_space_is_drawn_at_zero():
    flat = {"s": {"m": scores(0).assign(as_deg=0.0, is_deg=0.0), "n": scores(1)}}
    figure = plot_scores.draw(flat, TABLE.assign(is_per_as=[None, 8]))
    assert [bar.get_width() for bar in figure.axes[2].patches] == [0, 8]
    plot_labels.draw(flat, TABLE, [])


def test_last_bits_of_a_layout_do_not_reach_the_file(tmp_path):
    for name, left in (("one", 0.2), ("other", np.nextafter(0.2, 1))):
        figure = style.new_figure((2, 2), "none")
        figure.add_axes((left, 0.2, 0.7, 0.7)).plot([0, 1])
        save(figure, tmp_path / f"{name}.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()


def test_a_figure_is_written_twice_with_the_same_bytes_without_dates_and_is_not_clipped(tmp_path):
    paths = [tmp_path / f"{attempt}.{kind}" for attempt in "ab" for kind in ("png", "pdf")]
    for png, pdf in (paths[:2], paths[2:]):
        save(plot_scores.draw(BOTH | {"t": BOTH["s"]}, table_of("mn", "st")), png, pdf)
    content = [path.read_bytes() for path in paths]
    assert content[:2] == content[2:] and b"CreationDate" not in content[1]
    pixels = np.asarray(Image.open(paths[0]).convert("L"))
    assert (np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]) == 255).all()
    assert not plt.get_fignums()


def test_fig4_shows_the_wanted_labels_and_refuses_one_that_no_image_has():
    figure = plot_labels.draw(BOTH, TABLE, ["jeep", "goose"])
    assert sorted(names(figure.axes[0])) == ["goose", "jeep"]
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
    assert names(figure.axes[1]) == ["m\n(weak translator)", "n\n(weak translator)"]


def test_without_a_label_of_three_images_fig4_shows_d_by_group_or_its_needs(tmp_path, monkeypatch):
    results = Results(tmp_path)
    results.models({"m": 4, "n": 4}, margin=0.005)
    written = []
    monkeypatch.setattr(style, "write_figure", lambda *made: written.append(made[2:]))
    kinds = CATALOG["scores"].columns
    zeros = {name: 0 if kind == "i" else 0.0 for name, kind in kinds.items()}
    for number, model in enumerate("mn"):
        own = results.of(model)
        write_parquet(own.path("scores"), pd.DataFrame(zeros, range(3)).assign(**scores(number, 3)))
        d = np.array([0.2, 0.01, 0.3]) * number
        groups = pd.DataFrame({"group": ["car", "dog", "fern"], "n": [16, 60, 4], "unique_r2": d})
        small = {"unique_r2_low": d - 0.01, "unique_r2_high": d + 0.01, "p": 0.5}
        groups = groups.assign(by="column", hidden=d > 0.1, **small)
        groups.loc[2, ["unique_r2_low", "unique_r2_high", "p"]] = np.nan
        write_parquet(own.path("evidence_groups"), groups)
    results.run("plot_labels", models=["m", "n"], labels=[])
    figure, _ = written[0]
    (axes,) = figure.axes
    assert names(axes) == ["dog (60)", "car (16)"]
    assert said(figure.legends[0]) == ["margin", "m (weak translator)", "n (weak translator)"]
    for model in "mn":
        path = results.of(model).path("evidence_groups")
        write_parquet(path, pd.read_parquet(path).assign(by="label"))
    results.run("plot_labels", models=["m", "n"], labels=[])
    assert written[1] == (None, plot_labels.NEEDS)
