"""From embeddings to pictures, drawn by a generator, and to words."""

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from singflow.pictures.selection import Picture
from singflow.pictures.word_neighbours import ANGLES, WORDS, word_neighbours

SIDE = 256  # pixels: what the generator draws, and the longer side of a photo
DTYPES = {str: "str", int: "int64", float: "float64"}
TYPES = {
    **{column.name: DTYPES[column.type] for column in fields(Picture) if column.type in DTYPES},
    "renderer": "str",
    "draw": "int64",
    **dict.fromkeys(WORDS, "str"),
    **dict.fromkeys(ANGLES, "float64"),
}

Row = dict[str, Any]


def encode(image: Image.Image, kind: str) -> bytes:
    """An RGB image as a PNG or JPEG file of at most SIDE by SIDE pixels."""
    small = image.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, kind, quality=90)
    return buffer.getvalue()


def generate(
    pictures: list[Picture],
    seeds: list[int],
    render: Callable[[np.ndarray, int], np.ndarray],
    progress: Callable[[Iterable[Any], int], Iterable[Any]],
) -> Iterator[Row]:
    """Rows of the table of pictures, drawn by a generator; equal embeddings are drawn once.

    Figure 13 is drawn with all seeds, and the others with the first.
    """
    drawn: dict[tuple[bytes, int], bytes] = {}
    wanted = [
        (picture, seed)
        for picture in pictures
        for seed in (seeds if picture.figure == "fig13" else seeds[:1])
    ]
    for picture, seed in progress(wanted, len(wanted)):
        if picture.embedding is None:
            yield _row(picture, "unclip")
            continue
        key = (picture.embedding.tobytes(), seed)
        if key not in drawn:
            drawn[key] = encode(Image.fromarray(render(picture.embedding, seed)), "PNG")
        yield _row(picture, "unclip", draw=seed, picture=drawn[key])


def undrawn(pictures: list[Picture]) -> Iterator[Row]:
    """Rows of the table of pictures without a picture: words alone stand for the feature."""
    return (_row(picture, "words") for picture in pictures)


def photos(
    image_ids: Iterable[int], labels: Iterable[str], photo: Callable[[int], bytes]
) -> Iterator[Row]:
    """Rows of the table of pictures for the images themselves."""
    for image_id, label in zip(image_ids, labels, strict=True):
        shown = Picture("photo", image_id, label, "", "photo")
        yield _row(shown, "photo", picture=photo(image_id))


def _row(shown: Picture, renderer: str, /, **drawn: Any) -> Row:
    none = {"draw": -1, "picture": b""}
    unsaid = dict.fromkeys(WORDS, "") | dict.fromkeys(ANGLES, np.nan)
    return {**vars(shown), "renderer": renderer, **none, **unsaid, **drawn}


def add_words(rows: list[Row], words: list[str], texts: np.ndarray) -> None:
    """Write the words nearest to their embeddings into rows of the table of pictures."""
    reached = [row for row in rows if row["embedding"] is not None]
    near = word_neighbours(np.stack([row["embedding"] for row in reached]), words, texts)
    for row, *found in zip(reached, *near, strict=True):
        row |= zip((*WORDS, *ANGLES), np.concatenate(found).tolist(), strict=True)


def picture_table(rows: Iterable[Row]) -> pd.DataFrame:
    """The columns of TYPES, and `picture`: a PNG or JPEG file, empty if there is none."""
    return pd.DataFrame(rows, columns=[*TYPES, "picture"]).astype(TYPES)
