"""Score every image before and after its null component is removed, and after the removal of other
subspaces: parts of the null space, random subspaces, and parts of the row space.
"""

import numpy as np
import pandas as pd

from singflow import cli
from singflow.analyses.controls import Case, Removals, empty_table, remove_subspaces
from singflow.analyses.inputs import Inputs
from singflow.analyses.null_removal import remove_null_components
from singflow.artifacts.files import write_json
from singflow.artifacts.tables import read_parquet, write_parquet, write_row_groups
from singflow.data.manifest import head_classes
from singflow.errors import InputError


class Flags(Removals, cli.PairStep):
    seed: int


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    inputs = Inputs.of(flags)
    ids, null_dim = inputs.manifest["image_id"].to_numpy(), inputs.null_basis.shape[1]
    class_names = inputs.head_facts.parsed("class_names", list | None)
    class_index = np.asarray(head_classes(inputs.manifest, class_names))
    beside = read_parquet(flags.path("evidence_images"), "evidence_images").set_index("image_id")
    if not beside.index.equals(pd.Index(ids)):
        raise InputError(
            f"{flags.path('evidence_images')}: holds other images than the manifest: "
            "remove it and run the workflow again"
        )
    controls = remove_subspaces(inputs, flags, flags.seed)
    if controls:
        tables = (done.table(ids, case) for case, done in controls.items())
        write_row_groups(flags.path("controls"), tables)
    else:
        write_parquet(flags.path("controls"), empty_table())
    report = [
        {
            "subspace": case.subspace,
            "dimension": case.dimension,
            "draws": done.draws,
            "is_error_deg": done.error_deg,
            "is_deg_spread": float(done.spread_deg[0]),
            "as_abs_deg_spread": float(done.spread_deg[2]),
            "stable": done.error_deg <= flags.tolerance_deg,
        }
        for case, done in controls.items()
    ]
    write_json(
        flags.path("controls_report"),
        {"seed": flags.seed, "tolerance_deg": flags.tolerance_deg, "cases": report},
    )
    draws = sum(row["draws"] for row in report)
    unstable = sum(not row["stable"] for row in report)
    said = f"{len(report)} cases, {draws} draws; {unstable} unstable after {flags.max_draws} draws"
    cli.log.info(said)
    case = Case("random", null_dim, False)
    random = controls[case].table(ids, case) if controls else empty_table()
    del controls  # room for the scores
    matching = ["matched_is_deg", "matched_as_deg"]
    beside[["control_is_deg", "control_as_deg", *matching]] = random.set_index("image_id")[
        ["is_deg", "as_deg", *matching]
    ].reindex(ids, fill_value=0.0)
    scores = remove_null_components(inputs, class_index, beside)
    write_parquet(flags.path("scores"), scores)
    cli.log.info(
        "%d images: IS %.2f, floor %.2f; AS %+.2f, |AS| %.2f degrees; "
        "random subspaces of %d dimensions: IS %.2f",
        len(scores),
        *scores[["is_deg", "floor_is_deg", "as_deg"]].mean(),
        scores["as_deg"].abs().mean(),
        null_dim,
        scores["control_is_deg"].mean(),
    )


if __name__ == "__main__":
    cli.run_step(main, Flags)
