"""The floor of a score: what it is where the null component carries nothing beyond the principal one (Freedman-Lane, out of fold).

A feature is x = (a, b): principal coordinates a = V_r^T f, (r,), and null coordinates b = V_0^T f, (k,). b is split into what a
predicts of it, B a, and a residual e. Residuals of other images, b* = B a + e_p, make a null component that looks the same and
carries nothing: the translator is fitted to it anew, and scored as the real one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain

import numpy as np
import pandas as pd
from pydantic import Field

from singflow.analyses.metrics import Removal
from singflow.artifacts.scratch import Scratch
from singflow.artifacts.shards import in_blocks, rows_of, together
from singflow.config.sections import Section
from singflow.parallel import map_apart
from singflow.translators.crossfit import WHOLE, CrossFitted, GroupSums, cross_validate, cross_validate_alike, penalties
from singflow.translators.partitioned import Halves, Partitioned
from singflow.translators.ridge import Affine, RidgePath, RidgeStatistics

ROWS = 2048  # looked at at once
Matrix = np.ndarray | Scratch


class Floor(Section):
    """What scores show where the null space carries nothing."""

    permutations: int = Field(20, ge=3, le=10000, description="null components without content that every score is compared with")


@dataclass(frozen=True)
class Rows:
    """Images in the order of their ids, `views` rows each.

    known: (n * views, r + m) float32, principal coordinates and embeddings, less their origins (r,) and (m,); residuals: (n * views, k)
    float32, null coordinates until Fitted.leave_residuals(), which also fills, of view 0 of the images that are scored, predicted:
    (n, k) float32, B a, and rotated: (n, r) float32, principal coordinates as Halves takes them. groups: (n,) within which images are
    permuted, WHOLE where the fit of all training images scores them.
    """

    known: Matrix
    residuals: Matrix
    predicted: Matrix
    rotated: Matrix
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

    def cross_sums(self, group: int, order: np.ndarray) -> np.ndarray:
        """Sums over a group of principal coordinates and embeddings times residuals.

        Parameters
        ----------
        group : int
            The group.
        order : ndarray of int, shape (n,)
            The image whose residuals each image gets.

        Returns
        -------
        ndarray of shape (r + m, k)
            In float64, out of float32 products of blocks of rows.
        """
        sums = np.zeros((self.known.shape[1], self.residuals.shape[1]))
        images = np.flatnonzero(self.groups == group)
        for part in np.array_split(images, max(1, -(-len(images) * self.views // ROWS))):
            sums += self.known[rows_of(part, self.views)].T @ self.residuals[rows_of(order[part], self.views)]
        return sums


Fits = Iterable[tuple[int, Halves]]  # by the place of the images that they score; made one after the other


@dataclass(frozen=True)
class Exchange:
    """Fits of the training images with residuals of others.

    emptied: what the fit of each place is made of, without the products of residuals with what stands beside them; groups: the groups
    that it is made of; predictors: weights B (k, r) float32 of every group; lambdas, scale: as those of Fitted.
    """

    emptied: dict[int, Partitioned]
    groups: dict[int, list[int]]
    predictors: dict[int, np.ndarray]
    lambdas: tuple[float, float]
    scale: float

    def fit(self, rows: Rows, order: np.ndarray) -> Iterator[tuple[int, Halves]]:
        """Translators and their reading of the prediction of null coordinates.

        Parameters
        ----------
        rows : Rows
            The training images, with the residuals that Fitted.predictor_of() leaves.
        order : ndarray of int, shape (n,)
            The image whose residuals each image gets.

        Yields
        ------
        place : int
            Of the images that a fit scores.
        fit : Halves
            As if all rows had been summed again.
        """
        changes = {group: self._changes(group, rows, order) for group in self.predictors}
        total = [reduce(np.add, each) for each in zip(*changes.values(), strict=True)]
        for place, emptied in self.emptied.items():
            others = [change for group, change in changes.items() if group not in self.groups[place]]
            mixed, squares = (each - sum(other[number] for other in others) for number, each in enumerate(total))
            yield place, emptied.solve(self.lambdas, (mixed, squares))

    def _changes(self, group: int, rows: Rows, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the residuals of a group add to sums of (a, z) times b*, and of b* times b*; float32."""
        predictor = self.predictors[group]
        mixed = rows.cross_sums(group, order).astype(np.float32) * np.float32(self.scale)
        cross = predictor @ mixed[: predictor.shape[1]]
        return mixed, cross + cross.T


class Fitted:
    """The fits of training images.

    sums: of the training rows (a, b); rank: number r of principal coordinates; lambdas: penalties of translator and predictor.
    place: (n,) the fit that scores each image of the study, WHOLE for all with a reference. scale: what permuted residuals are
    multiplied by, as `predictor_penalty` says. threads: fits at a time, as map_apart() takes it. paths: the regressions of embeddings on
    principal coordinates, of the folds' fits, where choose_penalties() has made them.
    """

    def __init__(
        self, sums: GroupSums, rank: int, lambdas: tuple[float, float], place: np.ndarray, scale: float = 1.0,
        threads: int | None = None, paths: Sequence[RidgePath] = (),
    ) -> None:  # fmt: skip
        crossed = {fit: groups for fit, (groups, _) in enumerate(sums.split.fits)} if sums.split.crossed else {}
        groups_of = crossed | {WHOLE: sums.split.whole}
        self._sums, self._rank, self._lambdas, self._scale, self._threads = sums, rank, lambdas, scale, threads
        self._used = {fit: groups for fit, groups in groups_of.items() if (place == fit).any()}
        known = dict(enumerate(paths))
        parted = map_apart(lambda fit: Partitioned.of(sums.of(self._used[fit]), rank, known.get(fit)), self._used, threads)
        self._own = dict(zip(self._used, parted, strict=True))
        maps = map_apart(lambda groups: self._predictor(sums.of(groups)), groups_of.values(), threads)
        self.predictors = CrossFitted(tuple(maps), place, place)

    def leave_residuals(self, rows: Rows) -> None:
        """Split the null coordinates of all rows into what principal ones predict and the rest.

        Parameters
        ----------
        rows : Rows
            Changed in place.
        """
        rank = self._rank
        for group in np.unique(rows.groups):
            predictor, own = self.predictor_of(group), self._own.get(self._place(group))
            for images in in_blocks(np.flatnonzero(rows.groups == group), max(1, 4096 // rows.views)):
                at = rows_of(images, rows.views)
                principal = rows.known[at, :rank]
                predicted = predictor(principal + rows.origin[0])
                rows.residuals[at] = rows.residuals[at] - predicted
                if own:
                    middle = (own.path.feature_mean - rows.origin[0]).astype(np.float32)
                    rows.predicted[images] = predicted[:: rows.views]
                    rows.rotated[images] = (principal[:: rows.views] - middle) @ own.path.eigenvectors.astype(np.float32)

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
        return self.predictors.maps[self._place(group)]

    def fit(self) -> Iterator[tuple[int, Halves]]:
        """Translators and their reading of the prediction of null coordinates.

        Yields
        ------
        place : int
            Of the images that a fit scores.
        fit : Halves
            It.
        """
        yield from ((place, own.solve(self._lambdas)) for place, own in self._own.items())

    def exchange(self, rows: Rows) -> Exchange:
        """What it takes to fit with residuals of other images.

        Parameters
        ----------
        rows : Rows
            The training images, with the residuals that predictor_of() leaves.

        Returns
        -------
        Exchange
            Which does without the sums.
        """
        own, whole = np.arange(len(rows.groups)), self._sums.split.whole

        def empty(group: int) -> RidgeStatistics:
            return self._sums.of([group]).hollow(self._rank, self.predictor_of(group), rows.cross_sums(group, own), self._scale)

        emptied, total = dict(zip(whole, map_apart(empty, whole, self._threads), strict=True)), self._sums.of([])
        for each in emptied.values():
            total.add(each)

        def part(place: int) -> Partitioned:
            made = self._sums.of([])
            made.add(total)
            for group in emptied.keys() - set(self._used[place]):
                made.add(emptied[group], -1)
            return Partitioned.of(made, self._rank, self._own[place].path)

        found = dict(zip(self._used, map_apart(part, self._used, self._threads), strict=True))
        predictors = {group: self.predictor_of(group).weight.astype(np.float32) for group in emptied}
        return Exchange(found, self._used, predictors, self._lambdas, self._scale)

    @property
    def paths(self) -> dict[int, RidgePath]:
        """The regression on principal coordinates of each place, in whose axes Halves take them."""
        return {place: own.path for place, own in self._own.items()}

    def _place(self, group: int) -> int:
        return group if self._sums.split.crossed else WHOLE

    def _predictor(self, made: RidgeStatistics) -> Affine:
        between = made.regress(slice(0, self._rank), slice(self._rank, None))
        return between.solve(*penalties(between, [self._lambdas[1]]))


SCORES = ["is_deg", "as_deg", "conditional_is_deg", "conditional_as_deg"]


@dataclass(frozen=True)
class Scored:
    """Scores of all images, each (n,) float64 in degrees, by the names of SCORES.

    squared_error: (n,) of the translation; baseline: (n,) of the mean embedding that each image's translator starts from.
    """

    scores: dict[str, np.ndarray]
    squared_error: np.ndarray
    baseline: np.ndarray

    @property
    def means(self) -> dict[str, float]:
        """The row of a floor's table: means over images in degrees, and R2."""
        return {
            "is_mean_deg": float(self.scores["is_deg"].mean()),
            "as_mean_deg": float(self.scores["as_deg"].mean()),
            "as_abs_mean_deg": float(np.abs(self.scores["as_deg"]).mean()),
            "conditional_is_mean_deg": float(self.scores["conditional_is_deg"].mean()),
            "r2": float(1.0 - self.squared_error.sum() / self.baseline.sum()),
        }


def score(
    fits: Fits, place: np.ndarray, rows: Rows, texts: np.ndarray, codes: np.ndarray, order: np.ndarray | None = None, scale: float = 1.0
) -> Scored:
    """Score all images, view 0: null removal, and conditional removal, which takes away what the principal coordinates do not predict.

    Parameters
    ----------
    fits : iterable of int and Halves
        Of the same permutation, by place.
    place : ndarray of int, shape (n,)
        The fit that scores each image.
    rows : Rows
        The images.
    texts : ndarray of shape (L, m)
        Text embeddings of the labels.
    codes : ndarray of int, shape (n,)
        Row of texts for each image.
    order : ndarray of int, shape (n,), optional
        The image whose residuals each image gets; by default its own.
    scale : float
        What residuals are multiplied by.

    Returns
    -------
    Scored
        Of all images.
    """
    n, rank, start = len(rows.groups), len(rows.origin[0]), rows.origin[1].astype(np.float32)
    order = np.arange(n) if order is None else order
    scores, error, baseline = {name: np.empty(n) for name in SCORES}, np.empty(n), np.empty(n)

    def translated() -> Iterator[tuple[np.ndarray, ...]]:
        for where, fit in fits:
            images = np.flatnonzero(place == where)
            for part in np.array_split(images, -(-len(images) // ROWS)):
                rotated, embeddings = rows.rotated[part], rows.known[part * rows.views, rank:]
                removed = (rows.predicted[part] + np.float32(scale) * rows.residuals[order[part] * rows.views]) @ fit.hidden.T
                original = fit.visible(rotated) + removed
                middle = embeddings - (fit.embedding_mean.astype(np.float32) - start)
                yield part, original, removed, removed - fit.predicted(rotated), embeddings - (original - start), middle

    for part, original, removed, surprising, missed, middle in together(translated(), ROWS):
        for kind, removal in (("", Removal(original, removed)), ("conditional_", Removal(original, surprising))):
            scores[f"{kind}is_deg"][part] = removal.image_score()
            scores[f"{kind}as_deg"][part] = removal.attribute_score(texts[codes[part]])
        error[part], baseline[part] = np.vecdot(missed, missed), np.vecdot(middle, middle)
    return Scored(scores, error, baseline)


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

    def of_images(self, image_id: np.ndarray) -> pd.DataFrame:
        """A row for each image.

        Parameters
        ----------
        image_id : ndarray of shape (n,)
            Their ids.

        Returns
        -------
        DataFrame
            floor_images/<space>/<model>.parquet.
        """
        own = {name: self.real[name] for name in SCORES if name.startswith("conditional")}
        return pd.DataFrame({"image_id": image_id} | {f"floor_{name}": values for name, values in self.images.items()} | own)

    def of_labels(self, labels: list[str], n: np.ndarray, judged: bool) -> pd.DataFrame:
        """A row for each label.

        Parameters
        ----------
        labels : list of str
            Their L names.
        n : ndarray of shape (L,)
            Images of each.
        judged : bool
            Whether there are p-values: floors in sample are too low.

        Returns
        -------
        DataFrame
            floor_labels/<space>/<model>.parquet.
        """
        columns: dict[str, object] = {"label": labels, "n": n}
        for name, sums in self.labels.items():
            p = label_p_values(sums) if judged else np.nan
            columns |= {name: sums[0] / n, f"floor_{name}": sums[1:].mean(axis=0) / n, f"p_{name}": p}
        return pd.DataFrame(columns)

    def facts(self, judged: bool) -> dict[str, float | None]:
        """How often null components without content score as high or higher, and how much lower their conditional IS is.

        Parameters
        ----------
        judged : bool
            As for of_labels().

        Returns
        -------
        dict
            permutations; p_is, p_as_abs and p_conditional_is, None where nothing is judged; and conditional_excess_deg.
        """
        first, permuted = self.table.iloc[0], self.table.iloc[1:]
        compared = {"p_is": "is_mean_deg", "p_as_abs": "as_abs_mean_deg", "p_conditional_is": "conditional_is_mean_deg"}
        return {
            "permutations": len(permuted),
            **{name: p_value(first[column], permuted[column].to_numpy()) if judged else None for name, column in compared.items()},
            "conditional_excess_deg": float(first["conditional_is_mean_deg"] - permuted["conditional_is_mean_deg"].mean()),
        }


def measure(
    real: Scored, exchange: Exchange, training: Rows, images: Rows, place: np.ndarray, texts: np.ndarray, codes: np.ndarray, *,
    permutations: int, seed: int, threads: int | None = None,
) -> Floors:  # fmt: skip
    """Set the images' scores beside those of their null components with residuals of others.

    Parameters
    ----------
    real : Scored
        The images with their own.
    exchange : Exchange
        Fits of the training images.
    training : Rows
        The training images.
    images : Rows
        The images that are scored: `training` itself, or others, among which residuals are permuted as they are in the training.
    place : ndarray of int, shape (n,)
        The fit that scores each image.
    texts : ndarray of shape (L, m)
        Text embeddings of the labels.
    codes : ndarray of int, shape (n,)
        Row of texts for each image.
    permutations : int
        How many.
    seed : int
        Of the permutations.
    threads : int, optional
        Permutations at a time, as map_apart() takes it.

    Returns
    -------
    Floors
        Of all images.
    """
    labels = len(texts)

    def permuted(permutation: int) -> Scored:
        generator = np.random.default_rng([seed, permutation + 1])
        order = images.permute(generator)
        fits = exchange.fit(training, order if training is images else training.permute(generator))
        return score(fits, place, images, texts, codes, order, exchange.scale)

    rows, sums = [], {name: np.zeros(len(codes)) for name in SCORES}
    by_label: dict[str, list[np.ndarray]] = {"is_deg": [], "as_abs_deg": []}
    for permutation, scored in enumerate(chain([real], map_apart(permuted, range(permutations), threads)), -1):
        rows.append({"permutation": permutation} | scored.means)
        for name, values in (("is_deg", scored.scores["is_deg"]), ("as_abs_deg", np.abs(scored.scores["as_deg"]))):
            by_label[name].append(np.bincount(codes, values, labels))
        if scored is not real:
            for name, values in scored.scores.items():
                sums[name] += values / permutations
    return Floors(pd.DataFrame(rows), real.scores, sums, {name: np.stack(each) for name, each in by_label.items()})


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
    (alpha,) = penalties(made, [UNDERSMOOTHED * best])
    freedom = made.shape[0] - alpha * np.trace(made.inverse(alpha))
    share = freedom / np.isin(sums.split.groups, sums.split.whole).sum()
    return (UNDERSMOOTHED * best, float(np.sqrt(1.0 / (1.0 + share)))) if share <= AT_MOST else (best, 1.0)


def choose_penalties(
    sums: GroupSums, rank: int, tried: list[float], fitted: float | None, threads: int | None = None
) -> tuple[dict[str, float], float, list[RidgePath]]:
    """Penalties of a floor's regressions, and the scale of its residuals.

    Parameters
    ----------
    sums : GroupSums
        Over rows (a, b) of principal and null coordinates, and embeddings.
    rank : int
        Number r of principal coordinates.
    tried : list of float
        Penalties, times the mean squared distance of a fit's inputs from their mean.
    fitted : float or None
        That of the translator, where it was chosen already.
    threads : int, optional
        Fits of the principal coordinates at a time, as map_apart() takes it.

    Returns
    -------
    lambdas : dict of str to float
        Those of the translator, of that of the principal coordinates alone, and of the predictor of null coordinates.
    scale : float
        What residuals are multiplied by, as predictor_penalty() says; 1 in sample.
    paths : list of RidgePath
        The regressions of embeddings on principal coordinates, of every fold's fit.
    """
    seen, between = (sums.regress(slice(0, rank), targets) for targets in (None, slice(rank, None)))
    paths = list(map_apart(lambda fit: seen.of(fit[0]).decompose(), sums.split.fits, threads))
    principal, predictor = (tried[each.best] for each in cross_validate_alike([seen, between], tried, threads, paths))
    lambdas = {"translator": tried[cross_validate(sums, tried).best] if fitted is None else fitted, "principal": principal}
    lambdas["predictor"], scale = predictor_penalty(between, predictor) if sums.split.crossed else (predictor, 1.0)
    return lambdas, scale, paths if sums.split.crossed else []


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
