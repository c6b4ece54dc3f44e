"""Features in words: the texts of a study that are nearest to their translations."""

import numpy as np

from singflow.analyses.inputs import Inputs
from singflow.analyses.metrics import angle_deg
from singflow.artifacts.files import FIX
from singflow.errors import InputError

WORDS = ("word_1", "word_2", "word_3")  # columns of the table of pictures, nearest first
ANGLES = tuple(f"{word}_deg" for word in WORDS)
# Texts that may be a word, by their tensor. Of equal names, the first is taken.
TEXTS = {
    "labels": "label_embeddings",
    "reference": "reference_embeddings",
    "concepts": "concept_embeddings",
}


def vocabulary(inputs: Inputs) -> tuple[list[str], np.ndarray]:
    """The P words of a study and their embeddings (P, m); case does not tell two words apart."""
    found: dict[str, tuple[str, np.ndarray]] = {}
    for kind, tensor in TEXTS.items():
        if not (names := inputs.names.get(kind)):
            continue
        embeddings = inputs.texts(tensor)
        if len(names) != len(embeddings):
            raise InputError(
                f"{inputs.path('names')}: names {len(names)} {kind}, but {inputs.path('texts')} "
                f"has {len(embeddings)} {tensor}: {FIX}"
            )
        for name, embedding in zip(names, embeddings, strict=True):
            found.setdefault(name.casefold(), (name, embedding))
    return [name for name, _ in found.values()], np.stack([text for _, text in found.values()])


def word_neighbours(
    points: np.ndarray, words: list[str], texts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The three words (n, 3) nearest to each point (n, m), nearest first, and their angles (n, 3).

    words, texts: the vocabulary and its embeddings (P, m). Angles in float64 decide, and ties go to
    the earlier word. With fewer than three words, the rest is empty and NaN.
    """
    shape = len(points), len(WORDS)
    found, angles = np.full(shape, "", dtype=object), np.full(shape, np.nan)
    for row, point in enumerate(points):
        away = angle_deg(point, texts)
        near = np.argsort(away, kind="stable")[: len(WORDS)]
        found[row, : len(near)] = [words[text] for text in near]
        angles[row, : len(near)] = away[near]
    return found, angles
