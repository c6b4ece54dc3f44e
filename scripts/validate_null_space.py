"""Measure what null, random and principal perturbations of equal norm do to the logits of every
image.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from singflow import cli
from singflow.analyses.null_validation import PERTURBATIONS, effect, perturb
from singflow.artifacts.shards import iterate_whole, read_index
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import read_null_basis, read_tensors

ROWS = 512  # features perturbed at once


class Flags(cli.Command):
    """Measure what null, random and principal perturbations of equal norm do to the logits of every
    image.
    """

    manifest: Path
    head: Path
    features: Path
    shards: int
    projector: Path
    seed: int
    threads: int
    output: Path


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    head = read_tensors(flags.head, ["weight", "bias"])[0]
    weight, bias = head["weight"].astype(np.float64), head["bias"].astype(np.float64)
    basis = read_null_basis(flags.projector)
    blocks = []
    for image_id, features in iterate_whole(
        flags.features, "features", flags.shards, read_index(flags.manifest), size=ROWS
    ):
        for name, perturbation in zip(
            PERTURBATIONS, perturb(features, image_id, weight, bias, basis, flags.seed), strict=True
        ):
            effects = effect(features, perturbation, weight, bias)
            effects.insert(0, "image_id", image_id)
            effects.insert(1, "perturbation", name)
            blocks.append(effects)
    table = pd.concat(blocks).sort_values("image_id", kind="stable", ignore_index=True)
    write_parquet(flags.output, table)
    for name, group in table.groupby("perturbation", sort=False):
        cli.log.info(
            "%s: norm %.2f on average, logits move by %.1e (at most %.1e), softmax by %.1e, "
            "%.1f %% of predictions change",
            name,
            group["norm"].mean(),
            group["logit_change"].mean(),
            group["logit_change"].max(),
            group["softmax_change"].mean(),
            100 * group["top1_changed"].mean(),
        )


if __name__ == "__main__":
    cli.run(main, Flags)
