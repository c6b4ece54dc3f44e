"""Open-vocabulary scan: per label and concept, moments of the angle and of the attribute score, and what stands out (section 4.3)."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy
from pydantic import Field

from singflow.analyses.metrics import angles_to_all_deg
from singflow.artifacts.scratch import Scratch
from singflow.config.sections import SafePath, Section


class Concepts(Section):
    """The open vocabulary."""

    vocabulary: SafePath = Field(
        "config/vocab/concepts.txt", description="one phrase a line (paper: 30); also broden_style.txt, imagenet_names.txt"
    )
    extremes: int = Field(5, ge=1, description="strongest and weakest concepts listed per label")
    nearest: int = Field(5, ge=1, description="nearest concepts per label among which spurious cues are sought")


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


def scan_block(original: np.ndarray | Scratch, equivalent: np.ndarray | Scratch, n: np.ndarray, texts: np.ndarray) -> dict[str, np.ndarray]:
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

    Returns
    -------
    dict of str to ndarray of shape (L, B)
        angle_mean, angle_std, as_mean, as_std and as_abs_mean in degrees, float64; standard deviations have the divisor n.

    References
    ----------
    Equations 5 and 7 of the paper.
    """
    stops = np.cumsum(n)
    sums = np.zeros((5, len(n), len(texts)))
    for start in range(0, len(original), CHUNK):
        part = slice(start, start + CHUNK)
        angle = angles_to_all_deg(original[part], texts)
        score = angle - angles_to_all_deg(equivalent[part], texts)
        for label in range(np.searchsorted(stops, start, side="right"), np.searchsorted(stops, start + len(angle)) + 1):
            mine = slice(max(stops[label] - n[label] - start, 0), stops[label] - start)
            a, s = angle[mine].astype(np.float64), score[mine].astype(np.float64)
            sums[:, label] += [values.sum(axis=0) for values in (a, a * a, s, s * s, np.abs(s))]
    sums /= n[:, None]
    for mean, squares in (sums[0:2], sums[2:4]):
        np.sqrt(np.maximum(squares - mean**2, 0.0), out=squares)
    return dict(zip(("angle_mean", "angle_std", "as_mean", "as_std", "as_abs_mean"), sums, strict=True))


def block_table(labels: list[str], concepts: list[str], n: np.ndarray, moments: dict[str, np.ndarray]) -> pd.DataFrame:
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
            "label": pd.Categorical.from_codes(np.repeat(np.arange(len(labels)), len(concepts)), pd.Index(labels)),
            "concept": pd.Categorical.from_codes(np.tile(np.arange(len(concepts)), len(labels)), pd.Index(concepts)),
            "n": np.repeat(n, len(concepts)),
            **{name: values.ravel() for name, values in moments.items()},
        }
    )


@dataclass(frozen=True)
class Scan:
    """What ranks the concepts of one model: mean angle and mean |AS|, (L, P) float32 each in degrees, over labels and concepts."""

    labels: list[str]
    concepts: list[str]
    angle: np.ndarray
    size: np.ndarray


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
    """The strongest and weakest concepts of every label by mean |AS| (figure 5).

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
    for label, size in enumerate(scan.size):
        strongest = lowest(-size, strong)
        rest = size.copy()
        rest[strongest] = np.inf
        for kind, chosen in (("strongest", strongest), ("weakest", lowest(rest, weak))):
            rows += [(label, concept, kind, place) for place, concept in enumerate(chosen, start=1)]
    return pd.DataFrame(rows, columns=["label", "concept", "kind", "place"]).astype({"label": int, "concept": int})


def spurious_cues(scan: Scan, nearest: int) -> pd.DataFrame:
    """Candidates for spurious cues: concepts near to a label in angle that null removal leaves where they are.

    A small AS of a loosely related concept can indicate a spurious correlation: what is near and yet unmoved when the null space is
    removed lives in what the logits see. Candidates are, among a label's `nearest` concepts, those whose mean |AS| is at or below
    the label's median over all concepts, which are nearer to this label than to the average label (not asked of a single label),
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
        label's; NaN for a single label), as_abs_median_deg.

    References
    ----------
    Section 4.3 of the paper.
    """
    rows = []
    several = len(scan.labels) > 1
    average = scan.angle.mean(axis=0, dtype=np.float64)
    for label, (name, angle, size) in enumerate(zip(scan.labels, scan.angle, scan.size, strict=True)):
        median = np.median(size)
        for place, concept in enumerate(lowest(angle, nearest), start=1):
            lift = average[concept] - angle[concept] if several else np.nan
            if median > 0 and size[concept] <= median and not lift <= 0 and not mentions(scan.concepts[concept], name):
                rows.append((label, concept, place, lift, median))
    types = {"label": int, "concept": int, "place": int, "lift_deg": float, "as_abs_median_deg": float}
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
    phrase, wanted = (" ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split()) for text in (concept, label))
    return any(f" {wanted}{ending} " in f" {phrase} " for ending in ("", "s", "es"))


def t_interval(mean: np.ndarray, std: np.ndarray, n: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Student-t interval of a mean over images.

    Parameters
    ----------
    mean : ndarray
        Means.
    std : ndarray
        Standard deviations over images, with the divisor n.
    n : ndarray
        Numbers of images.
    confidence : float
        Coverage, 0 to 1.

    Returns
    -------
    low, high : ndarray
        Ends of the interval; NaN where n < 2.
    """
    freedom = np.where(n > 1, n - 1, np.nan)
    half = scipy.stats.t.ppf((1 + confidence) / 2, freedom) * std / np.sqrt(freedom)
    return mean - half, mean + half


def with_intervals(cells: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Rows of a scan under the names of the tables: mean angle, AS and |AS|, the scores with their intervals.

    The spread of |AS| follows from E[AS^2] = as_std^2 + as_mean^2; its interval is cut at 0.

    Parameters
    ----------
    cells : DataFrame
        Rows of a scan, with the columns of `block_table`.
    confidence : float
        Coverage of the intervals, 0 to 1.

    Returns
    -------
    DataFrame
        n, angle_mean_deg, and as_mean_deg and as_abs_mean_deg with their ends _low and _high; degrees.
    """
    n, score, size = (cells[name].to_numpy(np.float64) for name in ("n", "as_mean", "as_abs_mean"))
    spread = cells["as_std"].to_numpy()
    spread_of_size = np.sqrt(np.maximum(spread**2 + score**2 - size**2, 0.0))
    as_low, as_high = t_interval(score, spread, n, confidence)
    size_low, size_high = t_interval(size, spread_of_size, n, confidence)
    return pd.DataFrame(
        {
            "n": cells["n"],
            "angle_mean_deg": cells["angle_mean"],
            "as_mean_deg": score,
            "as_mean_deg_low": as_low,
            "as_mean_deg_high": as_high,
            "as_abs_mean_deg": size,
            "as_abs_mean_deg_low": np.maximum(size_low, 0.0),
            "as_abs_mean_deg_high": size_high,
        }
    )
