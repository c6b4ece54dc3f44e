"""Gather the scores of all models and spaces into tables, metrics.json, and the final text."""

from functools import partial

import pandas as pd

from singflow import cli
from singflow.analyses.findings import TABLES, looked_at
from singflow.analyses.summary import (
    Controls,
    Summary,
    add_verdicts,
    for_git,
    summarize_labels,
    summarize_model,
)
from singflow.analyses.tables import qualify
from singflow.analyses.zero_shot import summarize_zero_shot
from singflow.artifacts.files import read_json, write_bytes, write_json
from singflow.artifacts.shards import read_index
from singflow.artifacts.tables import read_parquet, read_table, write_table
from singflow.config.registry import read_model, read_space
from singflow.report.summary import render_text


class Flags(Summary, Controls, cli.Selection):
    analyses: list[str]
    top1_margin: float
    seed: int


def of_found(flags: Flags, models: pd.DataFrame, name: str) -> pd.DataFrame:
    """Texts or groups of the models in which something was found."""
    artifact = name.replace("hidden", "evidence")
    pairs = looked_at(models)[["space", "model", "n_evidence"]].to_dict("records")
    tables = [read_parquet(flags.path(artifact, **pair), artifact).assign(**pair) for pair in pairs]
    columns = ["space", "model", *TABLES[name]]
    return pd.concat(tables)[columns] if tables else pd.DataFrame(columns=columns)


def main(flags: Flags) -> None:
    cli.limit_threads(1)
    manifest = read_index(flags.path("manifest"))
    models, labels = [], []
    for space in flags.spaces:
        rows = []
        for model in flags.models:
            pair = {"space": space, "model": model}
            of_pair = partial(flags.path, **pair)
            scores = None
            if "scores" in flags.analyses:
                scores = read_parquet(of_pair("scores"), "scores")
                labels.append(summarize_labels(scores).assign(**pair))
            names = ("projector_report", "translator_report", "evidence")
            reports = (read_json(of_pair(name)) for name in names)
            row = summarize_model(
                scores,
                *reports,
                read_model(of_pair("model_entry")),
                flags,
                n_images=len(manifest),
                top1_margin=flags.top1_margin,
                seed=flags.seed,
            )
            if "zero_shot" in flags.analyses:
                row |= summarize_zero_shot(read_parquet(of_pair("zero_shot"), "zero_shot"))
            rows.append(pair | row)
        add_verdicts(rows, flags.confidence)
        models += rows
    table = pd.DataFrame(models)
    texts, groups = (of_found(flags, table, name) for name in ("hidden_texts", "hidden_groups"))
    sources = {
        space: read_space(flags.path("space_entry", space=space)).source for space in flags.spaces
    }
    text = render_text(
        flags.study,
        table,
        sources,
        texts,
        groups,
        manifest,
        len(read_table(flags.path("rejected"))),
        flags.confidence,
        flags.min_r2,
        controls=flags.known == "auto",
    )
    empty = pd.DataFrame(columns=["label", "space", "model"])
    by_label = pd.concat(labels, ignore_index=True) if labels else empty
    by_label = by_label[["space", "model", *by_label.columns[:-2]]]
    write_table(flags.path("tables/models.csv"), table)
    write_table(flags.path("tables/labels.csv"), qualify(by_label, table))
    write_table(flags.path("tables/hidden_texts.csv"), qualify(texts, table))
    write_table(flags.path("tables/hidden_groups.csv"), qualify(groups, table))
    write_bytes(flags.path("tables/summary.txt"), text.encode())
    metrics: dict[str, dict[str, object]] = {}
    for row in models:
        space, model = row.pop("space"), row.pop("model")
        metrics.setdefault(space, {})[model] = for_git(row)
    write_json(flags.path("metrics.json"), metrics)


if __name__ == "__main__":
    cli.run_step(main, Flags)
