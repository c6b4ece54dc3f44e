"""Maps of images with planted texts: they are found where they are, and nowhere else."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from singflow.analyses import maps as module
from singflow.analyses.geometry import Axes, null_space
from singflow.analyses.metrics import Removal, subspace_translator
from singflow.towers.live import Located
from singflow.translators.crossfit import WHOLE, CrossFitted, split
from singflow.translators.fitting import fit_translators
from singflow.translators.ridge import Affine
from tests.analyses.test_floor import Images, ridge

SIDE, OTHERS, SEEDS = 6, 39, 100
CLASSES, WIDTH, DIM, TEXTS = 20, 64, 256, 12
QUADRANT = np.zeros((SIDE, SIDE), bool)
QUADRANT[: SIDE // 2, : SIDE // 2] = True


class Paired(Images):
    """The made-up study of the floor's tests, as Paired gives it."""

    def features_alone(self):
        return (shard["features"] for shard, _ in self)

    def split(self, folds):
        return split(self.manifest, folds)


def located(parts, rest=0.0):
    rest = np.zeros(parts.shape[-1]) + rest
    return Located((parts.mean((0, 1)) + rest)[None], parts, rest, (0.0, 0.0, 1.0, 1.0))


class Planted:
    """A head, and a translator that turns null directions into texts."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.weight = self.rng.standard_normal((CLASSES, WIDTH))
        space = null_space(self.weight)
        self.basis, self.principal = space.basis, space.principal
        self.texts = self.rng.standard_normal((TEXTS, DIM))
        self.texts /= np.linalg.norm(self.texts, axis=1, keepdims=True)
        spelled = 0.3 * self.texts.T @ self.basis[:, :TEXTS].T
        seen = self.rng.standard_normal((DIM, CLASSES)) @ self.principal.T / np.sqrt(CLASSES)
        self.translator = Affine(spelled + seen, 0.1 * self.rng.standard_normal(DIM))

    def image(self, text=None, where=QUADRANT, strength=8.0, noise=1.0):
        """Parts of an image that holds a text at some positions of its null component."""
        seen = self.rng.standard_normal((SIDE, SIDE, CLASSES)) @ self.principal.T
        null = noise * self.rng.standard_normal((SIDE, SIDE, WIDTH - CLASSES)) @ self.basis.T
        if text is not None:
            null[where] += strength * self.basis[:, text]
        return seen + null

    def conditional(self):
        """Nothing in the null coordinates can be predicted."""
        axes = Axes(np.hstack([self.principal, self.basis]), CLASSES)
        nothing = Affine(np.zeros((WIDTH - CLASSES, CLASSES)), np.zeros(WIDTH - CLASSES))
        return module.conditional_translator(self.translator, self.basis, axes, nothing)

    def maps(self, parts, others, conditional=None, rest=0.0, confidence=0.95):
        names, predicted = [f"text {row}" for row in range(TEXTS)], ("class 0", self.weight[0])
        return module.map_image(
            located(parts, rest),
            self.translator,
            self.basis,
            conditional or self.conditional(),
            [located(other) for other in others],
            names,
            self.texts,
            predicted,
            confidence,
        )


@pytest.fixture
def few_nodes(monkeypatch):
    """A coarser integral: what is compared is treated alike, so the level does not depend on it."""
    monkeypatch.setattr(module, "NODES", 4)


def test_a_text_hidden_in_one_quadrant_is_found_there_and_nowhere_else(few_nodes):
    found, outside, elsewhere = [], 0, 0
    for seed in range(SEEDS):
        planted = Planted(seed)
        others = [planted.image(1 + number % (TEXTS - 1)) for number in range(OTHERS)]
        own, *other_texts = planted.maps(planted.image(0), others).texts
        found.append(own.beyond[QUADRANT].mean())
        outside += own.beyond[~QUADRANT].any()
        elsewhere += np.mean([text.beyond.any() for text in other_texts])
        assert own.contribution_deg[QUADRANT].max() < 0 and own.as_deg < 0
    assert min(found) == 1
    assert max(outside, elsewhere) <= binom.ppf(0.999, SEEDS, 0.05)


LEVELS = [(20, 0.95, 1), (40, 0.95, 2), (20, 0.8, 4)]


@pytest.mark.parametrize("hidden", [0.0, 8.0])
@pytest.mark.parametrize(("images", "confidence", "allowed"), LEVELS)
def test_of_images_compared_with_each_other_as_many_stand_out_as_the_level_says(
    images, confidence, allowed, hidden, few_nodes
):
    planted, stand_out = Planted(0), np.zeros(TEXTS)
    scales = planted.rng.uniform(0.5, 2, images)
    pool = [planted.image(0, strength=hidden * scale, noise=scale) for scale in scales]
    for number, image in enumerate(pool):
        others = pool[:number] + pool[number + 1 :]
        texts = planted.maps(image, others, confidence=confidence).texts
        stand_out += [text.beyond.any() for text in texts]
    assert (stand_out == allowed).all()


def test_what_the_logits_tell_anyway_is_in_the_map_and_not_in_the_conditional_one():
    planted = Planted(0)
    spread = planted.rng.standard_normal((WIDTH - CLASSES, CLASSES))
    axes, predictor = np.hstack([planted.principal, planted.basis]), Affine(spread, spread[:, 0])
    seen = planted.image(noise=0.0) @ planted.principal
    parts = seen @ planted.principal.T + (seen @ spread.T + spread[:, 0]) @ planted.basis.T
    conditional = module.conditional_translator(
        planted.translator, planted.basis, Axes(axes, CLASSES), predictor
    )
    own = planted.maps(parts, [], conditional).texts[0]
    assert np.abs(own.contribution_deg).max() > 0.1
    np.testing.assert_allclose(own.conditional_deg, 0, atol=1e-6)


@given(st.integers(0, 10**6), st.floats(0.01, 3))
@settings(max_examples=30, deadline=None)
def test_positions_and_rest_sum_to_the_attribute_score_and_energy_is_by_position(seed, strength):
    planted = Planted(seed)
    parts = strength * planted.image(0)
    rest = planted.rng.standard_normal(WIDTH)
    feature = (parts.mean((0, 1)) + rest)[None]
    maps = planted.maps(parts, [], rest=rest)
    removed = subspace_translator(planted.translator, planted.basis)
    removal = Removal(planted.translator(feature), removed(feature))
    for text, embedding in zip(maps.texts, planted.texts, strict=True):
        wanted = removal.attribute_score(embedding[None])[0]
        assert text.as_deg == pytest.approx(wanted, abs=1e-6)
        assert text.contribution_deg.sum() + text.rest_deg == pytest.approx(wanted, abs=1e-6)
        tiny = 1e-6
        less = Removal(removal.original, tiny * removal.removed).attribute_score(embedding[None])
        assert text.first_order_deg == pytest.approx(less[0] / tiny, rel=1e-3, abs=1e-2)
    hidden = ((parts @ planted.basis) ** 2).sum(axis=2)
    np.testing.assert_allclose(maps.null_energy, hidden / (parts**2).sum(axis=2))
    logit = maps.used.sum() + planted.weight[0] @ planted.principal @ planted.principal.T @ rest
    assert logit == pytest.approx(planted.weight[0] @ feature[0], abs=1e-8)


def test_too_few_images_give_no_threshold_and_nothing_stands_out():
    planted = Planted(0)
    few = [planted.image(1) for _ in range(18)]
    own = planted.maps(planted.image(0), few).texts[0]
    assert own.threshold_deg is None and not own.beyond.any()
    maps = np.arange(19 * 4).reshape(19, 2, 2) * -1.0
    assert module.threshold(maps, 0.95) == 75 and module.threshold(maps, 0.9) == 71
    for confidence, fewest in ((0.95, 19), (0.9, 9), (0.99, 99), (0.5, 1)):
        assert module.fewest_others(confidence) == fewest
        assert module.threshold(np.ones((fewest, 1, 1)), confidence) == 1
        assert module.threshold(np.ones((fewest - 1, 1, 1)), confidence) is None


def test_an_image_is_compared_with_those_that_its_translator_did_not_see_either():
    sha256, whole = np.array(list("abcabdef"), dtype=object), np.full(8, WHOLE)
    folds = np.array([0, 0, 1, 0, 0, 1, WHOLE, WHOLE])
    for member_of, fold, image, expected in (
        (folds, folds, 0, [1, 4]),  # the third is a copy
        (folds, folds, 2, [5]),
        (folds, folds, 6, [7]),  # held out by the data set, and in no fold
        (whole, whole, 0, [1, 2, 4, 5, 6, 7]),  # fitted on a reference
        (whole, folds, 0, []),  # in sample
        (whole, folds, 6, [7]),
    ):
        crossed = CrossFitted((), member_of, fold)
        assert np.flatnonzero(module.comparable(image, crossed, sha256)).tolist() == expected


@pytest.mark.parametrize("others", [0, OTHERS])
def test_maps_are_the_same_after_they_were_rows_of_a_table(tmp_path, others):
    planted = Planted(0)
    maps = [
        planted.maps(planted.image(0), [planted.image(1) for _ in range(others)], rest=rest)
        for rest in (0.0, 0.5)
    ]
    tables = [module.map_rows(7 + number, of_image) for number, of_image in enumerate(maps)]
    module.map_table(tables).to_parquet(tmp_path / "maps.parquet")
    rows = pd.read_parquet(tmp_path / "maps.parquet")
    assert len(rows) == 2 * (2 + TEXTS) * SIDE**2
    assert rows.groupby(["map"]).size()["toward label"] == 2 * SIDE**2
    corner = rows.query("row == 1 and column == 6 and map == 'used'")["value"]
    assert list(corner) == [of_image.used[0, 5] for of_image in maps]
    for number, of_image in enumerate(maps):
        found = module.maps_of(rows[rows["image_id"] == 7 + number])
        np.testing.assert_equal(vars(found) | {"texts": 0}, vars(of_image) | {"texts": 0})
        for one, other in zip(found.texts, of_image.texts, strict=True):
            np.testing.assert_equal(vars(one), vars(other))
    assert module.map_table([]).dtypes.equals(rows.dtypes)


def test_predictors_are_scikit_learns_and_did_not_see_the_images_of_their_fold():
    images = Paired()
    basis = images.basis[:, 7:]
    made = fit_translators(images, 3, [0.3])[0]
    found = module.fit_conditional(images, 3, [0.3], basis, made)
    x = images.x.astype(np.float64)
    a, b = x @ images.basis[:, :7], x @ basis
    fold = images.manifest["fold"].to_numpy()[images.image]
    pairs = zip(made.members, found.members, strict=True)
    for number, (translator, conditional) in enumerate(pairs):
        seen = fold != number if number < 3 else np.ones(len(x), bool)
        unpredicted = b - ridge(a[seen], b[seen], 0.3).predict(a)
        wanted = unpredicted @ (translator.weight @ basis).T
        np.testing.assert_allclose(conditional(x), wanted, atol=1e-4)
