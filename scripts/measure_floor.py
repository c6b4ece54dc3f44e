"""Measure what scores show where the null space carries nothing, and what it adds to the principal space."""

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from singflow import cli
from singflow.analyses.fitting import read_rows
from singflow.analyses.floor import Fitted, Floor, choose_penalties, measure, score
from singflow.analyses.geometry import coordinate_axes
from singflow.analyses.unique_information import unique_information
from singflow.artifacts.files import read_json, read_names, write_json
from singflow.artifacts.shards import label_rows, shard_path
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import read_null_basis, read_tensors
from singflow.translators.crossfit import WHOLE, GroupSums, split
from singflow.translators.reference import study_and_training


class Flags(Floor, cli.Command):
    """Measure what scores show where the null space carries nothing, and what it adds to the principal space."""

    lambdas: list[Annotated[float, Field(gt=0)]]
    folds: int
    reference: str | None
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


def known(head: Path, embeddings: Path) -> dict[str, bool]:
    """What a null space must hold: nothing where the image tower is a function of the logits, a leak where classes were cut off."""
    (_, model), (_, space) = read_tensors(head, []), read_tensors(shard_path(embeddings, 0), [])
    leak = model.get("keep_classes", "null") != "null"
    return {"known_zero": not leak and model.get("weights_sha256") == space.get("classifier_sha256"), "known_leak": leak}


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    own, images = study_and_training(flags.manifest, flags.features, flags.embeddings, flags.shards, flags.reference)
    manifest = own.manifest
    axes, rank = coordinate_axes(read_null_basis(flags.projector), images.features_alone)
    texts = read_tensors(flags.texts, ["label_embeddings"])[0]["label_embeddings"]
    labels = read_names(flags.names)["labels"]
    codes = label_rows(manifest, labels, flags.names)
    sums, folder = GroupSums(split(images.manifest, flags.folds)), flags.table.parent
    training = read_rows(images, folder, axes, rank, sums, trains=True)
    fitted = read_json(flags.translator).of_kind("lambda", float | None)
    released, judged = fitted is None, sums.split.crossed  # in sample residuals are too small, and so are floors
    lambdas, scale, paths = choose_penalties(sums, rank, flags.lambdas, fitted, flags.threads)
    facts = unique_information(sums, rank, (lambdas["translator"], lambdas["principal"]), flags.confidence, flags.threads)
    place = sums.split.place if images is own else np.full(len(manifest), WHOLE, np.int32)
    fits = Fitted(sums, rank, (lambdas["translator"], lambdas["predictor"]), place, scale, flags.threads, paths)
    fits.leave_residuals(training)
    scored = training
    if images is not own:
        scored = read_rows(own, folder, axes, rank, sums, trains=False)
        fits.leave_residuals(scored)
    real, exchange = score(fits.fit(), place, scored, texts, codes), fits.exchange(training)
    del sums, fits, paths  # permutations take their memory
    numbers = {"permutations": flags.permutations, "seed": flags.seed, "threads": flags.threads}
    floors = measure(real, exchange, training, scored, place, texts, codes, **numbers)
    n = np.bincount(codes, minlength=len(labels))
    write_parquet(flags.table, floors.table)
    write_parquet(flags.images, floors.of_images(manifest["image_id"].to_numpy()))
    write_parquet(flags.labels, floors.of_labels(labels, n, judged))
    report = {
        **floors.facts(judged),
        **facts,
        **known(flags.head, flags.embeddings),
        "lambdas": lambdas,
        "residual_scale": scale,
        "released": released,
    }
    write_json(flags.report, report)
    first, permuted = floors.table.iloc[0], floors.table.iloc[1:].mean()
    shown = [f"{report[name]:.3f}" if judged else "not judged" for name in ("p_is", "p_conditional_is")]
    cli.log.info(
        "IS %.2f, floor %.2f (p %s); conditional IS %.2f, floor %.2f (p %s); R2 %.3f, of the principal space alone %.3f%s",
        first["is_mean_deg"], permuted["is_mean_deg"], shown[0],
        first["conditional_is_mean_deg"], permuted["conditional_is_mean_deg"], shown[1],
        facts["r2"], facts["r2_principal"], "; a known zero" * report["known_zero"] + "; a known leak" * report["known_leak"],
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(main, Flags)
