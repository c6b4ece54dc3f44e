"""How long features are, by label."""

import numpy as np
import pandas as pd
from pydantic import Field

from singflow.config.sections import Section

COLUMNS = ["label", "n", "norm_mean"]


class FeatureNorms(Section):
    """How long features are."""

    order: float = Field(2.0, ge=1, description="order of the norm; 2: Euclidean")


def norms(features: np.ndarray, order: float) -> np.ndarray:
    """Norms (n,) of features (n, d)."""
    return np.linalg.norm(features, ord=order, axis=1)


def by_label(norm: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """One row a label with its images and their mean norm."""
    groups = pd.DataFrame({"label": labels, "norm": norm}).groupby("label", as_index=False)["norm"]
    return groups.agg(n="size", norm_mean="mean")[COLUMNS]
