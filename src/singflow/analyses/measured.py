"""All that the test of meaning says about a model in a space, from one pass of questions.

They are D with its controls, D by text and by group, and the floor of IS by image.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from singflow.analyses.bands import Block
from singflow.analyses.evidence import (
    EvidenceSettings,
    FittedOwnWords,
    Residuals,
    turn_deg,
    unique_meaning,
)
from singflow.analyses.floor import Refitting, SplitHead, floor_of_images, whole_images
from singflow.analyses.hidden import TESTED, Question, by_group, by_text
from singflow.artifacts.scratch import Scratch
from singflow.translators.reference import Pool


@dataclass(frozen=True)
class Measured:
    """Results of measure().

    facts: the report of evidence/<space>/<model>.json, without what is known in advance. planted,
    floors: the tables planted_leaks and evidence_images. copies: (n,) of all images of the test;
    those with the same number are drawn together.
    """

    facts: dict[str, Any]
    own_words: FittedOwnWords
    planted: pd.DataFrame
    floors: pd.DataFrame
    residuals: Residuals | None
    copies: np.ndarray
    question: Question

    def texts(self, embeddings: np.ndarray) -> pd.DataFrame:
        """D of texts (T, m) of centred_texts(), a row each; p is corrected within all of them."""
        if self.residuals is None:
            return self._judged(pd.DataFrame(columns=[*TESTED]).astype(TESTED))
        return self._judged(by_text(self.residuals, embeddings, self.copies, self.question))

    def groups(self, groups: pd.Series) -> pd.DataFrame:
        """D within each group of all images of the test, with columns group and n.

        An image of no group has None. p is corrected within the groups.
        """
        if self.residuals is None:
            kinds = {"group": object, "n": np.int64, **TESTED}
            return self._judged(pd.DataFrame(columns=[*kinds]).astype(kinds))
        codes, names = pd.factorize(groups, sort=True)
        table = by_group(self.residuals, codes, self.copies, self.question)
        table.insert(0, "group", names)
        return self._judged(table[["group", "n", *TESTED]])

    def _judged(self, table: pd.DataFrame) -> pd.DataFrame:
        """With a column hidden: nothing is, unless D of the model exceeds the margin."""
        level = 1 - self.question.confidence
        said = self.facts["p"] is not None and self.facts["p"] <= level
        return table.assign(hidden=said & (table["p"] <= level))


def measure(
    pool: Pool[Any],
    head: SplitHead,
    texts: np.ndarray | None,
    others: np.ndarray | None,
    copies: np.ndarray,
    margin: float,
    how: Refitting,
    confidence: float,
) -> Measured:
    """Ask all questions about a model in a space; for the arguments see unique_meaning()."""

    def blocks() -> Iterator[Block]:
        return chain.from_iterable(whole_images(images, head, how.threads) for images in pool)

    settings = EvidenceSettings.model_validate({"margin": margin, "draws": how.draws})
    found = unique_meaning(
        blocks,
        texts,
        others,
        settings,
        confidence,
        how.seed,
        lambda shape: Scratch(how.folder, *shape),
        how.threads,
    )
    facts, own_words = found.facts, found.own_words
    planted, residuals = found.planted, found.residuals
    null_dim = head.null.shape[1]
    floors, refitted = floor_of_images(pool, head, own_words, how)
    facts |= {"principal_dim": head.principal.shape[1], "null_dim": null_dim, **refitted}
    facts["floor_is_deg"] = float(floors["floor_is_deg"].mean())
    for end in ("", "_low", "_high"):
        facts[f"turn{end}_deg"] = turn_deg(facts[f"unique_r2{end}"], own_words, facts["r2"])
    question = Question(margin, confidence, how.seed)
    return Measured(facts, own_words, planted, floors, residuals, copies, question)
