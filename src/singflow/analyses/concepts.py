"""Open-vocabulary scan: per label and concept, moments of the angle and of the attribute score, and what stands out (section 4.3).

Null removal often shifts images toward all texts alike. What tells a concept from the others is its contrast: its AS less the mean AS
over all concepts of the vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy
from pydantic import Field

from singflow.analyses.metrics import angles_to_all_deg
from singflow.artifacts.scratch import Scratch
from singflow.config.sections import MOST_SHOWN, SafePath, Section


class Concepts(Section):
    """The open vocabulary."""

    vocabulary: SafePath = Field(
        "config/vocab/concepts.txt",
        description="one phrase a line (paper: 30); also broden_style.txt, imagenet_names.txt",
    )
    extremes: int = Field(
        5, ge=1, le=MOST_SHOWN, description="strongest and weakest concepts listed per label"
    )
    nearest: int = Field(
        5,
        ge=1,
        le=MOST_SHOWN,
        description="nearest concepts per label among which spurious cues are sought",
    )


CHUNK = 1024
BLOCK = 500
CELLS = 500_000


def block_size(labels: int) -> int:
    """Number of concepts scanned at once.

    Parameters
    ----------
    labels : int
        Number of labels.

    Returns
    -------
    int
        At most BLOCK, and so few that labels x concepts stays within CELLS (but at least one).
    """
    return max(1, min(BLOCK, CELLS // labels))


def scores_of(
    original: np.ndarray | Scratch, equivalent: np.ndarray | Scratch, texts: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Angle and AS of every image toward every text, some images at a time.

    Parameters
    ----------
    original, equivalent : ndarray or Scratch of shape (N, m)
        Unit embeddings in float32 before and after null removal.
    texts : ndarray of shape (B, m)
        Unit embeddings in float32.

    Yields
    ------
    start : int
        Position of the first of some images.
    angle, score : ndarray of shape (n, B)
        Degrees in float32.

    References
    ----------
    Equations 5 and 7 of the paper.
    """
    for start in range(0, len(original), CHUNK):
        part = slice(start, start + CHUNK)
        angle = angles_to_all_deg(original[part], texts)
        yield start, angle, angle - angles_to_all_deg(equivalent[part], texts)


def summed_scores(
    original: np.ndarray | Scratch, equivalent: np.ndarray | Scratch, texts: np.ndarray
) -> np.ndarray:
    """Sum over texts of every image's AS.

    Parameters
    ----------
    original, equivalent, texts
        As for `scores_of`.

    Returns
    -------
    ndarray of shape (N,)
        Degrees in float64.
    """
    return np.concatenate(
        [
            score.sum(axis=1, dtype=np.float64)
            for _, _, score in scores_of(original, equivalent, texts)
        ]
    )


def scan_block(
    original: np.ndarray | Scratch,
    equivalent: np.ndarray | Scratch,
    n: np.ndarray,
    texts: np.ndarray,
    common: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Moments over images of the angle and of AS for every label and the concepts of one block.

    Angles by `angles_to_all_deg`, sums in float64. Memory grows with L x B, not with N.

    Parameters
    ----------
    original, equivalent : ndarray or Scratch of shape (N, m)
        Unit embeddings in float32 before and after null removal, the images of the first label first and so on.
    n : ndarray of shape (L,)
        Images per label, none 0.
    texts : ndarray of shape (B, m)
        Unit embeddings of the concepts in float32.
    common : ndarray of shape (N,), optional
        Every image's mean AS over all concepts; needed where the block does not hold them all.

    Returns
    -------
    dict of str to ndarray of shape (L, B)
        angle_mean, angle_std, as_mean, as_std, as_abs_mean, and contrast_std (of AS less `common`) in degrees, float64; standard
        deviations have the divisor n.

    References
    ----------
    Equations 5 and 7 of the paper.
    """
    stops = np.cumsum(n)
    sums, cross, shared = (
        np.zeros((5, len(n), len(texts))),
        np.zeros((len(n), len(texts))),
        np.zeros((2, len(n), 1)),
    )
    for start, angle, score in scores_of(original, equivalent, texts):
        together = (
            score.mean(axis=1, dtype=np.float64)
            if common is None
            else common[start : start + CHUNK]
        )
        for label in range(
            np.searchsorted(stops, start, side="right"),
            np.searchsorted(stops, start + len(angle)) + 1,
        ):
            mine = slice(max(stops[label] - n[label] - start, 0), stops[label] - start)
            a, s = angle[mine].astype(np.float64), score[mine].astype(np.float64)
            sums[:, label] += [values.sum(axis=0) for values in (a, a * a, s, s * s, np.abs(s))]
            cross[label] += together[mine] @ s
            shared[:, label, 0] += [together[mine].sum(), together[mine] @ together[mine]]
    for each in (sums, cross, shared):
        each /= n[:, None]
    contrast = np.sqrt(
        np.maximum(sums[3] - 2 * cross + shared[1] - (sums[2] - shared[0]) ** 2, 0.0)
    )
    for mean, squares in (sums[0:2], sums[2:4]):
        np.sqrt(np.maximum(squares - mean**2, 0.0), out=squares)
    return dict(
        zip(
            ("angle_mean", "angle_std", "as_mean", "as_std", "as_abs_mean", "contrast_std"),
            (*sums, contrast),
            strict=True,
        )
    )


def contrast(scan: pd.DataFrame) -> pd.Series:
    """Every row's mean AS less the mean over all concepts of its label.

    Parameters
    ----------
    scan : DataFrame
        Rows of a scan, with all concepts of each of its labels.

    Returns
    -------
    Series
        Degrees. A shift of all images toward every concept alike changes none.
    """
    return scan["as_mean"] - scan.groupby("label", observed=True)["as_mean"].transform("mean")


def block_table(
    labels: list[str], concepts: list[str], n: np.ndarray, moments: dict[str, np.ndarray]
) -> pd.DataFrame:
    """One row per label and concept of a block: all concepts of the first label, then of the second, and so on.

    Parameters
    ----------
    labels : list of str
        The L labels.
    concepts : list of str
        The B concepts of the block.
    n : ndarray of shape (L,)
        Images per label.
    moments : dict of str to ndarray of shape (L, B)
        What `scan_block` gives.

    Returns
    -------
    DataFrame
        label and concept (categories), n, and a column for each of the moments.
    """
    return pd.DataFrame(
        {
            "label": pd.Categorical.from_codes(
                np.repeat(np.arange(len(labels)), len(concepts)), pd.Index(labels)
            ),
            "concept": pd.Categorical.from_codes(
                np.tile(np.arange(len(concepts)), len(labels)), pd.Index(concepts)
            ),
            "n": np.repeat(n, len(concepts)),
            **{name: values.ravel() for name, values in moments.items()},
        }
    )


@dataclass(frozen=True)
class Scan:
    """What ranks the concepts of one model, in degrees.

    Mean angle and mean contrast are (L, P) float32, over labels and concepts; common is (L,), the labels' mean AS over all concepts.
    """

    labels: list[str]
    concepts: list[str]
    angle: np.ndarray
    contrast: np.ndarray
    common: np.ndarray


def lowest(values: np.ndarray, count: int) -> np.ndarray:
    """Positions of the lowest values, lowest first, ties in order of their position.

    Parameters
    ----------
    values : ndarray of shape (P,)
        Values to choose from.
    count : int
        How many are wanted.

    Returns
    -------
    ndarray of int
        `count` positions; all when there are fewer.
    """
    if count >= len(values):
        return np.argsort(values, kind="stable")
    near = np.flatnonzero(values <= np.partition(values, count)[count])
    return near[np.argsort(values[near], kind="stable")][:count]


def extreme_concepts(scan: Scan, count: int) -> pd.DataFrame:
    """The strongest and weakest concepts of every label by the size of their contrast (figure 5).

    Parameters
    ----------
    scan : Scan
        A model's scan in one space.
    count : int
        How many of each kind. With fewer than 2 count concepts each is in one list alone.

    Returns
    -------
    DataFrame
        One row each: label, concept (positions), kind (strongest, weakest), place (1 is the most extreme).
    """
    rows = []
    strong = min(count, (len(scan.concepts) + 1) // 2)
    weak = min(count, len(scan.concepts) - strong)
    for label, size in enumerate(np.abs(scan.contrast)):
        strongest = lowest(-size, strong)
        rest = size.copy()
        rest[strongest] = np.inf
        for kind, chosen in (("strongest", strongest), ("weakest", lowest(rest, weak))):
            rows += [(label, concept, kind, place) for place, concept in enumerate(chosen, start=1)]
    return pd.DataFrame(rows, columns=["label", "concept", "kind", "place"]).astype(
        {"label": int, "concept": int}
    )


def spurious_cues(scan: Scan, nearest: int) -> pd.DataFrame:
    """Candidates for spurious cues: concepts near to a label in angle that null removal leaves where they are.

    A small AS of a loosely related concept can indicate a spurious correlation: what is near and yet unmoved when the null space is
    removed lives in what the logits see. Candidates are, among a label's `nearest` concepts, those whose contrast is at or below
    the label's median over all concepts in size, which are nearer to this label than to the average label (not asked of a single label),
    and which do not name the label. They are to be checked by a person: the angle cannot tell a cue beside the object from a part
    of it. Where the median is 0 nothing was removed and there are no candidates.

    Parameters
    ----------
    scan : Scan
        A model's scan in one space.
    nearest : int
        Number of nearest concepts of a label among which candidates are sought.

    Returns
    -------
    DataFrame
        One row each: label, concept (positions), place among the label's nearest, lift_deg (mean angle over labels less this
        label's; NaN for a single label), contrast_abs_median_deg.

    References
    ----------
    Section 4.3 of the paper.
    """
    rows = []
    several = len(scan.labels) > 1
    average = scan.angle.mean(axis=0, dtype=np.float64)
    for label, (name, angle, size) in enumerate(
        zip(scan.labels, scan.angle, np.abs(scan.contrast), strict=True)
    ):
        median = np.median(size)
        for place, concept in enumerate(lowest(angle, nearest), start=1):
            lift = average[concept] - angle[concept] if several else np.nan
            if (
                median > 0
                and size[concept] <= median
                and not lift <= 0
                and not mentions(scan.concepts[concept], name)
            ):
                rows.append((label, concept, place, lift, median))
    types = {
        "label": int,
        "concept": int,
        "place": int,
        "lift_deg": float,
        "contrast_abs_median_deg": float,
    }
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def mentions(concept: str, label: str) -> bool:
    """Whether a concept holds a label's name as whole words, in any case, also in the plural.

    Parameters
    ----------
    concept, label : str
        Punctuation counts as a space.

    Returns
    -------
    bool
        True also for the name with -s or -es.
    """
    phrase, wanted = (
        " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())
        for text in (concept, label)
    )
    return any(f" {wanted}{ending} " in f" {phrase} " for ending in ("", "s", "es"))


def t_interval(
    mean: np.ndarray, std: np.ndarray, n: np.ndarray, confidence: float, looked_at: int
) -> tuple[np.ndarray, np.ndarray]:
    """Student-t intervals of means over images that hold together, whichever of all that were looked at are picked.

    Parameters
    ----------
    mean : ndarray
        Means.
    std : ndarray
        Standard deviations over images, with the divisor n.
    n : ndarray
        Numbers of images.
    confidence : float
        Coverage of all intervals together, 0 to 1.
    looked_at : int
        Number of means out of which these were picked.

    Returns
    -------
    low, high : ndarray
        Ends of the intervals; NaN where n < 2.

    References
    ----------
    Bonferroni's inequality.
    """
    freedom = np.where(n > 1, n - 1, np.nan)
    half = scipy.stats.t.isf((1 - confidence) / 2 / looked_at, freedom) * std / np.sqrt(freedom)
    return mean - half, mean + half


def with_intervals(cells: pd.DataFrame, scan: Scan, confidence: float) -> pd.DataFrame:
    """Rows of a scan under the names of the tables: mean angle, contrast with its interval, AS and |AS|.

    The intervals hold together over all labels and concepts of the scan: rows may be picked because they stand out.

    Parameters
    ----------
    cells : DataFrame
        Rows of a scan, with the columns of `block_table`.
    scan : Scan
        The scan.
    confidence : float
        Coverage of the intervals together, 0 to 1.

    Returns
    -------
    DataFrame
        n, angle_mean_deg, contrast_deg with its ends _low and _high, as_mean_deg and as_abs_mean_deg; degrees.
    """
    score, spread, n = (
        cells[name].to_numpy(np.float64) for name in ("as_mean", "contrast_std", "n")
    )
    middle = score - scan.common[pd.Index(scan.labels).get_indexer(pd.Index(cells["label"]))]
    low, high = t_interval(middle, spread, n, confidence, scan.contrast.size)
    return pd.DataFrame(
        {
            "n": cells["n"],
            "angle_mean_deg": cells["angle_mean"],
            "contrast_deg": middle,
            "contrast_deg_low": low,
            "contrast_deg_high": high,
            "as_mean_deg": cells["as_mean"],
            "as_abs_mean_deg": cells["as_abs_mean"],
        }
    )
