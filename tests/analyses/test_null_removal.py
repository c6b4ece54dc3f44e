"""The scores of null removal, against projections and angles."""

import numpy as np
import pandas as pd
import pytest

from singflow.analyses.geometry import null_space
from singflow.analyses.metrics import Removal, angle_deg, contrast_deg
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import read_tensors
from singflow.errors import InputError
from singflow.translators.ridge import Affine
from tests.results import Results

WIDTH, CLASSES, DIM, N = 24, 15, 7, 30
RNG = np.random.default_rng(0)
BASIS = null_space(RNG.standard_normal((CLASSES, WIDTH))).basis
MIXING = RNG.standard_normal((DIM, WIDTH)).astype(np.float32)
FEATURES, TEXTS = RNG.standard_normal((N, WIDTH)), RNG.standard_normal((8, DIM))
LABELS = np.array([f"label {image % 8}" for image in range(N)])
OF_FOLDS = [
    Affine((factor * MIXING).astype(np.float32), np.full(DIM, fold, np.float32))
    for fold, factor in enumerate(RNG.uniform(0.2, 2, (3, DIM, 1)))
]
SCORE_COLUMNS = [
    "image_id", "label", "class_index", "predicted_index", "fold", "is_deg", "as_deg",
    "as_contrast_deg", "angle_original_deg", "angle_equivalent_deg", "null_energy", "logit_change",
    "floor_is_deg",
]  # fmt: skip


def study(folder, basis):
    """Inputs of measure_scores, in two shards."""
    results, generator, fold = Results(folder, shards=2), np.random.default_rng(5), np.arange(N) % 3
    split = np.where(fold, "train", "validation")
    results.manifest(label=LABELS, class_index=5, fold=fold, split=split)
    results.rows("features", FEATURES.astype(np.float32))
    results.tensors("projector", null_basis=basis)
    weight = generator.standard_normal((CLASSES, WIDTH)) @ (np.eye(WIDTH) - basis @ basis.T)
    head = {"weight": weight.astype(np.float32), "bias": generator.standard_normal(CLASSES)}
    results.tensors("head", {"class_names": "null"}, **head)
    results.translator(Affine(MIXING, np.zeros(DIM, np.float32)), OF_FOLDS)
    results.texts({"labels": sorted(set(LABELS))}, label_embeddings=TEXTS.astype(np.float32))
    floors = {"image_id": np.arange(N), "floor_is_deg": generator.uniform(size=N)}
    write_parquet(results.path("evidence_images"), pd.DataFrame(floors))
    return results


def test_every_image_is_scored_by_the_translator_that_did_not_see_it(tmp_path):
    results = study(tmp_path, BASIS)
    results.run("measure_scores")
    label = np.unique(LABELS, return_inverse=True)[1]

    def translated(rows):
        return np.stack([OF_FOLDS[image % 3](row[None])[0] for image, row in enumerate(rows)])

    found, floors = results.read("scores"), results.read("evidence_images")
    before, after = translated(FEATURES), translated(FEATURES - FEATURES @ BASIS @ BASIS.T)
    angles = angle_deg(before, TEXTS[label]), angle_deg(after, TEXTS[label])
    head, _ = read_tensors(results.path("head"), ["weight", "bias"])
    logits = FEATURES.astype(np.float32) @ head["weight"].T + head["bias"]
    expected = {
        "is_deg": angle_deg(before, after),
        "as_deg": angles[0] - angles[1],
        "angle_original_deg": angles[0],
        "angle_equivalent_deg": angles[1],
        "as_contrast_deg": contrast_deg(Removal(before, before - after), TEXTS, label),
        "null_energy": ((FEATURES @ BASIS) ** 2).sum(axis=1) / (FEATURES**2).sum(axis=1),
        "logit_change": 0,
        "fold": np.arange(N) % 3,
        "class_index": 5,
        "predicted_index": logits.argmax(axis=1),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-3, err_msg=name)
    assert list(found) == SCORE_COLUMNS and found["label"].tolist() == LABELS.tolist()
    pd.testing.assert_frame_equal(found[floors.columns], floors)


def test_a_head_without_null_space_loses_nothing(tmp_path):
    results = study(tmp_path, np.zeros((WIDTH, 0)))
    results.run("measure_scores")
    assert not results.read("scores")[["is_deg", "as_deg", "null_energy"]].any(axis=None)


def test_a_floor_of_other_images_is_refused(tmp_path):
    results = study(tmp_path, BASIS)
    floors = results.read("evidence_images")
    write_parquet(results.path("evidence_images"), floors[1:])
    with pytest.raises(InputError, match="holds other images than the manifest: remove it"):
        results.run("measure_scores")
