"""Zero-shot accuracy by the step itself, against scikit-learn's nearest text by cosine."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from singflow.analyses import zero_shot
from singflow.analyses.zero_shot import nearest_texts, summarize_zero_shot
from singflow.translators.ridge import Affine
from tests.results import Results

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
    rows = [["a", "a", "b", "b"], ["a", "a", "b", "b"], ["b", "b", "b", "a"], ["b", "a", "b", "b"]]
    found = pd.DataFrame(rows, columns=["label", "translated", "equivalent", "embedding"])
    assert summarize_zero_shot(found) == {
        "zero_shot": 0.75,
        "zero_shot_equivalent": 0.5,
        "zero_shot_space": 0.25,
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
    labels = [f"label {number}" for number in range(LABELS)]
    results = Results(tmp_path, shards=2)
    fold = np.arange(IMAGES) % 2
    results.manifest(label=np.array(labels, dtype=object)[label], fold=fold, split="train")
    features = 0.01 * generator.standard_normal((IMAGES, WIDTH))
    features[np.arange(IMAGES), label] += 1  # labels 2 and 3 along the null directions 2 and 3
    features[:, 4] = np.where(label >= 2, 0.5, 0)  # and alike along another
    weight = np.zeros((DIM, WIDTH))
    weight[np.arange(LABELS), np.arange(LABELS)] = 1
    weight[2, 4] = 1
    basis = np.zeros((WIDTH, 2))
    basis[[2, 3], [0, 1]] = 1
    results.tensors("projector", null_basis=basis)
    own, bias = weight.astype(np.float32), np.zeros(DIM, np.float32)
    seeing = Affine(-own, bias)  # of all images, so it must not be asked
    results.translator(seeing, [Affine(own, bias)] * 2)
    results.texts({"labels": labels}, label_embeddings=texts.astype(np.float32))
    results.rows("features", features.astype(np.float32))
    of_images = 3 * texts[(label + (label == 0)) % LABELS]  # in the space, label 0 is label 1
    results.rows("embeddings", of_images.astype(np.float32))
    return results


def test_the_step_takes_each_images_own_translator_and_removes_the_null_part(inputs):
    inputs.run("measure_zero_shot")
    found = inputs.read("zero_shot")
    assert list(found["image_id"]) == list(range(IMAGES))
    assert (found["translated"] == found["label"]).all()
    removed = found.loc[found["label"] == "label 3", "equivalent"]
    assert set(removed) == {"label 2"}, "what tells it from label 2 is in the null space"
    shares = summarize_zero_shot(found)
    assert shares == {
        "zero_shot": 1.0,
        "zero_shot_equivalent": 0.75,
        "zero_shot_space": 0.75,
        "zero_shot_chance": 0.25,
    }
    assert json.loads(json.dumps(shares)) == shares
