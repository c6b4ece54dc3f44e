"""The floor: against a slow, plain implementation, and on planted null components with and without content."""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from singflow.analyses import floor
from singflow.analyses.metrics import angle_deg
from singflow.translators.crossfit import WHOLE, GroupSums, split


def manifest_of(n, folds, seed, given=0):
    """n images in folds; the last `given` are held out by the data itself."""
    fold = np.random.default_rng(seed).permutation(n) % folds
    held_out = np.arange(n) >= n - given
    fold[held_out] = 1
    return pd.DataFrame({"split": np.where(held_out | (fold == 0), "validation", "train"), "fold": fold})


class Planted:
    """Images with views, features (a, b) and embeddings, and all that a floor is measured with."""

    def __init__(
        self, seed, *, n=60, rank=7, null_dim=5, dim=4, views=2, folds=3, given=0, cross=None, offset=0.0, scale=1.0, lambdas=(0.3, 0.1)
    ):
        generator = np.random.default_rng(seed)
        self.rank, self.views, self.lambdas = rank, views, lambdas
        self.manifest = manifest_of(n, folds, seed, given)
        self.a = generator.standard_normal((n * views, rank)) + offset
        self.b = 0.5 * self.a @ generator.standard_normal((rank, null_dim)) + generator.standard_normal((n * views, null_dim))
        self.z = self.a @ generator.standard_normal((rank, dim)) + 0.3 * generator.standard_normal((n * views, dim)) + offset
        self.image, self.view = np.repeat(np.arange(n), views), np.tile(np.arange(views), n)
        self.split = split(self.manifest, folds if cross is None else cross)
        self.sums = GroupSums(self.split)
        self.sums.update(np.hstack([self.a, self.b]), self.z, self.image, self.view)
        self.texts, self.codes = generator.standard_normal((3, dim)), np.arange(n) % 3
        self.refits = floor.Refits(self.sums, rank, lambdas, self.split.place(), scale)
        self.rows = rows_of(self.refits, self.sums, self.a, self.b, self.z, self.image, views)

    def measure(self, permutations=4, seed=5):
        return floor.measure(self.refits, self.rows, self.rows, self.rank, self.texts, self.codes, permutations=permutations, seed=seed)


def rows_of(refits, sums, a, b, z, image, views):
    groups = sums.split.groups
    predicted = np.empty_like(b)
    for group in np.unique(groups):
        mine = groups[image] == group
        predicted[mine] = refits.predictor_of(group)(a[mine])
    origin = sums.origin[0][: a.shape[1]], sums.origin[1]
    narrow = [each.astype(np.float32) for each in (a - origin[0], z - origin[1], b - predicted, predicted[::views])]
    return floor.Rows(*narrow, origin, groups, views)


def slow(planted, order, scale):
    """Scores by scikit-learn on rows that are made anew: IS, AS, conditional IS and AS, squared error."""
    own, groups, views = planted.split, planted.split.groups, planted.views
    row_order = (order[:, None] * views + np.arange(views)).ravel()

    def ridge(x, y, rows, penalty):
        scale = np.mean(np.sum((x[rows] - x[rows].mean(axis=0)) ** 2, axis=1))
        return Ridge(alpha=penalty * scale).fit(x[rows], y[rows])

    def fits(x, y, penalty):
        rows = [np.isin(groups, made)[planted.image] for made, _ in own.fits] if own.crossed else []
        return [ridge(x, y, mine, penalty) for mine in [*rows, np.isin(groups, own.whole)[planted.image]]]

    def place_of(image):
        return groups[image] if own.crossed else WHOLE

    def by_place(models, x):
        return np.stack([models[place_of(i)].predict(row[None])[0] for i, row in zip(planted.image, x, strict=True)])

    predicted = by_place(fits(planted.a, planted.b, planted.lambdas[1]), planted.a)
    moved = predicted + scale * (planted.b - predicted)[row_order]
    x = np.hstack([planted.a, moved])
    translators = fits(x, planted.z, planted.lambdas[0])
    original = by_place(translators, x)[::views]
    share = np.stack([translators[place_of(i)].coef_[:, planted.rank :] @ b for i, b in enumerate(moved[::views])])
    again = by_place(fits(planted.a, moved, planted.lambdas[1]), planted.a)[::views]
    surprise = np.stack([translators[place_of(i)].coef_[:, planted.rank :] @ b for i, b in enumerate(moved[::views] - again)])
    texts = planted.texts[planted.codes]
    before = angle_deg(original, texts)
    return {
        "is_deg": angle_deg(original, original - share),
        "as_deg": before - angle_deg(original - share, texts),
        "conditional_is_deg": angle_deg(original, original - surprise),
        "conditional_as_deg": before - angle_deg(original - surprise, texts),
        "squared_error": np.sum((original - planted.z[::views]) ** 2, axis=1),
    }


@settings(max_examples=15)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([{}, {"views": 1}, {"given": 9}, {"cross": 0}, {"offset": 1e3}, {"folds": 2, "views": 3}, {"scale": 0.7}]),
)
def test_a_permutation_scores_as_rows_that_are_made_anew_and_fitted_by_scikit_learn(seed, setting):
    planted = Planted(seed, **setting)
    order = planted.rows.permute(np.random.default_rng(seed))
    for chosen, scale in ((order, planted.refits.scale), (np.arange(len(order)), 1.0)):
        fits = planted.refits.fit(planted.rows, order if chosen is order else None)
        scored = floor.score(fits, planted.rank, planted.rows, chosen, planted.texts[planted.codes], scale)
        expected = slow(planted, chosen, scale)
        digits = 100 if "offset" in setting else 1  # features and embeddings are float32
        for name in floor.SCORES:
            np.testing.assert_allclose(scored.scores[name], expected[name], atol=2e-4 * digits, err_msg=name)
        np.testing.assert_allclose(scored.squared_error, expected["squared_error"], rtol=1e-4 * digits, atol=1e-5 * digits)


def test_residuals_stay_in_their_group_and_every_image_gets_those_of_one():
    planted = Planted(0, given=9)
    order = planted.rows.permute(np.random.default_rng(1))
    groups = planted.rows.groups
    assert sorted(order) == list(range(len(order))) and (groups[order] == groups).all() and (order != np.arange(len(order))).mean() > 0.7
