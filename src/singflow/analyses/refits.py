"""What the fit of the translators adds to the uncertainty of mean scores: an infinitesimal jackknife.

A mean score depends on the images that are scored, and on those that the translators were fitted to. To first order the second part is a
sum over training images too: r^T (G M) x, with the residual r that a translator leaves which did not see the image, its features x less
their mean, M = (scatter + alpha)^-1, and G the derivative of the scores with respect to the translator. Added to an image's own score it
makes numbers whose mean over resampled images varies as the mean score does over new images and new fits.

Features are x = (a, b) here, principal and null coordinates, as in analyses/floor.py.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from singflow.analyses.metrics import Removal, unit
from singflow.artifacts.scratch import Scratch
from singflow.translators.crossfit import WHOLE, GroupSums, penalties
from singflow.translators.ridge import Affine, RidgeStatistics

ROWS = 512  # looked at at once
POWER = 1.75  # of the factor by which residuals shrink where a row was fitted to
DRAWS = {"random": 2, "null": 1}  # subspaces that stand for all of a kind and dimension: they answer to a refit alike
SCORES = {  # whose means get intervals, by what is removed
    "": ["is_deg", "as_deg", "as_abs_deg", "as_contrast_deg"],
    "conditional_": ["is_deg"],
    "control_": ["is_deg", "as_deg", "as_abs_deg"],
    "matched_": ["is_deg"],
}
RANKED = ["is_deg", "as_abs_deg"]  # by which models are compared
Matrix = np.ndarray | Scratch
Slope = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Fit:
    """A ridge solution with what it takes to know how it moves when a row weighs more.

    map: T x + c in float32. mean: (p,) of its inputs; inverse: (p, p) float32 of their penalized scatter; n: rows.
    """

    map: Affine
    mean: np.ndarray
    inverse: np.ndarray
    n: int

    @classmethod
    def of(cls, sums: RidgeStatistics, penalty: float) -> "Fit":
        """The solution out of sums.

        Parameters
        ----------
        sums : RidgeStatistics
            Of the rows that are fitted.
        penalty : float
            Times the mean squared distance of the inputs from their mean it is the ridge penalty.

        Returns
        -------
        Fit
            As the step fit_translator has it.
        """
        (alpha,) = penalties(sums, [penalty])
        return cls(sums.solve(alpha).astype(np.float32), sums.feature_mean, sums.inverse(alpha).astype(np.float32), sums.n)


def _made(sums: GroupSums) -> Iterator[RidgeStatistics]:
    """What is fitted to, of every place in the order of CrossFitted.maps: those of the folds, and last all training images."""
    crossed = [groups for groups, _ in sums.split.fits if sums.split.crossed]
    yield from map(sums.of, [*crossed, sums.split.whole])


def fits_of(sums: GroupSums, penalty: float) -> list[Fit]:
    """The fit of every place.

    Parameters
    ----------
    sums : GroupSums
        Of the training rows.
    penalty : float
        As for Fit.of().

    Returns
    -------
    list of Fit
        In the order of CrossFitted.maps.
    """
    return [Fit.of(each, penalty) for each in _made(sums)]


def maps_of(sums: GroupSums, penalty: float) -> list[Affine]:
    """The maps alone of such fits.

    Parameters
    ----------
    sums, penalty
        As for fits_of().

    Returns
    -------
    list of Affine
        In float32.
    """
    return [each.solve(*penalties(each, [penalty])).astype(np.float32) for each in _made(sums)]


@dataclass(frozen=True)
class Images:
    """Rows of images, `views` each, in the order of their ids.

    features: (n * views, p) float32, a before b; embeddings: (n * views, m) float32. place: (n,) the fit that translates each image.
    group: (n,) the fold whose fit has not seen it, while the others have; WHOLE for an image that nothing is fitted to.
    """

    features: Matrix
    embeddings: Matrix
    place: np.ndarray
    group: np.ndarray
    views: int

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

    def blocks(self, images: np.ndarray) -> Iterator[np.ndarray]:
        """Images by the block.

        Parameters
        ----------
        images : ndarray of int
            Their ids.

        Yields
        ------
        ndarray of int
            Some of them.
        """
        yield from np.array_split(images, max(1, -(-len(images) * self.views // ROWS)))


Part = Callable[[np.ndarray, int], np.ndarray]


def null_part(rank: int) -> Part:
    """What null removal takes from features: (0, b).

    Parameters
    ----------
    rank : int
        Number r of principal coordinates.

    Returns
    -------
    callable
        Of features and the place of their fit.
    """
    return lambda features, place: np.hstack([np.zeros_like(features[:, :rank]), features[:, rank:]])


def surprise(rank: int, predictors: Sequence[Fit]) -> Part:
    """What conditional removal takes from features: (0, b - B a).

    Parameters
    ----------
    rank : int
        Number r of principal coordinates.
    predictors : sequence of Fit
        B of every place.

    Returns
    -------
    callable
        Of features and the place of their fit.
    """

    def part(features: np.ndarray, place: int) -> np.ndarray:
        rest = features[:, rank:] - predictors[place].map(features[:, :rank])
        return np.hstack([np.zeros_like(features[:, :rank]), rest])

    return part


@dataclass(frozen=True)
class Inside:
    """What the removal of a subspace takes from features, of features and the place of their fit.

    basis: (p, k), the coordinates of an orthonormal basis of it. complement: whether it is the complement of what they span. rank: to
    rescale what is taken to the length of the null component: the number of principal coordinates.
    """

    basis: np.ndarray
    complement: bool = False
    rank: int | None = None

    def __call__(self, features: np.ndarray, place: int) -> np.ndarray:
        """The part (k, p) of features (k, p)."""
        narrow = self.basis.astype(np.float32)
        within = features @ narrow
        taken = features - within @ narrow.T if self.complement else within @ narrow.T
        if self.rank is None:
            return taken
        square = np.vecdot(within, within)
        length = np.sqrt(np.maximum(np.vecdot(features, features) - square, 0) if self.complement else square)
        wanted = np.linalg.norm(features[:, self.rank :], axis=1)
        return taken * np.divide(wanted, length, out=np.zeros_like(wanted), where=length > 0)[:, None]


def _toward(vectors: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Derivative of the angle between rows with respect to the first: degrees; 0 where they are parallel and it has none."""
    u, v = unit(vectors), unit(targets)
    across = v - np.vecdot(u, v)[:, None] * u
    scale = np.linalg.norm(across, axis=1) * np.linalg.norm(vectors, axis=1)
    return -np.degrees(np.divide(across, scale[:, None], out=np.zeros_like(across), where=scale[:, None] > 0))


def _toward_all(vectors: np.ndarray, texts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The same of a weighted sum of angles to many unit texts."""
    u = unit(vectors)
    cosines = np.clip(u @ texts.T, -1.0, 1.0)
    over = weights / np.sqrt(np.maximum(1.0 - cosines**2, 1e-12))
    return -np.degrees(over @ texts - np.sum(over * cosines, axis=1, keepdims=True) * u) / np.linalg.norm(vectors, axis=1)[:, None]


def slopes(removal: Removal, texts: np.ndarray, own: np.ndarray, names: Sequence[str]) -> dict[str, Slope]:
    """Derivatives of the scores of images with respect to the translated features, and to the part that is removed from them.

    Parameters
    ----------
    removal : Removal
        Of n images.
    texts : ndarray of shape (L, m)
        Unit embeddings of the labels.
    own : ndarray of int, shape (n,)
        Row of texts for each image.
    names : sequence of str
        Scores that are wanted, of is_deg, as_deg, as_abs_deg and as_contrast_deg.

    Returns
    -------
    dict of str to ndarray of shape (n, m), ndarray of shape (n, m)
        Of these scores; nothing of as_contrast_deg where there is one label.
    """
    original, equivalent = removal.original.astype(np.float64), removal.equivalent
    found = {}
    if "is_deg" in names:
        back = _toward(equivalent, original)
        found["is_deg"] = _toward(original, equivalent) + back, -back
    if {"as_deg", "as_abs_deg"} & set(names):
        before, after = (_toward(each, texts[own]) for each in (original, equivalent))
        sign = np.sign(removal.attribute_score(texts[own]))[:, None]
        found |= {"as_deg": (before - after, after), "as_abs_deg": (sign * (before - after), sign * after)}
    if "as_contrast_deg" in names and len(texts) > 1:
        weights = np.full((len(own), len(texts)), -1.0 / (len(texts) - 1))
        weights[np.arange(len(own)), own] = 1.0
        before, after = (_toward_all(each, texts.astype(np.float64), weights) for each in (original, equivalent))
        found["as_contrast_deg"] = before - after, after
    return {name: found[name] for name in names if name in found}


def scored(images: Images, maps: Sequence[Affine], part: Part) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray, Removal]]:
    """View 0 of all images before and after a part of them is removed.

    Parameters
    ----------
    images : Images
        The images.
    maps : sequence of Affine
        Translators of every place, in float32.
    part : callable
        What is taken.

    Yields
    ------
    place : int
        Of a block of images.
    chosen : ndarray of int
        Their ids.
    features, taken : ndarray of shape (k, p)
        Theirs, and the part of them that is taken.
    removal : Removal
        What becomes of them.
    """
    for place in np.unique(images.place):
        translator = maps[place]
        for chosen in images.blocks(np.flatnonzero(images.place == place)):
            features = images.features[chosen * images.views]
            taken = part(features, place)
            yield place, chosen, features, taken, Removal(translator(features), taken @ translator.weight.T)


def mean_scores(images: Images, maps: Sequence[Affine], parts: Sequence[Part], texts: np.ndarray, codes: np.ndarray) -> dict[str, float]:
    """Mean IS and mean |AS| over images and over parts that are removed in turn.

    Parameters
    ----------
    images, maps
        As for scored().
    parts : sequence of callable
        What is taken.
    texts : ndarray of shape (L, m)
        Unit embeddings of the labels.
    codes : ndarray of int, shape (n,)
        Row of texts for each image.

    Returns
    -------
    dict
        is_deg and as_abs_deg, in degrees.
    """
    total = np.zeros(2)
    for part in parts:
        for _, chosen, _, _, removal in scored(images, maps, part):
            total += removal.image_score().sum(), np.abs(removal.attribute_score(texts[codes[chosen]])).sum()
    return dict(zip(RANKED, (total / (len(parts) * len(codes))).tolist(), strict=True))


class Derivative:
    """Derivative of the sum of a score over images with respect to affine maps, one for each place.

    fits: the maps. weight: (places, out, in) float32; bias: (places, out), of the maps' value at the mean of their inputs.
    """

    def __init__(self, fits: Sequence[Fit]) -> None:
        self.fits = fits
        self.weight = np.zeros((len(fits), *fits[0].map.weight.shape), np.float32)
        self.bias = np.zeros((len(fits), len(fits[0].map.bias)))

    def add(self, place: int, slope: np.ndarray, inputs: np.ndarray, *, affine: bool) -> None:
        """Add images.

        Parameters
        ----------
        place : int
            Of their map.
        slope : ndarray of shape (k, out)
            Derivative of their scores with respect to what the map makes of them.
        inputs : ndarray of shape (k, in)
            What it is applied to.
        affine : bool
            Whether the map is applied whole, or its weight alone.
        """
        if affine:
            inputs = inputs - self.fits[place].mean.astype(np.float32)
            self.bias[place] += slope.sum(axis=0)
        self.weight[place] += slope.astype(np.float32).T @ inputs

    def of_unseen(self, group: int) -> Slope:
        """Derivative of the sum of the scores with respect to a change that all maps but a group's own share.

        Parameters
        ----------
        group : int
            Number of the group.

        Returns
        -------
        ndarray of shape (out, in), ndarray of shape (out,)
            That of all training images changes by less, having more rows.
        """
        share = np.array([*(np.arange(len(self.fits) - 1) != group), self.fits[group].n / self.fits[WHOLE].n])
        return np.tensordot(share.astype(np.float32), self.weight, 1), share @ self.bias


def carried(
    derivatives: dict[str, Derivative], training: Images, inputs: slice, residuals: Callable[[int, np.ndarray], np.ndarray]
) -> dict[str, np.ndarray]:
    """What each training image adds, through the maps that are fitted to it, to sums of scores.

    The maps that saw an image are like the one that did not see it, but for the image itself: with its leverage q there, they leave
    1 / (1 + q) of its residual, and M x shrinks alike: the power 2. Residuals are smaller than errors, which with few images a
    dimension asks for the power 1.5 (HC2); but scores are not linear, and what is of second order counts twice here. POWER lies
    between: intervals cover in planted trials, and are too wide rather than too narrow where the null space has no content.

    Parameters
    ----------
    derivatives : dict of str to Derivative
        Of each score, with respect to the same maps.
    training : Images
        The training images.
    inputs : slice
        Which of their features are the maps' inputs.
    residuals : callable
        Of the number of a group, and of rows: what its map leaves of the targets, (k, out).

    Returns
    -------
    dict of str to ndarray of shape (n,)
        Of each score; mean 0 over the images that maps are fitted to, and 0 for others.

    References
    ----------
    Jaeckel 1972; Efron 2014.
    """
    found, fitted = {name: np.zeros(len(training.group)) for name in derivatives}, training.group != WHOLE
    fits = next(iter(derivatives.values())).fits
    for group in np.unique(training.group[fitted]):
        unseen, slopes_of = fits[group], {name: each.of_unseen(group) for name, each in derivatives.items()}
        for chosen in training.blocks(np.flatnonzero(training.group == group)):
            rows = training.rows_of(chosen)
            centred = training.features[rows][:, inputs] - unseen.mean.astype(np.float32)
            solved, left = centred @ unseen.inverse, residuals(group, rows)
            shrunk = (1.0 + np.vecdot(solved, centred) + 1.0 / unseen.n) ** POWER
            for name, (weight, bias) in slopes_of.items():
                each = (np.vecdot(left @ weight, solved) + left @ bias / unseen.n) / shrunk
                found[name][chosen] = each.reshape(-1, training.views).sum(axis=1)
    return {name: np.where(fitted, each - each[fitted].mean(), 0.0) for name, each in found.items()}


def influences(
    images: Images, training: Images, translators: Sequence[Fit], parts: Sequence[Part], texts: np.ndarray, codes: np.ndarray,
    names: Sequence[str], predictors: Sequence[Fit] = (),
) -> dict[str, np.ndarray]:  # fmt: skip
    """What training images add to mean scores through the fits.

    Parameters
    ----------
    images : Images
        Those that are scored.
    training : Images
        Those that are fitted to; the same, or others.
    translators : sequence of Fit
        Of every place.
    parts : sequence of callable
        What is removed, in turn; scores are means over them.
    texts : ndarray of shape (L, m)
        Unit embeddings of the labels.
    codes : ndarray of int, shape (n,)
        Row of texts for each image that is scored.
    names : sequence of str
        Scores that are wanted, of those that `slopes` knows; of those that it cannot give there is nothing.
    predictors : sequence of Fit
        Of every place, where the parts are what they do not predict.

    Returns
    -------
    dict of str to ndarray of shape (n of training,)
        In degrees, to be added to each image's own score, as far as the mean over images goes; times n of training over n of images
        where these are others.
    """
    rank = len(predictors[0].mean) if predictors else 0
    known = [name for name in names if len(texts) > 1 or name != "as_contrast_deg"]
    direct, through = {name: Derivative(translators) for name in known}, {name: Derivative(predictors) for name in known if predictors}
    for part in parts:
        for place, chosen, features, taken, removal in scored(images, [each.map for each in translators], part):
            for name, (of_original, of_removed) in slopes(removal, texts, codes[chosen], known).items():
                direct[name].add(place, of_original / len(parts), features, affine=True)
                direct[name].add(place, of_removed / len(parts), taken, affine=False)
                if predictors:
                    hidden = translators[place].map.weight[:, rank:]
                    through[name].add(place, -of_removed @ hidden / len(parts), features[:, :rank], affine=True)

    def of_embeddings(group: int, rows: np.ndarray) -> np.ndarray:
        return training.embeddings[rows] - translators[group].map(training.features[rows])

    def of_null(group: int, rows: np.ndarray) -> np.ndarray:
        features = training.features[rows]
        return features[:, rank:] - predictors[group].map(features[:, :rank])

    found = carried(direct, training, slice(None), of_embeddings)
    added = carried(through, training, slice(0, rank), of_null) if through else {}
    return {name: each + added.get(name, 0.0) for name, each in found.items()}
