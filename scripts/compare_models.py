"""Compare models: by D, by the paper's ratio, and with the removal of random subspaces."""

from pathlib import Path

import pandas as pd

from singflow import cli
from singflow.analyses.ranking import (
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
from singflow.config.reading import read_yaml

PAPER = Path("report/paper.yaml")
LEANS_ON = ["rank_rule", "validation_r2", "translator", "seed"]
RANKED = [
    "known_zero",
    "known_leak",
    "in_sample",
    "weights",
    "weights_id",
    "n_images",
    "is_per_as",
    "is_per_as_low",
    "is_per_as_high",
]


class Flags(Summary, cli.Selection):
    seed: int


def main(flags: Flags) -> None:
    cli.limit_threads(1)
    summary = read_models(flags.path("tables/models.csv"), [*BASIS, *RANKED])
    manifest, paper = read_index(flags.path("manifest")), read_yaml(PAPER)
    null_dims = summary.drop_duplicates("model").set_index("model")["null_dim"].to_dict()
    sample = Sample.of(manifest["label"], flags.resample)
    ranked = summary[(summary["null_dim"] > 0) & ~is_control(summary)]
    excess, pairs = [], []
    for space in flags.spaces:
        # one table at a time, because a table takes a kilobyte per image
        for model in (name for name in flags.models if null_dims[name]):
            table = read_parquet(flags.path("controls", space=space, model=model), "controls")
            cases = read_json(flags.path("controls_report", space=space, model=model))["cases"]
            options = {
                "resamples": flags.resamples,
                "confidence": flags.confidence,
                "seed": flags.seed,
            }
            rows = excess_rows(table, cases, null_dims[model], sample, **options)
            excess += [{"space": space, "model": model, **row} for row in rows]
        judged = ranked.loc[(ranked["space"] == space) & ~ranked["in_sample"].astype(bool), "model"]
        reports = {
            model: read_json(flags.path("evidence", space=space, model=model)) for model in judged
        }
        pairs.append(pair_rows(reports, flags.confidence).assign(space=space))
    order = order_rows(ranked)
    same = {
        m: paper["models"][m]
        for m in summary.loc[as_in_paper(summary, manifest["class_index"], paper), "model"]
    }
    chart = pd.Series(
        {model: reported["ratio"] for model, reported in same.items() if "ratio" in reported},
        dtype=float,
    )
    agreement = agreement_rows(order, chart, paper["space"], flags.permutations, flags.seed)
    order, pair = qualify(order, summary), pd.concat(pairs, ignore_index=True)
    write_table(
        flags.path("tables/controls.csv"),
        qualify(pd.DataFrame(excess or {"space": [], "model": []}), summary),
    )
    write_table(flags.path("tables/orders.csv"), order)
    write_table(
        flags.path("tables/model_pairs.csv"),
        qualify_pairs(pair[["space", *pair.columns.drop("space")]], summary),
    )
    ordered = [
        ranked[ranked["space"].isin(spaces)]
        for spaces in zip(agreement["space_a"], agreement["space_b"], strict=True)
    ]
    basis = [
        {
            **rows.loc[rows["validation_r2"].idxmin(), LEANS_ON],
            "marks": union_of_marks(*rows["marks"]),
        }
        for rows in ordered
    ]
    write_table(
        flags.path("tables/order_agreement.csv"),
        pd.concat([agreement, pd.DataFrame(basis, columns=[*LEANS_ON, "marks"])], axis=1),
    )
    write_bytes(flags.path("tables/orders.txt"), render_orders(order, agreement).encode())


if __name__ == "__main__":
    cli.run_step(main, Flags)
