"""The floor of IS, against scikit-learn on new rows and on planted data."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from singflow.analyses.evidence import FittedOwnWords, spell
from singflow.analyses.floor import Refitting, Rows, SplitHead, whole_images
from singflow.analyses.metrics import angle_deg
from singflow.errors import InputError
from singflow.translators.crossfit import WHOLE, split

PENALTY = 0.3
SAME = np.ones(60)  # signs that change nothing


class Images:
    """A study of images with views, in two shards, and its head: what Paired gives, made up."""

    def __init__(self, seed=0, n=60, views=2, leak=0.0):
        rng, rank, null_dim, dim, classes = np.random.default_rng(seed), 7, 5, 6, 7
        self.basis = np.linalg.qr(rng.standard_normal((rank + null_dim, rank + null_dim)))[0]
        self.head = SplitHead(
            (rng.standard_normal((classes, rank)) @ self.basis[:, :rank].T).astype(np.float32),
            rng.standard_normal(classes).astype(np.float32),
            self.basis[:, :rank],
            self.basis[:, rank:],
        )
        self.texts = rng.standard_normal((classes, dim))
        self.texts /= np.linalg.norm(self.texts, axis=1, keepdims=True)
        a = rng.standard_normal((n * views, rank)) + 2.0
        b = a @ rng.standard_normal((rank, null_dim)) * 0.3 + 1.0
        b += rng.standard_normal((n * views, null_dim))
        self.x = (np.hstack([a, b]) @ self.basis.T).astype(np.float32)
        logits = self.x @ self.head.weight.T + self.head.bias
        noise = 0.4 * rng.standard_normal((n * views, dim)) + 0.5
        told = leak * b @ rng.standard_normal((null_dim, dim))
        self.z = (spell(logits, self.texts)[1] + noise + told).astype(np.float32)
        self.image, self.view = np.repeat(np.arange(n), views), np.tile(np.arange(views), n)
        fold = np.arange(n) % 3
        split = np.where(fold == 0, "validation", "train")
        numbers = dict.fromkeys(("cluster", "image", "sha256"), np.arange(n))
        self.manifest = pd.DataFrame({"split": split, "fold": fold, "part": fold, **numbers})
        self.features = "features of the study"

    def split(self, folds):
        return split(self.manifest, folds)

    def __iter__(self):
        half = len(self.x) // 2
        for rows in (slice(0, half), slice(half, None)):
            columns = {"features": self.x, "image_id": self.image, "view": self.view}
            yield {name: column[rows] for name, column in columns.items()}, self.z[rows]


def fitted(images, folder, scored=None):
    """What measure_evidence makes of images: own words, refits, and the rows that are scored."""
    own_words = FittedOwnWords.fit(lambda: whole_images(images, images.head), images.texts)
    axes = np.hstack([images.head.principal, images.head.null]).astype(np.float32)
    axes = axes, images.head.principal.shape[1]
    how, member_of, others = Refitting((PENALTY, 0.0), 3, [], 2, 0, None, folder), None, None
    if scored is not None:
        member_of = np.full(len(scored.manifest), WHOLE, np.int32)
        others = Rows.read(scored, images.head, axes, own_words, folder, None)
    refits, _ = how.refits(images, images.head, axes, own_words, member_of)
    return own_words, refits, others or refits.rows


def ridge(x, y, penalty):
    spread = ((x - x.mean(0)) ** 2).sum(1).mean()
    return Ridge(alpha=penalty * spread).fit(x, y)


def signs_of(draw):
    return np.random.default_rng([0, 3, draw]).choice([-1.0, 1.0], 60)


def slow(images, own_words, signs):
    """IS of view 0 of every image by scikit-learn, with one translator per fold.

    The translator of a fold is fitted to z* of all views of the other folds.
    """
    fold, first = images.manifest["fold"].to_numpy()[images.image], images.view == 0
    spoken = own_words.spoken(images.x @ images.head.weight.T + images.head.bias)
    z = spoken + (images.z - spoken) * signs[images.image][:, None]
    found = np.empty(len(images.manifest))
    for held_out in np.unique(fold):
        made, judged = fold != held_out, first & (fold == held_out)
        model = ridge(images.x[made].astype(np.float64), z[made], PENALTY)
        whole = model.predict(images.x[judged])
        removed = images.x[judged] @ images.head.null @ images.head.null.T @ model.coef_.T
        found[images.image[judged]] = angle_deg(whole, whole - removed)
    return found


def test_the_floor_is_the_mean_over_scikit_learns_refits_with_signs_and_says_their_spread(tmp_path):
    images = Images()
    own_words, refits, scored = fitted(images, tmp_path)
    wanted = [slow(images, own_words, signs_of(draw)) for draw in range(4)]
    plain = slow(images, own_words, SAME)
    for signs, angles in ((SAME, plain), (signs_of(0), wanted[0]), (signs_of(1), wanted[1])):
        found = refits.image_scores(scored, refits.translators(signs))
        np.testing.assert_allclose(found, angles, atol=2e-3)
    means, spread = refits.floor(scored, draws=4, seed=0, threads=None)
    np.testing.assert_allclose(means, np.mean(wanted, axis=0), atol=2e-3)
    assert spread == pytest.approx(np.std(np.mean(wanted, axis=1), ddof=1), abs=2e-3)
    side_by_side, _ = refits.floor(scored, draws=4, seed=0, threads=2)
    np.testing.assert_array_equal(side_by_side, refits.floor(scored, draws=4, seed=0, threads=1)[0])


def test_images_of_a_cluster_have_one_sign(tmp_path):
    _, refits, _ = fitted(Images(), tmp_path)
    copies = replace(refits, cluster=np.arange(60) // 2)
    drawn = copies.over_signs(lambda made: made[0].weight, 1, 0, None)
    signs = np.repeat(np.random.default_rng([0, 3, 0]).choice([-1.0, 1.0], 30), 2)
    np.testing.assert_array_equal(next(drawn), refits.translators(signs)[0].weight)


def test_a_null_component_that_tells_nothing_lies_at_its_floor_and_one_that_tells_lies_above(
    tmp_path,
):
    above = {}
    for leak in (0.0, 0.5):
        excess = []
        for seed in range(6):
            images = Images(seed=seed, n=300, views=1, leak=leak)
            _, refits, scored = fitted(images, tmp_path)
            means, _ = refits.floor(scored, draws=6, seed=0, threads=None)
            found = refits.image_scores(scored, refits.translators(np.ones(300)))
            excess.append((found - means).mean())
        above[leak] = np.array(excess)
    assert abs(above[0.0].mean()) < 2 * above[0.0].std(ddof=1) / np.sqrt(6) + 0.1
    assert (above[0.5] > 1.0).all()


def test_images_beside_a_reference_are_scored_by_the_fit_of_all_its_images(tmp_path):
    images, others = Images(seed=1), Images(seed=2, n=9, views=3)
    others.head, others.x = images.head, others.x @ others.basis @ images.basis.T.astype(np.float32)
    _, refits, scored = fitted(images, tmp_path, scored=others)
    found = refits.image_scores(scored, refits.translators(SAME))
    model, first = ridge(images.x.astype(np.float64), images.z, PENALTY), others.x[others.view == 0]
    whole = model.predict(first)
    after = whole - first @ images.head.null @ images.head.null.T @ model.coef_.T
    np.testing.assert_allclose(found, angle_deg(whole, after), atol=2e-3)


def test_missing_views_are_refused_by_name(tmp_path):
    images = Images()
    own_words = FittedOwnWords.fit(lambda: whole_images(images, images.head), images.texts)
    images.manifest = pd.concat([images.manifest, images.manifest.iloc[:1]], ignore_index=True)
    said = "features of the study: holds 120 rows, not 2 of each of 61 images: remove it"
    with pytest.raises(InputError, match=said):
        Rows.read(images, images.head, (np.eye(12, dtype=np.float32), 7), own_words, tmp_path, None)


def test_logits_of_an_inexact_null_space_are_those_of_the_principal_component_alone():
    images = Images()
    head = SplitHead(images.head.weight, images.head.bias, images.basis[:, :4], images.basis[:, 4:])
    logits = head.coordinates(images.x)[2]
    visible = images.x @ images.basis[:, :4] @ images.basis[:, :4].T
    expected = visible @ images.head.weight.T + images.head.bias
    np.testing.assert_allclose(logits, expected, atol=1e-3)
