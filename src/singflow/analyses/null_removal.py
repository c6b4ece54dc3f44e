"""Scores of every image before and after the removal of its null component."""

import numpy as np
import pandas as pd

from singflow.analyses.geometry import logit_change, null_energy, remove_null
from singflow.analyses.inputs import Inputs
from singflow.analyses.metrics import contrast_deg
from singflow.artifacts.shards import ROWS_AT_ONCE


def remove_null_components(
    inputs: Inputs, class_index: np.ndarray, floor: np.ndarray
) -> pd.DataFrame:
    """One row per image: the scores of null removal, in degrees.

    class_index: (n,), the position of each image's class in the head, or -1. floor: (n,), the floor
    of IS.
    """
    head, basis, fold = inputs.head, inputs.null_basis, inputs.translators.fold
    blocks = []
    for image_id, features in inputs.features(size=ROWS_AT_ONCE):
        label = inputs.label_of[image_id]
        removal = inputs.null_removal(features, image_id)
        original, equivalent = removal.angles(inputs.label_texts[label])
        logits = features @ head["weight"].T + head["bias"]
        columns = {
            "image_id": image_id,
            "label": inputs.labels[label],
            "class_index": class_index[image_id],
            "predicted_index": np.argmax(logits, axis=1).astype(np.int32),
            "fold": fold[image_id],
            "is_deg": removal.image_score(),
            "as_deg": original - equivalent,
            "as_contrast_deg": contrast_deg(removal, inputs.label_texts, label),
            "angle_original_deg": original,
            "angle_equivalent_deg": equivalent,
            "null_energy": null_energy(features, basis),
            "logit_change": logit_change(head["weight"], features, remove_null(features, basis)),
            "floor_is_deg": floor[image_id],
        }
        blocks.append(pd.DataFrame(columns))
    return pd.concat(blocks, ignore_index=True)
