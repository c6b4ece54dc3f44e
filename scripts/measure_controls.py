"""Score every image after other subspaces are removed: parts of the null space, random ones, parts of the row space."""

from pathlib import Path

import numpy as np
import pandas as pd

from singflow import cli
from singflow.config import Controls
from singflow.controls import Case, ControlScores, cases, empty_table, folded_control
from singflow.metrics import Removal, translate
from singflow.store import (
    in_blocks,
    iterate_shards,
    read_manifest,
    read_names,
    read_null_basis,
    read_tensors,
    write_json,
    write_parquet,
    write_row_groups,
)
from singflow.translator import Translator


class Flags(Controls, cli.Command):
    """Score every image after other subspaces are removed: parts of the null space, random ones, parts of the row space."""

    manifest: Path
    features: Path
    shards: int
    projector: Path
    translator: Path
    prompts: Path
    names: Path
    seed: int
    threads: int
    output: Path
    report: Path


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    manifest = read_manifest(flags.manifest)
    basis = read_null_basis(flags.projector)
    translator = Translator.load(flags.translator)
    texts = read_tensors(flags.prompts, ["label_embeddings"])[0]["label_embeddings"]
    codes = pd.Categorical(manifest["label"], categories=read_names(flags.names)["labels"]).codes
    scores = {case: ControlScores(len(manifest)) for case in cases(*basis.shape, flags.dimensions)}

    def wants_more(case: Case) -> bool:
        done, least = scores[case], 1 if case.single else flags.min_draws
        return done.draws < least or (done.error_deg > flags.tolerance_deg and done.draws < flags.max_draws)

    while waiting := [case for case in scores if wants_more(case)]:
        folded = {
            case: folded_control(translator.weight, basis, case, flags.seed, scores[case].draws).astype(np.float32).T for case in waiting
        }
        for shard in iterate_shards(flags.features, "features", flags.shards, manifest):
            whole = np.flatnonzero(shard["view"] == 0)
            for rows in in_blocks(whole):
                features, image_id = shard["features"][rows], shard["image_id"][rows]
                original, targets = translate(features, translator), texts[codes[image_id]]
                for case, share in folded.items():
                    scores[case].update(image_id, Removal(original, features @ share), targets)
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
    write_json(flags.report, {"seed": flags.seed, "tolerance_deg": flags.tolerance_deg, "cases": report})
    unstable = sum(not each["stable"] for each in report)
    draws = sum(done.draws for done in scores.values())
    cli.log.info("%d cases, %d draws; %d unstable after %d draws", len(scores), draws, unstable, flags.max_draws)


if __name__ == "__main__":
    cli.run(main, Flags)
