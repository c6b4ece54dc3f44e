"""Measure the norm of every image's feature."""

from pathlib import Path

import numpy as np
from singflow.analyses.feature_norms import FeatureNorms, by_label, norms

from singflow import cli
from singflow.artifacts.shards import iterate_whole, read_index
from singflow.artifacts.tables import write_parquet


class Flags(FeatureNorms, cli.Command):
    """Measure the norm of every image's feature."""

    manifest: Path
    features: Path
    shards: int
    output: Path


def main(flags: Flags) -> None:
    manifest = read_index(flags.manifest)
    found = np.empty(len(manifest))
    for image_id, features in iterate_whole(flags.features, "features", flags.shards, manifest):
        found[image_id] = norms(features, flags.order)
    write_parquet(flags.output, by_label(found, manifest["label"].to_numpy()))


if __name__ == "__main__":
    cli.run(main, Flags)
