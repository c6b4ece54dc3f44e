import base64
import io

import numpy as np
from PIL import Image

from singflow.report import thumbnails
from singflow.report.thumbnails import COLUMNS, FEW, figure_image, sheets, tile


def opened(content):
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_every_tile_stands_at_its_place_in_reading_order():
    numbers = range(COLUMNS**2 + COLUMNS + 1)
    shades = [(37 * number % 256, 91 * number % 256, 53 * number % 256) for number in numbers]
    first, second = map(opened, sheets((Image.new("RGB", (16, 16), shade) for shade in shades), 16))
    assert first.size == (16 * COLUMNS, 16 * COLUMNS) and second.size == (16 * COLUMNS, 32)
    for number, shade in enumerate(shades):
        page, place = divmod(number, COLUMNS**2)
        top, left = (16 * at + 4 for at in divmod(place, COLUMNS))
        centre = np.asarray((first, second)[page])[top : top + 8, left : left + 8]
        assert abs(centre.mean(axis=(0, 1)) - shade).max() < 25


def test_a_tile_shows_the_whole_image_on_white():
    small = np.asarray(tile(Image.new("RGB", (200, 100), "red"), 20))
    assert small.shape == (20, 20, 3) and (small[0] == 255).all()
    assert tuple(small[10, 10]) == (255, 0, 0)
    sides = [thumbnails.tile_side(count) for count in (FEW, FEW + 1)]
    assert sheets([], 16) == [] and sides == [thumbnails.LARGE, thumbnails.SMALL]


def test_a_figure_is_made_to_fit_its_width_and_what_the_format_holds():
    fitted = {(300, 200): (300, 200), (3200, 100): (1600, 50), (400, 20000): (328, 16383)}
    for size, expected in fitted.items():
        assert opened(figure_image(Image.new("RGBA", size, "white"), 1600)).size == expected
