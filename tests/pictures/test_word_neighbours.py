import numpy as np
import pytest

from singflow.analyses.inputs import Inputs
from singflow.pictures.word_neighbours import vocabulary, word_neighbours
from tests.refusals import refused
from tests.results import Results


def test_of_equal_angles_the_earlier_word_comes_first_and_of_few_words_the_rest_is_empty():
    right, up = np.eye(2)
    point, texts = np.array([[3.0, 0.0]]), np.stack([up, right, up, up])
    near, angles = word_neighbours(point, list("abcd"), texts)
    assert list(near[0]) == ["b", "a", "c"]
    np.testing.assert_allclose(angles, [[0.0, 90.0, 90.0]], atol=1e-12)
    near, angles = word_neighbours(point, ["a"], up[None])
    assert list(near[0]) == ["a", "", ""] and np.isnan(angles[0, 1:]).all()


@pytest.fixture
def study(tmp_path):
    """A study's texts, in which every row is its own number."""

    def write(names):
        rows, tensors = iter(range(1, 100)), {}
        for kind in filter(names.get, names):
            numbers = [[next(rows)] * 2 for _ in names[kind]]
            tensors |= {f"{kind.removesuffix('s')}_embeddings": np.array(numbers, np.float32)}
        Results(tmp_path).texts(names, **tensors)
        return Inputs(tmp_path, "m", "s")

    return write


def test_labels_come_before_those_of_the_reference_and_concepts_and_a_name_counts_once(study):
    names = {"labels": ["Cat", "dog"], "concepts": ["fur", "cat", "Boat"], "targets": ["a cat"]}
    words, texts = vocabulary(study(names | {"reference": ["boat", "DOG", "emu"]}))
    assert words == ["Cat", "dog", "boat", "emu", "fur"]
    assert list(texts[:, 0]) == [1, 2, 7, 9, 3]
    words, texts = vocabulary(study(names))
    assert words == ["Cat", "dog", "fur", "Boat"] and list(texts[:, 0]) == [1, 2, 3, 5]


def test_names_that_are_not_those_of_the_embeddings_are_refused(study, tmp_path):
    inputs = study({"labels": ["cat", "dog"], "concepts": [], "reference": []})
    inputs.names["labels"].append("emu")
    refused(r"s\.json: names 3 labels, but .*s\.safetensors has 2", vocabulary, inputs)
