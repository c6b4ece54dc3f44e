"""Embed the labels' prompts, the concepts and the targets of steering with a space's text tower."""

from functools import partial
from pathlib import Path

from singflow import cli
from singflow.artifacts.files import write_json
from singflow.artifacts.shards import read_manifest
from singflow.artifacts.tensors import provenance, write_tensors
from singflow.config.registry import read_space
from singflow.data.manifest import prompt_of
from singflow.data.vocabulary import read_vocabulary
from singflow.towers.parameters import Prompts
from singflow.towers.text_cache import TextCache


class Flags(Prompts, cli.Step):
    space: str
    vocabulary: Path
    targets: list[str]
    device: str
    threads: int


def main(flags: Flags) -> None:
    import torch

    from singflow.towers.classifiers import weights_sha256
    from singflow.towers.device import pick_device
    from singflow.towers.spaces import LIBRARIES, embed_templates, load_text_tower, text_facts

    concepts = read_vocabulary(flags.vocabulary)
    torch.set_num_threads(1)
    prompts = (
        read_manifest(flags.path("manifest"))
        .drop_duplicates("label")
        .set_index("label")["prompt"]
        .sort_index()
    )
    labels = list(prompts.index)
    own = {label: prompt for label, prompt in prompts.items() if prompt != prompt_of(label)}
    entry = read_space(flags.path("space_entry"))
    device = pick_device(flags.device)
    tower = load_text_tower(entry, device)
    packages = ["torch", *LIBRARIES[entry.source]]
    weights = weights_sha256(tower.module)
    facts = text_facts(entry, weights, device, flags.batch_size)
    shown = partial(cli.progress, unit="chunks of texts", description=flags.space)
    side_by_side = flags.threads if device.type == "cpu" else 1
    run = partial(tower.embed, batch_size=flags.batch_size, threads=side_by_side)
    embed = TextCache(Path(flags.cache), facts, run, shown, flags.batch_size * side_by_side)
    tensors = {
        "label_embeddings": embed_templates(embed, labels, flags.label_templates, own),
        "concept_embeddings": embed_templates(embed, concepts, flags.concept_templates, {}),
        **({"target_embeddings": embed(flags.targets)} if flags.targets else {}),
    }
    metadata = provenance(
        packages,
        study=flags.study,
        space=flags.space,
        weights_sha256=weights,
        label_templates=flags.label_templates,
        concept_templates=flags.concept_templates,
    )
    write_tensors(flags.path("texts"), tensors, metadata)
    write_json(
        flags.path("names"), {"labels": labels, "concepts": concepts, "targets": flags.targets}
    )
    cli.log.info(
        "%s: %d labels, %d concepts, %d targets",
        flags.space,
        len(labels),
        len(concepts),
        len(flags.targets),
    )


if __name__ == "__main__":
    cli.run_step(main, Flags)
