"""Maps of a photo, in colours over the photo."""

from collections.abc import Iterable
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image
from scipy.ndimage import binary_erosion

from singflow.analyses.maps import Maps
from singflow.figures.style import COLOURS

NEARER, FARTHER = COLOURS[0], COLOURS[5]  # where removal moves an image toward a text, and away
SEQUENTIAL = "cividis"
PAPER, INK = 0.5, 0.8  # share of white in the grey photo, and most of a colour over it
AMOUNT = 0.65  # share of a colour of SEQUENTIAL over the photo
WHOLE = (0.0, 0.0, 1.0, 1.0)
RAMP = (256, 16)  # pixels

Box = tuple[float, float, float, float]


class MapPanel(NamedTuple):
    """A photo under a map, and the values at the ends of the map's colours."""

    picture: Image.Image
    ends: tuple[str, ...]


def map_panels(photo: Image.Image, maps: Maps) -> list[MapPanel]:
    """A photo under the maps of what is used and of what is ignored, and of each text in turn.

    The maps of texts have one scale.
    """
    used = min(0.0, float(maps.used.min())), max(0.0, float(maps.used.max()))
    ignored = float(maps.null_energy.min()), float(maps.null_energy.max())
    panels = [
        MapPanel(amount(photo, values, ends, maps.seen), tuple(f"{unit * end:.2g}" for end in ends))
        for values, ends, unit in ((maps.used, used, 1), (maps.null_energy, ignored, 100))
    ]
    most = strongest([maps])
    for text in maps.texts:
        picture = toward_text(photo, text.contribution_deg, most, maps.seen, text.beyond)
        panels.append(MapPanel(picture, (f"farther -{most:.2g}", f"{most:.2g} nearer")))
    return panels


def strongest(several: Iterable[Maps]) -> float:
    """The largest movement toward or from a text; 0 without texts."""
    texts = (text for maps in several for text in maps.texts)
    return max((float(np.abs(text.contribution_deg).max()) for text in texts), default=0.0)


def toward_text(
    photo: Image.Image, values: np.ndarray, most: float, seen: Box, beyond: np.ndarray
) -> Image.Image:
    """A photo under a map of movements (h, w): NEARER above 0, FARTHER below, strongest at `most`.

    seen: the part of the photo that the map covers, in shares. Positions that are beyond chance (h,
    w) have an outline.
    """
    box = _pixels(photo, seen)
    fine = _enlarged(values / (most or 1.0), box).clip(-1, 1)
    sides = np.where(fine[..., None] > 0, to_rgb(NEARER), to_rgb(FARTHER))
    drawn = _over(_grey(photo), sides, np.abs(fine)[..., None] * INK, box)
    if beyond.any():
        _outline(drawn, beyond, box)
    return Image.fromarray((255 * drawn).round().astype(np.uint8))


def amount(
    photo: Image.Image, values: np.ndarray, ends: tuple[float, float], seen: Box
) -> Image.Image:
    """A photo under a map of amounts (h, w), in the colours of SEQUENTIAL between two ends."""
    box, (low, high) = _pixels(photo, seen), ends
    fine = _enlarged((values - low) / ((high - low) or 1.0), box).clip(0, 1)
    colours = matplotlib.colormaps[SEQUENTIAL](fine)[..., :3]
    drawn = _over(_grey(photo), colours, np.full((*fine.shape, 1), AMOUNT), box)
    return Image.fromarray((255 * drawn).round().astype(np.uint8))


def keys() -> tuple[Image.Image, Image.Image, Image.Image]:
    """Over a grey photo: the colours of toward_text(), those of amount(), and an outline."""
    grey, signed = Image.new("L", RAMP, 160), np.linspace(-1, 1, RAMP[0])[None]
    square = np.ones((1, 1))
    return (
        toward_text(grey, signed, 1.0, WHOLE, signed > 1),
        amount(grey, signed, (-1.0, 1.0), WHOLE),
        toward_text(grey.crop((0, 0, RAMP[1], RAMP[1])), 0 * square, 1.0, WHOLE, square > 0),
    )


def _grey(photo: Image.Image) -> np.ndarray:
    grey = np.asarray(photo.convert("L"), dtype=np.float64)[..., None] / 255
    return np.repeat(PAPER + (1 - PAPER) * grey, 3, axis=2)


def _pixels(photo: Image.Image, seen: Box) -> tuple[int, int, int, int]:
    left, top, right, bottom = np.clip(seen, 0, 1).tolist()
    sides = left * photo.width, top * photo.height, right * photo.width, bottom * photo.height
    first, above, last, below = map(round, sides)
    first, above = min(first, photo.width - 1), min(above, photo.height - 1)
    return first, above, max(last, first + 1), max(below, above + 1)


def _enlarged(
    values: np.ndarray,
    box: tuple[int, int, int, int],
    by: Image.Resampling = Image.Resampling.BILINEAR,
) -> np.ndarray:
    coarse = Image.fromarray(values.astype(np.float32))
    return np.asarray(coarse.resize((box[2] - box[0], box[3] - box[1]), by), dtype=np.float64)


def _over(
    grey: np.ndarray, colours: np.ndarray, strength: np.ndarray, box: tuple[int, int, int, int]
) -> np.ndarray:
    """Colours over the part of a grey photo that a map covers; the rest becomes paler."""
    left, top, right, bottom = box
    shown = 0.6 + 0.4 * grey
    inside = grey[top:bottom, left:right]
    shown[top:bottom, left:right] = inside * (1 - strength) + colours * strength
    return shown


def _outline(drawn: np.ndarray, beyond: np.ndarray, box: tuple[int, int, int, int]) -> None:
    """A black and a white line inside the positions that are beyond chance."""
    left, top, right, bottom = box
    area = drawn[top:bottom, left:right]
    inner = _enlarged(beyond, box, Image.Resampling.NEAREST) > 0
    thick = max(1, min(area.shape[:2]) // 100)
    for colour in (0.0, 1.0):
        outer, inner = inner, binary_erosion(inner, np.ones((3, 3)), thick)
        area[outer & ~inner] = colour
