import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from singflow.analyses.maps import Maps, TextMap, map_rows, map_table
from singflow.figures.plot_maps import MOST_MODELS, NO_NULL_SPACE, NOT_ASKED, draw, tabulate
from singflow.towers.live import NO_POSITIONS
from tests.figures.drawn import models_table, words
from tests.results import BASIS
from tests.towers.models import noise

LABELS = ["folding chair", "a label of many words, $like$ <this> one, that need several lines"]
PROMPTS = ["an image of a jellyfish", "an image of a pirate"]
MANIFEST = pd.DataFrame({"path": [f"{n}.jpg" for n in range(9)], "label": "other"})
MANIFEST.loc[[4, 7], "label"] = LABELS
LONG = "timm/a_classifier_with_a_long_name"


def text_map(text, number, others):
    values = np.random.default_rng(number).standard_normal((3, 4))
    most = 1.0 if others > 18 else None
    beyond = np.abs(values) > (most or np.inf)
    return TextMap(text, values.sum() + 0.5, 9.0, 0.5, values, values, most, beyond)


def maps(label, prompts=PROMPTS, others=39):
    texts = [text_map(text, number, others) for number, text in enumerate([label, *prompts])]
    energy = np.linspace(0.1, 0.7, 12).reshape(3, 4)
    return Maps("a predicted class", energy, energy - 0.3, texts, others, (0.05, 0.0, 0.95, 1.0))


def of_model(**options):
    images = zip((4, 7), LABELS, strict=True)
    return map_table([map_rows(image, maps(label, **options)) for image, label in images])


def photos(sizes=((32, 32), (32, 32))):
    rows = []
    for image, label, size in zip((4, 7), LABELS, sizes, strict=True):
        file = io.BytesIO()
        noise(*size).save(file, "PNG")
        rows.append({"image_id": image, "label": label, "picture": file.getvalue()})
    return pd.DataFrame(rows)


def table_of(sets, asked=True, **columns):
    names = dict.fromkeys(model for of in sets.values() for model in of)
    models = models_table(names, sets).assign(**(BASIS | {"marks": "weak translator"} | columns))
    return models, tabulate(sets, models, MANIFEST, asked, 0.95)


def drawn(sets, sizes=((32, 32), (32, 32))):
    return draw(sets, photos(sizes), table_of(sets)[0], 0.95)


NONE = map_table([])
MANY = [f"an image of a {'very ' * (number % 4)}small thing {number}" for number in range(14)]
CASES = {
    "one": {"s": {"m": of_model()}},
    "two spaces": {space: {"m": of_model(), LONG: of_model(others=3)} for space in "st"},
    "many": {"s": {f"{LONG}_{number}": of_model(prompts=PROMPTS[:1]) for number in range(5)}},
    "no prompts": {"s": {"m": of_model(prompts=[])}},
    "many prompts": {"s": {"m": of_model(prompts=MANY), "none": NONE}},
    "one without": {"s": {"m": of_model(), LONG: NONE}},
}
SHAPES = [((32, 32), (32, 32)), ((256, 60), (60, 256))]


@pytest.mark.parametrize(
    ("name", "sizes"), [*((name, SHAPES[0]) for name in CASES), ("one without", SHAPES[1])]
)
def test_nothing_is_cut_and_nothing_overlaps(name, sizes):
    figure = drawn(CASES[name], sizes)
    figure.canvas.draw()
    (axes,) = figure.axes
    boxes = [shown.get_window_extent() for shown in (*figure.texts, *axes.images)]
    low, high = (np.array([getattr(box, end) for box in boxes]) for end in ("p0", "p1"))
    shared = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    overlap = (shared > 1).all(axis=2)
    np.fill_diagonal(overlap, val=False)
    assert not overlap.any()
    assert (low >= 0).all() and (high <= figure.bbox.p1 + 1).all()


def test_a_column_is_a_model_and_a_row_is_a_photo_and_a_map_or_a_prompt_where_there_is_room():
    figure = drawn(CASES["two spaces"])
    legend, columns, rows = 3, 4, 2
    kinds = (len(figure.axes[0].images) - legend - rows) / rows / columns
    assert kinds == 3  # prompts do not fit
    shown = words(figure)
    for text in ("AS ", "(±", "a predicted class", "10 to 70 %", "toward its", "3 of 5 maps"):
        assert text in shown
    assert shown.count("folding chair") == 1 and shown.count("(±") == rows * columns
    frame = of_model().query("image_id == 4")
    shown = words(drawn({"s": {"m": frame}})).replace("\n", " ")
    assert all(f"toward {prompt!r}" in shown for prompt in PROMPTS)


def test_the_most_outlined_models_are_shown_and_the_others_are_counted():
    few, some = of_model(others=3), of_model()
    models = {f"m{number}": few for number in range(9)} | {"last": some}
    shown = words(drawn({"s": models}))
    assert "last" in shown and "m8" not in shown
    assert f"{MOST_MODELS} of 10 models" in shown
    assert "Positions stand out in " in shown and " of 6 maps toward a text" in shown
    assert "Positions" not in words(drawn({"s": {"m": few}}))


@pytest.mark.parametrize("sizes", SHAPES)
def test_the_photo_keeps_its_shape_and_its_colours(sizes):
    images = drawn(CASES["one without"], sizes).axes[0].images
    first = [images[at] for at in (3, 3 + (len(images) - 3) // 2)]
    for picture, image in zip(photos(sizes)["picture"], first, strict=True):
        whole = np.asarray(Image.open(io.BytesIO(picture)))
        box = image.get_window_extent()
        wanted = whole.shape[1] / whole.shape[0]
        assert box.width / box.height == pytest.approx(wanted, rel=0.05)
        if sizes == SHAPES[0]:  # no larger than it is drawn
            assert np.array_equal(image.get_array(), whole)


def test_the_table_has_the_strongest_position_and_how_many_stand_out():
    _, table = table_of(CASES["one"])
    assert len(table) == 2 * (1 + len(PROMPTS)) and (table["note"] == "").all()
    assert list(table["text"][:3]) == [LABELS[0], *PROMPTS]
    assert list(table["path"].unique()) == ["4.jpg", "7.jpg"]
    assert list(table["label"].unique()) == LABELS
    for _, row in table.iterrows():
        number = [row["label"], *PROMPTS].index(row["text"])
        values = text_map("", number, 39).contribution_deg
        at = values[row["strongest_row"] - 1, row["strongest_column"] - 1]
        assert at == row["strongest_deg"] and abs(at) == np.abs(values).max()
        assert row["positions_beyond"] == (np.abs(values) > 1).sum() and row["positions"] == 12
        assert row["as_deg"] == pytest.approx(values.sum() + row["rest_deg"])


def test_what_is_not_compared_and_a_model_without_maps_say_why():
    _, few = table_of({"s": {"m": of_model(others=18)}})
    assert set(few["note"]) == {"not compared: 18 comparable images, 19 are needed"}
    assert few["positions_beyond"].isna().all()
    _, seen = table_of({"s": {"m": of_model(others=0)}}, marks="in sample")
    assert set(seen["note"]) == {"not compared: the translator was fitted on the image"}
    cases = (False, 7, NOT_ASKED), (True, 0, NO_NULL_SPACE), (True, 7, NO_POSITIONS)
    for asked, null_dim, note in cases:
        _, table = table_of({"s": {"m": NONE, "n": NONE}}, asked, null_dim=null_dim)
        assert list(table["note"]) == [note] * 2 and table["as_deg"].isna().all()
