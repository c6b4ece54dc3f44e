"""Compare models: by D, by the paper's ratio, and with the removal of random subspaces."""

from pathlib import Path

import pandas as pd

from singflow import cli
from singflow.analyses.ranking import (
    PAPER,
    agreement_rows,
    excess_rows,
    order_rows,
    pair_rows,
    render_orders,
)
from singflow.analyses.statistics import Sample
from singflow.analyses.summary import Summary
from singflow.analyses.tables import as_in_paper, is_control, qualify, qualify_pairs, union_of_marks
from singflow.artifacts.files import read_json, write_bytes
from singflow.artifacts.shards import read_index
from singflow.artifacts.tables import BASIS, read_models, read_parquet, write_table
from singflow.artifacts.tolerances import rounded
from singflow.config.reading import read_yaml

REPORTED = Path(__file__).parents[1] / "report/paper.yaml"
LEANS_ON = ["rank_rule", "validation_r2", "translator", "seed"]
RANKED = ["known_zero", "known_leak", "in_sample", "weights", "weights_id", "n_images"]
RANKED += ["n_classes", PAPER, f"{PAPER}_low", f"{PAPER}_high"]


class Flags(Summary, cli.Selection):
    seed: int


def main(flags: Flags) -> None:
    cli.limit_threads(1)
    summary = read_models(flags.path("tables/models.csv"), [*BASIS, *RANKED])
    manifest, paper = read_index(flags.path("manifest")), read_yaml(REPORTED)
    sample = Sample.of(manifest["label"], flags.resample)
    heads = summary.drop_duplicates("model").set_index("model")
    dims, classes = heads["null_dim"], heads["n_classes"].to_dict()
    ranked = summary[(summary["null_dim"] > 0) & ~is_control(summary)]
    excess, pairs = [], []
    for space in flags.spaces:
        # one table at a time, because a table takes a kilobyte per image
        for model in (name for name in flags.models if dims[name]):
            table = read_parquet(flags.path("controls", space=space, model=model), "controls")
            cases = read_json(flags.path("controls_report", space=space, model=model))["cases"]
            rows = excess_rows(table, cases, dims[model], sample, flags, flags.seed)
            excess += [{"space": space, "model": model, **row} for row in rows]
        judged = ranked.loc[(ranked["space"] == space) & ~ranked["in_sample"].astype(bool), "model"]
        reports = {
            model: read_json(flags.path("evidence", space=space, model=model)) for model in judged
        }
        pairs.append(pair_rows(reports, classes, flags.confidence))
    order = order_rows(ranked)
    same = summary.loc[as_in_paper(summary, manifest["class_index"], paper), "model"]
    chart = {m: paper["models"][m]["ratio"] for m in same if "ratio" in paper["models"][m]}
    agreement = agreement_rows(
        order, pd.Series(chart, dtype=float), paper["space"], flags.permutations, flags.seed
    )
    order = qualify(order, summary)
    of_space = pd.concat(dict(zip(flags.spaces, pairs, strict=True)), names=["space"])
    pair = of_space.reset_index("space").reset_index(drop=True)
    excess_table = pd.DataFrame(excess or {"space": [], "model": []})
    write_table(flags.path("tables/controls.csv"), rounded(qualify(excess_table, summary)))
    write_table(flags.path("tables/orders.csv"), order)
    write_table(flags.path("tables/model_pairs.csv"), rounded(qualify_pairs(pair, summary)))
    basis = []
    for spaces in zip(agreement["space_a"], agreement["space_b"], strict=True):
        rows = ranked[ranked["space"].isin(spaces)]
        weakest = rows.loc[rows["validation_r2"].idxmin(), LEANS_ON]
        basis.append({**weakest, "marks": union_of_marks(*rows["marks"])})
    write_table(
        flags.path("tables/order_agreement.csv"),
        pd.concat([agreement, pd.DataFrame(basis, columns=[*LEANS_ON, "marks"])], axis=1),
    )
    write_bytes(flags.path("tables/orders.txt"), render_orders(order, agreement).encode())


if __name__ == "__main__":
    cli.run_step(main, Flags)
