"""Controls of null removal: scores after the removal of other subspaces."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from singflow.analyses.geometry import orthonormal, random_basis
from singflow.analyses.metrics import Removal, subspace_translator
from singflow.config.sections import WIDEST, Section
from singflow.translators.ridge import Affine

if TYPE_CHECKING:
    from singflow.analyses.inputs import Inputs

MOST_SUBSPACES = 1000  # enough to know their mean angle to a hundredth of a degree
ROWS = 4096  # features scored at once
SHARES = 4e8  # bytes of the translators' shares that are in memory at once


class Removals(Section):
    """Removal of other subspaces: what the loss of dimensions alone does."""

    dimensions: list[Annotated[int, Field(ge=1, le=WIDEST)]] = Field(
        [8, 24, 64, 128, 280, 536, 1048, 3096],
        description="numbers of removed dimensions at which models are also compared, up to the "
        "size of each null space",
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
    def _ordered(self) -> Removals:
        if self.max_draws < self.min_draws:
            raise ValueError(f"max_draws ({self.max_draws}) is below min_draws ({self.min_draws})")
        return self


class Controls(Removals):
    """Controls: models whose answer is known, and the removal of other subspaces."""

    known: Literal["auto", "none"] = Field(
        "auto",
        description="auto: `singflow study` adds the known zero and the known leak to a study of "
        "packaged classifiers | none",
    )


SCORES = ["is_deg", "as_deg", "as_abs_deg", "matched_is_deg", "matched_as_deg"]


@dataclass(frozen=True)
class Case:
    """Random subspaces of one kind and dimension.

    subspace: `null` (inside the null space), `random` (anywhere in feature space) or `row` (inside
    the row space, which the logits see). single: there is only one such subspace, the whole null
    space or row space.
    """

    subspace: str
    dimension: int
    single: bool


def cases(width: int, null_dim: int, dimensions: list[int]) -> list[Case]:
    """Every case for a head with `width` features and these dimensions, and null_dim itself.

    Cases are sorted by dimension. Dimensions above null_dim are left out, and row subspaces that
    are larger than the row space. A head without null space has no cases.
    """
    room = {"null": null_dim, "random": width, "row": width - null_dim}
    return [
        Case(kind, d, kind != "random" and d == most)
        for d in sorted({d for d in (*dimensions, null_dim) if 0 < d <= null_dim})
        for kind, most in room.items()
        if d <= most
    ]


@dataclass(frozen=True)
class Subspace:
    """A subspace to remove: the span of an orthonormal basis (d, k), or its complement."""

    basis: np.ndarray
    complement: bool = False

    def project(self, translator: Affine) -> Affine:
        """The translator's share of the subspace: T P with its projector P, bias 0, float64."""
        within = subspace_translator(translator, self.basis)
        if not self.complement:
            return within
        return Affine(translator.weight.astype(np.float64) - within.weight, within.bias)

    def length(self, features: np.ndarray) -> np.ndarray:
        """Norms ||P f|| of the parts of features (n, d) in the subspace: (n,) float64."""
        inside = features @ self.basis.astype(features.dtype)
        if self.complement:
            inside = features - inside @ self.basis.T.astype(features.dtype)
        return np.sqrt(np.vecdot(inside, inside).astype(np.float64))


def draw_subspace(null_basis: np.ndarray, case: Case, seed: int, draw: int) -> Subspace:
    """One subspace of a case; seed, draw and the sizes of the spaces seed the generator.

    null_basis is (d, k) with orthonormal columns. A random subspace of more than half of the
    dimensions is drawn as the complement of a smaller one.
    """
    (width, null_dim), dimension = null_basis.shape, case.dimension
    if case.single:
        return Subspace(null_basis, complement=case.subspace == "row")
    if case.subspace == "null":
        return Subspace(null_basis @ random_basis(null_dim, dimension, seed, draw))
    if case.subspace == "row":
        generator = np.random.default_rng([seed, draw, width, dimension, 1])
        drawn = generator.standard_normal((width, dimension))
        return Subspace(orthonormal(drawn - null_basis @ (null_basis.T @ drawn)))
    if 2 * dimension > width:
        return Subspace(random_basis(width, width - dimension, seed, draw), complement=True)
    return Subspace(random_basis(width, dimension, seed, draw))


def matched(removal: Removal, wanted: np.ndarray, length: np.ndarray) -> Removal:
    """Rescale each removed part P_B f to the norm of the null part P_0 f.

    wanted and length are the norms ||P_0 f|| and ||P_B f||: (n,). Nothing is removed from rows of
    length 0.
    """
    factor = np.divide(wanted, length, out=np.zeros_like(wanted), where=length > 0)
    return Removal(removal.original, removal.removed * factor[:, None])


class ControlScores:
    """Scores of n images for one case, as sums over draws; memory holds five numbers per image."""

    def __init__(self, n: int) -> None:
        self._sums = np.zeros((len(SCORES), n))
        self._sums[3:] = np.nan
        self._means: list[np.ndarray] = []

    def update(self, image_id: np.ndarray, removal: Removal, texts: np.ndarray) -> None:
        """Add the scores of some images in the current draw; texts are those of their labels.

        image_id runs from 0 to n - 1. An image must be added exactly once per draw.
        """
        image_score, attribute_score = removal.image_score(), removal.attribute_score(texts)
        self._sums[:3, image_id] += image_score, attribute_score, np.abs(attribute_score)

    def update_matched(self, image_id: np.ndarray, removal: Removal, texts: np.ndarray) -> None:
        """Add the scores of some images after the removal that `matched` returns."""
        scores = removal.image_score(), removal.attribute_score(texts)
        self._sums[3:, image_id] = np.nan_to_num(self._sums[3:, image_id]) + scores

    def end_draw(self) -> None:
        """Finish the current draw, after all images have been added."""
        self._means.append(self._sums[:3].mean(axis=1))

    @property
    def draws(self) -> int:
        """Number of finished draws."""
        return len(self._means)

    @property
    def spread_deg(self) -> np.ndarray:
        """Standard deviation over draws of mean IS, AS and |AS|: (3,); 0 for a single draw."""
        means = np.diff(self._means, axis=0, prepend=np.zeros((1, 3)))
        return means.std(axis=0, ddof=1) if len(means) > 1 else np.zeros(3)

    @property
    def error_deg(self) -> float:
        """Standard error over draws of the mean IS."""
        return float(self.spread_deg[0] / np.sqrt(self.draws))

    def table(self, image_id: np.ndarray, case: Case) -> pd.DataFrame:
        """One row per image: means of the scores over draws, in degrees.

        The columns matched_is_deg and matched_as_deg are NaN where there was no matched removal.
        """
        means = self._sums[:, image_id] / max(self.draws, 1)
        of_case = {"subspace": case.subspace, "dimension": np.int32(case.dimension)}
        columns = {"image_id": image_id} | of_case | dict(zip(SCORES, means, strict=True))
        return pd.DataFrame(columns)


def empty_table() -> pd.DataFrame:
    """`ControlScores.table` without rows, for a head without null space, which has no cases."""
    return ControlScores(1).table(np.zeros(0, dtype=np.int64), Case("null", 0, True))


def remove_subspaces(inputs: Inputs, wanted: Removals, seed: int) -> dict[Case, ControlScores]:
    """Scores after the removal of drawn subspaces, as many as their mean IS needs to be stable.

    Every case has its minimum of draws, then more until the standard error of its mean IS is
    within the tolerance, or the maximum is reached.
    """
    basis, translators = inputs.null_basis, inputs.translators
    (width, null_dim), n = basis.shape, len(inputs.manifest)
    scores = {case: ControlScores(n) for case in cases(width, null_dim, wanted.dimensions)}

    def wants_more(case: Case) -> bool:
        done, least = scores[case], 1 if case.single else wanted.min_draws
        if done.draws < least:
            return True
        return done.error_deg > wanted.tolerance_deg and done.draws < wanted.max_draws

    def project(translator: Affine, subspace: Subspace) -> Affine:
        return subspace.project(translator).astype(np.float32)

    def score(drawn: dict[Case, Subspace]) -> None:
        shares = {
            case: translators.map(partial(project, subspace=subspace))
            for case, subspace in drawn.items()
        }
        for image_id, features in inputs.features(size=ROWS):
            original = translators(features, image_id)
            texts = inputs.label_texts[inputs.label_of[image_id]]
            for case, share in shares.items():
                removal = Removal(original, share(features, image_id))
                scores[case].update(image_id, removal, texts)
                if case.subspace != "null" and case.dimension == null_dim:
                    lengths = Subspace(basis).length(features), drawn[case].length(features)
                    scores[case].update_matched(image_id, matched(removal, *lengths), texts)

    at_once = max(
        1, int(SHARES / sum(translator.weight.nbytes for translator in translators.members))
    )
    while waiting := [case for case in scores if wants_more(case)]:
        for start in range(0, len(waiting), at_once):
            batch = waiting[start : start + at_once]
            score({c: draw_subspace(basis, c, seed, scores[c].draws) for c in batch})
        for case in waiting:
            scores[case].end_draw()
    return scores
