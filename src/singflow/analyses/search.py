"""Images ranked by their angle to a text, before and after removal of their null component."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from singflow.analyses.metrics import Removal


def rank_by_text(
    removals: Iterable[tuple[np.ndarray, Removal]], text: np.ndarray, images: int
) -> pd.DataFrame:
    """Rank images by their angle to a text (m,); only two angles per image are kept in memory.

    `removals` yields image ids with their removal; together the blocks hold every image id from 0
    once. angle_deg and rank (1 is nearest) are before the removal, equivalent_deg and
    equivalent_rank after it. Rows are sorted by rank; equal angles are ranked by image_id.
    """
    angles = np.empty((2, images))
    for image_id, removal in removals:
        angles[:, image_id] = removal.angles(np.broadcast_to(text, removal.original.shape))
    order = np.argsort(angles, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(1, images + 1)[None], axis=1)
    columns = {
        "image_id": np.arange(images),
        "angle_deg": angles[0],
        "rank": ranks[0],
        "equivalent_deg": angles[1],
        "equivalent_rank": ranks[1],
    }
    return pd.DataFrame(columns).iloc[order[0]].reset_index(drop=True)


def nearest_either_way(ranked: pd.DataFrame, count: int) -> pd.DataFrame:
    """Rows of the `count` images nearest to the text before removal, and of those nearest after it.

    Column risen counts the ranks that an image gains by the removal; it is negative for a loss.
    """
    near = ranked[(ranked["rank"] <= count) | (ranked["equivalent_rank"] <= count)]
    return near.assign(risen=near["rank"] - near["equivalent_rank"]).reset_index(drop=True)
