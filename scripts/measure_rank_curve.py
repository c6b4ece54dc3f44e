"""Measure what logits and meaning lose when fewer leading directions of the head are kept."""

from pathlib import Path

from singflow import cli
from singflow.analyses.rank_curve import CurveStatistics, RankCurve
from singflow.artifacts.files import read_names
from singflow.artifacts.shards import iterate_whole, label_rows, read_index
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import read_tensors
from singflow.translators.linear import read_crossfitted


class Flags(RankCurve, cli.Command):
    """Measure what logits and meaning lose when ever fewer leading directions of the head are
    kept.
    """

    energy: float
    head: Path
    manifest: Path
    features: Path
    shards: int
    translator: Path
    texts: Path
    names: Path
    threads: int
    output: Path


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    manifest = read_index(flags.manifest)
    head, made = read_tensors(flags.head, ["weight", "bias"])
    translators = read_crossfitted(flags.translator, manifest)
    texts = read_tensors(flags.texts, ["label_embeddings"])[0]["label_embeddings"]
    text_of = label_rows(manifest, read_names(flags.names)["labels"], flags.names)
    curve = CurveStatistics(
        head["weight"], head["bias"], translators, flags.kept, flags.energy, made["weight_dtype"]
    )
    for image_id, features in iterate_whole(flags.features, "features", flags.shards, manifest):
        curve.update(image_id, features, texts[text_of[image_id]])
    table = curve.table()
    write_parquet(flags.output, table)
    for row in table.to_dict("records"):
        cli.log.info(
            "%s %.3f: rank %d; relative logit change %.2g, top-1 changed %.3f, IS %.2f degrees",
            row["point"],
            row["kept"],
            row["rank"],
            row["logit_relative_mean"],
            row["top1_changed"],
            row["is_mean_deg"],
        )


if __name__ == "__main__":
    cli.run(main, Flags)
