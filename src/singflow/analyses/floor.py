"""The floor of a score: what it is where the null component carries nothing beyond the principal one (Freedman-Lane, out of fold).

A feature is x = (a, b): principal coordinates a = V_r^T f, (r,), and null coordinates b = V_0^T f, (k,). b is split into what a
predicts of it, B a, and a residual e. Residuals of other images, b* = B a + e_p, make a null component that looks the same and
carries nothing: the translator is fitted to it anew, and scored as the real one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pydantic import Field

from singflow.analyses.metrics import Removal
from singflow.artifacts.scratch import Scratch
from singflow.config.sections import Section
from singflow.translators.crossfit import WHOLE, CrossFitted, GroupSums, penalties
from singflow.translators.ridge import Affine, Products, RidgeStatistics

ROWS = 4096  # looked at at once
Matrix = np.ndarray | Scratch


class Floor(Section):
    """What scores show where the null space carries nothing."""

    permutations: int = Field(20, ge=3, le=10000, description="null components without content that every score is compared with")


@dataclass(frozen=True)
class Rows:
    """Images in the order of their ids, `views` rows each.

    principal: (n * views, r) and embeddings: (n * views, m), less their origins (r,) and (m,), and residuals: (n * views, k), all
    float32. predicted: (n, k) float32, B a of view 0. groups: (n,) within which images are permuted.
    """

    principal: Matrix
    embeddings: Matrix
    residuals: Matrix
    predicted: Matrix
    origin: tuple[np.ndarray, np.ndarray]
    groups: np.ndarray
    views: int

    def permute(self, generator: np.random.Generator) -> np.ndarray:
        """For each image another one of its group, whose residuals it gets.

        Parameters
        ----------
        generator : Generator
            Of NumPy.

        Returns
        -------
        ndarray of int, shape (n,)
            Every image once.
        """
        drawn = np.empty(len(self.groups), dtype=np.int64)
        drawn[np.argsort(self.groups, kind="stable")] = np.lexsort((generator.random(len(self.groups)), self.groups))
        return drawn

    def cross_sums(self, group: int, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sums over a group of principal coordinates and embeddings times residuals.

        Parameters
        ----------
        group : int
            The group.
        order : ndarray of int, shape (n,)
            The image whose residuals each image gets.

        Returns
        -------
        ndarray of shape (r, k), ndarray of shape (m, k)
            In float64, out of float32 products of blocks of rows.
        """
        width = self.residuals.shape[1]
        sums = np.zeros((self.principal.shape[1], width)), np.zeros((self.embeddings.shape[1], width))
        images = np.flatnonzero(self.groups == group)
        for part in np.array_split(images, max(1, -(-len(images) * self.views // ROWS))):
            mine, residuals = self.rows_of(part), self.residuals[self.rows_of(order[part])]
            for total, factor in zip(sums, (self.principal, self.embeddings), strict=True):
                total += factor[mine].T @ residuals
        return sums

    def rows_of(self, images: np.ndarray) -> np.ndarray:
        """The rows of all views of images.

        Parameters
        ----------
        images : ndarray of int
            Their ids.

        Returns
        -------
        ndarray of int
            Positions of rows, image after image.
        """
        return (images[:, None] * self.views + np.arange(self.views)).ravel()


@dataclass(frozen=True)
class Fits:
    """Translators of (a, b), and predictors of b from a; both for the same places."""

    translators: CrossFitted
    predictors: CrossFitted


class Refits:
    """The fits of training images, and those of the same images with permuted residuals, out of the same sums.

    sums: of the training rows (a, b); rank: number r of principal coordinates; lambdas: penalties of translator and predictor.
    place: (n,) the fit that scores each image of the study, WHOLE for all with a reference. scale: what permuted residuals are
    multiplied by, as `predictor_penalty` says.
    """

    def __init__(self, sums: GroupSums, rank: int, lambdas: tuple[float, float], place: np.ndarray, scale: float = 1.0) -> None:
        self._sums, self._rank, self._lambdas, self._place, self.scale = sums, rank, lambdas, place, scale
        self._hollow: dict[int, RidgeStatistics] = {}
        self.predictors = self._placed({place: self._predictor(sums.of(groups)) for place, groups in self._groups_of().items()})

    def predictor_of(self, group: int) -> Affine:
        """The predictor that did not see a group, where fits are crossed.

        Parameters
        ----------
        group : int
            Its number.

        Returns
        -------
        Affine
            From principal to null coordinates.
        """
        return self.predictors.maps[group if self._sums.split.crossed else WHOLE]

    def fit(self, rows: Rows, order: np.ndarray | None = None) -> Fits:
        """Translators and predictors, fitted anew.

        Parameters
        ----------
        rows : Rows
            The training images, with the residuals that predictor_of() leaves.
        order : ndarray of int, shape (n,), optional
            The image whose residuals each image gets; by default its own.

        Returns
        -------
        Fits
            As if all rows had been summed again.
        """
        used = {place: groups for place, groups in self._groups_of().items() if (self._place == place).any()}
        translators, predictors = {}, {}
        for place, made in self._made(used, rows, order):
            translators[place], predictors[place] = made.solve(*penalties(made, [self._lambdas[0]])), self._predictor(made)
        return Fits(self._placed(translators), self._placed(predictors))

    def baseline(self, rows: Rows) -> np.ndarray:
        """Squared error of the mean embedding that each image's translator starts from.

        Parameters
        ----------
        rows : Rows
            The images of the study.

        Returns
        -------
        ndarray of shape (n,)
            Of view 0.
        """
        errors = np.empty(len(rows.groups))
        for place, images in self.predictors.parts(np.arange(len(errors))):
            groups = self._sums.split.fits[place][0] if place != WHOLE else self._sums.split.whole
            difference = rows.embeddings[images * rows.views] + rows.origin[1] - self._sums.of(groups).embedding_mean
            errors[images] = np.vecdot(difference, difference)
        return errors

    def _groups_of(self) -> dict[int, list[int]]:
        """The groups that the fit of each place is made of."""
        split = self._sums.split
        crossed = {place: groups for place, (groups, _) in enumerate(split.fits)} if split.crossed else {}
        return crossed | {WHOLE: split.whole}

    def _placed(self, maps: dict[int, Affine]) -> CrossFitted:
        """Maps by their place; what scores no image is nothing."""
        nothing = Affine(np.zeros((0, 0)), np.zeros(0))
        return CrossFitted(tuple(maps.get(place, nothing) for place in self._groups_of()), self._place, self._place)

    def _predictor(self, made: RidgeStatistics) -> Affine:
        between = made.regress(slice(0, self._rank), slice(self._rank, None))
        return between.solve(*penalties(between, [self._lambdas[1]]))

    def _made(self, used: dict[int, list[int]], rows: Rows, order: np.ndarray | None) -> Iterator[tuple[int, RidgeStatistics]]:
        """The sums that each fit is made of; those of a permutation are made anew each time, which takes less memory than to keep them."""
        if order is None:
            yield from ((place, self._sums.of(groups)) for place, groups in used.items())
            return
        whole, total = self._sums.split.whole, self._sums.of([])
        products = {group: rows.cross_sums(group, order) for group in whole}
        for group in whole:
            total.add(self._filled(group, rows, products[group]))
        for place, groups in used.items():
            made = self._sums.of([])
            made.add(total)
            for group in whole:
                if group not in groups:
                    made.add(self._filled(group, rows, products[group]), -1)
            yield place, made

    def _filled(self, group: int, rows: Rows, products: Products) -> RidgeStatistics:
        predictor = self.predictor_of(group)
        if group not in self._hollow:
            own = rows.cross_sums(group, np.arange(len(rows.groups)))
            self._hollow[group] = self._sums.of([group]).hollow(self._rank, predictor, own, self.scale)
        return self._hollow[group].filled(self._rank, predictor, products, self.scale)


def removals(
    fits: Fits, rank: int, rows: Rows, images: np.ndarray, order: np.ndarray, scale: float
) -> Iterator[tuple[np.ndarray, Removal, Removal]]:
    """Null removal and conditional removal of images, view 0, with residuals of others.

    Conditional removal takes away what the principal coordinates do not predict: f'' = f - V_0 (b - B a).

    Parameters
    ----------
    fits : Fits
        Translators and predictors of the same permutation.
    rank : int
        Number r of principal coordinates.
    rows : Rows
        The images.
    images : ndarray of int
        Positions of those that are wanted.
    order : ndarray of int, shape (n,)
        The image whose residuals each image gets.
    scale : float
        What residuals are multiplied by.

    Yields
    ------
    images : ndarray of int
        Positions of the images of a block.
    null, conditional : Removal
        Of these images.
    """
    for place, chosen in fits.translators.parts(images):
        translator, predictor = fits.translators.maps[place], fits.predictors.maps[place]
        seen, hidden = translator.weight[:, :rank], translator.weight[:, rank:]
        start = rows.origin[0]
        visible = Affine(seen, translator.bias + seen @ start).astype(np.float32)
        predicted = Affine(hidden @ predictor.weight, hidden @ (predictor.bias + predictor.weight @ start)).astype(np.float32)
        narrow = hidden.T.astype(np.float32)
        for part in np.array_split(images[chosen], max(1, -(-len(chosen) // ROWS))):
            principal = rows.principal[part * rows.views]
            removed = (rows.predicted[part] + np.float32(scale) * rows.residuals[order[part] * rows.views]) @ narrow
            original = visible(principal) + removed
            yield part, Removal(original, removed), Removal(original, removed - predicted(principal))


SCORES = ["is_deg", "as_deg", "conditional_is_deg", "conditional_as_deg"]


@dataclass(frozen=True)
class Scored:
    """Scores of all images, each (n,) float64 in degrees, by the names of SCORES; squared_error: (n,) of the translation."""

    scores: dict[str, np.ndarray]
    squared_error: np.ndarray

    def means(self, baseline: np.ndarray) -> dict[str, float]:
        """The row of a floor's table.

        Parameters
        ----------
        baseline : ndarray of shape (n,)
            Squared error of the mean embedding that each image's translator starts from.

        Returns
        -------
        dict
            Means over images in degrees, and R2.
        """
        return {
            "is_mean_deg": float(self.scores["is_deg"].mean()),
            "as_mean_deg": float(self.scores["as_deg"].mean()),
            "as_abs_mean_deg": float(np.abs(self.scores["as_deg"]).mean()),
            "conditional_is_mean_deg": float(self.scores["conditional_is_deg"].mean()),
            "r2": float(1.0 - self.squared_error.sum() / baseline.sum()),
        }


def score(fits: Fits, rank: int, rows: Rows, order: np.ndarray, texts: np.ndarray, scale: float = 1.0) -> Scored:
    """Score all images with residuals of others.

    Parameters
    ----------
    fits, rank, rows, order, scale
        As for removals().
    texts : ndarray of shape (n, m)
        Text embedding of each image's label.

    Returns
    -------
    Scored
        Of all images.
    """
    n = len(rows.groups)
    scores, error = {name: np.empty(n) for name in SCORES}, np.empty(n)
    for part, null, conditional in removals(fits, rank, rows, np.arange(n), order, scale):
        scores["is_deg"][part], scores["as_deg"][part] = null.image_score(), null.attribute_score(texts[part])
        scores["conditional_is_deg"][part] = conditional.image_score()
        scores["conditional_as_deg"][part] = conditional.attribute_score(texts[part])
        difference = null.original - rows.embeddings[part * rows.views] - rows.origin[1]
        error[part] = np.vecdot(difference, difference)
    return Scored(scores, error)


@dataclass(frozen=True)
class Floors:
    """Scores of images beside those of their null components without content.

    table: a row for the real null components (permutation -1) and for each permutation, as floors/<space>/<model>.parquet.
    real: each image's own scores, (n,) by the names of SCORES; images: their means over permutations. labels: sums over the images
    of each label of IS and |AS| by name, (1 + permutations, L), the real ones first.
    """

    table: pd.DataFrame
    real: dict[str, np.ndarray]
    images: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]


def measure(
    refits: Refits, training: Rows, images: Rows, rank: int, texts: np.ndarray, codes: np.ndarray, *, permutations: int, seed: int
) -> Floors:
    """Score the images with their own null components, and with those of others.

    Parameters
    ----------
    refits : Refits
        Sums and fits of the training images.
    training : Rows
        The training images.
    images : Rows
        The images that are scored: `training` itself, or others, among which residuals are permuted as they are in the training.
    rank : int
        Number r of principal coordinates.
    texts : ndarray of shape (L, m)
        Text embeddings of the labels.
    codes : ndarray of int, shape (n,)
        Row of texts for each image.
    permutations : int
        How many.
    seed : int
        Of the permutations.

    Returns
    -------
    Floors
        Of all images.
    """
    n, labels = len(codes), len(texts)
    own, rows, baseline = texts[codes], [], refits.baseline(images)
    sums = {name: np.zeros(n) for name in SCORES}
    by_label = {name: np.zeros((1 + permutations, labels)) for name in ("is_deg", "as_abs_deg")}
    for permutation in range(-1, permutations):
        generator = np.random.default_rng([seed, permutation + 1])
        order = np.arange(n) if permutation < 0 else images.permute(generator)
        refitted = None if permutation < 0 else order if training is images else training.permute(generator)
        fits, scale = refits.fit(training, refitted), 1.0 if permutation < 0 else refits.scale
        scored = score(fits, rank, images, order, own, scale)
        del fits
        rows.append({"permutation": permutation} | scored.means(baseline))
        for name, values in (("is_deg", scored.scores["is_deg"]), ("as_abs_deg", np.abs(scored.scores["as_deg"]))):
            by_label[name][1 + permutation] = np.bincount(codes, values, labels)
        if permutation < 0:
            real = scored.scores
        else:
            for name, values in scored.scores.items():
                sums[name] += values / permutations
    return Floors(pd.DataFrame(rows), real, sums, by_label)


UNDERSMOOTHED, AT_MOST = 0.1, 0.25


def predictor_penalty(sums: GroupSums, best: float) -> tuple[float, float]:
    """The penalty with which null coordinates are predicted, and what out-of-fold residuals are multiplied by.

    What the best penalty hides of B a would pass for residuals, so a tenth of it is taken. Residuals also hold the error of the
    predictor, which permuted null components get a second time, with B a: with p degrees of freedom out of n images about p / n of
    the variance, which is taken off. Where p is more than a quarter of n that is too rough: the best penalty is taken then, and
    nothing off, so that floors are too high rather than too low.

    Parameters
    ----------
    sums : GroupSums
        Of the regression of null coordinates on principal ones.
    best : float
        The penalty that predicts best, times the mean squared distance of the principal coordinates from their mean.

    Returns
    -------
    penalty : float
        In the same units.
    scale : float
        From 0.89 to 1.
    """
    made = sums.of(sums.split.whole)
    spectrum = made.decompose().spectrum
    share = np.sum(spectrum / (spectrum + penalties(made, [UNDERSMOOTHED * best])[0])) / np.isin(sums.split.groups, sums.split.whole).sum()
    return (UNDERSMOOTHED * best, float(np.sqrt(1.0 / (1.0 + share)))) if share <= AT_MOST else (best, 1.0)


def p_value(real: float, permuted: np.ndarray) -> float:
    """Share of the permutations, the real one among them, whose score is as high or higher.

    Parameters
    ----------
    real : float
        The real score.
    permuted : ndarray of shape (p,)
        Scores under the permutations.

    Returns
    -------
    float
        Above 0, at most 1.
    """
    return float((1 + (permuted >= real).sum()) / (1 + len(permuted)))


def label_p_values(sums: np.ndarray) -> np.ndarray:
    """p-value of each label: how its score lies above its own floor, compared with how every permutation of every label lies.

    A label's scores are put in units of their spread over permutations; a permuted one by the mean and spread of the others.

    Parameters
    ----------
    sums : ndarray of shape (1 + p, L)
        Of the real score, and of those of p permutations, at least 3.

    Returns
    -------
    ndarray of shape (L,)
        One-sided, above 0, at most 1; not corrected for the number of labels.
    """
    real, permuted = sums[0], sums[1:]
    p = len(permuted)

    def units(value: np.ndarray, others: np.ndarray) -> np.ndarray:
        spread = others.std(axis=0, ddof=1) * np.sqrt(1.0 + 1.0 / len(others))
        return np.divide(value - others.mean(axis=0), spread, out=np.zeros_like(value), where=spread > 0)

    null = np.sort(np.concatenate([units(permuted[each], np.delete(permuted, each, axis=0)) for each in range(p)]))
    above = len(null) - np.searchsorted(null, units(real, permuted), side="left")
    return (1.0 + above) / (1.0 + len(null))
