"""Measure what the fit of the translators adds to the uncertainty of mean scores, and what scores are at penalties that are as good."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from singflow import cli
from singflow.analyses.controls import Case, draw_subspace
from singflow.analyses.geometry import complement, row_span
from singflow.analyses.refits import (
    DRAWS,
    RANKED,
    SCORES,
    Fit,
    Images,
    Inside,
    Part,
    fits_of,
    influences,
    maps_of,
    mean_scores,
    null_part,
    surprise,
)
from singflow.artifacts.files import read_json, read_names, write_json
from singflow.artifacts.scratch import Scratch
from singflow.artifacts.shards import iterate_pairs, iterate_shards, label_rows, read_manifest
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import read_null_basis, read_tensors
from singflow.translators.crossfit import GroupSums, split


class Flags(cli.Command):
    """Measure what the fit of the translators adds to the uncertainty of mean scores, and what scores are at penalties that are as good."""

    folds: int
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


def read_axes(flags: Flags, manifest: pd.DataFrame, basis: np.ndarray) -> tuple[np.ndarray, int]:
    """Directions of principal and then of null coordinates, in which all features lie, and the number of the former."""

    def blocks(part: np.ndarray) -> Iterator[np.ndarray]:
        for shard in iterate_shards(flags.features, "features", flags.shards, manifest):
            yield shard["features"] @ part

    def spanned(part: np.ndarray) -> np.ndarray:
        if (span := row_span(blocks(part))) is None:
            return part
        shared = next(blocks(part))[0].astype(np.float64)  # what all have in common
        shared -= span @ (span.T @ shared)
        length = np.linalg.norm(shared)
        return part @ (np.column_stack([span, shared / length]) if length > 0 and span.shape[1] < len(span) else span)

    parts = [spanned(part) for part in (complement(basis), basis)]
    return np.hstack(parts).astype(np.float32), parts[0].shape[1]


def read_images(flags: Flags, manifest: pd.DataFrame, axes: np.ndarray, sums: GroupSums) -> Images:
    """All rows in coordinates (a, b), in the order of images and views; and their sums."""
    rows: tuple[Scratch, Scratch] | None = None
    for shard, embeddings in iterate_pairs(flags.features, flags.embeddings, flags.shards, manifest):
        views = int(shard["view"].max()) + 1
        if rows is None:
            widths = axes.shape[1], embeddings.shape[1]
            features, targets = rows = tuple(Scratch(flags.table.parent, len(manifest) * views, width) for width in widths)
        for part in np.array_split(np.arange(len(embeddings)), max(1, -(-len(embeddings) // 4096))):
            image_id, view, coordinates = shard["image_id"][part], shard["view"][part], shard["features"][part] @ axes
            sums.update(coordinates, embeddings[part], image_id, view)
            features[image_id * views + view], targets[image_id * views + view] = coordinates, embeddings[part]
    return Images(features, targets, sums.split.place, sums.split.groups, views)


def removals(flags: Flags, axes: np.ndarray, rank: int, basis: np.ndarray, predictors: list[Fit]) -> dict[str, list[Part]]:
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
    manifest = read_manifest(flags.manifest)
    basis = read_null_basis(flags.projector)
    translator = read_json(flags.translator)
    refit = bool(flags.folds and basis.shape[1] and translator.of_kind("lambda", float | None) is not None)
    columns, table = dict.fromkeys([prefix + name for prefix, names in SCORES.items() for name in names], 0.0), []
    if refit:
        names = read_names(flags.names)["labels"]
        texts, codes = read_tensors(flags.texts, ["label_embeddings"])[0]["label_embeddings"], label_rows(manifest, names, flags.names)
        axes, rank = read_axes(flags, manifest, basis)
        sums = GroupSums(split(manifest, flags.folds))
        images = read_images(flags, manifest, axes, sums)
        fits = fits_of(sums, translator["lambda"])
        penalty = read_json(flags.floor).of_kind("lambdas", dict)["predictor"]
        predictors = fits_of(sums.regress(slice(0, rank), slice(rank, None)), penalty)
        parts = removals(flags, axes, rank, basis, predictors)
        for prefix, each in parts.items():
            scores = SCORES.get(prefix, RANKED)
            found = influences(images, images, fits, each, texts, codes, scores, predictors if prefix == "conditional_" else ())
            columns |= {prefix + name: values for name, values in found.items()}
        ranked = {prefix: each for prefix, each in parts.items() if prefix not in ("conditional_", "matched_")}
        for penalty in sorted(translator["lambdas_within_one_error"], key=lambda each: each != translator["lambda"]):
            maps = maps_of(sums, penalty)
            means = {prefix: mean_scores(images, maps, each, texts, codes) for prefix, each in ranked.items()}
            table.append({"lambda": penalty} | {prefix + name: value for prefix, each in means.items() for name, value in each.items()})
    write_parquet(flags.table, pd.DataFrame({"image_id": manifest["image_id"], **columns}))
    write_json(flags.report, {"refit": refit, "draws": DRAWS, "lambdas": table})
    shown = np.std(columns["is_deg"]) / np.sqrt(len(manifest))
    cli.log.info(
        "standard error of the mean IS out of the fit alone: %.3f degrees; %d penalties within one standard error", shown, len(table)
    )


if __name__ == "__main__":
    cli.run(main, Flags)
