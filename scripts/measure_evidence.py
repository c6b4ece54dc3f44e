"""Test whether the null component tells something about an image that the logits do not tell, and
which leaks this study could have found.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from singflow import cli
from singflow.analyses.evidence import Evidence, measure, turn_deg
from singflow.analyses.floor import Head, Rows, answers, floor, image_scores, refit, whole_images
from singflow.analyses.geometry import complement, coordinate_axes
from singflow.analyses.readout import Block
from singflow.artifacts.files import read_json, read_names, write_json
from singflow.artifacts.shards import label_rows, shard_path
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import provenance, read_null_basis, read_tensors, write_tensors
from singflow.translators.crossfit import WHOLE, GroupSums, cross_validate
from singflow.translators.reference import study_and_training


class Flags(Evidence, cli.Command):
    """Test whether the null component tells of an image what the logits do not, and what the study
    could have seen.
    """

    lambdas: list[Annotated[float, Field(gt=0)]]
    folds: int
    reference: str | None
    confidence: float
    study: str
    space: str
    model: str
    manifest: Path
    head: Path
    classes: Path
    features: Path
    embeddings: Path
    shards: int
    projector: Path
    translator: Path
    texts: Path
    names: Path
    seed: int
    threads: int
    report: Path
    planted: Path
    words: Path
    images: Path


def known(head: Path, embeddings: Path) -> dict[str, bool]:
    """Whether the answer is known in advance.

    The null space holds nothing if the image tower is a function of the logits, and a leak if
    classes were cut off the head.
    """
    (_, model), (_, space) = read_tensors(head, []), read_tensors(shard_path(embeddings, 0), [])
    leak = model.get("keep_classes", "null") != "null"
    return {
        "known_zero": not leak and model.get("weights_sha256") == space.get("classifier_sha256"),
        "known_leak": leak,
    }


def validated(sums: GroupSums, flags: Flags) -> tuple[float, float]:
    """The translator's penalty, and the cross-validated R2 at this penalty.

    An imported translator has neither, so they are computed here.
    """
    translator = read_json(flags.translator)
    penalty = translator.of_kind("lambda", float | None)
    if penalty is None:
        validation = cross_validate(sums, flags.lambdas, flags.threads)
        return flags.lambdas[validation.best], float(validation.r2[validation.best])
    return penalty, next(
        point["validation_r2"] for point in translator["alpha_curve"] if point["lambda"] == penalty
    )


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    own, training = study_and_training(
        flags.manifest, flags.features, flags.embeddings, flags.shards, flags.reference
    )
    pool = [training] if training is own else [training, own]
    basis = read_null_basis(flags.projector)
    tensors, _ = read_tensors(flags.head, ["weight", "bias"])
    head = Head(tensors["weight"], tensors["bias"], complement(basis), basis)
    spelled, _ = read_tensors(flags.classes, ["class_embeddings", "other_embeddings"])
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
    labels = read_names(flags.names)["labels"]
    label_texts = read_tensors(flags.texts, ["label_embeddings"])[0]["label_embeddings"][
        label_rows(own.manifest, labels, flags.names)
    ]
    floors, spread, conditional, r2 = np.zeros(n), 0.0, np.zeros((2, n)), 0.0
    if basis.shape[1]:
        axes, rank = coordinate_axes(
            basis, lambda: chain.from_iterable(images.features_alone() for images in pool)
        )
        sums, folder = GroupSums(training.split(flags.folds)), flags.report.parent
        rows = Rows.read(training, head, axes, found.words, folder, sums)
        scored = rows if training is own else Rows.read(own, head, axes, found.words, folder, None)
        penalty, r2 = validated(sums, flags)
        groups = sums.split.groups
        place = sums.split.place if training is own else np.full(n, WHOLE, np.int32)
        fits = answers(sums, place, rank, penalty, flags.lambdas, flags.threads)
        del sums
        predictors = {group: fit.predictor for group, fit in fits.items()}
        conditional = image_scores(
            scored,
            rows.origin,
            place,
            rank,
            refit(rows, groups, fits, None),
            predictors,
            label_texts,
        )
        floors, spread = floor(
            rows,
            groups,
            scored,
            place,
            rank,
            fits,
            draws=flags.draws,
            seed=flags.seed,
            threads=flags.threads,
        )
    turns = {
        f"turn{end}_deg": turn_deg(facts[f"unique_r2{end}"], found.words, r2)
        for end in ("", "_low", "_high")
    }
    dims = {"principal_dim": basis.shape[0] - basis.shape[1], "null_dim": basis.shape[1]}
    report = {
        **facts,
        **dims,
        "r2": r2,
        **turns,
        "floor_is_deg": float(floors.mean()),
        "floor_is_sd": spread,
        **known(flags.head, flags.embeddings),
    }
    columns = {"image_id": own.manifest["image_id"], "floor_is_deg": floors}
    write_parquet(
        flags.images,
        pd.DataFrame(
            columns
            | dict(zip(("conditional_is_deg", "conditional_as_deg"), conditional, strict=True))
        ),
    )
    write_parquet(flags.planted, found.planted)
    saved = {
        "class_embeddings": spelled["class_embeddings"],
        "word_weights": found.words.weights,
        "offset": found.words.offset,
    }
    write_tensors(
        flags.words, saved, provenance([], study=flags.study, space=flags.space, model=flags.model)
    )
    write_json(flags.report, report)
    cli.log.info(
        "D %s, margin %g, p %s; smallest leak found %s; blind check %s; floor of IS %.2f degrees",
        *(facts[name] for name in ("unique_r2", "margin", "p", "detectable", "blind_unique_r2")),
        report["floor_is_deg"],
    )


if __name__ == "__main__":
    cli.run(main, Flags)
