"""Cross-fitting: every image is translated by a translator that was fitted without it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from singflow.errors import InputError
from singflow.parallel import map_apart
from singflow.translators.ridge import ALIKE, Affine, RidgeStatistics

if TYPE_CHECKING:
    import pandas as pd

ALL_ALIKE = (
    "the features of the training images are all alike: look at the images and at the classifier"
)
# As a member: the translator of all training images. As a group: the image is in no group.
WHOLE = -1


@dataclass(frozen=True)
class Split:
    """Groups of images whose rows are summed, and the fits that are made from the groups."""

    groups: np.ndarray  # (n,) int32: the group of each image; WHOLE for an image in no group
    fits: list[tuple[list[int], int]]  # the groups that it is fitted on, and the one that validates
    whole: list[int]  # the groups of all training images
    crossed: bool  # fit k translates the images of group k; False: one translator serves all

    @property
    def fitted_on(self) -> list[list[int]]:
        """The groups that each member of CrossFitted is fitted on, in their order."""
        return [*(groups for groups, _ in self.fits if self.crossed), self.whole]

    @property
    def member_of(self) -> np.ndarray:
        """The member that translates each image, (n,) int32; WHOLE: that of all training images."""
        return self.groups if self.crossed else np.full_like(self.groups, WHOLE)


def split(manifest: pd.DataFrame, folds: int) -> Split:
    """How translators are fitted on the images of a manifest, which has columns split and fold.

    With folds = 0, one translator is fitted on the split train and validated on the split
    validation, as in the paper: groups 0 and 1. Otherwise the groups are the folds, and each has a
    translator that is fitted on the training images of all other folds. Images that the data set
    itself holds out have the split validation, and are not in fold 0. Raises InputError when fewer
    than two folds have a training image.
    """
    train, fold = (manifest["split"] == "train").to_numpy(), manifest["fold"].to_numpy(np.int32)
    if not folds:
        return Split(np.where(train, 0, 1).astype(np.int32), [([0], 1)], [0], crossed=False)
    groups = np.where(train | (fold == 0), fold, WHOLE).astype(np.int32)
    numbers = np.unique(groups[groups >= 0]).tolist()
    if len(numbers) < 2:
        raise InputError(
            "cross-fitting needs training images in at least two folds: add images, or write "
            "translator.reference: packaged, or the results folder of a study with the same models "
            "and spaces"
        )
    fits = [
        ([group for group in numbers if group != number], number)
        for number in range(max(numbers) + 1)
    ]
    return Split(groups, fits, numbers, crossed=True)


class GroupSums:
    """Ridge statistics of each group of images, with view 0 and the other views apart.

    Fits use all views; validation uses view 0. origin: features (d,) and embeddings (m,) of the
    first row, which are subtracted from every row. of() and held_out() raise InputError if there
    are no rows at all.
    """

    def __init__(self, split: Split) -> None:
        self.split = split
        self.origin: tuple[np.ndarray, np.ndarray] | None = None
        self._sums: dict[tuple[int, bool], RidgeStatistics] = {}  # by group, and whether of view 0
        self._total: RidgeStatistics | None = None

    def update(
        self, features: np.ndarray, embeddings: np.ndarray, image_id: np.ndarray, view: np.ndarray
    ) -> None:
        """Add rows of features (n, d) and embeddings (n, m), with the image and view of each row.

        Rows of images in no group are left out.
        """
        groups, self._total = self.split.groups[image_id], None
        if self.origin is None and len(features):
            self.origin = features[0].astype(np.float64), embeddings[0].astype(np.float64)
        for key in sorted({*zip(groups.tolist(), (view == 0).tolist(), strict=True)}):
            group, first = key
            if group < 0:
                continue
            rows = np.flatnonzero((groups == group) & ((view == 0) == first))
            if key not in self._sums:
                self._sums[key] = RidgeStatistics(
                    features.shape[1], embeddings.shape[1], self.origin
                )
            self._sums[key].update(features[rows], embeddings[rows])

    def of(self, groups: Sequence[int]) -> RidgeStatistics:
        """Sums over all views of the images in some groups, in a new object.

        Either the groups are added, or all others subtracted from the total, whichever are fewer:
        with k folds, the k fits add or subtract a few matrices each, and not k - 1.
        """
        inside = [sums for (group, _), sums in self._sums.items() if group in groups]
        outside = [sums for (group, _), sums in self._sums.items() if group not in groups]
        if len(inside) <= len(outside) + 1:
            return self._added(inside)
        if self._total is None:
            self._total = self._added(self._sums.values())
        made = self._added([self._total])
        for sums in outside:
            made.add(sums, -1)
        return made

    def held_out(self, group: int) -> RidgeStatistics:
        """Sums over view 0 of the images of a group; sums without rows if it has none."""
        return self._sums.get((group, True)) or self._added([])

    def _added(self, parts: Iterable[RidgeStatistics]) -> RidgeStatistics:
        if not self._sums:
            raise InputError("no image is in the training set: a translator needs some")
        some = next(iter(self._sums.values()))
        made = RidgeStatistics(*some.shape, some.origin)
        for sums in parts:
            made.add(sums)
        return made


@dataclass(frozen=True)
class Validation:
    """Squared errors on view 0 of images that a fit was not fitted on, for all fits."""

    lambdas: list[float]
    errors: np.ndarray  # (fits, lambdas), sums over images
    baseline: np.ndarray  # (fits,), where the mean embedding of the fitted rows is predicted
    n: np.ndarray  # (fits,), number of images

    @property
    def best(self) -> int:
        """Position of the lambda with the smallest error; the last one if errors are equal."""
        total = self.errors.sum(axis=0)
        return int(np.flatnonzero(total == total.min())[-1])

    @property
    def at_edge(self) -> bool:
        """Whether the best lambda is the smallest or the largest; a better one may lie beyond.

        False if all lambdas have the same error.
        """
        differ = np.ptp(self.errors.sum(axis=0)) > 0
        return bool(differ) and self.lambdas[self.best] in (min(self.lambdas), max(self.lambdas))

    @property
    def r2(self) -> np.ndarray:
        """(lambdas,): the share of the baseline's squared error that the fits explain.

        Raises InputError if the baseline has no error.
        """
        if not self.baseline.sum() > 0:
            raise InputError(ALIKE)
        return 1.0 - self.errors.sum(axis=0) / self.baseline.sum()


def cross_validate(sums: GroupSums, lambdas: list[float], threads: int | None = None) -> Validation:
    """Squared errors of every fit on the group that validates it, for all lambdas of penalties().

    One lambda is chosen for all fits, by the sum of their errors. A fit costs one
    eigendecomposition, whatever the number of lambdas, and no row is read again. threads: as in
    map_apart(). Raises InputError when a fit has no rows, or several rows whose features do not
    vary.
    """

    def judged(fit: tuple[list[int], int]) -> tuple[np.ndarray, float, int]:
        made, held_out = sums.of(fit[0]), sums.held_out(fit[1])
        errors = made.decompose().squared_errors(held_out, penalties(made, lambdas))
        return errors, held_out.squared_distance(made.embedding_mean), held_out.n

    return Validation(
        lambdas, *map(np.array, zip(*map_apart(judged, sums.split.fits, threads), strict=True))
    )


def penalties(statistics: RidgeStatistics, lambdas: list[float]) -> list[float]:
    """Ridge penalties alpha in squared feature units from lambdas, which have no unit.

    alpha = lambda * mean |x - mean x|^2 = lambda * trace(S) / n, with the scatter S: a lambda means
    the same for every model, and for every number of rows. A single row has no such distance: its
    penalties are the lambdas themselves. Raises InputError if the features of several rows do not
    vary.
    """
    if statistics.n == 1:
        return list(lambdas)
    scale = statistics.mean_squared_distance
    if not scale > 0 and statistics.shape[0]:
        raise InputError(ALL_ALIKE)
    return [penalty * scale for penalty in lambdas]


@dataclass(frozen=True)
class CrossFitted:
    """Affine translators, and for each image the one that was not fitted on it.

    fold: (n,), the same as member_of, but in sample, as in the paper, the manifest's fold for each
    image that its translator was fitted on.
    """

    members: tuple[Affine, ...]  # of the folds, then that of all training images
    member_of: np.ndarray  # (n,), the position in members for each image; WHOLE is the last one
    fold: np.ndarray

    @classmethod
    def alone(cls, translator: Affine, images: int) -> CrossFitted:
        """One translator for a number of images, none of which it was fitted on."""
        whole = np.full(images, WHOLE, np.int32)
        return cls((translator,), whole, whole)

    @property
    def crossed(self) -> bool:
        """Whether folds have translators of their own; False: one translator serves all images."""
        return len(self.members) > 1

    @property
    def whole(self) -> Affine:
        """The translator that was fitted on all training images."""
        return self.members[WHOLE]

    def map(self, function: Callable[[Affine], Affine]) -> CrossFitted:
        """Apply a function to every member; member_of and fold stay the same."""
        return CrossFitted(tuple(map(function, self.members)), self.member_of, self.fold)

    def parts(self, image_id: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """For each member that is needed, its position and the positions of its rows.

        image_id: (n,), the image of each row.
        """
        indices = self.member_of[image_id]
        for member in np.unique(indices):
            yield int(member), np.flatnonzero(indices == member)

    def __call__(self, features: np.ndarray, image_id: np.ndarray) -> np.ndarray:
        """T f + c (n, m) of features f (n, d) with the member of each row's image, in f's type."""
        out = np.empty((len(features), len(self.whole.bias)), features.dtype)
        for member, rows in self.parts(image_id):
            mine = self.members[member].astype(features.dtype)
            if len(rows) == len(features):
                return mine(features)
            out[rows] = mine(features[rows])
        return out
