"""Maps of a photo in words, and in the figure of the photo."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from singflow.analyses.maps import Maps, TextMap
from singflow.photo.analysis import Movement
from singflow.photo.analyzer import Result
from singflow.photo.facts import describe, map_notes
from singflow.photo.figure import draw
from singflow.towers.live import NO_POSITIONS
from tests.figures.drawn import words
from tests.photo.handmade import analysis_of
from tests.photo.test_analysis import assert_nothing_overlaps
from tests.towers.models import noise

LONG = ["a long phrase of many words with <b>, $x$ and more " * 3, "W" * 90]
WHOLE, MIDDLE = (0.0, 0.0, 1.0, 1.0), (0.25, 0.0, 0.75, 1.0)
SIDE = 4


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def text_map(text, strongest=-0.5, at=(2, 0), rest=0.0):
    """A map that is 0 but at one position."""
    contribution = np.zeros((SIDE, SIDE))
    contribution[at] = strongest
    return TextMap(text, strongest + rest, rest, contribution)


def analysed(*maps, seen=WHOLE, within=()):
    """An analysis with maps, and with texts that move within chance."""
    texts = [Movement(text, 60.0, 60.0, 0.0, 0.0) for text in (*(m.text for m in maps), *within)]
    return analysis_of("cat", 0, 0, texts=texts, maps=Maps(list(maps), seen), no_maps="")


def lines(analysis):
    """What the text says of maps."""
    return [line.strip() for line in describe("photo.jpg", analysis).splitlines() if "row" in line]


def test_as_is_beyond_chance_outside_a_range_that_is_known():
    text = Movement("a rug", 60.0, 57.0, 3.0, 0.0)
    for low, high, beyond in ((-1.0, 2.9, True), (-1.0, 3.0, False), (3.1, 4.0, True)):
        assert replace(text, chance_low_deg=low, chance_high_deg=high).beyond_chance == beyond
    assert not text.beyond_chance


def test_a_sentence_says_where_each_map_is_strongest():
    found = analysed(
        text_map("a rug"), text_map("a dog", 0.25, (0, 3), rest=1.5), text_map("a cat", 0.1, (1, 1))
    )
    assert lines(found) == [
        "map of 'a rug': strongest at the left (row 3, column 1 of 4 x 4): -0.50 "
        "degrees, farther after removal",
        "map of 'a dog': strongest at the top right (row 1, column 4 of 4 x 4): "
        "+0.25 degrees, nearer after removal; +1.50 belongs to no position",
        "map of 'a cat': strongest in the middle (row 2, column 2 of 4 x 4): "
        "+0.10 degrees, nearer after removal",
    ]


def test_a_place_is_a_place_in_the_photo_and_not_in_what_the_model_sees_of_it():
    for seen, where in ((MIDDLE, "at the left"), ((0.4, 0.6, 0.6, 1), "at the bottom")):
        (told,) = lines(analysed(text_map("a rug"), seen=seen))
        assert f"strongest {where} (row 3, column 1" in told


def test_notes_name_texts_without_a_map_and_explain_pale_parts_only_if_there_are_some():
    within = "within the chance of this photo, so without a map: a dog, a cat"
    for seen, pale in ((WHOLE, []), (MIDDLE, ["pale frame: outside what the model sees"])):
        for others, notes in ((["a dog", "a cat"], [within]), ([], [])):
            found = analysed(text_map("a rug"), seen=seen, within=others)
            assert map_notes(found, found.maps) == [*notes, *pale]


def drawn(found, size=(200, 120), name="photo.jpg"):
    return draw(noise(*size), name, found)


def panels(figure):
    """The pictures of a figure: the photo, and the photo under each map."""
    return [axes.images[0].get_array() for axes in figure.axes if axes.images and not axes.axison]


@pytest.mark.parametrize(
    ("size", "texts"),
    [((40, 160), []), ((160, 30), [*LONG, "a hat", "a cat", "a dog"])],
    ids=["without maps", "with maps"],
)
def test_nothing_in_the_figure_overlaps_or_is_cut_and_pictures_keep_the_photo_s_shape(size, texts):
    found = analysis_of(LONG[0], 8, 3)
    if texts:
        found = analysed(*map(text_map, texts), seen=MIDDLE, within=[LONG[0], "a bag"])
    figure = drawn(found, size, f"{LONG[0]}.jpg")
    assert_nothing_overlaps(figure)
    pictures = [axes for axes in figure.axes if axes.images and not axes.axison]
    assert len(pictures) == 1 + len(texts)
    for axes in pictures:
        box = axes.get_window_extent()
        assert box.width / box.height == pytest.approx(size[0] / size[1], rel=0.02)
    told = words(figure).replace("\n", " ")
    assert (texts or [NO_POSITIONS])[-1] in told


def strength(picture):
    return np.ptp(np.asarray(picture).astype(int), axis=2).max()


def test_all_texts_of_a_photo_have_one_scale_which_the_figure_says():
    weak, strong = text_map("weak", 0.05), text_map("strong", -0.5)
    figure = drawn(analysed(weak, strong))
    _, first, second = map(strength, panels(figure))
    assert second > 150
    _, alone = map(strength, panels(drawn(analysed(weak))))
    assert alone > 120 > 5 * first
    told = words(figure).replace("\n", " ")
    assert "farther -0.5°" in told and "0.5° nearer" in told and "one scale for all maps" in told
    assert "AS +0.05°" in told and "AS -0.50°" in told


def test_a_photo_without_maps_has_a_figure_without_colour_that_says_why():
    values = vars(analysis_of("cat", 0, 0))
    photo = Image.new("L", (90, 60), 90).convert("RGB")
    result = Result(
        **values, name="photo.jpg", sha256="", image=photo, features=None
    )  # fmt: skip
    figure = result.figure()
    (shown,) = panels(figure)
    assert not strength(shown)
    assert NO_POSITIONS in words(figure).replace("\n", " ")
    figure = replace(result, maps=Maps([text_map("a rug")], WHOLE)).figure()
    assert "photo.jpg" in words(figure) and not plt.get_fignums()
