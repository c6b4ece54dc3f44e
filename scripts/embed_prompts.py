"""Embed a study's labels, concepts and targets of steering, the labels of its reference, and the
classes of its list if some of its labels are among them.
"""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from singflow import cli
from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.files import write_json
from singflow.artifacts.shards import read_manifest
from singflow.artifacts.tensors import provenance, write_tensors
from singflow.config.registry import read_space
from singflow.data.manifest import prompt_of, read_classes
from singflow.data.vocabulary import read_vocabulary
from singflow.towers.steps import LIBRARIES, TextFlags
from singflow.translators.reference import reference_folder


class Flags(TextFlags):
    vocabulary: Path
    classes: Path
    targets: list[str]
    reference: str | None


def label_prompts(manifest: pd.DataFrame) -> pd.Series:
    """The prompt of each label, by label."""
    return manifest.drop_duplicates("label").set_index("label")["prompt"].sort_index()


def further(reference: str | None, prompts: pd.Series) -> pd.Series:
    """The prompts of a reference's labels that are not among those of the study, in any case."""
    if reference is None:
        return prompts[:0]
    others = label_prompts(read_manifest(CATALOG["manifest"].at(reference_folder(reference))))
    return others[~others.index.str.casefold().isin(prompts.index.str.casefold())]


def main(flags: Flags) -> None:
    from singflow.towers.spaces import MissingText, class_spellings, embed_templates

    concepts = read_vocabulary(flags.vocabulary)
    manifest = read_manifest(flags.path("manifest"))
    prompts = label_prompts(manifest)
    others = further(flags.reference, prompts)
    own = {
        label: prompt
        for label, prompt in [*prompts.items(), *others.items()]
        if prompt != prompt_of(label)
    }
    names = {"labels": list(prompts.index), "concepts": concepts, "targets": flags.targets}
    names |= {"reference": list(others.index)} if flags.reference else {}
    entry = read_space(flags.path("space_entry"))
    embed, made = flags.text_tower(entry)
    tensors = {
        "label_embeddings": embed_templates(embed, names["labels"], flags.label_templates, own),
        "concept_embeddings": embed_templates(embed, concepts, flags.concept_templates, {}),
        **({"target_embeddings": embed(flags.targets)} if flags.targets else {}),
    }
    if names.get("reference"):
        tensors["reference_embeddings"] = embed_templates(
            embed, names["reference"], flags.label_templates, own
        )
    spelled = [np.zeros((0, entry.dim), np.float32)] * 2
    if (manifest["class_index"] >= 0).any() and not entry.untrained:
        listed = read_classes(flags.classes)
        with suppress(MissingText):
            spelled = [*class_spellings(embed, listed.names, listed, entry, flags.label_templates)]
    tensors |= zip(("class_embeddings", "other_embeddings"), spelled, strict=True)
    metadata = provenance(
        ["torch", *LIBRARIES[entry.source]],
        **flags.named,
        **made,
        label_templates=flags.label_templates,
        concept_templates=flags.concept_templates,
    )
    write_tensors(flags.path("texts"), tensors, metadata)
    write_json(flags.path("names"), names)
    counts = ", ".join(f"{len(texts)} {kind}" for kind, texts in names.items())
    cli.log.info("%s: %s", flags.space, counts)


if __name__ == "__main__":
    cli.run_step(main, Flags)
