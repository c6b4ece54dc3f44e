"""Score every image after the removal of other subspaces: parts of the null space, random
subspaces, and parts of the row space.
"""

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
from singflow.analyses.inputs import Inputs
from singflow.analyses.metrics import Removal
from singflow.artifacts.files import write_json
from singflow.artifacts.tables import write_parquet, write_row_groups

ROWS = 4096  # features scored at once
SHARES = 4e8  # bytes of the translators' shares that are in memory at once


class Flags(Removals, cli.PairStep):
    seed: int


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    inputs, output = Inputs.of(flags), flags.path("controls")
    manifest, basis, translators = inputs.manifest, inputs.null_basis, inputs.translators
    scores = {case: ControlScores(len(manifest)) for case in cases(*basis.shape, flags.dimensions)}

    def wants_more(case: Case) -> bool:
        done, least = scores[case], 1 if case.single else flags.min_draws
        return done.draws < least or (
            done.error_deg > flags.tolerance_deg and done.draws < flags.max_draws
        )

    def score(drawn: dict[Case, Subspace]) -> None:
        shares = {
            case: translators.map(
                lambda translator, s=subspace: s.project(translator).astype(np.float32)
            )
            for case, subspace in drawn.items()
        }
        for image_id, features in inputs.features(size=ROWS):
            original = translators(features, image_id)
            targets = inputs.label_texts[inputs.label_of[image_id]]
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
        write_row_groups(output, (done.table(ids, case) for case, done in scores.items()))
    else:
        write_parquet(output, empty_table())
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
        flags.path("controls_report"),
        {"seed": flags.seed, "tolerance_deg": flags.tolerance_deg, "cases": report},
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
    cli.run_step(main, Flags)
