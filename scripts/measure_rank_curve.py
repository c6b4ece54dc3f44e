"""Measure what logits and meaning lose when ever fewer leading directions of the head are kept."""

from pathlib import Path

from singflow import cli
from singflow.config import RankCurve
from singflow.rank_curve import CurveStatistics
from singflow.store import iterate_shards, read_manifest, read_names, read_tensors, write_parquet
from singflow.translator import Translator


class Flags(RankCurve, cli.Command):
    """Measure what logits and meaning lose when ever fewer leading directions of the head are kept."""

    energy: float
    head: Path
    manifest: Path
    features: Path
    shards: int
    translator: Path
    embeddings: Path
    names: Path
    threads: int
    output: Path


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    manifest = read_manifest(flags.manifest)
    head, _ = read_tensors(flags.head, ["weight", "bias"])
    translator = Translator.load(flags.translator)
    texts = read_tensors(flags.embeddings, ["label_embeddings"])[0]["label_embeddings"]
    text_of = manifest["label"].map({label: row for row, label in enumerate(read_names(flags.names)["labels"])}).to_numpy()
    curve = CurveStatistics(head["weight"], head["bias"], translator, flags.kept, flags.energy)
    for shard in iterate_shards(flags.features, "features", flags.shards, manifest):
        whole = shard["view"] == 0
        curve.update(shard["features"][whole], texts[text_of[shard["image_id"][whole]]])
    table = curve.table()
    write_parquet(flags.output, table)
    for row in table.to_dict("records"):
        cli.log.info(
            "%s %.3f: rank %d; relative logit change %.2g, top-1 changed %.3f, IS %.2f degrees",
            row["point"], row["kept"], row["rank"], row["logit_relative_mean"], row["top1_changed"], row["is_mean_deg"],
        )  # fmt: skip


if __name__ == "__main__":
    cli.run(main, Flags)
