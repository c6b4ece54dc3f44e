"""Score every image before and after its null component is removed, and after the removal of other
subspaces: parts of the null space, random subspaces, and parts of the row space.
"""

import numpy as np
import pandas as pd

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
from singflow.analyses.geometry import logit_change, null_energy, remove_null
from singflow.analyses.inputs import Inputs
from singflow.analyses.metrics import Removal, contrast_deg
from singflow.artifacts.files import write_json
from singflow.artifacts.tables import read_parquet, write_parquet, write_row_groups
from singflow.data.manifest import head_classes
from singflow.errors import InputError

ROWS = 4096  # features scored at once
SHARES = 4e8  # bytes of the translators' shares that are in memory at once


class Flags(Removals, cli.PairStep):
    seed: int


def remove_subspaces(flags: Flags, inputs: Inputs) -> dict[Case, ControlScores]:
    """Scores after the removal of drawn subspaces, whose number depends on how much they differ."""
    basis, translators = inputs.null_basis, inputs.translators
    n = len(inputs.manifest)
    scores = {case: ControlScores(n) for case in cases(*basis.shape, flags.dimensions)}

    def wants_more(case: Case) -> bool:
        done, least = scores[case], 1 if case.single else flags.min_draws
        if done.draws < least:
            return True
        return done.error_deg > flags.tolerance_deg and done.draws < flags.max_draws

    def score(drawn: dict[Case, Subspace]) -> None:
        shares = {
            case: translators.map(lambda whole, s=subspace: s.project(whole).astype(np.float32))
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
            batch = waiting[start : start + at_once]
            score({c: draw_subspace(basis, c, flags.seed, scores[c].draws) for c in batch})
        for case in waiting:
            scores[case].end_draw()
    return scores


def remove_null_component(
    inputs: Inputs, class_index: np.ndarray, beside: pd.DataFrame
) -> pd.DataFrame:
    """Scores of null removal, with those of controls and evidence, which are given by image."""
    head, basis, translators = inputs.head, inputs.null_basis, inputs.translators
    blocks = []
    for image_id, features in inputs.features(size=ROWS):
        label, others = inputs.label_of[image_id], beside.loc[image_id]
        without = inputs.null_translators(features, image_id)
        removal = Removal(translators(features, image_id), without)
        original, equivalent = removal.angles(inputs.label_texts[label])
        logits = features @ head["weight"].T + head["bias"]
        columns = {
            "image_id": image_id,
            "label": inputs.labels[label],
            "class_index": class_index[image_id],
            "predicted_index": np.argmax(logits, axis=1).astype(np.int32),
            "fold": translators.fold[image_id],
            "is_deg": removal.image_score(),
            "as_deg": original - equivalent,
            "as_contrast_deg": contrast_deg(removal, inputs.label_texts, label),
            "angle_original_deg": original,
            "angle_equivalent_deg": equivalent,
            **others[["conditional_is_deg", "conditional_as_deg"]],
            "null_energy": null_energy(features, basis),
            "logit_change": logit_change(head["weight"], features, remove_null(features, basis)),
            **others[["control_is_deg", "control_as_deg", "matched_is_deg", "matched_as_deg"]],
            "floor_is_deg": others["floor_is_deg"],
        }
        blocks.append(pd.DataFrame({name: np.asarray(values) for name, values in columns.items()}))
    return pd.concat(blocks, ignore_index=True)


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
    controls = remove_subspaces(flags, inputs)
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
    cli.log.info(
        "%d cases, %d draws; %d unstable after %d draws",
        len(report),
        sum(row["draws"] for row in report),
        sum(not row["stable"] for row in report),
        flags.max_draws,
    )
    case = Case("random", null_dim, False)
    random = controls[case].table(ids, case) if controls else empty_table()
    del controls  # room for the scores
    matching = ["matched_is_deg", "matched_as_deg"]
    beside[["control_is_deg", "control_as_deg", *matching]] = random.set_index("image_id")[
        ["is_deg", "as_deg", *matching]
    ].reindex(ids, fill_value=0.0)
    scores = remove_null_component(inputs, class_index, beside)
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
