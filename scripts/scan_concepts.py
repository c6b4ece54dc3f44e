"""For every label and concept: the angle of its images to the concept, and what null removal does to it."""

from pathlib import Path

import pandas as pd

from singflow import cli
from singflow.concepts import ConceptScan
from singflow.metrics import fold, remove
from singflow.store import iterate_shards, read_json, read_parquet, read_tensors, write_parquet
from singflow.translator import Translator


class Flags(cli.Command):
    """For every label and concept: the angle of its images to the concept, and what null removal does to it."""

    manifest: Path
    features: Path
    shards: int
    projector: Path
    translator: Path
    prompts: Path
    names: Path
    threads: int
    output: Path


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    manifest = read_parquet(flags.manifest)
    basis = read_tensors(flags.projector, ["null_basis"])[0]["null_basis"]
    translator = Translator(**read_tensors(flags.translator, ["weight", "bias"])[0])
    texts = read_tensors(flags.prompts, ["concept_embeddings"])[0]["concept_embeddings"]
    names = read_json(flags.names)
    codes = pd.Categorical(manifest["label"], categories=names["labels"]).codes
    folded = fold(translator.weight, basis)
    scan = ConceptScan(len(names["labels"]), texts)
    for shard in iterate_shards(flags.features, "features", flags.shards, manifest):
        whole = shard["view"] == 0
        scan.update(codes[shard["image_id"][whole]], remove(shard["features"][whole], translator, folded))
    write_parquet(flags.output, scan.table(names["labels"], names["concepts"]))
    cli.log.info("%d labels x %d concepts over %d images", len(names["labels"]), len(names["concepts"]), len(manifest))


if __name__ == "__main__":
    cli.run(main, Flags)
