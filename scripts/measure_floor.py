"""Measure what scores show where the null space carries nothing, and what it adds to the principal space."""

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from singflow import cli
from singflow.analyses.floor import SCORES, Floor, Refits, Rows, label_p_values, measure, p_value, predictor_penalty
from singflow.analyses.geometry import coordinate_axes
from singflow.analyses.unique_information import unique_information
from singflow.artifacts.files import read_json, read_names, write_json
from singflow.artifacts.scratch import Scratch
from singflow.artifacts.shards import in_blocks, iterate_pairs, iterate_shards, label_rows, read_manifest, shard_path
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import read_null_basis, read_tensors
from singflow.errors import InputError
from singflow.translators.crossfit import GroupSums, cross_validate, split


class Flags(Floor, cli.Command):
    """Measure what scores show where the null space carries nothing, and what it adds to the principal space."""

    lambdas: list[Annotated[float, Field(gt=0)]]
    folds: int
    confidence: float
    manifest: Path
    head: Path
    features: Path
    embeddings: Path
    shards: int
    projector: Path
    translator: Path
    texts: Path
    names: Path
    seed: int
    threads: int
    table: Path
    images: Path
    labels: Path
    report: Path


def read_rows(flags: Flags, manifest: pd.DataFrame, axes: np.ndarray, rank: int, sums: GroupSums) -> Rows:
    """All rows in coordinates (a, b), in the order of images and views, and their sums; b stands where residuals will."""
    n, seen, views = len(manifest), 0, 0
    for shard, embeddings in iterate_pairs(flags.features, flags.embeddings, flags.shards, manifest):
        if not views:
            views = int(shard["view"].max()) + 1
            widths = rank, embeddings.shape[1], axes.shape[1] - rank
            principal, targets, hidden = (Scratch(flags.table.parent, n * views, width) for width in widths)
        for part in in_blocks(np.arange(len(embeddings))):
            image_id, view = shard["image_id"][part], shard["view"][part]
            coordinates, place = shard["features"][part] @ axes, image_id * views + view
            sums.update(coordinates, embeddings[part], image_id, view)
            origin = sums.origin[0][:rank], sums.origin[1]
            principal[place], targets[place] = coordinates[:, :rank] - origin[0], embeddings[part] - origin[1]
            hidden[place] = coordinates[:, rank:]
            seen += len(place)
    if seen != n * views:
        raise InputError(f"{flags.features}: holds {seen} rows, not {views} of each of {n} images: remove it and run the workflow again")
    return Rows(principal, targets, hidden, Scratch(flags.table.parent, n, axes.shape[1] - rank), origin, sums.split.groups, views)


def leave_residuals(rows: Rows, refits: Refits) -> None:
    """Split the null coordinates of all rows into what principal ones predict and the rest."""
    for group in np.unique(rows.groups):
        predictor = refits.predictor_of(group)
        for images in in_blocks(np.flatnonzero(rows.groups == group), max(1, 4096 // rows.views)):
            place = rows.rows_of(images)
            predicted = predictor(rows.principal[place] + rows.origin[0])
            rows.residuals[place] = rows.residuals[place] - predicted
            rows.predicted[images] = predicted[:: rows.views]


def is_known_zero(head: Path, embeddings: Path) -> bool:
    """Whether the model is the one of which the space's image tower is a function."""
    (_, model), (_, space) = read_tensors(head, []), read_tensors(shard_path(embeddings, 0), [])
    return model.get("weights_sha256") == space.get("classifier_sha256")


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    manifest = read_manifest(flags.manifest)
    axes, rank = coordinate_axes(
        read_null_basis(flags.projector),
        lambda: (shard["features"] for shard in iterate_shards(flags.features, "features", flags.shards, manifest)),
    )
    texts = read_tensors(flags.texts, ["label_embeddings"])[0]["label_embeddings"]
    labels = read_names(flags.names)["labels"]
    codes = label_rows(manifest, labels, flags.names)
    sums = GroupSums(split(manifest, flags.folds))
    rows = read_rows(flags, manifest, axes, rank, sums)
    between = sums.regress(slice(0, rank), slice(rank, None))
    fitted = read_json(flags.translator).of_kind("lambda", float | None)
    released = fitted is None
    wanted = {"principal": sums.regress(slice(0, rank)), "predictor": between} | ({"translator": sums} if released else {})
    lambdas = {name: flags.lambdas[cross_validate(each, flags.lambdas).best] for name, each in wanted.items()}
    lambdas.setdefault("translator", fitted)
    lambdas["predictor"], scale = predictor_penalty(between, lambdas["predictor"]) if sums.split.crossed else (lambdas["predictor"], 1.0)
    facts = unique_information(sums, rank, (lambdas["translator"], lambdas["principal"]), flags.confidence)
    refits = Refits(sums, rank, (lambdas["translator"], lambdas["predictor"]), sums.split.place, scale)
    leave_residuals(rows, refits)
    floors = measure(refits, rows, rank, texts, codes, permutations=flags.permutations, seed=flags.seed)
    write_parquet(flags.table, floors.table)
    of_images = {f"floor_{name}": values for name, values in floors.images.items()} | {
        name: floors.real[name] for name in SCORES if name.startswith("conditional")
    }
    write_parquet(flags.images, pd.DataFrame({"image_id": manifest["image_id"], **of_images}))
    judged = sums.split.crossed  # in sample residuals are too small, and so are floors
    n = np.bincount(codes, minlength=len(labels))
    by_label = {"label": labels, "n": n}
    for name, sums_of in floors.labels.items():
        p = label_p_values(sums_of) if judged else np.nan
        by_label |= {name: sums_of[0] / n, f"floor_{name}": sums_of[1:].mean(axis=0) / n, f"p_{name}": p}
    write_parquet(flags.labels, pd.DataFrame(by_label))
    real, permuted = floors.table.iloc[0], floors.table.iloc[1:]
    scored = {"p_is": "is_mean_deg", "p_as_abs": "as_abs_mean_deg", "p_conditional_is": "conditional_is_mean_deg"}
    report = {
        "permutations": flags.permutations,
        **{name: p_value(real[column], permuted[column].to_numpy()) if judged else None for name, column in scored.items()},
        **facts,
        "known_zero": is_known_zero(flags.head, flags.embeddings),
        "lambdas": lambdas,
        "residual_scale": scale,
        "released": released,
    }
    write_json(flags.report, report)
    shown = {name: f"{report[name]:.3f}" if judged else "not judged" for name in scored}
    cli.log.info(
        "IS %.2f, floor %.2f (p %s); conditional IS %.2f, floor %.2f (p %s); R2 %.3f, of the principal space alone %.3f%s",
        real["is_mean_deg"], permuted["is_mean_deg"].mean(), shown["p_is"],
        real["conditional_is_mean_deg"], permuted["conditional_is_mean_deg"].mean(), shown["p_conditional_is"],
        facts["r2"], facts["r2_principal"], "; a known zero" * report["known_zero"],
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(main, Flags)
