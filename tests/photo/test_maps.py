"""Maps of a photo in words, in a figure and on the page."""

import base64
import html
import io
import re
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from singflow.analyses.maps import Maps, TextMap
from singflow.photo.analysis import Movement
from singflow.photo.analyzer import Result
from singflow.photo.facts import describe, map_notes
from singflow.photo.map_figure import draw_maps, map_panels
from singflow.photo.page import maps_html
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
        "map of 'a rug': AS -0.50 degrees, strongest at the left (row 3, column 1 of 4 x 4): -0.50 "
        "degrees, farther after removal",
        "map of 'a dog': AS +1.75 degrees, strongest at the top right (row 1, column 4 of 4 x 4): "
        "+0.25 degrees, nearer after removal; +1.50 belongs to no position",
        "map of 'a cat': AS +0.10 degrees, strongest in the middle (row 2, column 2 of 4 x 4): "
        "+0.10 degrees, nearer after removal",
    ]


def test_a_place_is_a_place_in_the_photo_and_not_in_what_the_model_sees_of_it():
    for seen, where in ((MIDDLE, "at the left"), ((0.4, 0.6, 0.6, 1), "at the bottom")):
        (told,) = lines(analysed(text_map("a rug"), seen=seen))
        assert f"strongest {where} (row 3, column 1" in told


def test_notes_name_texts_without_a_map_and_explain_pale_parts_only_if_there_are_some():
    within = "within the chance of this photo, so without a map: a dog, a cat"
    for seen, pale in ((WHOLE, []), (MIDDLE, ["pale: the model does not see it"])):
        for others, notes in ((["a dog", "a cat"], [within]), ([], [])):
            found = analysed(text_map("a rug"), seen=seen, within=others)
            assert map_notes(found, found.maps) == [*notes, *pale]


def drawn(found, size=(200, 120)):
    return draw_maps(noise(*size), "photo.jpg", found)


def panels(figure):
    """The pictures of a figure, without the colours of its legend."""
    return [axes.images[0].get_array() for axes in figure.axes if not axes.axison]


@pytest.mark.parametrize(
    ("size", "texts"),
    [
        ((200, 120), []),
        ((160, 30), []),
        ((40, 160), ["a rug"]),
        ((160, 30), [*LONG, *map("thing {}".format, range(18))]),
    ],
    ids=str,
)
def test_nothing_in_the_figure_overlaps_or_is_cut_and_pictures_keep_the_photo_s_shape(size, texts):
    found = analysis_of("cat", 0, 0)
    if texts:
        found = analysed(*map(text_map, texts), seen=MIDDLE, within=[LONG[0], "a hat"])
    figure = drawn(found, size)
    assert_nothing_overlaps(figure)
    boxes = [panel.get_window_extent() for panel in figure.axes]
    pictures = [box for box, panel in zip(boxes, figure.axes, strict=True) if not panel.axison]
    assert len(panels(figure)) == 1 + len(texts)
    for box in pictures:
        assert box.width / box.height == pytest.approx(size[0] / size[1], rel=0.02)
    page = figure.bbox
    for box in boxes:
        assert page.x0 <= box.x0 < box.x1 <= page.x1 and page.y0 <= box.y0 < box.y1 <= page.y1
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])
    told = words(figure).replace("\n", "").replace(" ", "")
    for text in texts or [NO_POSITIONS]:
        assert text.replace(" ", "") in told


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


def test_several_models_share_a_scale_that_is_given():
    of_model = Maps([text_map("weak", 0.05)], WHOLE)
    grey = Image.new("L", (40, 40), 128).convert("RGB")
    faint, full = (map_panels(grey, of_model, most)[0].picture for most in (0.5, 0.05))
    assert 0 < 5 * strength(faint) < strength(full)


def test_a_photo_without_maps_has_a_figure_without_colour_that_says_why():
    values = vars(analysis_of("cat", 0, 0))
    photo = Image.new("L", (90, 60), 90).convert("RGB")
    result = Result(
        **values, name="photo.jpg", sha256="", image=photo, features=None
    )  # fmt: skip
    figure = result.map_figure()
    (shown,) = panels(figure)
    assert not strength(shown) and len(figure.axes) == 1
    assert NO_POSITIONS in words(figure).replace("\n", " ")
    figure = replace(result, maps=Maps([text_map("a rug")], WHOLE)).map_figure()
    assert "photo.jpg" in words(figure) and not plt.get_fignums()


def pictures(page, kind):
    found = re.findall(rf'{kind}[^>]*src="data:image/webp;base64,([^"]*)" alt="([^"]*)"', page)
    return [
        (np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")), alt)
        for data, alt in found
    ]


def test_the_page_shows_a_picture_per_text_in_the_photo_s_shape_and_tells_it_in_words():
    found = analysed(text_map("a rug"), text_map(LONG[0], 0.4, rest=0.2), seen=MIDDLE)
    page = maps_html(found, Image.new("RGB", (600, 300), "tan"))
    shown = pictures(page, 'class="frame"><img')
    assert [html.unescape(alt) for _, alt in shown] == lines(found)
    assert {picture.shape for picture, _ in shown} == {(160, 320, 3)}
    coloured = [np.ptp(picture.astype(int), axis=2) for picture, _ in shown]
    for colours in coloured:
        assert colours[:, :70].max() < 15 < 20 < colours[:, 90:230].max()
        assert colours[:, 250:].max() < 15
    assert 'width="320" height="160"' in page and "<b>" not in page
    bare = base64.b64decode(re.search(r"--photo: url\(data:image/webp;base64,([^)]*)\)", page)[1])
    photo = np.asarray(Image.open(io.BytesIO(bare)).convert("RGB")).astype(int)
    assert photo.shape == (160, 320, 3) and np.abs(photo - (210, 180, 140)).max() < 8
    assert '<label for="bare">' in page and len(pictures(page, 'class="ramp"')) == 1


def test_a_photo_without_maps_has_a_sentence_and_no_frame_on_the_page():
    page = maps_html(analysis_of("cat", 0, 0), Image.new("RGB", (60, 30)))
    assert f"<p>{NO_POSITIONS}.</p>" in page
    assert "<img" not in page and "<input" not in page and "<figure" not in page
