"""Open-vocabulary scan: per label and concept, moments of the angle and of the attribute score (section 4.3)."""

import numpy as np
import pandas as pd

from singflow.metrics import Removal, angles_to_all_deg

CHUNK = 1024


class ConceptScan:
    """Running moments over images; memory grows with labels x concepts, not with images.

    texts: (P, m) unit embeddings of the concepts.
    """

    def __init__(self, labels: int, texts: np.ndarray) -> None:
        self._texts = texts
        self._n = np.zeros(labels, dtype=np.int64)
        self._moments = np.zeros((5, labels, len(texts)))

    def update(self, codes: np.ndarray, removal: Removal) -> None:
        """Add images: codes (n,) are the labels' positions."""
        for start in range(0, len(codes), CHUNK):
            part = slice(start, start + CHUNK)
            angle = angles_to_all_deg(removal.original[part], self._texts).astype(np.float64)
            score = angle - angles_to_all_deg(removal.equivalent[part], self._texts)
            for code in np.unique(codes[part]):
                mine = codes[part] == code
                a, s = angle[mine], score[mine]
                self._n[code] += len(a)
                self._moments[:, code] += a.sum(0), (a**2).sum(0), s.sum(0), (s**2).sum(0), np.abs(s).sum(0)

    def table(self, labels: list[str], concepts: list[str]) -> pd.DataFrame:
        """One row per label and concept; standard deviations are over images (divisor n)."""
        n = self._n[:, None]
        angle, angle2, score, score2, magnitude = self._moments / n
        columns = {
            "angle_mean": angle,
            "angle_std": np.sqrt(np.maximum(angle2 - angle**2, 0.0)),
            "as_mean": score,
            "as_std": np.sqrt(np.maximum(score2 - score**2, 0.0)),
            "as_abs_mean": magnitude,
        }
        return pd.DataFrame(
            {
                "label": np.repeat(labels, len(concepts)),
                "concept": np.tile(concepts, len(labels)),
                "n": np.repeat(self._n, len(concepts)),
                **{name: values.ravel() for name, values in columns.items()},
            }
        )
