"""Score every image after the removal of other subspaces: parts of the null space, random
subspaces, and parts of the row space.
"""

from pathlib import Path

import numpy as np

from singflow import cli
from singflow.analyses.controls import (
    Case,
    ControlScores,
    Removals,
    Subspace,
    cases,
    draw_subspace,
    empty_table,
    matched,
)
from singflow.analyses.metrics import Removal
from singflow.artifacts.files import read_names, write_json
from singflow.artifacts.shards import iterate_whole, label_rows, read_index
from singflow.artifacts.tables import write_parquet, write_row_groups
from singflow.artifacts.tensors import read_null_basis, read_tensors
from singflow.translators.linear import read_crossfitted

ROWS = 4096  # features scored at once
SHARES = 4e8  # bytes of the translators' shares that are in memory at once


class Flags(Removals, cli.Command):
    """Score every image after other subspaces are removed: parts of the null space, random ones,
    parts of the row space.
    """

    manifest: Path
    features: Path
    shards: int
    projector: Path
    translator: Path
    texts: Path
    names: Path
    seed: int
    threads: int
    output: Path
    report: Path


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    manifest = read_index(flags.manifest)
    basis = read_null_basis(flags.projector)
    translators = read_crossfitted(flags.translator, manifest)
    texts = read_tensors(flags.texts, ["label_embeddings"])[0]["label_embeddings"]
    text_of = label_rows(manifest, read_names(flags.names)["labels"], flags.names)
    scores = {case: ControlScores(len(manifest)) for case in cases(*basis.shape, flags.dimensions)}

    def wants_more(case: Case) -> bool:
        done, least = scores[case], 1 if case.single else flags.min_draws
        return done.draws < least or (
            done.error_deg > flags.tolerance_deg and done.draws < flags.max_draws
        )

    def score(drawn: dict[Case, Subspace]) -> None:
        shares = {
            case: translators.each(
                lambda translator, s=subspace: s.share(translator).astype(np.float32)
            )
            for case, subspace in drawn.items()
        }
        for image_id, features in iterate_whole(
            flags.features, "features", flags.shards, manifest, size=ROWS
        ):
            original, targets = translators(features, image_id), texts[text_of[image_id]]
            for case, share in shares.items():
                removal = Removal(original, share(features, image_id))
                scores[case].update(image_id, removal, targets)
                if case.subspace != "null" and case.dimension == basis.shape[1]:
                    lengths = Subspace(basis).length(features), drawn[case].length(features)
                    scores[case].update_matched(image_id, matched(removal, *lengths), targets)

    at_once = max(1, int(SHARES / sum(translator.weight.nbytes for translator in translators.maps)))
    while waiting := [case for case in scores if wants_more(case)]:
        for start in range(0, len(waiting), at_once):
            score(
                {
                    case: draw_subspace(basis, case, flags.seed, scores[case].draws)
                    for case in waiting[start : start + at_once]
                }
            )
        for case in waiting:
            scores[case].end_draw()
    ids = manifest["image_id"].to_numpy()
    if scores:
        write_row_groups(flags.output, (done.table(ids, case) for case, done in scores.items()))
    else:
        write_parquet(flags.output, empty_table())
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
        for case, done in scores.items()
    ]
    write_json(
        flags.report, {"seed": flags.seed, "tolerance_deg": flags.tolerance_deg, "cases": report}
    )
    unstable = sum(not row["stable"] for row in report)
    draws = sum(done.draws for done in scores.values())
    cli.log.info(
        "%d cases, %d draws; %d unstable after %d draws",
        len(scores),
        draws,
        unstable,
        flags.max_draws,
    )


if __name__ == "__main__":
    cli.run(main, Flags)
