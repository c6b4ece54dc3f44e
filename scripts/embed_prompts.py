"""Embed the labels' prompts, the concepts and the targets of steering with a space's text tower."""

from pathlib import Path

from singflow import cli
from singflow.artifacts.files import write_json
from singflow.artifacts.shards import read_manifest
from singflow.artifacts.tensors import provenance, write_tensors
from singflow.config.registry import read_space
from singflow.data.manifest import prompt_of
from singflow.data.vocabulary import read_vocabulary
from singflow.towers.steps import TextFlags


class Flags(TextFlags):
    vocabulary: Path
    targets: list[str]


def main(flags: Flags) -> None:
    from singflow.towers.spaces import LIBRARIES, embed_templates

    concepts = read_vocabulary(flags.vocabulary)
    manifest = read_manifest(flags.path("manifest")).drop_duplicates("label")
    prompts = manifest.set_index("label")["prompt"].sort_index()
    labels = list(prompts.index)
    own = {label: prompt for label, prompt in prompts.items() if prompt != prompt_of(label)}
    entry = read_space(flags.path("space_entry"))
    embed = flags.text_cache(entry)
    tensors = {
        "label_embeddings": embed_templates(embed, labels, flags.label_templates, own),
        "concept_embeddings": embed_templates(embed, concepts, flags.concept_templates, {}),
        **({"target_embeddings": embed(flags.targets)} if flags.targets else {}),
    }
    metadata = provenance(
        ["torch", *LIBRARIES[entry.source]],
        **flags.named,
        weights_sha256=embed.facts["weights_sha256"],
        label_templates=flags.label_templates,
        concept_templates=flags.concept_templates,
    )
    write_tensors(flags.path("texts"), tensors, metadata)
    names = {"labels": labels, "concepts": concepts, "targets": flags.targets}
    write_json(flags.path("names"), names)
    counts = ", ".join(f"{len(texts)} {kind}" for kind, texts in names.items())
    cli.log.info("%s: %s", flags.space, counts)


if __name__ == "__main__":
    cli.run_step(main, Flags)
