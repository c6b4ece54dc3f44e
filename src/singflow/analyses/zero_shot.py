"""Zero-shot accuracy of a translator (Moayeri et al. 2023).

It is the share of translated features whose nearest text is the text of the image's label.
"""

from typing import Any

import numpy as np
import pandas as pd

PRODUCTS = 2**22  # products of embeddings and texts that are computed at once


def nearest_texts(embeddings: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Row (n,) of the text with the largest cosine with each embedding, the first of equals.

    The embeddings (n, m) may have any norm; the texts (L, m) have norm 1.
    """
    size = max(1, PRODUCTS // len(texts))
    found = np.zeros(len(embeddings), dtype=np.intp)
    for start in range(0, len(embeddings), size):
        part = slice(start, start + size)
        found[part] = (embeddings[part] @ texts.T).argmax(axis=1)
    return found


def summarize_zero_shot(found: pd.DataFrame) -> dict[str, Any]:
    """Accuracies of a model in a space, as shares of images; all None if there is a single label.

    zero_shot: of translated features. zero_shot_equivalent: without their null component.
    zero_shot_space: of the embeddings of the images themselves. zero_shot_chance: of guessing a
    label.
    """
    names = ["zero_shot", "zero_shot_equivalent", "zero_shot_space", "zero_shot_chance"]
    labels = found["label"].nunique()
    if labels < 2:
        return dict.fromkeys(names)
    right = found[["translated", "equivalent", "embedding"]].eq(found["label"], axis=0).mean()
    return dict(zip(names, [*right.tolist(), 1 / labels], strict=True))
