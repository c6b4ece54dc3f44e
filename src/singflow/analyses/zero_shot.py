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
    blocks = [
        embeddings[start : start + size] @ texts.T for start in range(0, len(embeddings), size)
    ]
    return (
        np.concatenate([block.argmax(axis=1) for block in blocks])
        if blocks
        else np.zeros(0, dtype=np.intp)
    )


def summarize_zero_shot(found: pd.DataFrame) -> dict[str, Any]:
    """Accuracies of a model in a space, as shares of images; all None if there is a single label.

    zero_shot: of translated features. zero_shot_equivalent: without their null component.
    zero_shot_space: of the embeddings of the images themselves. zero_shot_chance: of guessing a
    label.
    """
    columns = {
        "zero_shot": "translated",
        "zero_shot_equivalent": "equivalent",
        "zero_shot_space": "embedding",
    }
    labels = found["label"].nunique()
    if labels < 2:
        return dict.fromkeys([*columns, "zero_shot_chance"])
    shares = {
        name: float((found[column] == found["label"]).mean()) for name, column in columns.items()
    }
    return shares | {"zero_shot_chance": 1 / labels}
