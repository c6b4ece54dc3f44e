"""What training images say of photos, where there are no folds or no null space."""

import numpy as np
import pytest

from singflow.artifacts.shards import read_manifest
from singflow.photo.fits import Settings, train
from singflow.translators.reference import Paired
from tests.project import ROOT

FOLDER = ROOT / "reference/imagenet507"
IMAGES = Paired(
    read_manifest(FOLDER / "data/manifest.parquet"), FOLDER / "features/efficientnet_lite0", FOLDER / "embeddings/conse_minilm", 1
)


def trained(folds, null_dim, folder):
    basis = np.eye(1280)[:, :null_dim]
    return train(IMAGES, lambda: basis, Settings(folds, (1.0,), None, 3, 0), folder, 1)


def test_in_sample_there_is_no_floor_but_conditional_removal(tmp_path):
    made = trained(0, 40, tmp_path)
    own, *floors = made.floor.scores(np.ones((1, 1280), np.float32))
    assert own > 0 and all(each.shape == (0, 0) for each in floors) and not made.floor.permuted
    assert (made.is_deg > 0).any() and made.null_energy.shape == (507,)


def test_a_floor_is_made_of_folds_that_its_translators_have_not_seen(tmp_path):
    floor = trained(5, 40, tmp_path).floor
    assert len(floor.permuted) == 3 and floor.residuals.shape[:2] == (3, 64) and len(np.unique(floor.residuals[0], axis=0)) == 64
    means = [each.embedding_mean for each in floor.permuted]  # of all folds but the first, the second and the third
    of_all = floor.real.embedding_mean
    assert all(np.linalg.norm(mean - of_all) > 1e-4 for mean in means) and np.linalg.norm(means[0] - means[1]) > 1e-4


def test_without_a_null_space_every_score_is_zero(tmp_path):
    made = trained(5, 0, tmp_path)
    assert made.is_deg.max() == made.conditional_is_deg.max() == made.null_energy.max() == 0.0
    assert 0.1 < made.r2 < 0.5 and made.floor.scores(np.ones((1, 1280), np.float32))[0] == pytest.approx(0.0)
