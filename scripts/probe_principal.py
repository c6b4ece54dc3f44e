"""Train linear classifiers on principal features before and after translation, and test them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from singflow import cli
from singflow.analyses.probes import Probe, assign_roles, probe
from singflow.artifacts.files import write_json
from singflow.artifacts.shards import iterate_shards, read_manifest
from singflow.artifacts.tensors import read_null_basis
from singflow.translators.linear import Translator

CHUNK = 1024


class Flags(Probe, cli.Command):
    """Train linear classifiers on principal features before and after translation, and test them."""

    confidence: float
    manifest: Path
    features: Path
    shards: int
    projector: Path
    translator: Path
    threads: int
    output: Path


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    manifest = read_manifest(flags.manifest)
    basis = read_null_basis(flags.projector)
    translator = Translator.load(flags.translator)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for shard in iterate_shards(flags.features, "features", flags.shards, manifest):
            for start in range(0, len(shard["image_id"]), CHUNK):
                part = slice(start, start + CHUNK)
                yield shard["image_id"][part], shard["view"][part], shard["features"][part]

    report = probe(batches, assign_roles(manifest), basis, translator, flags.alphas, flags.confidence)
    write_json(flags.output, report)
    if report["note"]:
        cli.log.warning("%s", report["note"])
    if report["accuracy_principal"] is not None:
        cli.log.info(
            "%d labels, %d test images: accuracy %.3f before translation, %.3f after; chance %.3f",
            report["n_labels"], report["n_test"], report["accuracy_principal"], report["accuracy_translated"], report["chance"],
        )  # fmt: skip


if __name__ == "__main__":
    cli.run(main, Flags)
