"""Score how unusual every image is, by null energy and by what the field compares with it."""

import numpy as np
import pandas as pd

from singflow import cli
from singflow.analyses.inputs import Inputs
from singflow.analyses.unusual import (
    DETECTORS,
    DetectorFits,
    NullEnergy,
    detect,
    sum_up,
    summarize_null_energy,
    two_sets,
)
from singflow.artifacts.files import write_json
from singflow.artifacts.tables import write_parquet
from singflow.data.manifest import head_classes
from singflow.translators.crossfit import WHOLE
from singflow.translators.reference import same_features

ROWS = 2048  # features in memory at once


class Flags(NullEnergy, cli.ModelStep):
    folds: int
    reference: str | None
    confidence: float


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    inputs = Inputs.of(flags)
    names = inputs.head_facts.parsed("class_names", list | None)
    images = inputs.manifest.assign(class_index=head_classes(inputs.manifest, names))
    usual, _ = two_sets(images, flags.usual_labels, flags.unusual_labels)
    crossed = flags.reference is None and flags.folds > 0
    group = images["fold"].to_numpy() if crossed else np.full(len(images), WHOLE)
    others, fitted, left_out = inputs, usual, group
    if flags.reference is not None:
        where = same_features(flags.reference, inputs.path("features").parent)
        others = Inputs(*where, columns=("sha256",))
        known = head_classes(others.manifest, names) >= 0
        unusual = others.manifest["label"].isin(flags.unusual_labels)
        own = others.manifest["sha256"].isin(images["sha256"])
        fitted, left_out = known & ~(unusual | own).to_numpy(), np.full(len(known), WHOLE)
    label = pd.factorize(others.manifest["label"])[0]
    sums = sum_up(others.features(size=ROWS, images=fitted), label, left_out)
    fits = DetectorFits.of(sums, inputs.head, inputs.head_facts["weight_dtype"])
    blocks = []
    for image_id, features in inputs.features(size=ROWS):
        found = detect(features, group[image_id], inputs.head, inputs.null_basis, fits)
        blocks.append(images.loc[image_id, ["image_id", "label", "class_index"]].assign(**found))
    scores = pd.concat(blocks)
    write_parquet(flags.path("unusual"), scores)
    report = {"n_fit": fits.n, "principal_dim": fits.principal_dim if fits.by_group else None}
    report["in_sample"] = flags.reference is None and not crossed
    sets, null_dim = (flags.usual_labels, flags.unusual_labels), inputs.null_basis.shape[1]
    report |= summarize_null_energy(scores, null_dim, *sets, flags.confidence)
    write_json(flags.path("unusual_report"), report)
    middle = ", ".join(f"{name} {scores[name].median():.3g}" for name in DETECTORS)
    cli.log.info("fitted on %d usual images; medians: %s", fits.n, middle)


if __name__ == "__main__":
    cli.run_step(main, Flags)
