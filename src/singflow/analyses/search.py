"""Images ranked by their angle to a text, before and after their null component is removed."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from singflow.analyses.metrics import Removal


def rank_by_text(
    removals: Iterable[tuple[np.ndarray, Removal]], text: np.ndarray, images: int
) -> pd.DataFrame:
    """Rank images by their angle to a text; of the images only two angles each are kept.

    Parameters
    ----------
    removals : iterable of ndarray of int and Removal
        Image ids, and the translated features of these images with and without a part: blocks that together hold each image once.
    text : ndarray of shape (m,)
        Embedding of the text.
    images : int
        How many there are, with ids from 0.

    Returns
    -------
    DataFrame
        image_id; angle_deg and rank (1 is nearest) before; equivalent_deg and equivalent_rank after; sorted by rank. Equal angles are
        ranked by image_id.
    """
    angles = np.empty((2, images))
    for image_id, removal in removals:
        angles[:, image_id] = removal.angles(np.broadcast_to(text, removal.original.shape))
    order = np.argsort(angles, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(1, images + 1)[None], axis=1)
    columns = {
        "angle_deg": angles[0],
        "rank": ranks[0],
        "equivalent_deg": angles[1],
        "equivalent_rank": ranks[1],
    }
    return (
        pd.DataFrame({"image_id": np.arange(images), **columns})
        .iloc[order[0]]
        .reset_index(drop=True)
    )


def nearest_either_way(ranked: pd.DataFrame, count: int) -> pd.DataFrame:
    """The images that are nearest to the text before or after.

    Parameters
    ----------
    ranked : DataFrame
        As rank_by_text() gives it.
    count : int
        How many either way.

    Returns
    -------
    DataFrame
        Their rows, by rank before, with risen: places that removal brings them nearer to the top, below 0 away from it.
    """
    near = ranked[(ranked["rank"] <= count) | (ranked["equivalent_rank"] <= count)]
    return near.assign(risen=near["rank"] - near["equivalent_rank"]).reset_index(drop=True)
