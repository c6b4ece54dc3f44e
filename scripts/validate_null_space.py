"""Measure what null, random and principal perturbations of equal norm do to the logits."""

import numpy as np
import pandas as pd

from singflow import cli
from singflow.analyses.inputs import Inputs
from singflow.analyses.null_validation import PERTURBATIONS, effect, perturb
from singflow.artifacts.tables import write_parquet

PERTURBED_AT_ONCE = 512  # features


class Flags(cli.ModelStep):
    seed: int


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    inputs = Inputs.of(flags)
    weight, bias = (inputs.head[name].astype(np.float64) for name in ("weight", "bias"))
    basis = inputs.null_basis
    blocks = []
    for image_id, features in inputs.features(size=PERTURBED_AT_ONCE):
        for name, perturbation in zip(
            PERTURBATIONS, perturb(features, image_id, weight, bias, basis, flags.seed), strict=True
        ):
            effects = effect(features, perturbation, weight, bias)
            effects.insert(0, "image_id", image_id)
            effects.insert(1, "perturbation", name)
            blocks.append(effects)
    table = pd.concat(blocks).sort_values("image_id", kind="stable", ignore_index=True)
    write_parquet(flags.path("null_validation"), table)
    for name, group in table.groupby("perturbation", sort=False):
        mean, most = group.mean(numeric_only=True), group["logit_change"].max()
        cli.log.info(
            f"{name}: norm {mean['norm']:.2f} on average, "
            f"logits move by {mean['logit_change']:.1e} (at most {most:.1e}), "
            f"softmax by {mean['softmax_change']:.1e}, "
            f"{100 * mean['top1_changed']:.1f} % of predictions change"
        )


if __name__ == "__main__":
    cli.run_step(main, Flags)
