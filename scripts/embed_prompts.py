"""Embed the labels' prompts and the concepts with a space's text tower."""

from pathlib import Path

import torch

from singflow import cli
from singflow.registry import SpaceEntry, read_entry
from singflow.spaces import SentenceEncoder
from singflow.store import provenance, read_parquet, write_json, write_tensors
from singflow.vocabulary import read_vocabulary


class Flags(cli.Command):
    """Embed the labels' prompts and the concepts with a space's text tower."""

    study: str
    space: str
    entry: Path
    manifest: Path
    vocabulary: Path
    threads: int
    output: Path
    names: Path


def main(flags: Flags) -> None:
    concepts = read_vocabulary(flags.vocabulary)
    torch.set_num_threads(flags.threads)
    prompts = read_parquet(flags.manifest).drop_duplicates("label").set_index("label")["prompt"].sort_index()
    encode = SentenceEncoder(read_entry(flags.entry, SpaceEntry))
    tensors = {"label_embeddings": encode(list(prompts)), "concept_embeddings": encode(concepts)}
    metadata = provenance(["torch", "sentence-transformers", "transformers"], study=flags.study, space=flags.space)
    write_tensors(flags.output, tensors, metadata)
    write_json(flags.names, {"labels": list(prompts.index), "concepts": concepts})
    cli.log.info("%s: %d labels, %d concepts", flags.space, len(prompts), len(concepts))


if __name__ == "__main__":
    cli.run(main, Flags)
