"""Fits to training images: translators of chance, unusual photos, and no null space."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from singflow.analyses.evidence import FittedOwnWords
from singflow.analyses.fits import fit
from singflow.analyses.floor import Refitting, SplitHead, grouped, whole_images
from singflow.analyses.metrics import angle_deg
from singflow.artifacts.shards import iterate_whole, read_manifest
from singflow.photo.analysis import angles_to_texts
from singflow.translators.reference import Paired, Pool
from tests.project import ROOT

FOLDER = ROOT / "reference/imagenet507"
IMAGES = Paired(
    read_manifest(FOLDER / "data/manifest.parquet"),
    FOLDER / "features/efficientnet_lite0",
    FOLDER / "embeddings/conse_minilm",
    1,
)
BASIS = np.eye(1280)[:, :40]
WEIGHT = np.random.default_rng(0).standard_normal((7, 1280)).astype(np.float32)


def fitted(folds, null_dim, folder):
    """A fit for seven classes without names, so that own words are the mean embedding."""
    basis = np.eye(1280)[:, :null_dim]
    part = basis.astype(np.float32)
    weight = WEIGHT - WEIGHT @ part @ part.T
    head = SplitHead.split({"weight": weight, "bias": np.zeros(7, np.float32)}, basis)
    images = grouped(Pool(IMAGES)).scored
    own_words = FittedOwnWords.fit(partial(whole_images, images, head), None)
    how = Refitting(None, folds, [1.0], draws=3, seed=0, threads=1, folder=folder)
    return fit(IMAGES, head, own_words, how)


def read(tensor):
    blocks = iterate_whole(getattr(IMAGES, tensor), tensor, 1, IMAGES.manifest)
    return np.concatenate([rows for _, rows in blocks]).astype(np.float64)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return fitted(5, 40, tmp_path_factory.mktemp("scratch"))


def test_the_floor_is_that_of_ridge_regressions_on_embeddings_whose_remainder_has_random_signs(
    made,
):
    features, embeddings = read("features"), read("embeddings")
    x, mean = features - features.mean(axis=0), embeddings.mean(axis=0)
    scatter = x.T @ x
    penalized = scatter + np.trace(scatter) / len(x) * np.eye(1280)
    drawn = made.chance_removal(features[:1].astype(np.float32))
    texts = np.random.default_rng(1).standard_normal((5, 384))
    ours = np.subtract(*angles_to_texts(drawn, texts))
    for draw in range(3):
        signs = np.random.default_rng([0, 3, draw]).choice([-1.0, 1.0], len(x))
        z = mean + (embeddings - mean) * signs[:, None]
        weight = np.linalg.solve(penalized, x.T @ (z - z.mean(axis=0)))
        original = x[:1] @ weight + z.mean(axis=0)
        equivalent = original - features[:1, :40] @ weight[:40]
        wanted = angle_deg(original, equivalent)[0]
        assert drawn.image_score()[draw] == pytest.approx(wanted, abs=2e-3)
        moved = angle_deg(original, texts) - angle_deg(equivalent, texts)
        assert ours[draw] == pytest.approx(moved, abs=2e-3)


def test_a_photo_whose_null_component_is_beyond_those_of_the_images_is_named(made):
    features = read("features").astype(np.float32)
    beyond = [made.unlike(row[None], BASIS) for row in features]
    assert 0 < sum(map(bool, beyond)) <= 0.04 * len(features)
    photo = features[beyond.index("")][None]

    def stretched(factor):
        return np.concatenate([factor * photo[:, :40], photo[:, 40:]], axis=1)

    for factor in (0.0, 50.0):
        said = made.unlike(stretched(factor), BASIS)
        assert "null energy" in said and "is outside their range" in said
    for fits in (made, replace(made, alignment=np.array([-1.0, 1.0]))):
        turned = "points away from theirs" in fits.unlike(stretched(-1), BASIS)
        assert turned == (fits is made)


def test_without_folds_there_is_one_translator_and_without_a_null_space_every_score_is_zero(
    tmp_path,
):
    made = fitted(0, 40, tmp_path)
    assert made.null_energy.shape == (507,) and (made.null_energy > 0).all()
    assert made.chance_weight.shape[0] == 3
    made = fitted(5, 0, tmp_path)
    chance = made.chance_removal(np.ones((1, 1280), np.float32)).image_score()
    assert made.null_energy.max() == chance.max() == 0.0


def test_groups_of_the_jackknife_hold_what_is_together():
    film = (np.arange(507) // 3).astype(str).astype(object)
    fold = np.arange(507) // 102
    of_films = replace(IMAGES, manifest=IMAGES.manifest.assign(group=film, fold=fold))
    for images in (IMAGES, of_films):
        whole = grouped(Pool(images)).scored.manifest
        assert len(whole.drop_duplicates(["fold", "part"])) == whole["part"].nunique() == 40
    assert whole.groupby("cluster")["part"].nunique().max() == 1
    assert whole["cluster"].nunique() == 169 and whole["image"].nunique() == 507
