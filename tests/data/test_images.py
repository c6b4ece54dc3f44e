"""decode gives the upright 8-bit RGB picture of any file, or a reason; views depend on a key."""

import io
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from singflow.data.images import FORMATS, LONGEST_ASPECT, Box, Unusable, any_size, decode, view_box

LIMIT = 10_000
NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
# The upright picture as a file with EXIF orientation 1 to 8 stores it, by the standard's table of
# where row 0 and column 0 go.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright.swapaxes(0, 1)[::-1],
    7: lambda upright: upright.swapaxes(0, 1)[::-1, ::-1],
    8: lambda upright: upright.swapaxes(0, 1)[:, ::-1],
}


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(content: bytes) -> np.ndarray:
    image = decode(content, LIMIT)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def reason(content: bytes, max_pixels: int = LIMIT) -> str:
    with pytest.raises(Unusable) as refusal:
        decode(content, max_pixels)
    return str(refusal.value)


DARK, LIGHT, GREEN, WHITE = [10, 20, 30], [200, 100, 50], [0, 255, 0], [255] * 3
MIXED = [round(255 * 0.6 + value * 0.4) for value in LIGHT]
PALETTE = Image.fromarray(np.array([[0, 1], [2, 0]], dtype=np.uint8), "P")
PALETTE.putpalette([*DARK, *LIGHT, *GREEN])
COLOURS = Image.fromarray(np.array([[DARK, GREEN]], dtype=np.uint8))
BITS = np.array([[True, False, True], [False, False, True]])
BYTES = np.arange(256, dtype=np.uint8).reshape(16, 16)
WORDS = np.array([[0, 257, 300, 12_345], [32_768, 40_000, 65_000, 65_535]], dtype=np.uint16)
INKS = {(0, 255, 255, 0): (255, 0, 0), (255, 0, 0, 127): (0, 128, 128), (0, 0, 0, 0): (255,) * 3}
FRAMES = [Image.new("RGB", (6, 4), colour) for colour in ((250, 0, 0), (0, 0, 250))]


def grey(values):
    return np.repeat(np.asarray(values)[..., None], 3, axis=2)


PICTURES = [  # image, format, options, its pixels, and how far from them they may be
    (PALETTE, "PNG", {}, [[DARK, LIGHT], [GREEN, DARK]], 0),
    (PALETTE, "PNG", {"transparency": bytes([0, 102, 255])}, [[WHITE, MIXED], [GREEN, WHITE]], 1),
    (COLOURS, "PNG", {"transparency": tuple(DARK)}, [[WHITE, GREEN]], 1),
    *(
        (Image.fromarray(values), kind, {}, grey(pixels), tolerance)
        for kind in ("PNG", "TIFF")
        for values, pixels, tolerance in (
            (BITS, BITS * 255, 0),
            (BYTES, BYTES, 0),
            (WORDS, WORDS / 65_535 * 255, 0.5),
        )
    ),
    *(
        (Image.new("CMYK", (16, 8), inks), "JPEG", {"quality": 95}, colour, 4)
        for inks, colour in INKS.items()
    ),
    *(
        (Image.new(mode, (3, 2), (*opaque, alpha)), "PNG", {}, over_white, 1)
        for mode, opaque in (("RGBA", (200, 0, 90)), ("LA", (120,)))
        for alpha in (0, 64, 255)
        for over_white in [[255 + (value - 255) * alpha / 255 for value in (opaque * 3)[:3]]]
    ),
    (FRAMES[0], "GIF", {"save_all": True, "append_images": FRAMES[1:]}, (250, 0, 0), 0),
]


@pytest.mark.parametrize("image, kind, options, expected, tolerance", PICTURES)
def test_every_mode_becomes_rgb_with_what_is_transparent_over_white(
    image, kind, options, expected, tolerance
):
    content = encoded(image, kind, **options)
    stored = Image.open(io.BytesIO(content))
    assert stored.n_frames == 2 if kind == "GIF" else stored.mode == image.mode
    shape = (image.height, image.width, 3)
    assert pixels(content).shape == shape
    np.testing.assert_allclose(pixels(content), np.broadcast_to(expected, shape), atol=tolerance)


@pytest.mark.parametrize("kind, tolerance", [("PNG", 0), ("TIFF", 0), ("JPEG", 6)])
@pytest.mark.parametrize("orientation", STORED)
def test_every_exif_orientation_gives_the_upright_picture(orientation, kind, tolerance):
    shades = np.array([[10, 90, 170], [220, 130, 50]], dtype=np.uint8)
    upright = np.kron(shades, np.ones((16, 16), dtype=np.uint8))
    upright = np.stack([upright, 255 - upright, upright // 2], axis=2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    content = encoded(stored, kind, exif=exif, **options)
    assert pixels(content).shape == upright.shape
    np.testing.assert_allclose(pixels(content), upright, atol=tolerance)


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"", "empty file"),
        (b"path,label\na.jpg,cat\n", "not an image"),
        (encoded(Image.fromarray(NOISE), "JPEG")[:1500], "truncated"),
        (encoded(Image.fromarray(np.ones((4, 4), "float32")), "TIFF"), "32-bit pixels"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_the_reason(content, expected):
    assert reason(content).startswith(expected)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_limit_of_pillow_is_not_ours_and_stays_as_the_process_has_it(kind, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    content = encoded(Image.new("RGB", (64, 64)), kind)
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda _: decode(content, 64 * 64).size, range(40))
        assert {*found} == {(64, 64)}
    with pytest.raises(Unusable):
        decode(content[:60], 64 * 64)
    with any_size():  # a thread inside Pillow's check finds a number
        assert 2 * Image.MAX_IMAGE_PIXELS > 10**18
    assert Image.MAX_IMAGE_PIXELS == 10
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(content))


def test_an_image_of_a_pixel_more_than_max_pixels_or_than_50_to_1_is_refused_unread():
    assert decode(encoded(Image.new("RGB", (10, 10)), "PNG"), 100).size == (10, 10)
    more = encoded(Image.new("RGB", (101, 1)), "PNG")
    assert reason(more[:-20], 100).startswith("absurdly large: 101 x 1 pixels")
    for size in ((1, 51), (51, 1)):
        content = encoded(Image.new("RGB", size), "PNG")
        said = f"absurdly oblong: {size[0]} x {size[1]} pixels, more than 50 to 1: cut it"
        assert reason(content) == reason(content[:-20]) == said
    assert decode(encoded(Image.new("RGB", (2, 100)), "PNG"), LIMIT).size == (2, 100)


KEYS = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**31), st.integers(1, 1000))
SHARES = st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)).map(sorted)


@given(KEYS, SHARES)
def test_a_view_lies_inside_the_image_with_the_asked_share_and_is_stretched_by_at_most_4_thirds(
    key, shares
):
    box = view_box(*key, *shares)
    width, height = box.right - box.left, box.bottom - box.top
    assert 0 <= box.left < box.right <= 1 and 0 <= box.top < box.bottom <= 1
    assert 1 / LONGEST_ASPECT - 1e-9 <= width / height <= LONGEST_ASPECT + 1e-9
    assert shares[0] - 1e-9 <= width * height <= shares[1] + 1e-9


def test_views_depend_on_seed_image_and_view_alone_and_differ_in_each():
    keys = list(product(range(5), range(5), range(1, 6)))
    forward = {key: view_box(*key, 0.3, 0.9) for key in keys}
    np.random.seed(1)
    assert {key: view_box(*key, 0.3, 0.9) for key in reversed(keys)} == forward
    assert len(set(forward.values())) == len(keys)


def test_views_use_the_whole_range_of_areas_and_reach_every_part_of_the_image():
    boxes = [view_box(0, image, 1, 0.2, 0.6) for image in range(400)]
    areas = [(box.right - box.left) * (box.bottom - box.top) for box in boxes]
    assert min(areas) < 0.22 and max(areas) > 0.58 and abs(np.mean(areas) - 0.4) < 0.03
    assert min(box.left for box in boxes) < 0.02 and max(box.right for box in boxes) > 0.98
    assert min(box.top for box in boxes) < 0.02 and max(box.bottom for box in boxes) > 0.98


ACROSS, DOWN = np.meshgrid(np.arange(64), np.arange(32))
GRADIENT = np.stack([ACROSS * 4, DOWN * 8, np.zeros_like(DOWN)], axis=2).astype(np.uint8)


def test_a_crop_has_the_pixels_of_its_box():
    image = Image.fromarray(GRADIENT)
    left_half = Box(0.0, 0.0, 0.5, 1.0).crop(image, 32, 32, Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(left_half), GRADIENT[:, :32])
    corner = Box(0.75, 0.5, 1.0, 1.0).crop(image, 16, 16, Image.Resampling.NEAREST)
    assert np.array_equal(np.asarray(corner), GRADIENT[16:, 48:])
    whole = Box(0.0, 0.0, 1.0, 1.0).crop(image, 64, 32, Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(whole), GRADIENT)
