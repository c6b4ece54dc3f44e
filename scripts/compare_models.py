"""Compare models: by D on the same folds, and by the paper's ratio."""

import pandas as pd

from singflow import cli
from singflow.analyses.ranking import PAPER, order_rows, pair_rows
from singflow.analyses.tables import is_control, qualify, qualify_pairs
from singflow.artifacts.files import read_json
from singflow.artifacts.tables import BASIS, read_models, write_table

RANKED = ["known_zero", "known_leak", "in_sample", "n_images", "n_classes"]
RATIO = [PAPER, f"{PAPER}_low", f"{PAPER}_high"]


class Flags(cli.Selection):
    analyses: list[str]
    confidence: float


def main(flags: Flags) -> None:
    cli.limit_threads(1)
    scored = "scores" in flags.analyses
    columns = [*BASIS, *RANKED, *(RATIO if scored else [])]
    summary = read_models(flags.path("tables/models.csv"), columns)
    classes = summary.drop_duplicates("model").set_index("model")["n_classes"].to_dict()
    ranked = summary[(summary["null_dim"] > 0) & ~is_control(summary)]
    pairs = {}
    for space in flags.spaces:
        judged = ranked.loc[(ranked["space"] == space) & ~ranked["in_sample"].astype(bool), "model"]
        reports = {}
        for model in judged:
            found, fitted = (
                read_json(flags.path(name, space=space, model=model))
                for name in ("evidence", "translator_report")
            )
            reports[model] = found | {"left_out": fitted["left_out"]}
        pairs[space] = pair_rows(reports, classes, flags.confidence)
    pair = pd.concat(pairs, names=["space"]).reset_index("space")
    ordered = ranked if scored else ranked.iloc[:0].reindex(columns=[*ranked, *RATIO])
    write_table(flags.path("tables/orders.csv"), qualify(order_rows(ordered), summary))
    write_table(flags.path("tables/model_pairs.csv"), qualify_pairs(pair, summary))


if __name__ == "__main__":
    cli.run_step(main, Flags)
