import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from singflow.analyses.maps import NO_POSITIONS, Maps, TextMap, map_rows, map_table
from singflow.figures import plot_maps
from singflow.figures.plot_maps import ACROSS, NO_NULL_SPACE, NOT_ASKED, draw, tabulate
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


def drawn(sets, asked=True, sizes=((32, 32), (32, 32)), **columns):
    names = dict.fromkeys(model for of in sets.values() for model in of)
    models = models_table(names, sets).assign(**(BASIS | {"marks": "weak translator"} | columns))
    table = tabulate(sets, models, MANIFEST, asked, 0.95)
    return table, draw(sets, photos(sizes), models, table, 0.95)


NONE = map_table([])
MANY = [f"an image of a {'very ' * (number % 4)}small thing {number}" for number in range(14)]
CASES = {
    "one": {"s": {"m": of_model()}},
    "two spaces": {space: {"m": of_model(), LONG: of_model(others=3)} for space in "st"},
    "many": {"s": {f"{LONG}_{number}": of_model(prompts=PROMPTS[:1]) for number in range(5)}},
    "no prompts": {"s": {"m": of_model(prompts=[])}},
    "many prompts": {"s": {"m": of_model(prompts=MANY), "none": NONE}},
    "one without": {"s": {"m": of_model(), LONG: NONE}},
    "none": {"s": {"m": NONE, "n": NONE}},
}
SHAPES = [((32, 32), (32, 32)), ((256, 60), (60, 256))]


@pytest.mark.parametrize(
    ("name", "sizes"), [*((name, SHAPES[0]) for name in CASES), ("one without", SHAPES[1])]
)
def test_nothing_is_cut_and_nothing_overlaps(name, sizes):
    _, figure = drawn(CASES[name], sizes=sizes)
    figure.canvas.draw()
    (axes,) = figure.axes
    boxes = [shown.get_window_extent() for shown in (*figure.texts, *axes.images)]
    low, high = (np.array([getattr(box, end) for box in boxes]) for end in ("p0", "p1"))
    shared = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    overlap = (shared > 1).all(axis=2)
    np.fill_diagonal(overlap, val=False)
    assert not overlap.any()
    assert (low >= 0).all() and (high <= figure.bbox.p1 + 1).all()


def test_a_row_is_an_image_and_a_model_and_the_photo_is_above_them():
    _, figure = drawn(CASES["two spaces"])
    legend, panels = 3, 1 + 2 * (2 + 1 + len(PROMPTS))
    assert len(figure.axes[0].images) == legend + 2 * 2 * panels
    said = words(figure)
    for text in ("AS ", "°", "a predicted class", "-0.2 to 0.4", "10 to 70 %", "not compared"):
        assert text in said
    for prompt in PROMPTS:
        assert f"toward '{prompt[:8]}" in said
    assert said.count("folding chair") == 2 and said.count("scale ±") == 8


def test_the_photo_keeps_its_shape_and_its_colours():
    sizes = SHAPES[1]
    _, figure = drawn(CASES["one"], sizes=sizes)
    rows = photos(sizes)["picture"]
    images = figure.axes[0].images
    for picture, image in zip(rows, (images[3], images[9]), strict=True):
        whole = np.asarray(Image.open(io.BytesIO(picture)))
        assert np.array_equal(image.get_array(), whole)
        box = image.get_window_extent()
        assert box.width / box.height == pytest.approx(whole.shape[1] / whole.shape[0])


def test_the_table_has_the_strongest_position_and_how_many_stand_out():
    table, _ = drawn(CASES["one"])
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


def test_what_is_not_compared_says_why():
    few, _ = drawn({"s": {"m": of_model(others=18)}})
    assert set(few["note"]) == {"not compared: 18 comparable images, 19 are needed"}
    assert few["positions_beyond"].isna().all()
    seen, _ = drawn({"s": {"m": of_model(others=0)}}, marks="in sample")
    assert set(seen["note"]) == {"not compared: the translator was fitted on the image"}


@pytest.mark.parametrize(
    ("asked", "null_dim", "note"),
    [(False, 7, NOT_ASKED), (True, 0, NO_NULL_SPACE), (True, 7, NO_POSITIONS)],
)
def test_a_model_without_maps_says_why_in_table_and_figure(asked, null_dim, note):
    table, figure = drawn(CASES["none"], asked, null_dim=null_dim)
    assert list(table["note"]) == [note] * 2 and table["as_deg"].isna().all()
    assert " ".join(words(figure).split()).count(note) == 1 and not figure.axes[0].images
    if asked and null_dim:
        _, figure = drawn(CASES["one without"])
        assert " ".join(words(figure).split()).count(note) == 2


def test_a_figure_ends_before_it_is_too_high_and_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(plot_maps, "HIGHEST", 12.0)
    _, figure = drawn({"s": dict.fromkeys("abcdef", of_model(prompts=[]))})
    shown = words(figure).count("scale ±")
    assert 0 < shown < 12 and f"{12 - shown} further rows are in the table" in words(figure)
    assert 12 < figure.get_figheight() < 15


def test_many_prompts_are_continued_below():
    _, figure = drawn(CASES["many prompts"])
    assert figure.get_figwidth() < 16 and len(figure.axes[0].images) == 3 + 2 * (4 + len(MANY))
    heads = [text for text in figure.texts if text.get_text().startswith("toward")]
    assert len({text.get_position()[1] for text in heads}) == -(-(4 + len(MANY)) // ACROSS)
