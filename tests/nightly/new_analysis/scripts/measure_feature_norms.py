"""Measure the norm of every image's feature."""

import numpy as np
from singflow.analyses.feature_norms import FeatureNorms, by_label, norms

from singflow import cli
from singflow.analyses.inputs import Inputs
from singflow.artifacts.tables import write_parquet


class Flags(FeatureNorms, cli.ModelStep):
    pass


def main(flags: Flags) -> None:
    inputs = Inputs.of(flags)
    found = np.empty(len(inputs.manifest))
    for image_id, features in inputs.features():
        found[image_id] = norms(features, flags.order)
    write_parquet(flags.path("feature_norms"), by_label(found, inputs.manifest["label"].to_numpy()))


if __name__ == "__main__":
    cli.run_step(main, Flags)
