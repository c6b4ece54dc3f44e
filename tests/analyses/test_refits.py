"""What the fit adds to the uncertainty of mean scores: beside derivatives, fits without an image, and new images and fits in each trial."""

import runpy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from singflow.analyses import refits
from singflow.analyses.metrics import Removal, contrast_deg
from singflow.analyses.ranking import CRITERIA, RATIOS, criterion_parts, pair_rows
from singflow.analyses.statistics import Sample
from singflow.translators.crossfit import WHOLE, GroupSums, split
from tests.project import ROOT

NAMES = refits.SCORES[""]
RANK, NULL_DIM, DIM = 9, 6, 5
PENALTIES = 0.05, 0.02


def scores_of(removal, texts, own):
    attribute = removal.attribute_score(texts[own])
    return dict(zip(NAMES, [removal.image_score(), attribute, np.abs(attribute), contrast_deg(removal, texts, own)], strict=True))


def test_slopes_are_the_derivatives_of_the_scores():
    generator = np.random.default_rng(0)
    original, removed = generator.standard_normal((2, 7, DIM)) * [[[3.0]], [[1.0]]]
    texts, own = generator.standard_normal((4, DIM)), np.arange(7) % 4
    texts = (texts / np.linalg.norm(texts, axis=1, keepdims=True)).astype(np.float32)
    found = refits.slopes(Removal(original, removed), texts, own, NAMES)
    assert list(found) == NAMES
    for axis in range(DIM):
        step = 1e-2 * np.eye(DIM)[axis]
        ends = [[Removal(original + s * step, removed), Removal(original, removed + s * step)] for s in (1, -1)]
        for name, slopes in found.items():
            for which, slope in enumerate(slopes):
                up, down = (scores_of(each[which], texts, own)[name] for each in ends)
                np.testing.assert_allclose(slope[:, axis], (up - down) / 2e-2, atol=0.15, err_msg=name)
    still = refits.slopes(Removal(original, np.zeros_like(removed)), texts, own, NAMES)
    assert all(np.isfinite(each).all() for slopes in still.values() for each in slopes)
    assert list(refits.slopes(Removal(original, removed), texts[:1], np.zeros(7, dtype=int), NAMES)) == NAMES[:3]


class World:
    """What stays: how embeddings follow from features, texts, random subspaces. What is drawn: images, and perhaps their labels."""

    def __init__(self, seed, *, content, labels=6, classes=0.0, noise=1.5):
        generator = np.random.default_rng(seed)
        self.labels, self.classes, self.noise = labels, classes, noise
        self.seen, self.hidden = generator.standard_normal((RANK, DIM)), content * generator.standard_normal((NULL_DIM, DIM))
        self.between, self.bias = generator.standard_normal((RANK, NULL_DIM)) / 3, 4 * np.eye(DIM)[0]
        self.subspaces = [np.linalg.qr(generator.standard_normal((RANK + NULL_DIM, NULL_DIM)))[0] for _ in range(2)]
        self.fixed = self.labelled(generator, 0.6)

    def labelled(self, generator, spread):
        texts = generator.standard_normal((self.labels, DIM)) + 0.7 * self.bias
        return spread * generator.standard_normal((self.labels, RANK + NULL_DIM)), texts / np.linalg.norm(texts, axis=1, keepdims=True)

    def draw(self, seed, n, models=1):
        """Features of each model, embeddings, labels, texts; models see the same images, each with its own noise."""
        generator, codes = np.random.default_rng([5, seed]), np.arange(n) % self.labels
        effects, texts = self.labelled(generator, self.classes) if self.classes else self.fixed
        own = generator.standard_normal((n, RANK + NULL_DIM)) + effects[codes]
        z = own[:, :RANK] @ self.seen + own[:, RANK:] @ self.hidden + self.bias + 2.0 * generator.standard_normal((n, DIM))
        features = []
        for _ in range(models):
            mine = own + self.noise * generator.standard_normal(own.shape) if models > 1 else own
            features.append(np.hstack([mine[:, :RANK], 0.6 * mine[:, :RANK] @ self.between + 0.5 * mine[:, RANK:]]).astype(np.float32))
        return features, z.astype(np.float32), codes, texts.astype(np.float32)

    def measure(self, features, z, codes, texts, *, seed, keep=None, through=refits.refitted, views=1, reference=None, prefixes=None):
        """Scores of every image by name, and what it adds through the fits, or what those of a reference add.

        Fitted to the images, or to the reference's features and embeddings, without the image that is not kept. prefixes: of scores wanted.
        """
        seen, embeddings = (features, z) if reference is None else reference
        k, n = len(seen) // views, len(codes)
        fold = np.random.default_rng(seed).permutation(k) % 5
        manifest = pd.DataFrame({"split": np.where(fold == 0, "validation", "train"), "fold": fold})
        sums, image, view = GroupSums(split(manifest, 5)), np.repeat(np.arange(k), views), np.tile(np.arange(views), k)
        rows = slice(None) if keep is None else keep[image]
        sums.update(seen[rows], embeddings[rows], image[rows], view[rows])
        fits, between = refits.fits_of(sums, PENALTIES[0]), sums.regress(slice(0, RANK), slice(RANK, None))
        predictors = refits.fits_of(between, PENALTIES[1])
        images = training = refits.Images(seen, embeddings, sums.split.place, sums.split.groups, views)
        if reference is not None:
            images = refits.Images(features, z, *np.full((2, n), WHOLE), views)
        parts = {
            "": [refits.null_part(RANK)],
            "conditional_": [refits.surprise(RANK, [each.map for each in predictors])],
            "control_": [refits.Inside(each) for each in self.subspaces],
            "matched_": [refits.Inside(each, rank=RANK) for each in self.subspaces],
        }
        scores = {}
        parts = {prefix: each for prefix, each in parts.items() if prefix in (prefixes or parts)}
        for prefix in parts:
            names = refits.SCORES[prefix]
            scores |= {prefix + name: np.zeros(n) for name in names}
            for part in parts[prefix]:
                for _, chosen, _, _, removal in refits.scored(images, [each.map for each in fits], part):
                    found = scores_of(removal, texts, codes[chosen])
                    for name in names:
                        scores[prefix + name][chosen] += found[name] / len(parts[prefix])
        added = through(images, training, fits, predictors, parts, texts, codes, seed) if through else {}
        return pd.DataFrame(scores), pd.DataFrame(added)


def stacked(scores, added, beside):
    """Rows as a sample takes them: added to each other, or one below the other."""
    return pd.concat([scores, added])[list(scores)] if beside else scores + added[list(scores)]


def to_first_order(images, training, fits, predictors, parts, texts, codes, seed):
    """What images add before what their spread counts twice is taken off."""
    maps, found = [each.map for each in fits], {}
    for prefix, names in refits.SCORES.items():
        given = predictors if prefix == "conditional_" else ()
        each = refits.influences(images, training, fits, maps, parts[prefix], texts, codes, names, given)
        found |= {prefix + name: halves.sum(axis=0) for name, halves in each.items()}
    return found


@pytest.mark.parametrize(("views", "beside"), [(1, False), (2, False), (1, True), (2, True)])
def test_what_an_image_adds_is_what_mean_scores_lose_without_it(views, beside):
    world, n, dropped = World(0, content=0.5), 240, 40
    (features,), z, codes, texts = world.draw(1, n * views)
    codes, others = codes[:n], world.draw(2, n * views)
    given = {"seed": 1, "views": views, "reference": (others[0][0], others[1]) if beside else None}
    scores, added = world.measure(features, z, codes, texts, through=to_first_order, **given)
    lost = []
    for image in range(dropped):
        without, _ = world.measure(features, z, codes, texts, keep=np.arange(n) != image, through=None, **given)
        lost.append((scores - without).sum())
    lost = pd.DataFrame(lost)
    for name in added:
        assert abs(added[name].mean()) < 1e-9
        slope = np.polyfit(added[name][:dropped], lost[name], 1)[0]
        assert np.corrcoef(added[name][:dropped], lost[name])[0, 1] > 0.9 and 0.85 < slope < 1.2, (name, slope)


def test_an_image_that_nothing_is_fitted_to_adds_nothing():
    world, n = World(0, content=0.5), 60
    (features,), z, codes, texts = world.draw(2, n)
    fold = np.arange(n) % 3
    held_out = np.arange(n) >= 50
    fold[held_out] = 1
    sums = GroupSums(split(pd.DataFrame({"split": np.where(held_out | (fold == 0), "validation", "train"), "fold": fold}), 3))
    sums.update(features, z, np.arange(n), np.zeros(n, dtype=int))
    images = refits.Images(features, z, sums.split.place, sums.split.groups, 1)
    fits = refits.fits_of(sums, 0.1)
    maps = [each.map for each in fits]
    added = refits.influences(images, images, fits, maps, [refits.null_part(RANK)], texts, codes, ["is_deg"])["is_deg"].sum(axis=0)
    assert (images.group[held_out] == WHOLE).all() and (added[held_out] == 0).all() and (added[~held_out] != 0).all()
    alone = refits.Images(
        features, z, np.where(held_out, 0, images.place), images.group, 1
    )  # scored by a fold's fit: what the whole one adds
    other = refits.influences(alone, images, fits, maps, [refits.null_part(RANK)], texts, codes, ["is_deg"])["is_deg"].sum(axis=0)
    assert not np.allclose(added, other)


def test_what_is_counted_twice_is_taken_off_of_every_combination_of_scores_alike():
    """Two scores with a part in common: noise of the images that are scored, and a part that training images make in pairs."""
    generator, n = np.random.default_rng(0), 400
    mixing = np.array([[1.0, 0.6], [0.0, 1.0]])
    weights = refits.signs(np.arange(n) % 5, 3)
    assert (weights != 0).sum() == n / 2 and set(weights) == {-1.0, 0.0, 1.0}

    def spread(numbers):
        return numbers.T @ numbers / n

    own, noise = generator.standard_normal((n, 2)), generator.standard_normal((2, n, 2))
    halves = np.stack([own + each for each in noise]) / 2 @ mixing
    found = refits.once(halves, np.zeros_like(halves))
    np.testing.assert_allclose(spread(found), spread(own @ mixing), atol=0.25)
    assert (spread(halves.sum(axis=0)) > 1.3 * spread(found)).all()
    pairs = np.triu(generator.standard_normal((n, n)), 1) / np.sqrt(n)
    pairs += pairs.T
    sums, answers = pairs.sum(axis=1), pairs @ weights
    halves, moved = (np.repeat(np.stack([a, own[:, 1]], axis=1)[None] @ mixing / 2, 2, axis=0) for a in (sums, sums + answers))
    answered = refits.answers(halves, moved, weights)
    kept = refits.once(halves, answered) @ np.linalg.inv(mixing)
    np.testing.assert_allclose(np.diag(spread(kept)), [np.mean(sums**2) - np.mean(pairs**2) * n / 2, np.mean(own[:, 1] ** 2)], rtol=0.2)
    other = np.array([[2.0, 5.0], [-1.0, 3.0]])
    np.testing.assert_allclose(refits.once(halves @ other, answered @ other), refits.once(halves, answered) @ other, atol=1e-6)
    for combination in np.eye(2):
        alone = refits.once(halves @ combination[:, None], answered @ combination[:, None])[:, 0]
        np.testing.assert_allclose(refits.factor_once(halves @ combination, answered @ combination) * halves.sum(0) @ combination, alone)
    still = refits.once(np.zeros((2, n, 2)), np.zeros((2, n, 2)))
    assert still.shape == (n, 2) and (still == 0).all() and refits.factor_once(*np.zeros((2, 2, n))) == 0


def test_maps_are_pulled_as_a_fit_with_other_weights_is():
    world, n, image = World(0, content=0.5), 2000, 17
    (features,), z, _, _ = world.draw(1, n)
    fold = np.arange(n) % 5
    sums = GroupSums(split(pd.DataFrame({"split": np.where(fold == 0, "validation", "train"), "fold": fold}), 5))
    sums.update(features, z, np.arange(n), np.zeros(n, dtype=int))
    images, between = refits.Images(features, z, sums.split.place, sums.split.groups, 1), sums.regress(slice(0, RANK), slice(RANK, None))
    less = GroupSums(sums.split)
    kept = np.arange(n) != image
    less.update(features[kept], z[kept], np.flatnonzero(kept), np.zeros(n - 1, dtype=int))
    for null, whole, without in ((False, sums, less), (True, between, less.regress(slice(0, RANK), slice(RANK, None)))):
        fits, exact = refits.fits_of(whole, 0.05), refits.maps_of(without, 0.05)
        pulled = refits.pulled(fits, images, -1.0 * ~kept, null=null)
        for place, (fit, moved, lost) in enumerate(zip(fits, pulled, exact, strict=True)):
            if place == fold[image]:
                np.testing.assert_array_equal(moved.weight, fit.map.weight)
                continue
            for part in ("weight", "bias"):
                change, wanted = (getattr(each, part) - getattr(fit.map, part) for each in (moved, lost))
                assert np.linalg.norm(change - wanted) < 0.25 * np.linalg.norm(wanted), (null, place, part)


RATIO = {
    "is_per_as": ("is_deg", "as_abs_deg"),
    "is_per_control": ("is_deg", "control_is_deg"),
    "is_per_matched": ("is_deg", "matched_is_deg"),
}


@pytest.mark.parametrize(
    ("content", "classes", "n", "reference"),
    [(0.6, 0.0, 120, 0), (0.6, 0.6, 120, 0), (0.0, 0.0, 60, 0), (0.6, 0.0, 60, 60), (0.6, 0.6, 120, 120)],
)
def test_intervals_cover_what_new_images_and_new_fits_give_in_93_to_97_percent(content, classes, n, reference):
    """150 trials: within the chance of so few (three standard errors) of 93 to 97 percent, and the images alone do not.

    Fitted to the images themselves, or to a new reference in every trial.
    """
    world, trials = World(3, content=content, labels=20 if classes else 6, classes=classes), 150
    values, ends, alone = [], [], []

    def all_of(means, names):
        by_name = dict(zip(names, means.T, strict=True))
        return np.column_stack([means, *(by_name[top] / by_name[below] for top, below in RATIO.values())])

    for trial in range(trials):
        (features,), z, codes, texts = world.draw(trial, n)
        (seen,), embeddings, groups, _ = world.draw(10_000 + trial, reference)
        given = {"reference": (seen, embeddings)} if reference else {}
        scores, added = world.measure(features, z, codes, texts, seed=trial, **given)
        sample, names = Sample(codes, bool(classes)), list(scores)
        beside = replace(sample, reference=Sample(groups, bool(classes))) if reference else sample
        value = all_of(scores.mean().to_numpy()[None], names)[0]
        values.append(value)
        for found, of, columns in ((ends, beside, stacked(scores, added, reference)), (alone, sample, scores)):
            found.append(of.interval(value, all_of(of.means(columns.to_numpy(), 300, trial), names), 0.95))
    truth, names = np.mean(values, axis=0), [*names, *RATIO]
    covered, without = (np.mean([(low <= truth) & (truth <= high) for low, high in each], axis=0) for each in (ends, alone))
    assert 0.93 <= covered.mean() <= 0.97 and (covered >= 0.867).all(), dict(zip(names, covered, strict=True))
    assert without[0] < 0.88 and without.mean() < covered.mean() - 0.04
    wider = pd.Series(np.mean(np.diff(ends, axis=1), axis=(0, 1)) / (2 * 1.96 * np.std(values, axis=0)), names)
    assert (wider[["is_deg", "as_deg", "as_abs_deg", "conditional_is_deg"]] < 1.2).all(), wider


def pair_levels(content, reference, trials, n=60):
    """How often two models that are the same, by symmetry, differ at 5 percent, by criterion: with what the fits add, and without.

    They see the same images, each with its own noise.
    """
    world, p, alone = World(4, content=content), [], []
    for trial in range(trials):
        features, z, codes, texts = world.draw(trial, n, models=2)
        seen, embeddings, groups, _ = world.draw(10_000 + trial, reference, models=2)
        given = [{"reference": (each, embeddings)} if reference else {} for each in seen]
        options = {"seed": trial, "prefixes": ["", "conditional_", "control_"]}
        found = [world.measure(each, z, codes, texts, **options, **other) for each, other in zip(features, given, strict=True)]
        sample, image_id = Sample(codes, reference=Sample(groups) if reference else None), pd.Series(np.arange(n))
        names = ["is_deg", "as_abs_deg", "control_is_deg", "control_as_abs_deg", "is_deg", "as_abs_deg"]
        columns = {model: sample.rows(scores[names].to_numpy()) for model, (scores, _) in zip("ab", found, strict=True)}
        lambdas = {model: each[:n].mean(axis=0, keepdims=True) for model, each in columns.items()}
        tables = [added.assign(image_id=np.arange(len(added)), reference=bool(reference)) for _, added in found]
        fits = {model: criterion_parts(each, image_id, NULL_DIM, NULL_DIM, sample) for model, each in zip("ab", tables, strict=True)}
        for into, through in ((p, fits), (alone, {model: 0 * each for model, each in fits.items()})):
            table = pair_rows(columns, through, sample, lambdas, resamples=2, confidence=0.95, seed=0)
            into.append(table.set_index("criterion")["p"])
    return ((pd.DataFrame(each) <= 0.05).mean() for each in (p, alone))


def test_two_models_with_equal_scores_differ_in_3_to_7_percent_with_the_fits_and_far_more_often_without():
    """In the mean over criteria and cases: without content, with content, and with content beside a reference.

    Without content models differ by second order alone: were that taken off of each model's scores and not of the difference, the
    level would be 2 percent.
    """
    levels = {}
    for content, reference in ((0.0, 0), (0.6, 0), (0.6, 60)):
        levels[content, reference], without = pair_levels(content, reference, trials=160)
        assert set(levels[content, reference].index) == set(CRITERIA) >= RATIOS
        assert without.mean() > 0.15, without
    table = pd.DataFrame(levels)
    assert 0.03 <= table.to_numpy().mean() <= 0.07 and table.mean().between(0.025, 0.08).all(), table


def test_coordinates_beside_a_reference_hold_the_features_of_both_and_no_more():
    generator, (basis, _) = np.random.default_rng(0), np.linalg.qr(np.random.default_rng(1).standard_normal((40, 25)))
    read_axes = runpy.run_path(str(ROOT / "scripts/measure_refits.py"))["read_axes"]
    both = [generator.standard_normal((n, 40), dtype=np.float32) + 3 for n in (6, 4)]
    axes, rank = read_axes([SimpleNamespace(features_alone=lambda each=each: iter([each])) for each in both], basis)
    assert (axes.shape[1], rank) == (20, 10)
    np.testing.assert_allclose(axes[:, :rank].T @ basis, 0, atol=1e-6)
    for features in both:
        np.testing.assert_allclose(features @ axes @ axes.T, features, atol=1e-5)
