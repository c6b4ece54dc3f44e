"""Zero-shot accuracy of a translator: is the text nearest to a translated feature the one of the image's label (Moayeri et al. 2023)?"""

from typing import Any

import numpy as np
import pandas as pd

PRODUCTS = 2**22  # of embeddings and texts that are held at once


def nearest_texts(embeddings: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """The text of the largest cosine with each embedding, the first of equals.

    Parameters
    ----------
    embeddings : ndarray of shape (n, m)
        Of any norm.
    texts : ndarray of shape (L, m)
        Of unit norm.

    Returns
    -------
    ndarray of int, shape (n,)
        Rows of the texts.
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
    """Accuracies of a model in a space.

    Parameters
    ----------
    found : DataFrame
        zero_shot/<space>/<model>.parquet.

    Returns
    -------
    dict
        zero_shot: of translated features; zero_shot_equivalent: without their null component; zero_shot_space: of the embeddings of the
        images themselves; zero_shot_chance: of guessing any label. Shares of the images; all None with a single label.
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
