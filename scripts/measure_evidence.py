"""Test whether the null component tells something about an image that the logits do not tell, which
leaks this study could have found, and how many null directions a head would have to make visible.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from singflow import cli
from singflow.analyses.evidence import Evidence, Words, measure, turn_deg
from singflow.analyses.floor import Refits, Rows, SplitHead, whole_images
from singflow.analyses.geometry import coordinate_axes
from singflow.analyses.head_extension import enough, head_extension
from singflow.analyses.inputs import Inputs
from singflow.analyses.readout import Block
from singflow.artifacts.files import read_json, write_json
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import provenance, read_tensors, write_tensors
from singflow.translators.crossfit import WHOLE, GroupSums, cross_validate
from singflow.translators.reference import Paired


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


def score(
    flags: Flags, inputs: Inputs, pool: list[Paired], head: SplitHead, words: Words
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Floor of IS and conditional scores by image, and what is reported of refitted translators."""
    ids = inputs.manifest["image_id"]
    columns = "floor_is_deg", "conditional_is_deg", "conditional_as_deg"
    if not head.null.shape[1]:
        nothing = pd.DataFrame({"image_id": ids} | dict.fromkeys(columns, 0.0))
        return nothing, {"r2": 0.0, "floor_is_sd": 0.0}
    axes = coordinate_axes(
        head.null, lambda: chain.from_iterable(images.features_alone() for images in pool)
    )
    training, *own = pool
    sums, folder = GroupSums(training.split(flags.folds)), flags.path("evidence").parent
    scored = rows = Rows.read(training, head, axes, words, folder, sums)
    map_index = sums.split.map_index
    if own:
        scored = Rows.read(own[0], head, axes, words, folder, None)
        map_index = np.full(len(ids), WHOLE, np.int32)
    penalty, r2 = validated(sums, flags)
    refits = Refits.prepare(rows, sums, map_index, penalty, flags.lambdas, flags.threads)
    del sums
    texts = inputs.label_texts[inputs.label_of]
    conditional = refits.image_scores(scored, refits.translators(), texts, conditional=True)
    floors, spread = refits.floor(scored, draws=flags.draws, seed=flags.seed, threads=flags.threads)
    scores = dict(zip(columns, (floors, *conditional), strict=True))
    return pd.DataFrame({"image_id": ids} | scores), {"r2": r2, "floor_is_sd": spread}


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    inputs = Inputs.of(flags)
    training = inputs.training(flags.reference)
    pool = [training] if training is inputs.pairs else [training, inputs.pairs]
    head = SplitHead.split(inputs.head, inputs.null_basis)
    null_dim = head.null.shape[1]
    spelled, _ = read_tensors(inputs.path("classes"), ["class_embeddings", "other_embeddings"])
    texts, others = (
        spelled[name].astype(np.float64) if len(spelled[name]) else None
        for name in ("class_embeddings", "other_embeddings")
    )

    def blocks() -> Iterator[Block]:
        return chain.from_iterable(whole_images(images, head) for images in pool)

    found = measure(blocks, texts, others, flags, flags.lambdas, flags.confidence, flags.seed)
    facts, words, planted = found.facts, found.words, found.planted
    curve = head_extension(found, min(null_dim, len(words.offset)), flags.confidence)
    del found  # the read-outs leave room for the translators
    scores, refitted = score(flags, inputs, pool, head, words)
    report = facts | refitted | known(inputs)
    report |= {"principal_dim": head.principal.shape[1], "null_dim": null_dim}
    report |= {"floor_is_deg": float(scores["floor_is_deg"].mean())}
    for end in ("", "_low", "_high"):
        report[f"turn{end}_deg"] = turn_deg(facts[f"unique_r2{end}"], words, report["r2"])
    write_parquet(flags.path("evidence_images"), scores)
    write_parquet(flags.path("planted_leaks"), planted)
    write_parquet(flags.path("head_extensions"), curve)
    saved = {"word_weights": words.weights, "offset": words.offset}
    saved["class_embeddings"] = spelled["class_embeddings"]
    made = provenance([], study=flags.study, space=flags.space, model=flags.model)
    write_tensors(flags.path("own_words"), saved, made)
    write_json(flags.path("evidence"), report)
    cli.log.info(
        "D %s, margin %g, p %s; smallest leak found %s; blind check %s; floor of IS %.2f degrees",
        *(facts[name] for name in ("unique_r2", "margin", "p", "detectable", "blind_unique_r2")),
        report["floor_is_deg"],
    )
    last, fewest = curve.iloc[-1], enough(curve)
    cli.log.info(
        "D %.4f with %d null directions%s",
        last["unique_r2"],
        last["directions"],
        "" if fewest is None else f", of which {fewest} give 90 % of it",
    )


if __name__ == "__main__":
    cli.run_step(main, Flags)
