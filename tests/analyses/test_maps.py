"""Maps of images with planted texts: they are strongest where the text is, and sum to AS."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from singflow.analyses.geometry import null_space
from singflow.analyses.maps import map_image
from singflow.analyses.metrics import Removal, subspace_translator
from singflow.towers.live import Located
from singflow.translators.ridge import Affine

SIDE = 6
CLASSES, WIDTH, DIM, TEXTS = 20, 64, 256, 12
QUADRANT = np.zeros((SIDE, SIDE), bool)
QUADRANT[: SIDE // 2, : SIDE // 2] = True
SEEN = (0.0, 0.0, 1.0, 1.0)


class Planted:
    """A head, and a translator that turns null directions into texts."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        space = null_space(self.rng.standard_normal((CLASSES, WIDTH)))
        self.basis, self.principal = space.basis, space.principal
        self.texts = self.rng.standard_normal((TEXTS, DIM))
        self.texts /= np.linalg.norm(self.texts, axis=1, keepdims=True)
        spelled = 0.3 * self.texts.T @ self.basis[:, :TEXTS].T
        seen = self.rng.standard_normal((DIM, CLASSES)) @ self.principal.T / np.sqrt(CLASSES)
        self.translator = Affine(spelled + seen, 0.1 * self.rng.standard_normal(DIM))

    def image(self):
        """Parts of an image whose null component holds the first text in a quadrant."""
        seen = self.rng.standard_normal((SIDE, SIDE, CLASSES)) @ self.principal.T
        null = self.rng.standard_normal((SIDE, SIDE, WIDTH - CLASSES)) @ self.basis.T
        null[QUADRANT] += 8 * self.basis[:, 0]
        return seen + null

    def maps(self, parts, rest=0.0):
        rest = np.zeros(WIDTH) + rest
        located = Located((parts.mean((0, 1)) + rest)[None], parts, rest, SEEN)
        names = [f"text {row}" for row in range(TEXTS)]
        return map_image(located, self.translator, self.basis, names, self.texts)


@pytest.mark.parametrize("seed", range(20))
def test_a_text_hidden_in_one_quadrant_has_its_map_there(seed):
    planted = Planted(seed)
    maps = planted.maps(planted.image())
    own, *others = (text.contribution_deg for text in maps.texts)
    assert own[QUADRANT].max() < 0 and own[QUADRANT].sum() < 4 * own[~QUADRANT].sum()
    largest = max(np.abs(other).max() for other in others)
    assert np.abs(own).max() == maps.strongest_deg > 2 * largest


@given(st.integers(0, 10**6), st.floats(0.01, 3))
@settings(max_examples=30, deadline=None)
def test_positions_and_rest_sum_to_the_attribute_score(seed, strength):
    planted = Planted(seed)
    parts = strength * planted.image()
    rest = planted.rng.standard_normal(WIDTH)
    feature = (parts.mean((0, 1)) + rest)[None]
    removed = subspace_translator(planted.translator, planted.basis)
    removal = Removal(planted.translator(feature), removed(feature))
    maps = planted.maps(parts, rest)
    for text, embedding in zip(maps.texts, planted.texts, strict=True):
        wanted = removal.attribute_score(embedding[None])[0]
        assert text.as_deg == pytest.approx(wanted, abs=1e-6)
        assert text.contribution_deg.sum() + text.rest_deg == pytest.approx(wanted, abs=1e-6)
