"""The test of meaning on images: the one function that `measure` and the step call."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from singflow.analyses.bands import Block
from singflow.analyses.evidence import EvidenceSettings, OwnWords, turn_deg, unique_meaning
from singflow.analyses.floor import Refitting, SplitHead, floor_of_images, grouped, whole_images
from singflow.analyses.hidden import Question
from singflow.evidence import Evidence
from singflow.translators.reference import Pool
from singflow.translators.ridge import Affine

IN_MEMORY = partial(np.empty, dtype=np.float32)


def judge(
    pool: Pool[Any],
    head: SplitHead,
    translator: Affine,
    stated: Mapping[str, Any],
    class_texts: np.ndarray | None,
    others: np.ndarray | None,
    question: Question,
    how: Refitting,
    keep: Callable[[tuple[int, int]], Any] = IN_MEMORY,
) -> Evidence:
    """Evidence on a model in a space, without a verdict: `images` are the floors of IS.

    For class_texts, others and keep see unique_meaning(). `source` is empty.
    """
    tested = grouped(pool)

    def blocks() -> Iterator[Block]:
        return chain.from_iterable(whole_images(images, head, how.threads) for images in tested)

    facts, planted, own_words, residuals = unique_meaning(
        blocks,
        class_texts,
        others,
        EvidenceSettings.model_validate({"margin": question.margin, "draws": how.draws}),
        question.confidence,
        how.seed,
        keep,
        how.threads,
    )
    basis = head.null
    spoken = OwnWords(own_words.texts, own_words.weights, own_words.offset)
    floors, refitted = floor_of_images(pool, head, own_words, how)
    dims = {"principal_dim": head.principal.shape[1], "null_dim": basis.shape[1]}
    facts |= dims | refitted
    facts["floor_is_deg"] = float(floors["floor_is_deg"].mean())
    for end in ("", "_low", "_high"):
        facts[f"turn{end}_deg"] = turn_deg(facts[f"unique_r2{end}"], own_words, facts["r2"])
    return Evidence(
        translator, stated, "", facts, floors, planted, question, basis, spoken, residuals
    )
