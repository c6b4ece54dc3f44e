"""What the fit of the translators adds to the uncertainty of mean scores: an infinitesimal jackknife.

A mean score depends on the images that are scored, and on those that the translators were fitted to. To first order the second part is a
sum over training images too: r^T (G M) x, with the residual r that a translator leaves which did not see the image, its features x less
their mean, M = (scatter + alpha)^-1, and G the derivative of the scores with respect to the translator. Added to an image's own score it
makes numbers whose mean over resampled images varies as the mean score does over new images and new fits: once what is of second order,
which is in two images' numbers or in an image's and its own score, no longer counts twice.

Features are x = (a, b) here, principal and null coordinates, as in analyses/floor.py.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from singflow.analyses.metrics import Removal, unit
from singflow.artifacts.scratch import Scratch
from singflow.artifacts.shards import rows_of
from singflow.translators.crossfit import WHOLE, GroupSums, penalties
from singflow.translators.ridge import Affine, RidgeStatistics

ROWS = 512  # looked at at once
POWER = 1.4  # of the factor by which residuals shrink where a row was fitted to
DRAWS = {"random": 2, "null": 1}  # subspaces that stand for all of a kind and dimension: they answer to a refit alike
SCORES = {  # whose means get intervals, by what is removed
    "": ["is_deg", "as_deg", "as_abs_deg", "as_contrast_deg"],
    "conditional_": ["is_deg"],
    "control_": ["is_deg", "as_deg", "as_abs_deg"],
    "matched_": ["is_deg"],
}
RANKED = ["is_deg", "as_abs_deg"]  # by which models are compared
PARTS = ["half_a", "half_b", "answer_a", "answer_b"]  # of what an image adds to them: as each half shows it, and what weights change of it
PAIRS = 4.0  # all pairs of images are so many times those of an image that weighs and one that does not
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


def surprise(rank: int, predictors: Sequence[Affine]) -> Part:
    """What conditional removal takes from features: (0, b - B a).

    Parameters
    ----------
    rank : int
        Number r of principal coordinates.
    predictors : sequence of Affine
        B of every place, in float32.

    Returns
    -------
    callable
        Of features and the place of their fit.
    """

    def part(features: np.ndarray, place: int) -> np.ndarray:
        rest = features[:, rank:] - predictors[place](features[:, :rank])
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


def _shares(fits: Sequence[Fit], group: int) -> np.ndarray:
    """How much each map answers to an image of a group, as against one of the folds' maps that saw it."""
    return np.array([*(np.arange(len(fits) - 1) != group), fits[group].n / fits[WHOLE].n])


class Derivative:
    """Derivative of the sums of a score over two halves of images with respect to affine maps, one for each place.

    fits: the maps. By the place of those that are applied, weight: (2, out, in) float32; bias: (2, out), of the maps' value at the mean of
    their inputs.
    """

    def __init__(self, fits: Sequence[Fit]) -> None:
        self.fits = fits
        self.weight: dict[int, np.ndarray] = {}
        self.bias: dict[int, np.ndarray] = {}

    def add(self, place: int, half: np.ndarray, slope: np.ndarray, inputs: np.ndarray, *, affine: bool) -> None:
        """Add images.

        Parameters
        ----------
        place : int
            Of their map.
        half : ndarray of int, shape (k,)
            0 or 1.
        slope : ndarray of shape (k, out)
            Derivative of their scores with respect to what the map makes of them.
        inputs : ndarray of shape (k, in)
            What it is applied to.
        affine : bool
            Whether the map is applied whole, or its weight alone.
        """
        if affine:
            inputs = inputs - self.fits[place].mean.astype(np.float32)
        if place not in self.weight:
            out, width = self.fits[place].map.weight.shape
            self.weight[place], self.bias[place] = np.zeros((2, out, width), np.float32), np.zeros((2, out))
        for number in range(2):
            mine = slope[half == number]
            self.bias[place][number] += affine * mine.sum(axis=0)
            self.weight[place][number] += mine.astype(np.float32).T @ inputs[half == number]

    def of_unseen(self, group: int) -> Slope:
        """Derivative of the sums of the scores with respect to a change that all maps but a group's own share.

        Parameters
        ----------
        group : int
            Number of the group.

        Returns
        -------
        ndarray of shape (2, out, in), ndarray of shape (2, out)
            That of all training images changes by less, having more rows.
        """
        share = _shares(self.fits, group)
        weight, bias = ([share[place].astype(each.dtype) * each for place, each in of.items()] for of in (self.weight, self.bias))
        return reduce(np.add, weight), reduce(np.add, bias)


def pulls(fits: Sequence[Fit], training: Images, *, null: bool) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """How much each training row pulls at the maps that are fitted to it: what the maps would lose without it.

    The maps that saw an image are like the one that did not see it, but for the image itself: with its leverage q there, they leave
    1 / (1 + q) of its residual, and M x shrinks alike: the power 2. Residuals are smaller than errors, which asks for 1.5 (HC2) where
    features are given; but they are drawn as embeddings are, and the jackknife's 1 makes too much of that. POWER lies between, where
    intervals cover in planted trials.

    Parameters
    ----------
    fits : sequence of Fit
        Of every place.
    training : Images
        The training images.
    null : bool
        Whether the maps predict null coordinates from principal ones; otherwise embeddings from all.

    Yields
    ------
    group : int
        Of a block of images.
    chosen : ndarray of int
        Their ids.
    left : ndarray of shape (k, out), solved : ndarray of shape (k, in)
        Of each of their rows: the pull at the weight is the outer product of the two, and at the map's value at the mean of its inputs
        it is left over the number of rows.

    References
    ----------
    MacKinnon and White 1985.
    """
    width = len(fits[0].mean)
    for group in np.unique(training.group[training.group != WHOLE]):
        unseen = fits[group]
        for chosen in training.blocks(np.flatnonzero(training.group == group)):
            rows = rows_of(chosen, training.views)
            features = training.features[rows]
            inputs, targets = features[:, :width], features[:, width:] if null else training.embeddings[rows]
            centred = inputs - unseen.mean.astype(np.float32)
            solved = centred @ unseen.inverse
            shrunk = (1.0 + np.vecdot(solved, centred) + 1.0 / unseen.n) ** POWER
            yield group, chosen, (targets - unseen.map(inputs)) / shrunk[:, None], solved


def pulled(fits: Sequence[Fit], training: Images, weights: np.ndarray, *, null: bool) -> list[Affine]:
    """The maps where training images weigh more, or less, to first order.

    Parameters
    ----------
    fits, training, null
        As for pulls().
    weights : ndarray of shape (n,)
        What the weight 1 of each image grows by.

    Returns
    -------
    list of Affine
        Of every place, in float32.
    """
    weight, bias = (np.zeros((len(fits), *shape), np.float32) for shape in (fits[0].map.weight.shape, fits[0].map.bias.shape))
    for group, chosen, left, solved in pulls(fits, training, null=null):
        left = left * np.repeat(weights[chosen], training.views)[:, None]
        more, shift = left.T @ solved, left.sum(axis=0) / fits[group].n
        share = _shares(fits, group)
        for place in np.flatnonzero(share):
            weight[place] += np.float32(share[place]) * more
            bias[place] += share[place] * shift
    moved = zip(fits, weight, bias, strict=True)
    return [Affine(each.map.weight + more, each.map.bias + (shift - more @ each.mean).astype(np.float32)) for each, more, shift in moved]


def carried(derivatives: dict[str, Derivative], training: Images, *, null: bool) -> dict[str, np.ndarray]:
    """What each training image adds, through the maps that are fitted to it, to sums of scores over two halves of images.

    Parameters
    ----------
    derivatives : dict of str to Derivative
        Of each score, with respect to the same maps.
    training : Images
        The training images.
    null : bool
        As for pulls().

    Returns
    -------
    dict of str to ndarray of shape (2, n)
        Of each score; mean 0 over the images that maps are fitted to, and 0 for others.

    References
    ----------
    Jaeckel 1972; Efron 2014.
    """
    found, fitted = {name: np.zeros((2, len(training.group))) for name in derivatives}, training.group != WHOLE
    fits, at = next(iter(derivatives.values())).fits, WHOLE
    for group, chosen, left, solved in pulls(fits, training, null=null):
        if group != at:
            at, slopes_of = group, {name: each.of_unseen(group) for name, each in derivatives.items()}
        for name, (weight, bias) in slopes_of.items():
            each = np.vecdot(left @ weight, solved) + bias @ left.T / fits[group].n
            found[name][:, chosen] = each.reshape(2, -1, training.views).sum(axis=2)
    return {name: np.where(fitted, each - each[:, fitted].mean(axis=1, keepdims=True), 0.0) for name, each in found.items()}


def influences(
    images: Images, training: Images, translators: Sequence[Fit], maps: Sequence[Affine], parts: Sequence[Part], texts: np.ndarray,
    codes: np.ndarray, names: Sequence[str], predictors: Sequence[Fit] = (),
) -> dict[str, np.ndarray]:  # fmt: skip
    """What training images add to mean scores through the fits, as far as it shows in either half of the images of every label.

    Parameters
    ----------
    images : Images
        Those that are scored.
    training : Images
        Those that are fitted to; the same, or others.
    translators : sequence of Fit
        Of every place.
    maps : sequence of Affine
        What images are scored with: the translators' own maps, or others close to them.
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
    dict of str to ndarray of shape (2, n of training)
        In degrees, of which the sum is to be added to each image's own score, as far as the mean over images goes; times n of training
        over n of images where these are others.
    """
    rank = len(predictors[0].mean) if predictors else 0
    known = [name for name in names if len(texts) > 1 or name != "as_contrast_deg"]
    halves = np.empty(len(codes), dtype=int)
    halves[np.lexsort((codes, images.place))] = np.arange(len(codes)) % 2
    direct, through = {name: Derivative(translators) for name in known}, {name: Derivative(predictors) for name in known if predictors}
    for part in parts:
        for place, chosen, features, taken, removal in scored(images, maps, part):
            half = halves[chosen]
            for name, (of_original, of_removed) in slopes(removal, texts, codes[chosen], known).items():
                direct[name].add(place, half, of_original / len(parts), features, affine=True)
                direct[name].add(place, half, of_removed / len(parts), taken, affine=False)
                if predictors:
                    hidden = maps[place].weight[:, rank:]
                    through[name].add(place, half, -of_removed @ hidden / len(parts), features[:, :rank], affine=True)
    found = carried(direct, training, null=False)
    added = carried(through, training, null=True) if through else {}
    return {name: each + added.get(name, 0.0) for name, each in found.items()}


def signs(group: np.ndarray, seed: int) -> np.ndarray:
    """Weights that move the maps as the chance of which images were drawn does: 1 or -1 at random for half of the images, 0 for others.

    Parameters
    ----------
    group : ndarray of shape (n,)
        As in Images; images that nothing is fitted to have 0.
    seed : int
        Seeds the draw, together with n.

    Returns
    -------
    ndarray of shape (n,)
        Weights as `pulled` takes them.
    """
    generator, drawn = np.random.default_rng([seed, len(group)]), np.zeros(len(group))
    chosen = generator.permutation(np.flatnonzero(group != WHOLE))[::2]
    drawn[chosen] = generator.choice([-1.0, 1.0], len(chosen))
    return drawn


def _products(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Symmetric sums of products over the rows of two arrays (n, c): (c, c)."""
    products = first.T @ second
    return (products + products.T) / 2.0


def _scaled(numbers: np.ndarray, products: np.ndarray, scale: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Numbers (n, c), of which each combination is scaled by what part of its sum of squares the products (c, c) make."""
    u, s, v = np.linalg.svd(numbers, full_matrices=False)
    kept = s > 1e-7 * s.max()
    white = v[kept].T / s[kept]
    part, axes = np.linalg.eigh(white.T @ products @ white)
    return u[:, kept] @ (axes * scale(part)) @ axes.T @ (s[kept, None] * v[kept])


def answers(halves: np.ndarray, moved: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """What images add together with those that the weights move.

    Parameters
    ----------
    halves : ndarray of shape (2, n, c)
        What images add to scores, out of influences().
    moved : ndarray of shape (2, n, c)
        The same with the maps as the weights move them.
    weights : ndarray of shape (n,)
        Out of signs().

    Returns
    -------
    ndarray of shape (2, n, c)
        The difference, and 0 for the images that weigh.
    """
    return np.where(weights[:, None] == 0, moved - halves, 0.0)


def once(halves: np.ndarray, answered: np.ndarray) -> np.ndarray:
    """What images add through the fits, without what their spread counts twice.

    Two things are twice in their spread. The derivative of mean scores varies with the images that are scored, as do these images' own
    scores: only what two halves of them agree on is the fit's. And what two training images do together is in what each of them adds:
    half of it is taken off (Efron and Stein); at most all that an image adds is of this kind. Both are done to all combinations of scores
    alike, so that differences and ratios keep their pairing.

    Parameters
    ----------
    halves : ndarray of shape (2, n, c)
        What images add to scores, out of influences().
    answered : ndarray of shape (2, n, c)
        Out of answers().

    Returns
    -------
    ndarray of shape (n, c)
        To be added to the images' own scores before their means are resampled.

    References
    ----------
    Efron and Stein 1981.
    """
    agreed = _scaled(halves.sum(axis=0), 4.0 * _products(*halves), lambda part: np.sqrt(np.maximum(part, 0.0)))
    return _scaled(agreed, PAIRS * 4.0 * _products(*answered), lambda part: np.sqrt(1.0 - np.clip(part, 0.0, 1.0) / 2.0))


def factor_once(halves: np.ndarray, answered: np.ndarray) -> float:
    """The same for one combination of scores, which may be of several models: by what its numbers are to be multiplied.

    What once() takes off of many combinations together is too little for those that are mostly of second order, as are differences of
    models: shares that chance makes larger than all, or negative, are cut off, and the more combinations, the more of these.

    Parameters
    ----------
    halves, answered : ndarray of shape (2, n)
        As for once().

    Returns
    -------
    float
        0 to about 1.
    """
    whole, agreed = np.sum(halves.sum(axis=0) ** 2), max(4.0 * float(np.vecdot(*halves)), 0.0)
    together = np.clip(PAIRS * 4.0 * np.vecdot(*answered), 0.0, agreed)
    return float(np.sqrt((agreed - together / 2.0) / whole)) if whole > 0 else 0.0


def refitted(
    images: Images, training: Images, translators: Sequence[Fit], predictors: Sequence[Fit], parts: dict[str, list[Part]],
    texts: np.ndarray, codes: np.ndarray, seed: int,
) -> dict[str, np.ndarray]:  # fmt: skip
    """What images add to mean scores through the translators that are fitted to them.

    Parameters
    ----------
    images : Images
        Those that are scored.
    training : Images
        Those that are fitted to; the same, or those of a reference.
    translators, predictors : sequence of Fit
        Of every place.
    parts : dict of str to list of callable
        What is removed, by the prefix of its scores; those of conditional_ are what the predictors do not predict.
    texts : ndarray of shape (L, m)
        Unit embeddings of the labels.
    codes : ndarray of int, shape (n,)
        Row of texts for each image that is scored.
    seed : int
        As for signs().

    Returns
    -------
    dict of str to ndarray of shape (n of training,)
        Numbers whose mean varies as the mean of a score does over new fits: out of once(); of scores of conditional_ with the chance of
        the scored images. Of the scores by which models are compared also what once() takes, in float32: <score>_<part> of PARTS.
    """
    weights, rank = signs(training.group, seed), len(predictors[0].mean)
    unseen = surprise(rank, pulled(predictors, training, weights, null=True))
    cases = (
        ([each.map for each in translators], parts),
        (pulled(translators, training, weights, null=False), parts | {"conditional_": [unseen]}),
    )
    found: list[dict[str, np.ndarray]] = []
    for maps, removed in cases:
        found.append({})
        for prefix, each in removed.items():
            given = predictors if prefix == "conditional_" else ()
            added = influences(images, training, translators, maps, each, texts, codes, SCORES.get(prefix, RANKED), given)
            found[-1] |= {prefix + name: values for name, values in added.items()}
    kept: dict[str, np.ndarray] = {}
    for two_fits in (False, True):  # what two fits do together first order misses: their scores keep the chance of the scored images
        names = [name for name in found[0] if name.startswith("conditional_") == two_fits]
        halves, moved = (np.stack([each[name] for name in names], axis=-1) for each in found)
        if two_fits:
            halves, moved = (np.broadcast_to(each.mean(axis=0), each.shape) for each in (halves, moved))
        answered = answers(halves, moved, weights)
        kept |= dict(zip(names, once(halves, answered).T, strict=True))
        for position, name in enumerate(names):
            if not two_fits and name.endswith(tuple(RANKED)) and not name.startswith("matched_"):
                of_both = (each[..., position].astype(np.float32) for each in (*halves, *answered))
                kept |= {f"{name}_{part}": each for part, each in zip(PARTS, of_both, strict=True)}
    return {name: each * (len(training.group) / len(codes)) for name, each in kept.items()}
