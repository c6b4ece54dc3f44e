import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from singflow.artifacts.catalog import FORMATS
from singflow.artifacts.files import write_json
from singflow.artifacts.tables import write_parquet, write_table
from singflow.config.registry import MODELS, resolve_models
from singflow.figures.plot_cut_heads import LEAST, MOST, NEEDS, draw, families
from singflow.figures.style import NEEDS as KEY
from tests.figures.drawn import models_table, names, words
from tests.figures.test_hidden_texts import texts
from tests.figures.test_maps import maps, of_model
from tests.results import BASIS, Results
from tests.towers.models import noise

LITE0, LITE2 = "efficientnet_lite0", "efficientnet_lite2"
DRAWN = [LITE0, *(f"random{count}_lite0" for count in (700, 200, 10))]
ENTRIES = resolve_models(MODELS, [*DRAWN, "animals_lite0", "dogs_lite0", LITE2])


def table_of(models, spaces="s"):
    """tables/models.csv of heads, each of which hides a share of what its missing classes say."""
    table = models_table(models, spaces, margin=0.005).assign(**BASIS)
    count = [len(ENTRIES[model].kept or range(1000)) for model in table["model"]]
    d = (1 - np.array(count) / 1000) / 4
    table = table.assign(n_classes=count, known_zero=table["model"] == LITE2, verdict="trace")
    return table.assign(unique_r2=d, unique_r2_low=d - 0.01, unique_r2_high=d + 0.01)


def drawn(models, spaces="s", closeup="animals_lite0", **options):
    table = table_of(models, spaces)
    of_closeup = texts(closeup, np.arange(30) / 30)
    return draw(families(table, ENTRIES), table, of_closeup, closeup, **options)


def test_heads_of_one_backbone_are_drawn_over_their_classes_and_no_others():
    curve, listed = drawn([*ENTRIES]).axes
    of_random, of_subject = (part.lines[0].get_xydata() for part in curve.containers)
    np.testing.assert_allclose(
        of_random, [[1000, 0], [700, 7.5], [200, 20], [10, 24.75]], atol=1e-9
    )
    np.testing.assert_allclose(of_subject, [[398, 15.05], [118, 22.05]])
    assert {"animals_lite0", "dogs_lite0"} <= {text.get_text() for text in curve.texts}
    by_label = {line.get_label(): line for line in curve.lines}
    assert by_label["known zero"].get_xydata().tolist() == [[1000, 0]]
    assert set(by_label["margin"].get_ydata()) == {0.5} and curve.get_xscale() == "log"
    assert len(names(listed)) == MOST + LEAST and "14 of 30" in listed.get_title("left")
    assert families(table_of([LITE0, LITE2, "dogs_lite0"]), ENTRIES) == []


def test_the_title_says_that_fewer_classes_hide_more_only_where_they_do():
    claim, table = "The fewer classes are drawn", table_of(DRAWN)
    assert claim in words(drawn(DRAWN))
    table.loc[1, "unique_r2"] = 0.3
    assert claim not in words(draw(families(table, ENTRIES), table, texts("m", [0])[:0], "m"))


def of_all(spaces, label="folding chair"):
    """The figure of all heads, with a photo and its maps."""
    shown = {space: {name: maps(label) for name in (LITE0, "animals_lite0")} for space in spaces}
    return drawn([*ENTRIES], spaces, photo=noise(32, 24), shown=shown)


def test_a_photo_stands_beside_its_maps():
    figure = of_all("st")
    assert sum(len(axes.images) for axes in figure.axes) == 3 * 2
    assert "moves it away from “folding chair”" in words(figure)


@pytest.mark.parametrize("models", [[LITE0, "animals_lite0"], DRAWN])
def test_the_step_draws_heads_of_one_backbone_or_says_which_study_has_some(tmp_path, models):
    results, photo = Results(tmp_path), io.BytesIO()
    noise(32, 24).save(photo, "PNG")
    shown = {"figure": "photo", "image_id": 4, "label": "", "picture": [photo.getvalue()]}
    for model in models:
        own = results.of(model)
        write_json(own.path("model_entry"), ENTRIES[model].model_dump())
        write_parquet(own.path("pictures"), pd.DataFrame(shown))
        write_parquet(own.path("maps"), of_model())
    write_table(results.path("tables/models.csv"), table_of(models))
    write_table(results.path("tables/hidden_texts.csv"), texts(models[-1], np.arange(9) / 9))
    results.run("plot_cut_heads", models=models, spaces=["s"], closeup=models[-1])
    place = results.path("figures/cut_heads.png")
    said = Image.open(place).text.get(KEY)
    assert said == (None if models == DRAWN else NEEDS)
    assert all(place.with_suffix(f".{kind}").is_file() for kind in FORMATS)
