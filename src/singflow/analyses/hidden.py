"""Which meaning is hidden, and where: D by text and by group.

The cross-fitted errors of the test of meaning answer both questions without a new fit. D of a text
is D of the embeddings' projection on it. D of a group is D within its images. Many texts or groups
are tested at once, so p is corrected for their number, and for their correlation.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy

from singflow.analyses.bands import TINY
from singflow.analyses.evidence import Residuals
from singflow.artifacts.shards import ROWS_AT_ONCE, in_blocks

DRAWS = 999  # of the multiplier bootstrap
CLUSTERS = 2000  # images, or groups of images, that the bootstrap draws, at most
GROUP_IMAGES = 10  # the fewest of a group that is tested
TEXTS_AT_ONCE = 512
TESTED: dict[str, type] = dict.fromkeys(
    ("unique_r2", "unique_r2_low", "unique_r2_high", "p"), float
)

# Estimates (j,) of some texts or groups, and the influence (clusters, j) of the clusters on them.
Influence = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Question:
    """How texts and groups are tested."""

    margin: float  # what D must exceed
    confidence: float  # coverage of intervals; its complement is the familywise level
    seed: int


def clusters(copies: np.ndarray, seed: int) -> np.ndarray:
    """The cluster of each image (n,): copies of an image together, at most CLUSTERS in all."""
    numbers = np.unique(copies, return_inverse=True)[1]
    count = int(numbers.max(initial=-1)) + 1
    if count <= CLUSTERS:
        return np.asarray(numbers)
    return np.asarray(np.random.default_rng([seed, 6]).permutation(count)[numbers] % CLUSTERS)


def by_text(residuals: Residuals, texts: np.ndarray, question: Question) -> pd.DataFrame:
    """D of each text (T, m) of centred_texts(), with its interval and corrected p (columns TESTED).

    D_t = mean over images of [(e . t)^2 - (e_b . t)^2] / Var(z . t), for the errors e without and
    e_b with b. Studentized; step-down over the largest statistic (Romano and Wolf 2005), by a
    multiplier bootstrap over images. Images of a cluster are drawn together.
    """
    of_image = clusters(residuals.cluster, question.seed)
    n, count = len(of_image), int(of_image.max()) + 1
    members = scipy.sparse.csr_array((np.ones(n), (np.arange(n), of_image)), shape=(n, count))
    sizes = np.bincount(of_image, minlength=count)[:, None]

    def influence(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        toward = texts[chosen].T.astype(np.float64)
        variance = np.einsum("mt,mt->t", toward, residuals.covariance @ toward)
        sums = np.zeros((count, len(chosen)))
        for start in range(0, n, ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            gain = (residuals.plain[rows] @ toward) ** 2 - (residuals.full[rows] @ toward) ** 2
            sums += members[rows].T @ gain
        sums *= np.divide(1.0 / n, variance, out=np.zeros_like(variance), where=variance > TINY)
        estimate = sums.sum(axis=0)
        return estimate, sums - sizes * (estimate / n)

    return _tested(influence, np.full(len(texts), count), question)


def by_group(residuals: Residuals, groups: np.ndarray, question: Question) -> pd.DataFrame:
    """D within each group of images, and whether it exceeds the margin.

    groups: (n,) number of each image's group, -1 for none. The columns are those of by_text(), and
    n, the images of the group. Groups of fewer than GROUP_IMAGES images (copies count once) have no
    interval and no p.
    """
    of_image, mine = clusters(residuals.cluster, question.seed), groups >= 0
    count, found = int(of_image.max()) + 1, int(groups.max(initial=-1)) + 1
    variance = float(np.trace(residuals.covariance))
    gain = np.concatenate(
        [
            (np.square(residuals.plain[rows]) - np.square(residuals.full[rows])).sum(axis=1)
            for rows in in_blocks(np.arange(len(groups)), ROWS_AT_ONCE)
        ]
    )
    at, shape = (of_image[mine], groups[mine]), (count, found)
    sums = scipy.sparse.coo_array((gain[mine] / variance, at), shape=shape).toarray()
    sizes = scipy.sparse.coo_array((np.ones(mine.sum()), at), shape=shape).toarray()
    n = np.maximum(sizes.sum(axis=0), 1.0)
    estimate = sums.sum(axis=0) / n
    centred = (sums - sizes * estimate) / n
    images = (sizes > 0).sum(axis=0)
    large = np.flatnonzero(images >= GROUP_IMAGES)
    table = pd.DataFrame({"unique_r2": estimate, "n": sizes.sum(axis=0).astype(np.int64)})
    tested = _tested(
        lambda chosen: (estimate[large[chosen]], centred[:, large[chosen]]), images[large], question
    )
    return table.join(tested.drop(columns="unique_r2").set_index(large))


def judged(table: pd.DataFrame, question: Question) -> pd.DataFrame:
    """With a column hidden, which counts where the verdict on the model opens texts and groups."""
    return table.assign(hidden=table["p"] <= 1 - question.confidence)


def _tested(influence: Influence, images: np.ndarray, question: Question) -> pd.DataFrame:
    """Estimates with intervals and corrected p; of one cluster, p is 1 without an interval.

    The influence u_ij of cluster i on estimate j gives the variance sum_i u_ij^2 times n / (n - 1),
    and the statistic T_j = (estimate - margin) / error. A draw of the multiplier bootstrap is
    T*_j = sum_i g_i u_ij / error with normal g_i, which keeps the correlation of the estimates.
    p of the j-th largest T is the share of draws in which the largest T* of those that are not
    larger reaches it (step-down); a running maximum, from the least T on, gives all of them.

    images: (j,) number of clusters behind each estimate.
    """
    every, freedom = np.arange(len(images)), np.maximum(images - 1, 1)
    estimate, error = np.zeros(len(images)), np.zeros(len(images))
    for some in _batches(every):
        estimate[some], each = influence(some)
        error[some] = np.sqrt((each**2).sum(axis=0) * images[some] / freedom[some])
    error = np.where(images > 1, np.maximum(error, 1e-12), np.inf)
    statistic = (estimate - question.margin) / error
    order, p = np.argsort(statistic, kind="stable"), np.ones(len(images))
    largest, generator = np.full(DRAWS, -np.inf), np.random.default_rng([question.seed, 7])
    draws = None
    for some in _batches(order):
        each = influence(some)[1]
        draws = generator.standard_normal((DRAWS, len(each))) if draws is None else draws
        drawn = np.column_stack([largest, draws @ (each / error[some])])
        np.maximum.accumulate(drawn, axis=1, out=drawn)
        largest = drawn[:, -1]
        p[some] = (1 + (drawn[:, 1:] >= statistic[some]).sum(axis=0)) / (DRAWS + 1)
    falling = order[::-1]
    p[falling] = np.maximum.accumulate(p[falling])
    reach = scipy.special.stdtrit(freedom, (1 + question.confidence) / 2) * error
    reach[images < 2] = np.nan
    columns = estimate, estimate - reach, estimate + reach, p
    return pd.DataFrame(dict(zip(TESTED, columns, strict=True)))


def _batches(numbers: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(numbers), TEXTS_AT_ONCE):
        yield numbers[start : start + TEXTS_AT_ONCE]
