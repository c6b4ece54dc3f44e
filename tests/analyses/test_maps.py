"""Maps of images with planted texts: they are found where they are, and nowhere else."""

import numpy as np
import pytest
from scipy.stats import binom

from singflow.analyses.geometry import null_space
from singflow.analyses.maps import (
    Located,
    angle_gradients,
    conditional_translator,
    contributions,
    map_image,
    threshold,
)
from singflow.analyses.metrics import angle_deg
from singflow.translators.ridge import Affine

SIDE, OTHERS, SEEDS = 6, 39, 100
CLASSES, WIDTH, DIM, TEXTS = 20, 64, 256, 12
QUADRANT = np.zeros((SIDE, SIDE), bool)
QUADRANT[: SIDE // 2, : SIDE // 2] = True


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
        axes = np.hstack([self.principal, self.basis]), CLASSES
        nothing = Affine(np.zeros((WIDTH - CLASSES, CLASSES)), np.zeros(WIDTH - CLASSES))
        return conditional_translator(self.translator, self.basis, axes, nothing)

    def maps(self, parts, others, conditional=None):
        image = Located(parts.mean((0, 1))[None], parts, np.zeros(WIDTH), (0.0, 0.0, 1.0, 1.0))
        names, predicted = [f"text {row}" for row in range(TEXTS)], ("class 0", self.weight[0])
        return map_image(
            image,
            self.translator,
            self.basis,
            conditional or self.conditional(),
            others,
            names,
            self.texts,
            predicted,
            0.95,
        )


def test_a_text_hidden_in_one_quadrant_is_found_there_and_nowhere_else():
    found, outside, elsewhere = [], 0, 0
    for seed in range(SEEDS):
        planted = Planted(seed)
        others = [planted.image(1 + number % (TEXTS - 1)) for number in range(OTHERS)]
        own, *other_texts = planted.maps(planted.image(0), others).texts
        found.append(own.beyond[QUADRANT].mean())
        outside += own.beyond[~QUADRANT].any()
        elsewhere += np.mean([text.beyond.any() for text in other_texts])
        assert (own.contribution_deg[QUADRANT].mean() < 0) and own.as_deg < 0
    assert np.mean(found) > 0.95 and min(found) > 0.5
    most = binom.ppf(0.999, SEEDS, 0.05)
    assert outside <= most and elsewhere <= most
    print(np.mean(found), min(found), outside, elsewhere)
