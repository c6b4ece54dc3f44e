"""Zero-shot accuracy by the step itself, against scikit-learn's nearest text by cosine."""

import numpy as np
import pandas as pd
from sklearn.metrics.pairwise import cosine_similarity

from singflow.analyses import zero_shot
from singflow.analyses.metrics import unit
from singflow.analyses.zero_shot import nearest_texts, summarize_zero_shot
from singflow.translators.ridge import Affine
from tests.results import Results

IMAGES, LABELS, DIM, WIDTH = 60, 4, 6, 9
SHARES = ["zero_shot", "zero_shot_equivalent", "zero_shot_space", "zero_shot_chance"]


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
    assert summarize_zero_shot(found) == dict(zip(SHARES, (0.75, 0.5, 0.25, 0.5), strict=True))
    assert set(summarize_zero_shot(found[:2]).values()) == {None}


def inputs(folder):
    """The row space separates two of four labels; only the null space separates the other two.

    So translated features find all labels, and features after removal find half of them.
    """
    label, texts = np.arange(IMAGES) % LABELS, np.eye(LABELS, DIM, dtype=np.float32)
    names = np.array([f"label {number}" for number in range(LABELS)])
    results = Results(folder, shards=2)
    results.manifest(label=names[label].astype(object), fold=np.arange(IMAGES) % 2, split="train")
    features = 0.01 * np.random.default_rng(0).standard_normal((IMAGES, WIDTH))
    features[np.arange(IMAGES), label] += 1  # labels 2 and 3 along the null directions 2 and 3
    features[:, 4] = np.where(label >= 2, 0.5, 0)  # and alike along another
    own, bias = np.eye(DIM, WIDTH, dtype=np.float32), np.zeros(DIM, np.float32)
    own[[4, 5]], own[2, 4] = 0, 1
    results.tensors("projector", null_basis=np.eye(WIDTH)[:, [2, 3]])
    seeing = Affine(-own, bias)  # of all images, so it must not be asked
    results.translator(seeing, [Affine(own, bias)] * 2)
    results.texts({"labels": names.tolist()}, label_embeddings=texts)
    results.rows("features", features.astype(np.float32))
    of_label = (label + (label == 0)) % LABELS  # label 0 is label 1 there
    results.rows("embeddings", 3 * texts[of_label])
    return results


def test_the_step_takes_each_images_own_translator_and_removes_the_null_part(tmp_path):
    results = inputs(tmp_path)
    results.run("measure_zero_shot")
    found = results.read("zero_shot")
    assert list(found["image_id"]) == list(range(IMAGES))
    assert (found["translated"] == found["label"]).all()
    removed = found.loc[found["label"] == "label 3", "equivalent"]
    assert set(removed) == {"label 2"}, "what tells it from label 2 is in the null space"
    assert summarize_zero_shot(found) == dict(zip(SHARES, (1.0, 0.75, 0.75, 0.25), strict=True))
