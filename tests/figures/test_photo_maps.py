"""Maps in colours over a photo."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from singflow.figures.photo_maps import FARTHER, INK, NEARER, PAPER, toward_text

SEEN = (0.25, 0.1, 0.75, 0.9)  # of WIDTH x HEIGHT pixels: columns 50 to 149, rows 10 to 89
WIDTH, HEIGHT = 200, 100


@pytest.fixture
def photo():
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def pixels_of(picture):
    assert picture.size == (WIDTH, HEIGHT)
    return np.asarray(picture).astype(int)


def spread(pixels):
    """How far each pixel is from grey."""
    return np.ptp(pixels, axis=2)


def inside():
    area = np.zeros((HEIGHT, WIDTH), bool)
    area[10:90, 50:150] = True
    return area


def test_colours_lie_where_the_map_does_and_nowhere_else(photo):
    values = np.array([[1.0, -1.0], [0.5, 0.0]])
    drawn = pixels_of(toward_text(photo, values, 1.0, SEEN))
    assert not spread(drawn)[~inside()].any()
    blue, red = drawn[..., 2] - drawn[..., 0], drawn[..., 0] - drawn[..., 2]
    corners = slice(10, 30), slice(70, 90), slice(50, 75), slice(125, 150)
    assert blue[corners[0], corners[2]].min() > 100 < red[corners[0], corners[3]].min()
    assert blue[corners[1], corners[2]].mean() == pytest.approx(71, abs=2)
    assert not spread(drawn)[corners[1], corners[3]].any()


def test_a_colour_is_as_strong_as_the_value_beside_the_strongest(photo):
    grey = PAPER + (1 - PAPER) * np.asarray(photo.convert("L"))[50, 100] / 255
    for value, colour in ((0.3, NEARER), (-0.3, FARTHER)):
        drawn = toward_text(photo, np.full((2, 2), value), 0.6, SEEN)
        share = INK * 0.5
        wanted = 255 * (grey * (1 - share) + np.array(to_rgb(colour)) * share)
        assert np.abs(pixels_of(drawn)[50, 100] - wanted).max() <= 1
    nothing = pixels_of(toward_text(photo, np.zeros((2, 2)), 0.0, SEEN))
    assert not spread(nothing).any()
