"""Embed the labels' prompts, the concepts and the targets of steering with a space's text tower."""

from functools import partial
from pathlib import Path

import torch

from singflow import cli
from singflow.classifiers import weights_sha256
from singflow.config import Prompts, Steering
from singflow.data import prompt_of
from singflow.features import pick_device
from singflow.registry import read_space
from singflow.spaces import LIBRARIES, embed_templates, load_text_tower
from singflow.store import provenance, read_parquet, write_json, write_tensors
from singflow.vocabulary import read_vocabulary


class Flags(Prompts, Steering, cli.Command):
    """Embed the labels' prompts, the concepts and the targets of steering with a space's text tower."""

    study: str
    space: str
    entry: Path
    manifest: Path
    vocabulary: Path
    device: str
    threads: int
    output: Path
    names: Path


def main(flags: Flags) -> None:
    concepts = read_vocabulary(flags.vocabulary)
    torch.set_num_threads(flags.threads)
    prompts = read_parquet(flags.manifest).drop_duplicates("label").set_index("label")["prompt"].sort_index()
    labels = list(prompts.index)
    own = {label: prompt for label, prompt in prompts.items() if prompt != prompt_of(label)}
    entry = read_space(flags.entry)
    tower = load_text_tower(entry, pick_device(flags.device))
    embed = partial(tower.embed, batch_size=flags.batch_size)
    tensors = {
        "label_embeddings": embed_templates(embed, labels, flags.label_templates, own),
        "concept_embeddings": embed_templates(embed, concepts, flags.concept_templates, {}),
        **({"target_embeddings": embed(flags.prompts)} if flags.prompts else {}),
    }
    metadata = provenance(
        ["torch", *LIBRARIES[entry.source]],
        study=flags.study,
        space=flags.space,
        weights_sha256=weights_sha256(tower.module),
        label_templates=flags.label_templates,
        concept_templates=flags.concept_templates,
    )
    write_tensors(flags.output, tensors, metadata)
    write_json(flags.names, {"labels": labels, "concepts": concepts, "targets": flags.prompts})
    cli.log.info("%s: %d labels, %d concepts, %d targets", flags.space, len(labels), len(concepts), len(flags.prompts))


if __name__ == "__main__":
    cli.run(main, Flags)
