"""Effect of keeping fewer leading directions of a head as principal, on logits and on meaning.

It shows how invariant the almost-null space is.
"""

from typing import Annotated

import numpy as np
import pandas as pd
import scipy
from pydantic import Field

from singflow.analyses.geometry import energy_rank, null_space
from singflow.analyses.metrics import Removal, translate
from singflow.artifacts.shards import in_blocks
from singflow.config.sections import Section
from singflow.translators.crossfit import CrossFitted


class RankCurve(Section):
    """How invariant the almost-null space is."""

    kept: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [1.0, 0.99, 0.95, 0.9, 0.75, 0.5, 0.25],
        min_length=1,
        description="shares of the head's rank that are kept; "
        "the rest of the feature space is removed",
    )


CHUNK = 256


class CurveStatistics:
    """Running means over images of what each removal changes; memory does not grow with images.

    The points of the curve are the shares `kept` of the head's exact rank (rounded, at least 1,
    every share once) and the rules exact, energy and centered of geometry.null_space. A point of
    rank r keeps the r leading right singular vectors of W and removes the rest of the feature
    space: f' = V_r V_r^T f. Rule centered keeps those of W minus its mean row.

    weight (C, d) and bias (C,) belong to the head; energy is the share of ||W||_F^2 that rule
    energy keeps; stored is the precision that null_space takes.
    """

    def __init__(
        self,
        weight: np.ndarray,
        bias: np.ndarray,
        translators: CrossFitted,
        kept: list[float],
        energy: float,
        stored: str | None = None,
    ) -> None:
        self._weight, self._bias = weight.astype(np.float64), bias.astype(np.float64)
        self._translators = translators
        exact = null_space(weight, stored=stored)
        centered = null_space(weight, "centered", stored=stored)
        ranks = {
            share: min(exact.rank, max(1, round(share * exact.rank)))
            for share in sorted(set(kept), reverse=True)
        }
        some = min(exact.rank, energy_rank(exact.singular_values, energy))
        rules = {"exact": exact.rank, "energy": some}
        cuts = sorted({*ranks.values(), *rules.values()}, reverse=True)
        whole = max(exact.rank, 1)
        self._points = [
            *[("share", share, rank, cuts.index(rank)) for share, rank in ranks.items()],
            *[(rule, rank / whole, rank, cuts.index(rank)) for rule, rank in rules.items()],
            ("centered", centered.rank / whole, centered.rank, len(cuts)),
        ]
        # Chains of nested subspaces: an orthonormal basis, cuts that fall, and W and the T of every
        # fold times the basis. A cut removes the columns from it on, so that each cut adds columns
        # to what the cut before has removed.
        self._chains = [
            (
                basis,
                chain_cuts,
                self._weight @ basis,
                [translator.weight @ basis for translator in translators.members],
            )
            for basis, chain_cuts in (
                (np.hstack([exact.principal, exact.basis]), cuts),
                (centered.basis, [0]),
            )
        ]
        total = max(float(np.sum(self._weight**2)), np.finfo(np.float64).tiny)
        self._energy = [
            1.0 - np.sum(seen[:, cut:] ** 2) / total
            for _, cuts, seen, _ in self._chains
            for cut in cuts
        ]
        self._n = self._n_spread = 0
        self._sums = np.zeros((len(self._energy), 8))
        self._largest = np.zeros(len(self._energy))

    def update(self, image_id: np.ndarray, features: np.ndarray, texts: np.ndarray) -> None:
        """Add n images: features (n, d), and texts (n, m), the unit embeddings of their labels."""
        for place, rows in self._translators.parts(image_id):
            for part in in_blocks(rows, CHUNK):
                self._update(place, features[part].astype(np.float64), texts[part])

    def _update(self, place: int, features: np.ndarray, texts: np.ndarray) -> None:
        logits = features @ self._weight.T + self._bias
        spread = np.linalg.norm(logits - logits.mean(axis=1, keepdims=True), axis=1)
        spreads = spread > 0
        original = translate(features, self._translators.members[place])
        before, predicted = scipy.special.softmax(logits, axis=1), logits.argmax(axis=1)
        self._n += len(features)
        self._n_spread += int(spreads.sum())
        subspace = 0
        for basis, cuts, seen, translated in self._chains:
            coordinates, end = features @ basis, basis.shape[1]
            change, moved = np.zeros_like(logits), np.zeros_like(original)
            for cut in cuts:
                change += coordinates[:, cut:end] @ seen[:, cut:end].T
                moved += coordinates[:, cut:end] @ translated[place][:, cut:end].T
                end = cut
                size, after = np.linalg.norm(change, axis=1), logits - change
                removal = Removal(original, moved)
                image, attribute = removal.image_score(), removal.attribute_score(texts)
                self._sums[subspace] += [
                    size.sum(),
                    (size[spreads] / spread[spreads]).sum(),
                    np.abs(scipy.special.softmax(after, axis=1) - before).sum() / 2,
                    (after.argmax(axis=1) != predicted).sum(),
                    image.sum(),
                    (image**2).sum(),
                    attribute.sum(),
                    np.abs(attribute).sum(),
                ]
                self._largest[subspace] = max(self._largest[subspace], size.max())
                subspace += 1

    def table(self) -> pd.DataFrame:
        """One row per point, the shares first.

        kept is the share of the exact rank, as requested, or rank / exact rank for a rule; null_dim
        is the number of removed dimensions; energy is the share of ||W||_F^2 kept; logit_change is
        ||W f' - W f||, and logit_relative divides it by the norm of W f + b minus its mean over
        classes, for images whose logits differ between classes. softmax_change is the total
        variation, 0 to 1; the standard deviation of IS has divisor n; AS is toward the image's own
        label.
        """
        means = self._sums.T / self._n
        change, relative, softmax_change, flips, image, image2, attribute, magnitude = means
        relative = relative * self._n / self._n_spread if self._n_spread else relative * np.nan
        rows = []
        for point, kept, rank, subspace in self._points:
            rows.append(
                {
                    "point": point,
                    "kept": kept,
                    "rank": rank,
                    "null_dim": self._weight.shape[1] - rank,
                    "energy": self._energy[subspace],
                    "n": self._n,
                    "logit_change_mean": change[subspace],
                    "logit_change_max": self._largest[subspace],
                    "logit_relative_mean": relative[subspace],
                    "softmax_change_mean": softmax_change[subspace],
                    "top1_changed": flips[subspace],
                    "is_mean_deg": image[subspace],
                    "is_std_deg": np.sqrt(max(image2[subspace] - image[subspace] ** 2, 0.0)),
                    "as_mean_deg": attribute[subspace],
                    "as_abs_mean_deg": magnitude[subspace],
                }
            )
        return pd.DataFrame(rows)
