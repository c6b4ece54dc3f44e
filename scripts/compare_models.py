"""Compare models with each other and with the removal of random subspaces: excess, orders, paired tests, agreement."""

from pathlib import Path

import pandas as pd

from singflow import cli
from singflow.analyses.ranking import (
    agreement_rows,
    chart_rows,
    criterion_columns,
    criterion_parts,
    criterion_refits,
    excess_rows,
    order_rows,
    pair_rows,
    ranked_columns,
    render_orders,
    shared_dimension,
)
from singflow.analyses.statistics import Sample, reference_labels
from singflow.analyses.summary import Summary
from singflow.analyses.tables import as_in_paper, is_control, qualify, qualify_pairs, together
from singflow.artifacts.files import read_json, write_bytes
from singflow.artifacts.shards import read_index
from singflow.artifacts.tables import BASIS, read_models, read_parquet, read_refits, write_table
from singflow.config.reading import read_yaml

LEANS_ON = ["rank_rule", "validation_r2", "translator", "seed"]


class Flags(Summary, cli.Selection):
    """Compare models with each other and with the removal of random subspaces: excess, orders, paired tests, agreement."""

    manifest: Path
    controls: Path
    refits: Path
    table: Path
    paper: Path
    seed: int
    tables: Path


def main(flags: Flags) -> None:
    cli.limit_threads(1)
    summary = read_models(flags.table, [*BASIS, "known_zero", "known_leak", "weights", "weights_id"])
    manifest, paper = read_index(flags.manifest), read_yaml(flags.paper)
    null_dims = summary.drop_duplicates("model").set_index("model")["null_dim"].to_dict()
    controls = set(map(tuple, summary.loc[is_control(summary), ["space", "model"]].to_numpy()))
    measured = (read_refits(flags.refits / space / model) for space in flags.spaces for model in flags.models)
    beside = reference_labels(next((each for each in measured if each is not None), None))  # all have one reference, or none has
    sample = Sample.of(manifest["label"], flags.resample, beside)
    options = {"resamples": flags.resamples, "confidence": flags.confidence, "seed": flags.seed}
    excess, orders, pairs, shared = [], [], [], {}
    for space in flags.spaces:
        reports = {model: read_json(flags.controls / space / f"{model}.json")["cases"] for model in flags.models if null_dims[model]}
        shared[space] = shared_dimension(map(pd.DataFrame, reports.values()))
        columns, fits, parts, lambdas = {}, {}, {}, {}
        for model, cases in reports.items():  # a table at a time: one takes a kilobyte an image
            table = read_parquet(flags.controls / space / f"{model}.parquet", "controls")
            refits = read_refits(flags.refits / space / model)
            rows = excess_rows(table, cases, null_dims[model], sample, refits, **options)
            excess += [{"space": space, "model": model, **row} for row in rows]
            if (space, model) not in controls:
                tried = pd.DataFrame(read_json(flags.refits / space / f"{model}.json")["lambdas"] or [{}])
                lambdas[model] = tried.reindex(columns=ranked_columns(null_dims[model], shared[space])).to_numpy(dtype=float)
                through = refits, manifest["image_id"], null_dims[model], shared[space], sample
                fits[model], parts[model] = criterion_refits(*through), criterion_parts(*through)
                columns[model] = sample.rows(criterion_columns(table, null_dims[model], shared[space]))
        pairs.append(pair_rows(columns, parts, sample, lambdas, **options).assign(space=space))
        refitted = {model: each + fits[model] for model, each in columns.items()}
        orders.append(order_rows(refitted, sample, lambdas, **options).assign(space=space))
    order = pd.concat(orders, ignore_index=True)
    same = {m: paper["models"][m] for m in summary.loc[as_in_paper(summary, manifest["class_index"], paper), "model"]}
    chart = pd.Series({model: each["ratio"] for model, each in same.items() if "ratio" in each}, dtype=float)
    beside = chart_rows(order[order["space"] == paper["space"]], chart, flags.permutations, flags.seed)
    agreement = pd.concat([agreement_rows(order, flags.permutations, flags.seed), beside], ignore_index=True)
    order = qualify(order[["space", *order.columns.drop("space")]], summary)
    write_table(flags.tables / "controls.csv", qualify(pd.DataFrame(excess or {"space": [], "model": []}), summary))
    write_table(flags.tables / "orders.csv", order)
    pair = pd.concat(pairs, ignore_index=True)
    write_table(flags.tables / "model_pairs.csv", qualify_pairs(pair[["space", *pair.columns.drop("space")]], summary))
    ranked = summary[(summary["null_dim"] > 0) & ~is_control(summary)]
    ordered = [ranked[ranked["space"].isin(spaces)] for spaces in zip(agreement["space_a"], agreement["space_b"], strict=True)]
    basis = [{**rows.loc[rows["validation_r2"].idxmin(), LEANS_ON], "marks": together(*rows["marks"])} for rows in ordered]
    write_table(flags.tables / "order_agreement.csv", pd.concat([agreement, pd.DataFrame(basis, columns=[*LEANS_ON, "marks"])], axis=1))
    write_bytes(flags.tables / "orders.txt", render_orders(order, agreement, shared).encode())


if __name__ == "__main__":
    cli.run(main, Flags)
