"""What the fit adds to the uncertainty of mean scores: beside derivatives, fits without an image, and new images and fits in each trial."""

import numpy as np
import pandas as pd
import pytest

from singflow.analyses import refits
from singflow.analyses.metrics import Removal, contrast_deg
from singflow.analyses.ranking import CRITERIA, RATIOS, pair_rows
from singflow.analyses.statistics import Sample
from singflow.translators.crossfit import WHOLE, GroupSums, split

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

    def measure(self, features, z, codes, texts, *, seed, keep=None, through=True, views=1):
        """Scores of every image by name, and what it adds through the fits; fitted without the image that is not kept."""
        n = len(codes)
        fold = np.random.default_rng(seed).permutation(n) % 5
        manifest = pd.DataFrame({"split": np.where(fold == 0, "validation", "train"), "fold": fold})
        sums, image, view = GroupSums(split(manifest, 5)), np.repeat(np.arange(n), views), np.tile(np.arange(views), n)
        rows = slice(None) if keep is None else keep[image]
        sums.update(features[rows], z[rows], image[rows], view[rows])
        fits, between = refits.fits_of(sums, PENALTIES[0]), sums.regress(slice(0, RANK), slice(RANK, None))
        predictors = refits.fits_of(between, PENALTIES[1])
        images = refits.Images(features, z, sums.split.place, sums.split.groups, views)
        parts = {
            "": [refits.null_part(RANK)],
            "conditional_": [refits.surprise(RANK, predictors)],
            "control_": [refits.Inside(each) for each in self.subspaces],
            "matched_": [refits.Inside(each, rank=RANK) for each in self.subspaces],
        }
        scores, added = {}, {}
        for prefix, names in refits.SCORES.items():
            scores |= {prefix + name: np.zeros(n) for name in names}
            for part in parts[prefix]:
                for _, chosen, _, _, removal in refits.scored(images, [each.map for each in fits], part):
                    found = scores_of(removal, texts, codes[chosen])
                    for name in names:
                        scores[prefix + name][chosen] += found[name] / len(parts[prefix])
            if through:
                given = predictors if prefix == "conditional_" else ()
                found = refits.influences(images, images, fits, parts[prefix], texts, codes, names, given)
                added |= {prefix + name: each for name, each in found.items()}
        return pd.DataFrame(scores), pd.DataFrame(added)


@pytest.mark.parametrize("views", [1, 2])
def test_what_an_image_adds_is_what_mean_scores_lose_without_it(views):
    world, n, dropped = World(0, content=0.5), 240, 40
    (features,), z, codes, texts = world.draw(1, n * views)
    codes = codes[:n]
    scores, added = world.measure(features, z, codes, texts, seed=1, views=views)
    lost = []
    for image in range(dropped):
        without, _ = world.measure(features, z, codes, texts, seed=1, keep=np.arange(n) != image, through=False, views=views)
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
    added = refits.influences(images, images, fits, [refits.null_part(RANK)], texts, codes, ["is_deg"])["is_deg"]
    assert (images.group[held_out] == WHOLE).all() and (added[held_out] == 0).all() and (added[~held_out] != 0).all()
    alone = refits.Images(
        features, z, np.where(held_out, 0, images.place), images.group, 1
    )  # scored by a fold's fit: what the whole one adds
    other = refits.influences(alone, images, fits, [refits.null_part(RANK)], texts, codes, ["is_deg"])["is_deg"]
    assert not np.allclose(added, other)


RATIO = {
    "is_per_as": ("is_deg", "as_abs_deg"),
    "is_per_control": ("is_deg", "control_is_deg"),
    "is_per_matched": ("is_deg", "matched_is_deg"),
}


@pytest.mark.parametrize("classes", [0.0, 0.6])
def test_intervals_cover_what_new_images_and_new_fits_give_in_93_to_97_percent(classes):
    """150 trials: within the chance of so few (three standard errors) of 93 to 97 percent, and the images alone do not."""
    world, n, trials = World(3, content=0.6, labels=20 if classes else 6, classes=classes), 120, 150
    values, ends, alone = [], [], []

    def all_of(means, names):
        by_name = dict(zip(names, means.T, strict=True))
        return np.column_stack([means, *(by_name[top] / by_name[below] for top, below in RATIO.values())])

    for trial in range(trials):
        (features,), z, codes, texts = world.draw(trial, n)
        scores, added = world.measure(features, z, codes, texts, seed=trial)
        sample, names = Sample(codes, bool(classes)), list(scores)
        value = all_of(scores.mean().to_numpy()[None], names)[0]
        values.append(value)
        for found, columns in ((ends, scores + added), (alone, scores)):
            found.append(sample.interval(value, all_of(sample.means(columns.to_numpy(), 300, trial), names), 0.95))
    truth = np.mean(values, axis=0)
    covered, without = (np.mean([(low <= truth) & (truth <= high) for low, high in each], axis=0) for each in (ends, alone))
    assert 0.93 <= covered.mean() <= 0.975 and (covered >= 0.89).all(), dict(zip([*names, *RATIO], covered, strict=True))
    assert without[0] < 0.88 and without.mean() < covered.mean() - 0.05


def test_two_models_with_equal_scores_differ_in_at_most_7_percent_with_the_fits_and_far_more_often_without():
    """The same images and embeddings, features that are equally good: by symmetry every criterion is the same."""
    world, n, trials = World(4, content=0.6), 240, 60
    p, alone = [], []
    for trial in range(trials):
        features, z, codes, texts = world.draw(trial, n, models=2)
        found = [world.measure(each, z, codes, texts, seed=trial) for each in features]
        names = ["is_deg", "as_abs_deg", "control_is_deg", "control_as_abs_deg", "is_deg", "as_abs_deg"]
        for into, through in ((p, True), (alone, False)):
            columns = {m: (s + a if through else s)[names].to_numpy() for m, (s, a) in zip("ab", found, strict=True)}
            lambdas = {model: each.mean(axis=0, keepdims=True) for model, each in columns.items()}
            table = pair_rows(columns, Sample(codes), lambdas, resamples=2, confidence=0.95, seed=0)
            into.append(table.set_index("criterion")["p"])
    levels, without = ((pd.DataFrame(each) <= 0.05).mean() for each in (p, alone))
    assert set(levels.index) == set(CRITERIA) >= RATIOS
    assert levels.mean() <= 0.07 and without.mean() > 0.15, levels
