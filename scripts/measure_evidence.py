"""Test whether the null component tells something about an image that the logits do not tell, and
which leaks this study could have found.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from singflow import cli
from singflow.analyses.evidence import Evidence, measure, turn_deg
from singflow.analyses.floor import Refits, Rows, SplitHead, whole_images
from singflow.analyses.geometry import coordinate_axes
from singflow.analyses.inputs import Inputs
from singflow.analyses.readout import Block
from singflow.artifacts.files import read_json, write_json
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import provenance, read_tensors, write_tensors
from singflow.translators.crossfit import WHOLE, GroupSums, cross_validate


class Flags(Evidence, cli.PairStep):
    lambdas: list[Annotated[float, Field(gt=0)]]
    folds: int
    reference: str | None
    confidence: float
    seed: int


def known(inputs: Inputs) -> dict[str, bool]:
    """Whether the answer is known in advance.

    The null space holds nothing if the image tower is a function of the logits, and a leak if
    classes were cut off the head.
    """
    model, (_, space) = inputs.head_facts, read_tensors(inputs.path("embeddings"), [])
    leak = model.get("keep_classes", "null") != "null"
    return {
        "known_zero": not leak and model.get("weights_sha256") == space.get("classifier_sha256"),
        "known_leak": leak,
    }


def validated(sums: GroupSums, flags: Flags) -> tuple[float, float]:
    """The translator's penalty, and the cross-validated R2 at this penalty.

    An imported translator has neither, so they are computed here.
    """
    translator = read_json(flags.path("translator_report"))
    penalty = translator.of_kind("lambda", float | None)
    if penalty is None:
        validation = cross_validate(sums, flags.lambdas, flags.threads)
        return flags.lambdas[validation.best], float(validation.r2[validation.best])
    return penalty, next(
        point["validation_r2"] for point in translator["alpha_curve"] if point["lambda"] == penalty
    )


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    inputs = Inputs.of(flags)
    own, training = inputs.pairs, inputs.training(flags.reference)
    pool = [training] if training is own else [training, own]
    basis = inputs.null_basis
    head = SplitHead.split(inputs.head, basis)
    spelled, _ = read_tensors(inputs.path("classes"), ["class_embeddings", "other_embeddings"])
    texts, others = (
        spelled[name].astype(np.float64) if len(spelled[name]) else None
        for name in ("class_embeddings", "other_embeddings")
    )

    def blocks() -> Iterator[Block]:
        return chain.from_iterable(whole_images(images, head) for images in pool)

    found = measure(
        blocks,
        texts,
        others,
        lambdas=flags.lambdas,
        margin=flags.margin,
        draws=flags.draws,
        confidence=flags.confidence,
        seed=flags.seed,
    )
    n, facts = len(own.manifest), found.facts
    label_texts = inputs.label_texts[inputs.label_of]
    floors, spread, conditional, r2 = np.zeros(n), 0.0, tuple(np.zeros((2, n))), 0.0
    if basis.shape[1]:
        axes = coordinate_axes(
            basis, lambda: chain.from_iterable(images.features_alone() for images in pool)
        )
        sums, folder = GroupSums(training.split(flags.folds)), flags.path("evidence").parent
        rows = Rows.read(training, head, axes, found.words, folder, sums)
        scored = rows if training is own else Rows.read(own, head, axes, found.words, folder, None)
        map_index = sums.split.map_index if training is own else np.full(n, WHOLE, np.int32)
        penalty, r2 = validated(sums, flags)
        refits = Refits.prepare(rows, sums, map_index, penalty, flags.lambdas, flags.threads)
        del sums
        conditional = refits.image_scores(
            scored, refits.translators(), label_texts, conditional=True
        )
        floors, spread = refits.floor(
            scored, draws=flags.draws, seed=flags.seed, threads=flags.threads
        )
    turns = {
        f"turn{end}_deg": turn_deg(facts[f"unique_r2{end}"], found.words, r2)
        for end in ("", "_low", "_high")
    }
    report = {
        **facts,
        "principal_dim": basis.shape[0] - basis.shape[1],
        "null_dim": basis.shape[1],
        "r2": r2,
        **turns,
        "floor_is_deg": float(floors.mean()),
        "floor_is_sd": spread,
        **known(inputs),
    }
    scores = {"image_id": own.manifest["image_id"], "floor_is_deg": floors}
    scores |= dict(zip(("conditional_is_deg", "conditional_as_deg"), conditional, strict=True))
    write_parquet(flags.path("evidence_images"), pd.DataFrame(scores))
    write_parquet(flags.path("planted_leaks"), found.planted)
    saved = {
        "class_embeddings": spelled["class_embeddings"],
        "word_weights": found.words.weights,
        "offset": found.words.offset,
    }
    made = provenance([], study=flags.study, space=flags.space, model=flags.model)
    write_tensors(flags.path("own_words"), saved, made)
    write_json(flags.path("evidence"), report)
    cli.log.info(
        "D %s, margin %g, p %s; smallest leak found %s; blind check %s; floor of IS %.2f degrees",
        *(facts[name] for name in ("unique_r2", "margin", "p", "detectable", "blind_unique_r2")),
        report["floor_is_deg"],
    )


if __name__ == "__main__":
    cli.run_step(main, Flags)
