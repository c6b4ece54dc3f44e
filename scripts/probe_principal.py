"""Train linear classifiers on principal features before and after translation, and test them."""

from pathlib import Path

import numpy as np
import pandas as pd

from singflow import cli
from singflow.analyses.geometry import remove_null
from singflow.analyses.inputs import Inputs
from singflow.analyses.probes import PROBED, Matrix, Probe, Roles, assign_roles, probe
from singflow.artifacts.files import write_json
from singflow.artifacts.scratch import Scratch
from singflow.artifacts.shards import in_blocks, iterate_shards
from singflow.data.reading import group_cells
from singflow.errors import InputError
from singflow.translators.crossfit import CrossFitted
from singflow.translators.fitting import fit_translators
from singflow.translators.reference import Paired


class Flags(Probe, cli.PairStep):
    groups: str | None
    folds: int
    reference: str | None
    table: Path
    class_list: Path
    confidence: float


def grouped(inputs: Inputs, flags: Flags) -> tuple[Paired, CrossFitted, pd.DataFrame] | None:
    """The images of the reference, translators that have not seen them, and groups as labels.

    None if there is no reference, no fitted translator, or no group of its images.
    """
    if not (flags.groups and flags.reference and inputs.fitted):
        return None
    column, cells = group_cells(flags.class_list, flags.table, flags.groups)
    if column != "class_index":
        return None
    images = inputs.training(flags.reference)
    translators, *_ = fit_translators(images, flags.folds, [inputs.fitted[0]])
    manifest = images.manifest
    return images, translators, manifest.assign(label=manifest["class_index"].map(cells))


def read_probe_rows(
    inputs: Inputs, images: Paired, translators: CrossFitted, roles: Roles
) -> tuple[dict[str, Matrix], int]:
    """Rows before and after translation, by image and view, and the number of views."""
    folder, basis = images.features, inputs.null_basis
    rows: dict[str, Matrix] = {}
    seen = views = 0
    for shard in iterate_shards(folder, "features", images.shards, images.manifest):
        if not rows:
            views = int(shard["view"].max()) + 1
            first = roles.first_rows(views)
            widths = len(basis), len(translators.whole.bias)
            rows = {
                kind: Scratch(inputs.path("probes").parent, int(first[-1]), width)
                for kind, width in zip(PROBED, widths, strict=True)
            }
        wanted = roles.training[shard["image_id"]] | (
            roles.test[shard["image_id"]] & (shard["view"] == 0)
        )
        for block in in_blocks(np.flatnonzero(wanted), 1024):
            image_id = shard["image_id"][block]
            place = first[image_id] + shard["view"][block]
            principal = remove_null(shard["features"][block].astype(np.float64), basis)
            rows["principal"][place] = principal
            rows["translated"][place] = translators(principal, image_id)
            seen += len(place)
    if seen != first[-1]:
        raise InputError(
            f"{folder}: holds {seen} rows that the probe needs, not {first[-1]}: "
            "remove it and run the workflow again"
        )
    return rows, views


def main(flags: Flags) -> None:
    cli.limit_threads(1)  # per matrix product: blocks and classifiers share the threads
    inputs = Inputs.of(flags, "sha256")
    images, translators, manifest = inputs.pairs, inputs.translators, inputs.manifest
    roles, by = assign_roles(manifest), "label"
    if len(roles.labels) < 2 and (found := grouped(inputs, flags)):
        images, translators, manifest = found
        roles, by = assign_roles(manifest), "group"
    rows, views = read_probe_rows(inputs, images, translators, roles)
    dimension, null_dim = inputs.null_basis.shape
    report = probe(rows, roles, views, dimension - null_dim, flags, flags.confidence, flags.threads)
    report["by"] = by
    report["n_labels_left_out"] = manifest["label"].nunique() - len(roles.labels)
    seen = translators.member_of != translators.fold
    report["n_test_in_sample"] = int((roles.test & seen).sum())
    write_json(flags.path("probes"), report)
    if report["note"]:
        cli.log.warning("%s", report["note"])
    if report["accuracy_principal"] is not None:
        cli.log.info(
            "%(classifier)s: %(n_labels)d labels (%(n_labels_left_out)d of one image left out), "
            "%(n_test)d test images (%(n_test_in_sample)d that the translator has seen): "
            "accuracy %(accuracy_principal).3f before translation, "
            "%(accuracy_translated).3f after; chance %(chance).3f",
            report,
        )


if __name__ == "__main__":
    cli.run_step(main, Flags)
