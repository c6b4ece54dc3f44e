"""Cross-fitting against scikit-learn's Ridge on rows that are picked out of the manifest."""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from singflow.translators import crossfit
from singflow.translators.crossfit import WHOLE, GroupSums, cross_validate, penalties, split
from singflow.translators.ridge import Affine
from tests.refusals import refused

LAMBDAS = [1e-4, 1e-2, 0.1, 1.0, 10.0]
SEEDS = st.integers(0, 2**32 - 1)


def ridge(x, z, penalty):
    """scikit-learn's, with the penalty in units of the mean squared distance of x from its mean."""
    alpha = penalty * ((x - x.mean(axis=0)) ** 2).sum(axis=1).mean()
    return Ridge(alpha=alpha, solver="svd").fit(x, z)


class Study:
    """Rows of images with views; the data holds out the last `given`. Folds 0: one translator."""

    def __init__(
        self, seed, *, n=40, folds=4, given=0, views=2, width=6, dim=3, noise=1.0, offset=0.0
    ):
        generator = np.random.default_rng(seed)
        self.folds = folds
        fold = generator.permutation(n) % (folds or 4)
        held_out = np.arange(n) >= n - given
        fold[held_out] = 1 + np.arange(given) % 2
        split_of = np.where(held_out | (fold == 0), "validation", "train")
        self.manifest = pd.DataFrame({"split": split_of, "fold": fold})
        self.image, self.view = np.repeat(np.arange(n), views), np.tile(np.arange(views), n)
        draw, rows = generator.standard_normal, n * views
        self.features = draw((rows, width)) * np.geomspace(1, 10, width) + offset
        planted = self.features @ draw((width, dim))
        self.embeddings = planted + 10 * noise * draw((rows, dim)) - offset
        # Which training rows each translator did not see, and is judged on.
        train, fold = (split_of == "train")[self.image], fold[self.image]
        self.training = train | ((fold == 0) & bool(folds))
        self.unseen = [self.training & (fold == number) for number in range(folds)] or [~train]

    def sums(self):
        sums = GroupSums(split(self.manifest, self.folds))
        sums.update(self.features, self.embeddings, self.image, self.view)
        return sums

    def ridge(self, penalty, rows):
        return ridge(self.features[rows], self.embeddings[rows], penalty)

    def errors(self, penalty):
        """Squared errors on view 0 of every group, and those of the mean embedding."""
        pairs = []
        for unseen in self.unseen:
            made, judged = self.training & ~unseen, unseen & (self.view == 0)
            z, error = self.embeddings[judged], 0.0
            if judged.any():
                predicted = self.ridge(penalty, made).predict(self.features[judged])
                error = ((predicted - z) ** 2).sum()
            pairs.append((error, ((z - self.embeddings[made].mean(axis=0)) ** 2).sum()))
        return np.array(pairs)


SETTINGS = [{}, {"views": 1}, {"views": 3, "folds": 2}, {"given": 9}, {"given": 9, "folds": 3}]
SETTINGS += [{"folds": 0}, {"folds": 0, "given": 9}, {"offset": 1e3}, {"noise": 10.0}]
SETTINGS += [{"n": 12, "folds": 6, "width": 30}]


@settings(max_examples=25)
@given(SEEDS, st.sampled_from(SETTINGS))
def test_every_fit_is_scikit_learns_ridge_on_the_training_rows_of_all_other_folds(seed, setting):
    study = Study(seed, **setting)
    sums = study.sums()
    unseen = [*study.unseen, np.zeros(len(study.image), bool)]
    groups = [*(groups for groups, _ in sums.split.fits), sums.split.whole]
    for mine, other in zip(groups, unseen, strict=True):
        rows, made = study.training & ~other, sums.of(mine)
        x, z = study.features[rows], study.embeddings[rows]
        assert made.n == rows.sum()
        np.testing.assert_allclose(made.embedding_mean, z.mean(axis=0), rtol=0, atol=1e-10)
        scale = ((x - x.mean(axis=0)) ** 2).sum(axis=1).mean()
        alphas = penalties(made, LAMBDAS)
        np.testing.assert_allclose(alphas, np.array(LAMBDAS) * scale, rtol=1e-10)
        for penalty, path in zip(LAMBDAS, made.path(alphas), strict=True):
            theirs = study.ridge(penalty, rows)
            predicted = theirs.predict(study.features)
            for ours in (path, made.solve(*penalties(made, [penalty]))):
                np.testing.assert_allclose(ours.weight, theirs.coef_, rtol=0, atol=1e-8)
                np.testing.assert_allclose(ours(study.features), predicted, rtol=0, atol=1e-6)


@settings(max_examples=25)
@given(SEEDS, st.sampled_from(SETTINGS))
def test_the_chosen_lambda_has_the_least_squared_error_of_view_0_over_all_folds(seed, setting):
    study = Study(seed, **setting)
    validation = cross_validate(study.sums(), LAMBDAS)
    plain = np.array([study.errors(penalty) for penalty in LAMBDAS])
    np.testing.assert_allclose(validation.errors, plain[:, :, 0].T, rtol=1e-8)
    np.testing.assert_allclose(validation.baseline, plain[0, :, 1], rtol=1e-10)
    assert validation.n.tolist() == [(unseen & (study.view == 0)).sum() for unseen in study.unseen]
    total = plain.sum(axis=1)
    best = total[:, 0].argmin()
    assert validation.best == best
    assert validation.at_edge == (best in (0, len(LAMBDAS) - 1))
    np.testing.assert_allclose(validation.r2, 1 - total[:, 0] / total[:, 1], atol=1e-8)


def validation_of(errors, lambdas, n=(10, 10)):
    errors = np.array(errors, dtype=float)
    return crossfit.Validation(lambdas, errors, np.ones(len(n)), np.array(n))


def test_the_best_lambda_is_at_the_edge_by_its_value_and_the_last_of_equal_ones():
    for lambdas, totals, best, at_edge in (
        ([2, 1, 3], [1, 2, 3], 2, False),
        ([3, 1, 2], [1, 2, 3], 3, True),
        ([1, 2, 3], [1, 1, 2], 2, False),
        ([5], [7], 5, False),
    ):
        errors = np.array(totals) / 4
        validation = validation_of([errors, 3 * errors], lambdas)
        assert (lambdas[validation.best], validation.at_edge) == (best, at_edge)


def test_values_that_are_all_alike_are_refused():
    for array, message in (
        ("embeddings", "every held-out embedding is the mean of the training embeddings, so there"),
        ("features", "features of the training images are all alike: look at the images and at"),
    ):
        study = Study(0)
        getattr(study, array)[:] = 3
        refused(message, lambda sums: cross_validate(sums, LAMBDAS).r2, study.sums())


def test_without_any_feature_there_is_nothing_to_penalize_and_the_mean_is_predicted():
    study = Study(0)
    study.features = study.features[:, :0]
    sums = study.sums()
    made = sums.of([1, 2, 3])
    assert penalties(made, [2.0]) == [0.0]
    mean = study.embeddings[~study.unseen[0]].mean(axis=0)
    np.testing.assert_allclose(made.solve(0.0).bias, mean)
    assert not cross_validate(sums, LAMBDAS).r2.any()


def test_sums_without_rows_are_refused():
    study = Study(0)
    empty = GroupSums(split(study.manifest, 4))
    empty.update(study.features[:0], study.embeddings[:0], study.image[:0], study.view[:0])
    for ask, groups in ((empty.of, [0, 1]), (empty.held_out, 0)):
        refused("no image is in the training set: a translator needs", ask, groups)


def manifest_of(*images):
    return pd.DataFrame(images, columns=["split", "fold"])


HELD = "validation"
SIX = [(HELD, 0), ("train", 2), ("train", 1), (HELD, 2), ("train", 1), (HELD, 1)]


def test_images_are_in_the_group_of_their_fold_and_held_out_ones_in_none():
    for images, folds, groups, fits, whole in (
        (SIX, 3, [0, 2, 1, WHOLE, 1, WHOLE], [([1, 2], 0), ([0, 2], 1), ([0, 1], 2)], [0, 1, 2]),
        # Where the data hold images out, fold 0 is one of training images.
        ([("train", 0), ("train", 1), (HELD, 1)], 2, [0, 1, WHOLE], [([1], 0), ([0], 1)], [0, 1]),
        # Without folds, one translator of the training images is judged on all others.
        ([(HELD, 0), ("train", 2), ("train", 0), (HELD, 2)], 0, [1, 0, 0, 1], [([0], 1)], [0]),
    ):
        made = split(manifest_of(*images), folds)
        assert (made.groups.tolist(), made.fits, made.whole) == (groups, fits, whole)
        assert made.crossed == bool(folds)
        assert made.member_of.tolist() == (groups if folds else [WHOLE] * len(groups))
        assert made.groups.dtype == made.member_of.dtype == np.int32


def test_a_fold_without_training_images_keeps_its_place_and_judges_nothing():
    images = [(HELD, 0), ("train", 3), ("train", 1), (HELD, 2)] * 5
    made = split(manifest_of(*images), 4)
    assert made.fits == [([1, 3], 0), ([0, 3], 1), ([0, 1, 3], 2), ([0, 1], 3)]
    assert made.whole == [0, 1, 3]
    sums, draw = GroupSums(made), np.random.default_rng(0).standard_normal
    sums.update(draw((20, 3)), draw((20, 2)), np.arange(20), np.zeros(20))
    validation = cross_validate(sums, LAMBDAS)
    assert validation.n.tolist() == [5, 5, 0, 5]
    assert validation.baseline[2] == 0 and not validation.errors[2].any()
    assert (validation.errors[[0, 1, 3]] > 0).all()


def test_training_images_in_fewer_than_two_folds_are_refused():
    fix = r"at least two folds: add images, or write translator\.reference: packaged"
    for images in ([("train", 1), (HELD, 2), (HELD, 3)], [(HELD, 1)]):
        message = f"cross-fitting needs training images in {fix}"
        refused(message, split, manifest_of(*images), 4)


def cross_fitted(generator, folds):
    """Translators of 4 features into 3 dimensions, and the folds of 12 images."""
    draw = generator.standard_normal
    members = tuple(Affine(draw((3, 4)), draw(3)) for _ in range(folds + 1))
    numbers = generator.integers(WHOLE, folds, (2, 12)).astype(np.int32)
    return crossfit.CrossFitted(members, *numbers)


DIGITS = {np.float16: 3e-2, np.float32: 1e-5, np.float64: 1e-12}


@settings(max_examples=50)
@given(SEEDS, st.integers(0, 4), st.integers(0, 30), st.sampled_from([*DIGITS]))
def test_every_row_is_translated_by_the_map_of_its_own_image(seed, folds, n, dtype):
    generator = np.random.default_rng(seed)
    translators = cross_fitted(generator, folds)
    assert translators.whole is translators.members[folds]
    features = generator.standard_normal((n, 4)).astype(dtype)
    image_id = generator.integers(0, 12, n)
    found = translators(features, image_id)
    assert (found.dtype, found.shape) == (dtype, (n, 3))
    expected = [
        translators.members[translators.member_of[image]](row[None].astype(np.float64))[0]
        for image, row in zip(image_id, features, strict=True)
    ]
    np.testing.assert_allclose(found, np.reshape(expected, (n, 3)), rtol=0, atol=DIGITS[dtype])
    factors = np.arange(1, folds + 2)
    by = iter(factors)
    times = translators.map(lambda of: Affine((factor := next(by)) * of.weight, factor * of.bias))
    expected = factors[times.member_of[image_id], None] * np.reshape(expected, (n, 3))
    np.testing.assert_allclose(times(features, image_id), expected, atol=5 * DIGITS[dtype])
    assert times.member_of is translators.member_of and times.fold is translators.fold
    parts = dict(translators.parts(image_id))
    assert sorted(np.concatenate([np.zeros(0, int), *parts.values()])) == list(range(n))
    for place, rows in parts.items():
        assert len(rows) and (translators.member_of[image_id[rows]] == place).all()
