"""Cross-fitting: every image is translated by a map that was fitted without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from singflow.errors import InputError
from singflow.parallel import map_apart
from singflow.translators.ridge import Affine, RidgePath, RidgeStatistics

if TYPE_CHECKING:
    import pandas as pd

ALIKE = "every held-out embedding is the mean of the training embeddings, so there is nothing to explain: add images"
ALL_ALIKE = (
    "the features of the training images are all alike: look at the images and at the classifier"
)
WHOLE = -1  # place of the map that was fitted on all training images, and number of the group of an image that is in none


@dataclass(frozen=True)
class Split:
    """Which sums an image enters, and which fits are made of them.

    groups: (n,) int32, the group that an image's rows are summed in, or WHOLE for none. fits: for each fit the groups that it is
    made of, and the group that judges it. whole: the groups of the training images. crossed: whether fit k translates the images of
    group k, which it has not seen; otherwise one translator serves all.
    """

    groups: np.ndarray
    fits: list[tuple[list[int], int]]
    whole: list[int]
    crossed: bool

    @property
    def place(self) -> np.ndarray:
        """The fit that translates each image, WHOLE for that of all training images: (n,) int32."""
        return self.groups if self.crossed else np.full_like(self.groups, WHOLE)


def split(manifest: pd.DataFrame, folds: int) -> Split:
    """How translators are fitted on a study's images.

    Parameters
    ----------
    manifest : DataFrame
        n images with split and fold. Those that the data itself hold out are of the split validation, and not of fold 0.
    folds : int
        translator.folds: with 0 one translator is fitted on the split train and judged on the split validation, as in the paper;
        otherwise there is one for each fold, fitted on the training images of all others.

    Returns
    -------
    Split
        Groups are the folds, or 0 for train and 1 for validation.

    Raises
    ------
    InputError
        With fewer than two folds that have a training image.
    """
    train, fold = (manifest["split"] == "train").to_numpy(), manifest["fold"].to_numpy(np.int32)
    if not folds:
        return Split(np.where(train, 0, 1).astype(np.int32), [([0], 1)], [0], crossed=False)
    groups = np.where(train | (fold == 0), fold, WHOLE).astype(np.int32)
    numbers = np.unique(groups[groups >= 0]).tolist()
    if len(numbers) < 2:
        raise InputError(
            "cross-fitting needs training images in at least two folds: add images, or write translator.reference: packaged, "
            "or the results folder of a study with the same models and spaces"
        )
    fits = [
        ([other for other in numbers if other != number], number)
        for number in range(max(numbers) + 1)
    ]
    return Split(groups, fits, numbers, crossed=True)


class GroupSums:
    """Ridge statistics of every group of images: of view 0, by which fits are judged, and of all views.

    origin: features (d,) and embeddings (m,) of the first row, from which sums are. Raises InputError where sums are asked for and
    there were no rows.
    """

    def __init__(self, split: Split) -> None:
        self.split = split
        self.origin: tuple[np.ndarray, np.ndarray] | None = None
        self._sums: dict[tuple[int, bool], RidgeStatistics] = {}
        self._total: RidgeStatistics | None = None

    def update(
        self, features: np.ndarray, embeddings: np.ndarray, image_id: np.ndarray, view: np.ndarray
    ) -> None:
        """Add rows; those of images in no group are left out.

        Parameters
        ----------
        features : ndarray of shape (n, d)
            Features of the rows.
        embeddings : ndarray of shape (n, m)
            Embeddings of the same rows.
        image_id, view : ndarray of shape (n,)
            The image and view of each row.
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
        """Sums over all views of the images of some groups: of them a fit is made.

        Parameters
        ----------
        groups : sequence of int
            Their numbers.

        Returns
        -------
        RidgeStatistics
            New sums.
        """
        inside = [sums for (group, _), sums in self._sums.items() if group in groups]
        outside = [sums for (group, _), sums in self._sums.items() if group not in groups]
        made = self._empty()
        if len(inside) <= len(outside) + 1:
            for each in inside:
                made.add(each)
            return made
        if self._total is None:
            total = self._empty()
            for each in self._sums.values():
                total.add(each)
            self._total = total
        made.add(self._total)
        for each in outside:
            made.add(each, -1)
        return made

    def judging(self, group: int) -> RidgeStatistics:
        """Sums over view 0 of the images of a group.

        Parameters
        ----------
        group : int
            Its number.

        Returns
        -------
        RidgeStatistics
            Of no rows where the group has none.
        """
        return self._sums.get((group, True)) or self._empty()

    def _empty(self) -> RidgeStatistics:
        if not self._sums:
            raise InputError("no image is in the training set: a translator needs some")
        sums = next(iter(self._sums.values()))
        return RidgeStatistics(*sums.shape, sums.origin)

    def regress(self, inputs: slice, targets: slice) -> GroupSums:
        """The sums of a regression of some of the features on others.

        Parameters
        ----------
        inputs, targets
            As for RidgeStatistics.regress().

        Returns
        -------
        GroupSums
            Of the same groups.
        """
        part = GroupSums(self.split)
        part._sums = {key: sums.regress(inputs, targets) for key, sums in self._sums.items()}
        return part


@dataclass(frozen=True)
class Validation:
    """Squared errors on view 0 of images that a fit did not see, over all fits.

    lambdas: the penalties tried. errors: (fits, lambdas) sums of squared errors; baseline: (fits,) that of the mean embedding of a
    fit's rows; n: (fits,) images.
    """

    lambdas: list[float]
    errors: np.ndarray
    baseline: np.ndarray
    n: np.ndarray

    @property
    def best(self) -> int:
        """Position of the lambda with the least error, the largest of equals."""
        total = self.errors.sum(axis=0)
        return int(np.flatnonzero(total == total.min())[-1])

    @property
    def at_edge(self) -> bool:
        """Whether the best lambda is the least or the largest of several that differ, so that a better one may lie beyond."""
        differ = np.ptp(self.errors.sum(axis=0)) > 0
        return bool(differ) and self.lambdas[self.best] in (min(self.lambdas), max(self.lambdas))

    @property
    def r2(self) -> np.ndarray:
        """Share of the baseline's squared error that is explained: (lambdas,).

        Raises
        ------
        InputError
            When the baseline has no error.
        """
        if not self.baseline.sum() > 0:
            raise InputError(ALIKE)
        return 1.0 - self.errors.sum(axis=0) / self.baseline.sum()

    @property
    def within_one_error(self) -> list[float]:
        """Lambdas whose mean error is within one standard error, over the fits, of the least."""
        judged = self.n > 0
        if judged.sum() < 2:
            return [self.lambdas[self.best]]
        means = self.errors[judged] / self.n[judged, None]
        limit = means[:, self.best].mean() + means[:, self.best].std(ddof=1) / np.sqrt(len(means))
        return [
            each
            for each, mean in zip(self.lambdas, means.mean(axis=0), strict=True)
            if mean <= limit
        ]


def cross_validate(sums: GroupSums, lambdas: list[float], threads: int | None = None) -> Validation:
    """Squared errors of every fit on the group that judges it, for all penalties.

    Parameters
    ----------
    sums : GroupSums
        Sums over the rows of all groups.
    lambdas : list of float
        Penalties, times the mean squared distance of a fit's features from their mean.
    threads : int, optional
        Fits at a time, as map_apart() takes it.

    Returns
    -------
    Validation
        One row for each fit.

    Raises
    ------
    InputError
        When the features of a fit of several rows do not vary.
    """

    def judged(fit: tuple[list[int], int]) -> tuple[np.ndarray, float, int]:
        made, held_out = sums.of(fit[0]), sums.judging(fit[1])
        errors = _path(made).squared_errors(held_out, penalties(made, lambdas))
        return errors, held_out.squared_distance(made.embedding_mean), held_out.n

    return Validation(
        lambdas, *map(np.array, zip(*map_apart(judged, sums.split.fits, threads), strict=True))
    )


def penalties(statistics: RidgeStatistics, lambdas: list[float]) -> list[float]:
    """Ridge penalties in squared feature units.

    Parameters
    ----------
    statistics : RidgeStatistics
        Of the rows that are fitted.
    lambdas : list of float
        Times the mean squared distance of the features from their mean each is a penalty, so that it has no unit.

    Returns
    -------
    list of float
        Penalties, in the order of lambdas; lambdas themselves for a single row, which has no distance.

    Raises
    ------
    InputError
        When the features of several rows do not vary.
    """
    if statistics.n == 1:
        return list(lambdas)
    scale = statistics.mean_squared_distance
    if not scale > 0 and statistics.shape[0]:
        raise InputError(ALL_ALIKE)
    return [each * scale for each in lambdas]


def ridge(statistics: RidgeStatistics, penalty: float) -> Affine:
    """The ridge regression of some rows; of a single row, its embedding whatever the features are.

    Parameters
    ----------
    statistics : RidgeStatistics
        Of the rows that are fitted.
    penalty : float
        Times the mean squared distance of the features from their mean.

    Returns
    -------
    Affine
        The solution in float64.

    Raises
    ------
    InputError
        As penalties() does, and without rows.
    """
    if statistics.n == 1:
        return Affine(np.zeros(statistics.shape[::-1]), statistics.embedding_mean)
    return statistics.solve(*penalties(statistics, [penalty]))


def _path(statistics: RidgeStatistics) -> RidgePath:
    """The solutions for all penalties; of a single row, that of ridge() for every one."""
    if statistics.n != 1:
        return statistics.decompose()
    width = statistics.shape[0]
    return RidgePath(
        np.zeros(width),
        np.eye(width),
        np.zeros(statistics.shape),
        statistics.feature_mean,
        statistics.embedding_mean,
    )


@dataclass(frozen=True)
class CrossFitted:
    """Affine maps of which each image has the one that did not see it.

    maps: those of the folds, and last that of all training images. place: (n,) the position among maps for each image of the study,
    WHOLE for the last. fold: (n,) the same, but for images that the last was fitted on, as in the paper: there their own fold.
    """

    maps: tuple[Affine, ...]
    place: np.ndarray
    fold: np.ndarray

    @property
    def whole(self) -> Affine:
        """The map that was fitted on all training images."""
        return self.maps[WHOLE]

    def each(self, function: Callable[[Affine], Affine]) -> CrossFitted:
        """Other maps of the same places.

        Parameters
        ----------
        function : callable
            What is made of each map.

        Returns
        -------
        CrossFitted
            The function's results.
        """
        return CrossFitted(tuple(map(function, self.maps)), self.place, self.fold)

    def parts(self, image_id: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Rows by the map that they take.

        Parameters
        ----------
        image_id : ndarray of shape (n,)
            Images of the rows.

        Yields
        ------
        place : int
            Position among maps.
        rows : ndarray of int
            Positions of the rows that take it.
        """
        places = self.place[image_id]
        for place in np.unique(places):
            yield int(place), np.flatnonzero(places == place)

    def __call__(self, features: np.ndarray, image_id: np.ndarray) -> np.ndarray:
        """What the maps make of features, in the features' type.

        Parameters
        ----------
        features : ndarray of shape (n, d)
            Features f.
        image_id : ndarray of shape (n,)
            Images of the rows.

        Returns
        -------
        ndarray of shape (n, m)
            T f + c with the T and c of each image.
        """
        out = np.empty((len(features), len(self.whole.bias)), features.dtype)
        for place, rows in self.parts(image_id):
            mine = self.maps[place].astype(features.dtype)
            if len(rows) == len(features):
                return mine(features)
            out[rows] = mine(features[rows])
        return out
