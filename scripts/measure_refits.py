"""Measure what the fit of the translators adds to the uncertainty of mean scores, and what scores are at penalties that are as good."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from singflow import cli
from singflow.analyses.controls import Case, draw_subspace
from singflow.analyses.fitting import read_coordinates
from singflow.analyses.geometry import complement, row_span
from singflow.analyses.refits import (
    DRAWS,
    PARTS,
    RANKED,
    SCORES,
    Images,
    Inside,
    Part,
    fits_of,
    maps_of,
    mean_scores,
    null_part,
    refitted,
    surprise,
)
from singflow.artifacts.files import read_json, read_names, write_json
from singflow.artifacts.scratch import Scratch
from singflow.artifacts.shards import label_rows
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import read_null_basis, read_tensors
from singflow.translators.crossfit import WHOLE, GroupSums, split
from singflow.translators.reference import Paired, study_and_training
from singflow.translators.ridge import Affine


class Flags(cli.Command):
    """Measure what the fit of the translators adds to the uncertainty of mean scores, and what scores are at penalties that are as good."""

    folds: int
    reference: str | None
    dimensions: list[Annotated[int, Field(ge=1)]]
    manifest: Path
    features: Path
    embeddings: Path
    shards: int
    projector: Path
    translator: Path
    floor: Path
    texts: Path
    names: Path
    seed: int
    threads: int
    table: Path
    report: Path


def read_axes(images: Sequence[Paired], basis: np.ndarray) -> tuple[np.ndarray, int]:
    """Directions of principal and then of null coordinates, as far as features of any of the images lie in them; number of the former."""

    def features() -> Iterator[np.ndarray]:
        return chain.from_iterable(each.features_alone() for each in images)

    def spanned(part: np.ndarray) -> np.ndarray:
        if (span := row_span(block[: part.shape[1]] @ part for block in features())) is None:
            return part
        shared = (next(features())[0] @ part).astype(np.float64)  # what all have in common
        shared -= span @ (span.T @ shared)
        length = np.linalg.norm(shared)
        return part @ (np.column_stack([span, shared / length]) if length > 0 and span.shape[1] < len(span) else span)

    parts = [spanned(part) for part in (complement(basis), basis)]
    return np.hstack(parts).astype(np.float32), parts[0].shape[1]


def read_images(pairs: Paired, folder: Path, axes: np.ndarray, sums: GroupSums | None, wanted: int = 0) -> tuple[Scratch, Scratch, int]:
    """Coordinates (a, b) and embeddings of the views wanted (0: all), by image and view, and their number; they enter the sums."""
    rows: tuple[Scratch, ...] = ()
    for views, place, coordinates, embeddings in read_coordinates(pairs, axes, sums, wanted):
        rows = rows or tuple(Scratch(folder, len(pairs.manifest) * views, width) for width in (axes.shape[1], embeddings.shape[1]))
        rows[0][place], rows[1][place] = coordinates, embeddings
    return *rows, views


def removals(flags: Flags, axes: np.ndarray, rank: int, basis: np.ndarray, predictors: list[Affine]) -> dict[str, list[Part]]:
    """What is removed, by the prefix of its scores: the null component, and other subspaces as measure_controls draws them."""

    def drawn(kind: str, dimension: int, rescaled: bool = False) -> list[Part]:
        subspaces = [draw_subspace(basis, Case(kind, dimension, False), flags.seed, draw) for draw in range(DRAWS[kind])]
        return [Inside(axes.T @ each.basis, each.complement, rank if rescaled else None) for each in subspaces]

    own = basis.shape[1]
    return {
        "": [null_part(rank)],
        "conditional_": [surprise(rank, predictors)],
        "control_": drawn("random", own),
        "matched_": drawn("random", own, rescaled=True),
        **{f"part_{dimension}_": drawn("null", dimension) for dimension in flags.dimensions if dimension < own},
    }


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    basis = read_null_basis(flags.projector)
    translator = read_json(flags.translator)
    refit = bool(flags.folds and basis.shape[1] and translator.of_kind("lambda", float | None) is not None)
    scores = [prefix + name for prefix, names in SCORES.items() for name in names]
    compared = [f"{prefix}{name}_{part}" for prefix in ("", "control_") for name in RANKED for part in PARTS]
    columns, table = dict.fromkeys([*scores, *compared], 0.0), []
    paths = flags.manifest, flags.features, flags.embeddings, flags.shards
    own, training = study_and_training(*paths, flags.reference if refit else None)
    if refit:
        names = read_names(flags.names)["labels"]
        texts, codes = read_tensors(flags.texts, ["label_embeddings"])[0]["label_embeddings"], label_rows(own.manifest, names, flags.names)
        folder = flags.table.parent
        axes, rank = read_axes([training] if training is own else [training, own], basis)
        sums = GroupSums(split(training.manifest, flags.folds))
        features, targets, views = read_images(training, folder, axes, sums)
        images = fitted = Images(features, targets, sums.split.place, sums.split.groups, views)
        if training is not own:
            features, targets, views = read_images(own, folder, axes, None, wanted=1)
            alone = np.full(len(own.manifest), WHOLE, np.int32)
            images = Images(features, targets, alone, alone, views)
        predictors = fits_of(sums.regress(slice(0, rank), slice(rank, None)), read_json(flags.floor).of_kind("lambdas", dict)["predictor"])
        parts = removals(flags, axes, rank, basis, [each.map for each in predictors])
        translators = fits_of(sums, translator["lambda"])
        columns |= refitted(images, fitted, translators, predictors, parts, texts, codes, flags.seed)
        ranked = {prefix: each for prefix, each in parts.items() if prefix not in ("conditional_", "matched_")}
        for penalty in sorted(translator["lambdas_within_one_error"], key=lambda each: each != translator["lambda"]):
            maps = [each.map for each in translators] if penalty == translator["lambda"] else maps_of(sums, penalty)
            means = {prefix: mean_scores(images, maps, each, texts, codes) for prefix, each in ranked.items()}
            table.append({"lambda": penalty} | {prefix + name: value for prefix, each in means.items() for name, value in each.items()})
    known = {"reference": training is not own, "image_id": training.manifest["image_id"], "label": training.manifest["label"]}
    write_parquet(flags.table, pd.DataFrame(known | columns))
    write_json(flags.report, {"refit": refit, "draws": DRAWS, "lambdas": table})
    shown = np.std(columns["is_deg"]) / np.sqrt(len(training.manifest))
    cli.log.info(
        "standard error of the mean IS out of the fit alone: %.3f degrees; %d penalties within one standard error", shown, len(table)
    )


if __name__ == "__main__":
    cli.run(main, Flags)
