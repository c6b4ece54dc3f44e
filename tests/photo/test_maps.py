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
from singflow.errors import InputError
from singflow.photo.analyzer import Result
from singflow.photo.facts import describe, map_notes
from singflow.photo.map_figure import draw_maps
from singflow.photo.page import maps_html
from singflow.towers.live import NO_POSITIONS
from tests.figures.drawn import words
from tests.photo.handmade import SETTING, analysis_of
from tests.photo.test_analysis import assert_nothing_overlaps
from tests.towers.models import noise

LONG = ["a long phrase of many words with <b>, $x$ and more " * 3, "W" * 90]
WHOLE, MIDDLE = (0.0, 0.0, 1.0, 1.0), (0.25, 0.0, 0.75, 1.0)
SIDE = 4


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def text_map(text, strongest=-0.5, at=(2, 0), beyond=(), rest=0.0, threshold=0.4):
    """A map that is 0 but at one position."""
    contribution, outlined = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE), bool)
    contribution[at] = strongest
    for place in beyond:
        outlined[place] = True
    return TextMap(
        text, strongest + rest, strongest / 2, rest, contribution, contribution, threshold, outlined
    )


def maps_of(*texts, others=39, seen=WHOLE):
    used, energy = np.zeros((2, SIDE, SIDE))
    used[0, 3], energy[1, 2] = 0.75, 0.3
    return Maps("cat", energy, used, list(texts), others, seen)


def analysed(*texts, **changes):
    maps = {name: changes.pop(name) for name in ("others", "seen") if name in changes}
    return analysis_of("cat", 0, 0, **{"maps": maps_of(*texts, **maps), "no_maps": ""} | changes)


def lines(analysis):
    """What the text says of maps."""
    return [line.strip() for line in describe("photo.jpg", analysis).splitlines() if "row" in line]


def test_a_sentence_says_where_each_map_is_strongest_and_what_stands_out():
    found = analysed(
        text_map("a rug"),
        text_map("a dog", 0.25, (0, 3), [(0, 3), (0, 2)], rest=1.5),
        text_map("a cat", 0.1, (1, 1), [(1, 1)]),
    )
    assert lines(found) == [
        "cat is seen most at the top right (row 1, column 4 of 4 x 4), which adds +0.75 to its "
        "logit",
        "most is ignored in the middle (row 2, column 3 of 4 x 4): null energy 30.0 %",
        "map of 'a rug': AS -0.50 degrees (-0.25 to first order), strongest at the left (row 3, "
        "column 1 of 4 x 4): -0.50 degrees, farther after removal; no position stands out from the "
        "maps of 39 other images",
        "map of 'a dog': AS +1.75 degrees (+0.12 to first order), strongest at the top right (row "
        "1, column 4 of 4 x 4): +0.25 degrees, nearer after removal; +1.50 belongs to no "
        "position; 2 of 16 positions stand out from the maps of 39 other images",
        "map of 'a cat': AS +0.10 degrees (+0.05 to first order), strongest in the middle (row 2, "
        "column 2 of 4 x 4): +0.10 degrees, nearer after removal; 1 of 16 positions stands "
        "out from the maps of 39 other images",
    ]


def test_a_place_is_a_place_in_the_photo_and_not_in_what_the_model_sees_of_it():
    for seen, where in ((MIDDLE, "at the left"), ((0.4, 0.6, 0.6, 1), "at the bottom")):
        (told,) = lines(analysed(text_map("a rug"), seen=seen))[2:]
        assert f"strongest {where} (row 3, column 1" in told


def test_maps_that_cannot_be_compared_are_told_so_with_the_reason():
    unjudged, zero = {"judged": False, "others": 0}, replace(SETTING, verdict="known zero")
    for changes, reason in (
        ({"others": 18}, "18 are at hand, and 19 are needed"),
        (unjudged | {"unlike": "high"}, "nothing can be said about this photo"),
        (unjudged | {"setting": zero}, "the model is a known zero"),
        (unjudged, "the images that the translator was fitted on are not here"),
    ):
        found = analysed(text_map("a rug", threshold=None), **changes)
        told = f"not compared with other images: {reason}"
        assert lines(found)[2].endswith(f"after removal; {told}")
        assert map_notes(found, found.maps) == [told]
    assert told in words(draw_maps(Image.new("RGB", (60, 40)), "a.jpg", found, found.maps))
    assert html.escape(told) in maps_html(found, Image.new("RGB", (60, 40)))


def test_notes_explain_outlines_and_pale_parts_only_if_there_are_some():
    other = "from the maps of 39 other images"
    none, outlined = text_map("a rug"), text_map("a rug", beyond=[(0, 0)])
    for seen, pale in ((WHOLE, []), (MIDDLE, ["pale: the model does not see it"])):
        for texts, notes in (
            ([outlined], [f"outline: stands out {other}"]),
            ([none], [f"no position stands out {other}"]),
            ([], []),
        ):
            found = analysed(*texts, seen=seen)
            assert map_notes(found, found.maps) == [*notes, *pale]


def drawn(found, size=(200, 120)):
    return draw_maps(noise(*size), "photo.jpg", found, found.maps)


def panels(figure):
    """The pictures of a figure, without the keys to their colours and outlines."""
    pictures = [panel.images[0].get_array() for panel in figure.axes if not panel.axison]
    return [picture for picture in pictures if picture.shape[:2] != (16, 16)]


@pytest.mark.parametrize(
    ("size", "texts"),
    [
        ((200, 120), []),
        ((40, 160), ["a rug"]),
        ((160, 30), [*LONG, *map("thing {}".format, range(18))]),
    ],
    ids=str,
)
def test_nothing_in_the_figure_overlaps_or_is_cut_and_pictures_keep_the_photo_s_shape(size, texts):
    found = analysed(*(text_map(text, beyond=[(0, 0)]) for text in texts), seen=MIDDLE)
    figure = drawn(found, size)
    assert_nothing_overlaps(figure)
    boxes = [panel.get_window_extent() for panel in figure.axes]
    pictures = [box for box, panel in zip(boxes, figure.axes, strict=True) if not panel.axison]
    wanted = 3 + len(texts)
    assert len(panels(figure)) == wanted
    for box in pictures[:wanted]:
        assert box.width / box.height == pytest.approx(size[0] / size[1], rel=0.02)
    page = figure.bbox
    for box in boxes:
        assert page.x0 <= box.x0 < box.x1 <= page.x1 and page.y0 <= box.y0 < box.y1 <= page.y1
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])
    told = words(figure).replace("\n", "")
    for text in texts:
        assert text.replace(" ", "") in told.replace(" ", "")


def strength(picture):
    return np.ptp(np.asarray(picture).astype(int), axis=2).max()


def test_all_texts_of_a_photo_have_one_scale_which_the_figure_says():
    weak, strong = text_map("weak", 0.05), text_map("strong", -0.5, beyond=[(2, 0)])
    figure = drawn(analysed(weak, strong))
    *_, first, second = map(strength, panels(figure))
    assert second > 150
    *_, alone = map(strength, panels(drawn(analysed(weak))))
    assert alone > 120 > 5 * first
    told = words(figure).replace("\n", " ")
    assert "farther -0.5" in told and "0.5 nearer" in told and "one scale for all texts" in told
    assert "AS +0.05°; no position stands out" in told and "0.75" in told
    assert "AS -0.50°; 1 of 16 positions stands out" in told and "used: cat" in told


def test_a_photo_without_maps_has_no_figure_of_them():
    values = vars(analysis_of("cat", 0, 0))
    result = Result(
        **values, name="photo.jpg", sha256="", image=Image.new("RGB", (9, 9)), features=None
    )
    with pytest.raises(InputError, match=f"^photo.jpg: {NO_POSITIONS}"):
        result.map_figure()
    figure = replace(result, maps=maps_of(text_map("a rug"))).map_figure()
    assert "photo.jpg" in words(figure) and not plt.get_fignums()


def pictures(page, kind):
    found = re.findall(rf'{kind}[^>]*src="data:image/webp;base64,([^"]*)" alt="([^"]*)"', page)
    return [
        (np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")), alt)
        for data, alt in found
    ]


def test_the_page_shows_a_picture_per_text_in_the_photo_s_shape_and_tells_it_in_words():
    found = analysed(
        text_map("a rug", beyond=[(2, 0)]), text_map(LONG[0], 0.1, rest=0.2), seen=MIDDLE
    )
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
    assert '<label for="bare">' in page and len(pictures(page, 'class="ramp"')) == 3


def test_a_model_without_maps_has_a_sentence_and_no_frame_on_the_page():
    page = maps_html(analysis_of("cat", 0, 0), Image.new("RGB", (60, 30)))
    assert f"<p>{NO_POSITIONS}.</p>" in page
    assert "<img" not in page and "<input" not in page and "<figure" not in page
    page = maps_html(analysed(), Image.new("RGB", (60, 30)))
    assert len(pictures(page, 'class="frame"><img')) == 2 and "nearer" not in page
