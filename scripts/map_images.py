"""Map where in the images shown their null component lies, and toward which texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field

from singflow import cli
from singflow.analyses.inputs import Inputs
from singflow.analyses.maps import (
    OTHERS,
    comparable,
    fewest_others,
    fit_conditional,
    map_image,
    map_rows,
    map_table,
)
from singflow.artifacts.shards import read_manifest
from singflow.artifacts.tables import write_parquet
from singflow.config.registry import read_model
from singflow.data.images import read_unchanged
from singflow.data.manifest import data_root
from singflow.data.vocabulary import read_class_list
from singflow.parallel import map_ahead
from singflow.pictures.parameters import Pictures
from singflow.pictures.selection import choose_images
from singflow.towers.live import Located

if TYPE_CHECKING:
    from singflow.towers.live import Classifier


class Flags(Pictures, cli.PairStep):
    prompts: list[str]
    folds: int
    lambdas: list[Annotated[float, Field(gt=0)]]
    reference: str | None
    confidence: float
    classes: Path
    source: str
    root: str
    max_pixels: int
    device: str
    seed: int


def others_of(
    images: list[int], flags: Flags, inputs: Inputs, manifest: pd.DataFrame
) -> dict[int, list[int]]:
    """For every image those that its maps are compared with, from as many labels as possible."""
    most = max(OTHERS, fewest_others(flags.confidence))
    drawn = choose_images(manifest, [], len(manifest), flags.seed).drop_duplicates("sha256")
    order, sha256 = drawn["image_id"].to_numpy(), manifest["sha256"].to_numpy()
    return {
        image: order[comparable(image, inputs.translators, sha256)[order]][:most].tolist()
        for image in images
    }


def located(
    flags: Flags, classifier: Classifier, rows: pd.DataFrame
) -> Iterator[tuple[int, Located]]:
    """Features of images by positions, in float32."""
    root = data_root(flags.source, flags.root)

    def locate(row: Any) -> tuple[int, Located]:
        photo = read_unchanged(root, row, flags.max_pixels)
        found = classifier.locate(photo, flags.max_pixels)
        parts = None if found.parts is None else found.parts.astype(np.float32)
        return row.image_id, replace(found, parts=parts)

    threads = flags.threads if classifier.device.type == "cpu" else 1
    found = map_ahead(locate, rows.itertuples(), threads)
    yield from cli.progress(found, len(rows), "images", f"{flags.model} in {flags.space}")


def mapped(flags: Flags, inputs: Inputs, classifier: Classifier) -> Iterator[pd.DataFrame]:
    """The maps of the images shown, as rows; none if a feature is no mean over positions."""
    manifest = read_manifest(flags.path("manifest"))
    shown = choose_images(manifest, flags.images, flags.count, flags.seed)
    others = others_of(shown["image_id"].tolist(), flags, inputs, manifest)
    wanted = list(dict.fromkeys(chain(others, *others.values())))
    parts = {}
    for image, found in located(flags, classifier, manifest.iloc[wanted]):
        if found.parts is None:
            return
        parts[image] = found
    basis, prompts = inputs.null_basis, inputs.targets(flags.prompts)
    images, translators = inputs.training(flags.reference), inputs.translators
    conditional = fit_conditional(images, flags.folds, flags.lambdas, basis, translators)
    weight, bias = inputs.head["weight"], inputs.head["bias"]
    names = inputs.head_facts.parsed("class_names", list | None) or read_class_list(flags.classes)
    for row in shown.itertuples():
        image, number = parts[row.image_id], translators.member_of[row.image_id]
        label = inputs.label_texts[inputs.label_of[row.image_id]]
        best = int((image.feature @ weight.T + bias).argmax())
        maps = map_image(
            image,
            translators.members[number],
            basis,
            conditional.members[number],
            [parts[other] for other in others[row.image_id]],
            [row.label, *prompts],
            np.stack([label, *prompts.values()]),
            (names[best], weight[best]),
            flags.confidence,
        )
        yield map_rows(row.image_id, maps)


def main(flags: Flags) -> None:
    cli.limit_threads(1)  # the sums are small; threads are for the classifier
    inputs = Inputs.of(flags, "sha256")
    pixels = flags.source != "features"
    known = flags.maps and pixels and inputs.null_basis.shape[1] > 0
    maps: list[pd.DataFrame] = []
    on: dict[str, str] = {}
    if known:
        import torch

        from singflow.towers.device import recorded, wherever
        from singflow.towers.live import load_entry

        torch.set_num_threads(1)
        entry = read_model(flags.path("model_entry"))
        classifier = load_entry(entry, flags.model, [], wherever(flags.device))
        on = recorded(classifier.device)
        maps = list(mapped(flags, inputs, classifier))
    table = map_table(maps)
    write_parquet(flags.path("maps"), table, **on)
    others = table.groupby("image_id")["others"].first().tolist()
    said = f"{len(others)} images mapped" + (f", compared with {min(others)}" if others else "")
    cli.log.info("%s in %s: %s", flags.model, flags.space, said)


if __name__ == "__main__":
    cli.run_step(main, Flags)
