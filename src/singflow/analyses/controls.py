"""Controls of null removal: what the loss of other subspaces, of the same or of fewer dimensions, does to meaning."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from singflow.analyses.geometry import orthonormal, random_basis
from singflow.analyses.metrics import Removal, share
from singflow.config.sections import WIDEST, Section
from singflow.translators.ridge import Affine

MOST_SUBSPACES = (
    1000  # drawn at random: their mean angle is known to a hundredth of a degree by then
)


class Removals(Section):
    """Removal of other subspaces: what the loss of dimensions alone does."""

    dimensions: list[Annotated[int, Field(ge=1, le=WIDEST)]] = Field(
        [8, 24, 64, 128, 280, 536, 1048, 3096],
        description="compare models at these dimensions too, as far as each null space has them",
    )
    min_draws: int = Field(
        5, ge=2, le=MOST_SUBSPACES, description="random subspaces removed at least"
    )
    max_draws: int = Field(
        20, ge=2, le=MOST_SUBSPACES, description="random subspaces removed at most"
    )
    tolerance_deg: float = Field(
        0.1,
        gt=0,
        le=180,
        description="degrees; drawing stops at this standard error of the mean IS over draws",
    )

    @model_validator(mode="after")
    def _ordered(self) -> "Removals":
        if self.max_draws < self.min_draws:
            raise ValueError(f"max_draws ({self.max_draws}) is below min_draws ({self.min_draws})")
        return self


class Controls(Removals):
    """Controls: models whose answer is known, and the removal of other subspaces."""

    known: Literal["auto", "none"] = Field(
        "auto",
        description="auto: `singflow study` adds the known zero and the known leak to a study of packaged classifiers | none",
    )


SUBSPACES = ["null", "random", "row"]


@dataclass(frozen=True)
class Case:
    """Random subspaces of one kind and dimension.

    subspace: `null`, inside the null space; `random`, anywhere in feature space; `row`, inside the row space, which the logits
    see. single: there is one such subspace alone, the whole null or row space.
    """

    subspace: str
    dimension: int
    single: bool


def cases(width: int, null_dim: int, dimensions: list[int]) -> list[Case]:
    """Every case for a head: each dimension of the list up to the null space's, and the null space's own.

    Parameters
    ----------
    width : int
        Number of the head's features.
    null_dim : int
        Dimension of its null space.
    dimensions : list of int
        Dimensions asked for; larger ones than null_dim are left out.

    Returns
    -------
    list of Case
        By dimension. The row space takes part as far as it is large enough. A head without null space has no cases.
    """
    wanted = sorted({d for d in dimensions if d < null_dim} | ({null_dim} if null_dim else set()))
    room = {"null": null_dim, "random": width, "row": width - null_dim}
    return [
        Case(kind, d, kind != "random" and d == room[kind])
        for d in wanted
        for kind in SUBSPACES
        if d <= room[kind]
    ]


@dataclass(frozen=True)
class Subspace:
    """A subspace to remove: the span of an orthonormal basis (d, k), or its complement."""

    basis: np.ndarray
    complement: bool = False

    def share(self, translator: Affine) -> Affine:
        """The translator's share of the subspace.

        Parameters
        ----------
        translator : Affine
            T (m, d) and c (m,).

        Returns
        -------
        Affine
            Weight T P (m, d) with the projector P of the subspace, and bias 0, in float64.
        """
        within = share(translator, self.basis)
        return (
            Affine(translator.weight.astype(np.float64) - within.weight, within.bias)
            if self.complement
            else within
        )

    def length(self, features: np.ndarray) -> np.ndarray:
        """Norms of the parts of features that lie in the subspace.

        Parameters
        ----------
        features : ndarray of shape (n, d)
            Features f.

        Returns
        -------
        ndarray of shape (n,)
            Norms, ||P f||, in float64.
        """
        inside = features @ self.basis.astype(features.dtype)
        if self.complement:
            inside = features - inside @ self.basis.T.astype(features.dtype)
        return np.sqrt(np.vecdot(inside, inside).astype(np.float64))


def draw_subspace(null_basis: np.ndarray, case: Case, seed: int, draw: int) -> Subspace:
    """One drawn subspace of a case.

    Parameters
    ----------
    null_basis : ndarray of shape (d, k)
        Orthonormal basis of the null space.
    case : Case
        Kind and dimension of the subspace. A random one of more than half of the dimensions is drawn as the complement of a
        smaller one.
    seed, draw : int
        Seed the generator, together with the sizes of the spaces.

    Returns
    -------
    Subspace
        Of the case's dimension.
    """
    width, null_dim = null_basis.shape
    if case.subspace == "null":
        return Subspace(
            null_basis
            if case.single
            else null_basis @ random_basis(null_dim, case.dimension, seed, draw)
        )
    if case.subspace == "row":
        if case.single:
            return Subspace(null_basis, complement=True)
        drawn = np.random.default_rng([seed, draw, width, case.dimension, 1]).standard_normal(
            (width, case.dimension)
        )
        return Subspace(orthonormal(drawn - null_basis @ (null_basis.T @ drawn)))
    if 2 * case.dimension > width:
        return Subspace(random_basis(width, width - case.dimension, seed, draw), complement=True)
    return Subspace(random_basis(width, case.dimension, seed, draw))


def matched(removal: Removal, wanted: np.ndarray, length: np.ndarray) -> Removal:
    """The removal of as much of each feature as null removal takes: the removed part rescaled to the norm of the null part.

    Parameters
    ----------
    removal : Removal
        Of another subspace.
    wanted : ndarray of shape (n,)
        Norms of the features' null parts, ||P_0 f||.
    length : ndarray of shape (n,)
        Norms of the parts that were removed, ||P_B f||; where one is 0 nothing is removed.

    Returns
    -------
    Removal
        Removal of lambda P_B f with lambda = ||P_0 f|| / ||P_B f||.
    """
    factor = np.divide(wanted, length, out=np.zeros_like(wanted), where=length > 0)
    return Removal(removal.original, removal.removed * factor[:, None])


class ControlScores:
    """Per-image scores of one case, as sums over draws; memory grows with the images, by five numbers each.

    n: number of images.
    """

    def __init__(self, n: int) -> None:
        self._sums = np.zeros((3, n))
        self._matched = np.full((2, n), np.nan)
        self._means: list[np.ndarray] = []

    def update(self, image_id: np.ndarray, removal: Removal, texts: np.ndarray) -> None:
        """Add images of the draw in progress.

        Parameters
        ----------
        image_id : ndarray of shape (k,)
            Ids of these images, from 0 to n - 1, each once.
        removal : Removal
            Their translated features, and what the removal of the draw's subspace takes from them.
        texts : ndarray of shape (k, m)
            Text embedding of each image's label.
        """
        image_score, attribute_score = removal.image_score(), removal.attribute_score(texts)
        self._sums[:, image_id] += image_score, attribute_score, np.abs(attribute_score)

    def update_matched(self, image_id: np.ndarray, removal: Removal, texts: np.ndarray) -> None:
        """Add images of the draw in progress: their scores after the matched removal.

        Parameters
        ----------
        image_id, texts
            As for update().
        removal : Removal
            What `matched` gives.
        """
        before = np.nan_to_num(self._matched[:, image_id])
        self._matched[:, image_id] = np.add(
            before, [removal.image_score(), removal.attribute_score(texts)]
        )

    def end_draw(self) -> None:
        """Every image has had its part in this draw."""
        self._means.append(self._sums.mean(axis=1))

    @property
    def draws(self) -> int:
        """Number of draws so far."""
        return len(self._means)

    @property
    def spread_deg(self) -> np.ndarray:
        """Standard deviation over draws of the mean IS, AS and |AS| over images: (3,); 0 for a single draw."""
        each = np.diff(self._means, axis=0, prepend=np.zeros((1, 3)))
        return each.std(axis=0, ddof=1) if len(each) > 1 else np.zeros(3)

    @property
    def error_deg(self) -> float:
        """Standard error over draws of the mean IS."""
        return float(self.spread_deg[0] / np.sqrt(self.draws))

    def table(self, image_id: np.ndarray, case: Case) -> pd.DataFrame:
        """One row an image: means of the scores over draws.

        Parameters
        ----------
        image_id : ndarray of shape (k,)
            Images wanted.
        case : Case
            The case that the draws were of.

        Returns
        -------
        DataFrame
            image_id, subspace, dimension, and in degrees IS, AS and |AS| (is_deg, as_deg, as_abs_deg), and IS and AS after the
            matched removal (matched_is_deg, matched_as_deg; NaN where there was none).
        """
        matched_image, matched_attribute = self._matched[:, image_id] / max(self.draws, 1)
        image_score, attribute_score, size = self._sums[:, image_id] / max(self.draws, 1)
        return pd.DataFrame(
            {
                "image_id": image_id,
                "subspace": case.subspace,
                "dimension": np.int32(case.dimension),
                "is_deg": image_score,
                "as_deg": attribute_score,
                "as_abs_deg": size,
                "matched_is_deg": matched_image,
                "matched_as_deg": matched_attribute,
            }
        )


def empty_table() -> pd.DataFrame:
    """What ControlScores.table gives for a head without null space, which has no cases.

    Returns
    -------
    DataFrame
        The table's columns without rows.
    """
    return ControlScores(1).table(np.zeros(0, dtype=np.int64), Case("null", 0, True))
