"""Gather the scores of all models and spaces into tables, metrics.json, and the text printed at the
end of a run.
"""

from pathlib import Path

import pandas as pd

from singflow import cli
from singflow.analyses.null_energy import NullEnergy, summarize_null_energy
from singflow.analyses.statistics import split_half_reliability
from singflow.analyses.summary import (
    Summary,
    correlate_labels,
    judge,
    render_text,
    summarize_labels,
    summarize_model,
)
from singflow.analyses.tables import is_control, qualify, qualify_pairs
from singflow.analyses.zero_shot import summarize_zero_shot
from singflow.artifacts.files import read_json, write_bytes, write_json
from singflow.artifacts.shards import read_index
from singflow.artifacts.tables import read_parquet, write_table
from singflow.config.registry import read_model


class Flags(Summary, NullEnergy, cli.Selection):
    """Gather the scores of all models and spaces into tables, metrics.json and the text that ends a
    run.
    """

    study: str
    top1_margin: float
    manifest: Path
    entries: Path
    projectors: Path
    translators: Path
    kind: str
    scores: Path
    zero_shot: Path
    evidence: Path
    seed: int
    tables: Path
    metrics: Path


def main(flags: Flags) -> None:
    cli.limit_threads(1)
    models, labels, reliability = [], [], {}
    for space in flags.spaces:
        rows = []
        for model in flags.models:
            scores = read_parquet(flags.scores / space / f"{model}.parquet", "scores")
            row = summarize_model(
                scores,
                read_json(flags.projectors / f"{model}.json"),
                read_json(flags.translators / space / model / f"{flags.kind}.json"),
                read_json(flags.evidence / space / f"{model}.json"),
                read_model(flags.entries / f"{model}.json"),
                resamples=flags.resamples,
                confidence=flags.confidence,
                min_r2=flags.min_r2,
                top1_margin=flags.top1_margin,
                seed=flags.seed,
                resample=flags.resample,
            )
            row |= summarize_zero_shot(
                read_parquet(flags.zero_shot / space / f"{model}.parquet", "zero_shot")
            )
            row |= summarize_null_energy(
                scores, row["null_dim"], flags.usual_labels, flags.unusual_labels, flags.confidence
            )
            rows.append({"space": space, "model": model, **row})
            of_labels = summarize_labels(scores)
            of_labels.insert(0, "model", model)
            of_labels.insert(0, "space", space)
            labels.append(of_labels)
            reliability[space, model] = split_half_reliability(
                scores["as_deg"].abs().to_numpy(), scores["label"], flags.seed
            )
        judge(rows, flags.confidence)
        models += rows
    table = pd.DataFrame(models)
    text = render_text(
        flags.study, table, read_index(flags.manifest), flags.confidence, flags.min_r2
    )
    by_label = pd.concat(labels, ignore_index=True)
    write_table(flags.tables / "models.csv", table)
    write_table(flags.tables / "labels.csv", qualify(by_label, table))
    ranked = by_label.merge(table.loc[~is_control(table), ["space", "model"]])
    correlations = correlate_labels(ranked, reliability, flags.permutations, flags.seed)
    write_table(flags.tables / "label_correlations.csv", qualify_pairs(correlations, table))
    write_bytes(flags.tables / "summary.txt", text.encode())
    metrics: dict[str, dict[str, object]] = {}
    for row in models:
        metrics.setdefault(row.pop("space"), {})[row.pop("model")] = row
    write_json(flags.metrics, metrics)


if __name__ == "__main__":
    cli.run(main, Flags)
