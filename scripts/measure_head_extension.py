"""Measure how much a linear read-out tells of the embeddings when some null directions of the head are made visible."""

from pathlib import Path

from singflow import cli
from singflow.analyses.fitting import read_coordinates
from singflow.analyses.geometry import coordinate_axes
from singflow.analyses.head_extension import enough, head_extension
from singflow.artifacts.files import Facts, read_json
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import read_null_basis
from singflow.translators.crossfit import GroupSums, split
from singflow.translators.reference import study_and_training


class Flags(cli.Command):
    """Measure how much a linear read-out tells of the embeddings when some null directions of the head are made visible."""

    reference: str | None
    manifest: Path
    features: Path
    embeddings: Path
    shards: int
    folds: int
    projector: Path
    floor: Path
    confidence: float
    threads: int
    output: Path


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    _, images = study_and_training(flags.manifest, flags.features, flags.embeddings, flags.shards, flags.reference)
    lambdas = Facts(flags.floor, read_json(flags.floor).of_kind("lambdas", dict))
    axes, rank = coordinate_axes(read_null_basis(flags.projector), images.features_alone)
    sums = GroupSums(split(images.manifest, flags.folds))
    for _ in read_coordinates(images, axes, sums):
        pass
    curve = head_extension(sums, rank, (lambdas.of_kind("translator", float), lambdas.of_kind("principal", float)), flags.confidence)
    write_parquet(flags.output, curve)
    first, last, fewest = curve.iloc[0], curve.iloc[-1], enough(curve)
    cli.log.info(
        "R2 %.3f without and %.3f with %d null directions%s%s",
        first["r2"], last["r2"], last["directions"],
        "" if fewest is None else f", of which {fewest} give 90 % of the difference",
        "" if sums.split.crossed else "; of one translator, on the held-out images",
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(main, Flags)
