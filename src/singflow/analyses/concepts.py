"""Open-vocabulary scan (section 4.3): angle and attribute score for every label and concept.

Null removal often moves images toward all texts alike. A concept is therefore judged by its
contrast: its AS minus the mean AS over all concepts of the vocabulary.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import scipy
from pydantic import Field

from singflow.analyses.metrics import angles_to_all_deg
from singflow.artifacts.files import read_names
from singflow.artifacts.scratch import Scratch
from singflow.artifacts.tensors import read_tensors
from singflow.config.sections import MOST_SHOWN, SafePath, Section
from singflow.errors import InputError

LABEL_IMAGES = 3  # the fewest of a label that have a spread, and can show a spurious cue
MOMENTS = ("angle_mean", "angle_std", "as_mean", "as_std", "as_abs_mean", "contrast_std")


class Concepts(Section):
    """The open vocabulary."""

    vocabulary: SafePath = Field(
        "config/vocab/concepts.txt",
        description="one phrase a line (paper: 30, in paper_concepts.txt as far as known); also "
        "broden_style.txt, imagenet_names.txt",
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


CHUNK = 1024  # images
BLOCK = 500  # concepts
CELLS = 500_000  # labels x concepts


def block_size(labels: int) -> int:
    """Concepts scanned at once: at most BLOCK, and labels x concepts within CELLS; at least one."""
    return max(1, min(BLOCK, CELLS // labels))


def scores_of(
    original: np.ndarray | Scratch, equivalent: np.ndarray | Scratch, texts: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Start, angle and AS (equations 5 and 7) toward every text, for each chunk of images.

    original, equivalent: (N, m) float32, unit embeddings before and after null removal. texts:
    (B, m), unit embeddings. Angle and AS are (n, B) float32, in degrees; start is the position of
    the chunk's first image.
    """
    for start in range(0, len(original), CHUNK):
        part = slice(start, start + CHUNK)
        angle = angles_to_all_deg(original[part], texts)
        yield start, angle, angle - angles_to_all_deg(equivalent[part], texts)


def summed_scores(
    original: np.ndarray | Scratch, equivalent: np.ndarray | Scratch, texts: np.ndarray
) -> np.ndarray:
    """Sum of the AS over all texts for every image: (N,) in degrees, float64."""
    blocks = scores_of(original, equivalent, texts)
    return np.concatenate([score.sum(axis=1, dtype=np.float64) for _, _, score in blocks])


def scan_block(
    original: np.ndarray | Scratch,
    equivalent: np.ndarray | Scratch,
    n: np.ndarray,
    texts: np.ndarray,
    common: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Moments over images of the angle and of AS, for every label and every concept of one block.

    original, equivalent: (N, m) float32, unit embeddings before and after null removal, sorted by
    label. n: (L,), images per label, none 0. texts: (B, m), unit embeddings of the concepts.
    common: (N,), mean AS of every image over all concepts; by default over those of the block.

    The MOMENTS, of which contrast_std is that of AS minus `common`, are (L, B) float64, in degrees.
    Standard deviations have the divisor n. With AS s and common c, Var(s - c) = mean s^2 - 2 mean s
    c + mean c^2 - (mean s - mean c)^2, from sums alone: memory grows with L x B, not with N.
    """
    stops = np.cumsum(n)
    sums, cross = np.zeros((5, len(n), len(texts))), np.zeros((len(n), len(texts)))
    shared = np.zeros((2, len(n), 1))
    for start, angle, score in scores_of(original, equivalent, texts):
        if common is None:
            together = score.mean(axis=1, dtype=np.float64)
        else:
            together = common[start : start + CHUNK]
        first = np.searchsorted(stops, start, side="right")
        for label in range(first, np.searchsorted(stops, start + len(angle)) + 1):
            mine = slice(max(stops[label] - n[label] - start, 0), stops[label] - start)
            a, s = angle[mine].astype(np.float64), score[mine].astype(np.float64)
            sums[:, label] += [values.sum(axis=0) for values in (a, a * a, s, s * s, np.abs(s))]
            cross[label] += together[mine] @ s
            shared[:, label, 0] += [together[mine].sum(), together[mine] @ together[mine]]
    for total in (sums, cross, shared):
        total /= n[:, None]
    spread = sums[3] - 2 * cross + shared[1] - (sums[2] - shared[0]) ** 2
    contrast_std = np.sqrt(np.maximum(spread, 0.0))
    for mean, squares in (sums[0:2], sums[2:4]):
        np.sqrt(np.maximum(squares - mean**2, 0.0), out=squares)
    return dict(zip(MOMENTS, (*sums, contrast_std), strict=True))


@dataclass(frozen=True)
class Scan:
    """What was measured of the labels and concepts of one model, in degrees."""

    labels: list[str]
    concepts: list[str]
    n: np.ndarray  # (L,), images per label
    moments: Mapping[str, np.ndarray]  # (L, P) float32, by their names in MOMENTS

    @cached_property
    def common(self) -> np.ndarray:
        """Mean AS of every label over all concepts: (L,) float64."""
        return self.moments["as_mean"].mean(axis=1, dtype=np.float64)

    @cached_property
    def contrast(self) -> np.ndarray:
        """AS minus its mean over all concepts: (L, P) float32.

        A shift of all images of a label toward every concept alike does not change it.
        """
        score = self.moments["as_mean"]
        return np.subtract(score, self.common[:, None], out=np.empty_like(score))

    def only(self, labels: Sequence[str]) -> "Scan":
        """The scan of some labels, in their order."""
        rows = [self.labels.index(label) for label in labels]
        moments = {name: values[rows] for name, values in self.moments.items()}
        return Scan(list(labels), self.concepts, self.n[rows], moments)


def read_scan(path: Path, names: Path, moments: Sequence[str]) -> Scan:
    """Read these moments of a scan, whose labels and concepts are in prompts/<space>.json."""
    of = read_names(names)
    labels, concepts = of["labels"], of["concepts"]
    tensors, _ = read_tensors(path, ["n", *moments])
    n = tensors.pop("n")
    shapes = {values.shape for values in tensors.values()}
    if n.shape != (len(labels),) or shapes != {(len(labels), len(concepts))}:
        raise InputError(
            f"{path}: is not of the labels and concepts of {names}: remove it and run the workflow "
            "again"
        )
    return Scan(labels, concepts, n, tensors)


def lowest(values: np.ndarray, count: int) -> np.ndarray:
    """Positions of the `count` lowest values, or of all: lowest first, ties by position."""
    return np.argsort(values, kind="stable")[:count]


def extreme_concepts(scan: Scan, count: int) -> pd.DataFrame:
    """The strongest and weakest concepts of every label by the size of the contrast (figure 5).

    There are `count` of each kind, and no concept is in both. Columns: label and concept
    (positions), kind (strongest, weakest), place (1: most extreme).
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
    table = pd.DataFrame(rows, columns=["label", "concept", "kind", "place"])
    return table.astype({"label": int, "concept": int})


def spurious_cues(scan: Scan, nearest: int) -> pd.DataFrame:
    """Candidates for spurious cues: concepts near a label in angle that null removal does not move.

    A small AS of a loosely related concept can indicate a spurious correlation (section 4.3): what
    stays near the label without the null space is visible to the logits. A candidate is among the
    `nearest` concepts of a label, the size of its contrast is at most the label's median over all
    concepts, it is nearer to this label than to the average label (if there are several), and does
    not name the label. A person has to check the candidates: the angle cannot tell a cue beside the
    object from a part of it. If the median is 0, nothing was removed, and there are none.

    Columns: label and concept (positions), place, lift_deg (mean angle over all labels minus the
    angle to this label; NaN for a single label), contrast_abs_median_deg.
    """
    rows, several, angles = [], len(scan.labels) > 1, scan.moments["angle_mean"]
    average = angles.mean(axis=0, dtype=np.float64)
    for label, (angle, size) in enumerate(zip(angles, np.abs(scan.contrast), strict=True)):
        median = np.median(size)
        for place, concept in enumerate(lowest(angle, nearest), start=1):
            lift = average[concept] - angle[concept] if several else np.nan
            still = median > 0 and size[concept] <= median and not lift <= 0
            if still and not mentions(scan.concepts[concept], scan.labels[label]):
                rows.append((label, concept, place, lift, median))
    types: dict[str, type] = dict.fromkeys(["label", "concept", "place"], int)
    types |= dict.fromkeys(["lift_deg", "contrast_abs_median_deg"], float)
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def mentions(concept: str, label: str) -> bool:
    """Whether a concept contains a label's name as whole words, in any case, also with -s or -es.

    Punctuation counts as a space.
    """
    phrase, wanted = (
        " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())
        for text in (concept, label)
    )
    return any(f" {wanted}{ending} " in f" {phrase} " for ending in ("", "s", "es"))


def with_numbers(cells: pd.DataFrame, scan: Scan, confidence: float) -> pd.DataFrame:
    """`cells` (positions of labels and concepts) with their names, n and degrees.

    Student-t intervals of the contrast hold together over all labels and concepts of the scan (by
    Bonferroni's inequality), because cells may be picked for standing out. `confidence` is their
    joint coverage. Moments have the divisor n. The ends are NaN where n < 2.
    """
    label, concept = (cells[name].to_numpy() for name in ("label", "concept"))
    angle, score, size, spread = (
        scan.moments[name][label, concept].astype(np.float64)
        for name in ("angle_mean", "as_mean", "as_abs_mean", "contrast_std")
    )
    n, middle = scan.n[label], score - scan.common[label]
    freedom = np.where(n > 1, n - 1, np.nan)
    quantile = -scipy.special.stdtrit(freedom, (1 - confidence) / 2 / scan.contrast.size)
    half = quantile * spread / np.sqrt(freedom)
    return cells.assign(
        label=np.array(scan.labels, dtype=object)[label],
        concept=np.array(scan.concepts, dtype=object)[concept],
        n=n,
        angle_mean_deg=angle,
        contrast_deg=middle,
        contrast_deg_low=middle - half,
        contrast_deg_high=middle + half,
        as_mean_deg=score,
        as_abs_mean_deg=size,
    )
