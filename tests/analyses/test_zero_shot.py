"""Zero-shot accuracy by the step itself, against scikit-learn's nearest text by cosine."""

import json
import runpy

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from singflow.analyses import zero_shot
from singflow.analyses.zero_shot import nearest_texts, summarize_zero_shot
from singflow.artifacts.files import write_json
from singflow.artifacts.tables import read_parquet, write_parquet
from singflow.artifacts.tensors import write_tensors
from tests.project import ROOT

STEP = runpy.run_path(str(ROOT / "scripts/measure_zero_shot.py"))
IMAGES, LABELS, DIM, WIDTH = 60, 4, 6, 9


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_the_nearest_text_is_that_of_the_largest_cosine_whatever_the_blocks(monkeypatch):
    generator = np.random.default_rng(0)
    embeddings = generator.standard_normal((200, 8)) * generator.uniform(0.1, 50, (200, 1))
    texts = unit(generator.standard_normal((7, 8)))
    expected = cosine_similarity(embeddings, texts).argmax(axis=1)
    for products in (1, 60, 2**22):
        monkeypatch.setattr(zero_shot, "PRODUCTS", products)
        np.testing.assert_array_equal(nearest_texts(embeddings, texts), expected)
    assert len(nearest_texts(embeddings[:0], texts)) == 0


def test_shares_are_of_all_images_and_one_label_says_nothing():
    found = pd.DataFrame(
        {
            "label": list("aabb"),
            "translated": list("aaba"),
            "equivalent": list("bbbb"),
            "embedding": list("aabb"),
            "image_id": range(4),
        }
    )
    assert summarize_zero_shot(found) == {
        "zero_shot": 0.75,
        "zero_shot_equivalent": 0.5,
        "zero_shot_space": 1.0,
        "zero_shot_chance": 0.5,
    }
    assert set(summarize_zero_shot(found[:2]).values()) == {None}


@pytest.fixture
def inputs(tmp_path):
    """The row space separates two of four labels; only the null space separates the other two.

    So translated features find all labels, and features after removal find half of them.
    """
    generator = np.random.default_rng(0)
    label = np.arange(IMAGES) % LABELS
    texts = np.eye(LABELS, DIM)
    frame = {
        "image_id": range(IMAGES),
        "path": [f"{i}.jpg" for i in range(IMAGES)],
        "label": [f"label {number}" for number in label],
    }
    numbers = dict.fromkeys(["class_index", "width", "height"], 0) | {"fold": np.arange(IMAGES) % 2}
    words = {"prompt": "x", "split": "train", "sha256": [f"{i}" for i in range(IMAGES)]}
    write_parquet(
        tmp_path / "manifest.parquet",
        pd.DataFrame(frame | numbers | words).astype({"label": object}),
    )
    features = 0.01 * generator.standard_normal((IMAGES, WIDTH))
    features[np.arange(IMAGES), label] += 1  # labels 2 and 3 along the null directions 2 and 3
    features[:, 4] = np.where(label >= 2, 0.5, 0)  # and alike along another
    weight = np.zeros((DIM, WIDTH))
    weight[np.arange(LABELS), np.arange(LABELS)] = 1
    weight[2, 4] = 1
    basis = np.zeros((WIDTH, 2))
    basis[[2, 3], [0, 1]] = 1
    write_tensors(tmp_path / "p.safetensors", {"null_basis": basis}, {})
    folds = {
        "fold_weight": np.stack([weight, weight]).astype(np.float32),
        "fold_bias": np.zeros((2, DIM), np.float32),
    }
    whole = {
        "weight": -weight.astype(np.float32),
        "bias": np.zeros(DIM, np.float32),
    }  # sees all images, so it must not be asked
    write_tensors(tmp_path / "t.safetensors", whole | folds, {"kind": "linear", "folds": "2"})
    write_tensors(tmp_path / "n.safetensors", {"label_embeddings": texts.astype(np.float32)}, {})
    write_json(tmp_path / "n.json", {"labels": [f"label {number}" for number in range(LABELS)]})
    towers = {
        "features": features,
        "embeddings": 3 * texts[(label + (label == 0)) % LABELS],
    }  # of the space label 0 is called label 1
    for kind, rows in towers.items():
        for shard, mine in enumerate(np.array_split(np.arange(IMAGES), 2)):
            views = np.repeat(mine, 2)
            tensor = np.where((np.arange(len(views)) % 2)[:, None] == 0, rows[views], 99.0).astype(
                np.float32
            )  # view 1 must not count
            tensors = {
                kind: tensor,
                "image_id": views.astype(np.int64),
                "view": (np.arange(len(views)) % 2).astype(np.int32),
            }
            write_tensors(tmp_path / kind / f"shard-{shard:05d}.safetensors", tensors, {})
    return STEP["Flags"](
        manifest=tmp_path / "manifest.parquet",
        features=tmp_path / "features",
        embeddings=tmp_path / "embeddings",
        shards=2,
        projector=tmp_path / "p.safetensors",
        translator=tmp_path / "t.safetensors",
        texts=tmp_path / "n.safetensors",
        names=tmp_path / "n.json",
        threads=1,
        output=tmp_path / "z.parquet",
    )


def test_the_step_takes_each_images_own_translator_and_removes_the_null_part(inputs):
    STEP["main"](inputs)
    found = read_parquet(inputs.output, "zero_shot")
    assert (
        list(found["image_id"]) == list(range(IMAGES))
        and (found["translated"] == found["label"]).all()
    )
    removed = found[found["label"] == "label 3"]
    assert set(removed["equivalent"]) == {"label 2"}, (
        "what tells it from label 2 is in the null space"
    )
    shares = summarize_zero_shot(found)
    assert shares == {
        "zero_shot": 1.0,
        "zero_shot_equivalent": 0.75,
        "zero_shot_space": 0.75,
        "zero_shot_chance": 0.25,
    }
    assert json.loads(json.dumps(shares)) == shares
