"""A study's images by a text."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from singflow.commands.options import PARAMS


def search(
    text: Annotated[str, typer.Argument(help="Text that images are to be near to, word for word.")],
    model: Annotated[
        str | None, typer.Option(help="Model of the study; by default its first.")
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="Space of the study; by default its first.")
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(help="Folder of the study; by default that of the study in params.yaml."),
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, max=100_000, help="Images listed, before removal and after it.")
    ] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="The rows as JSON.")] = False,
    threads: Annotated[
        int, typer.Option(min=1, max=1024, help="Threads of every numerical step.")
    ] = 2,
) -> None:
    """Rank a study's images by a text, as the model knows them, and say what removing the null component changes.

    An image counts by the angle between the text and its translated feature, before and after.
    """  # noqa: E501
    import numpy as np
    import torch

    from singflow.analyses.metrics import Removal, share
    from singflow.analyses.search import nearest_either_way, rank_by_text
    from singflow.artifacts.shards import iterate_whole, read_manifest
    from singflow.artifacts.tensors import read_null_basis
    from singflow.cli import limit_threads
    from singflow.config.reading import read_yaml
    from singflow.config.registry import read_space
    from singflow.config.study import check
    from singflow.photo.study import existing, read_texts, registry_entry
    from singflow.translators.linear import read_crossfitted

    results = results or Path("results") / check(read_yaml(PARAMS), str(PARAMS)).study
    study = read_yaml(existing(results / "params.yaml"))
    model, space = model or study["models"][0], space or study["spaces"][0]
    registry_entry(results, "model", model)
    entry = read_space(registry_entry(results, "space", space))
    limit_threads(threads)
    manifest = read_manifest(existing(results / "data/manifest.parquet"))
    basis = read_null_basis(existing(results / f"projectors/{model}.safetensors"))
    translators = read_crossfitted(
        existing(results / f"translators/{space}/{model}/linear.safetensors"), manifest
    )
    existing(results / f"features/{model}/shard-00000.safetensors")
    texts = read_texts(results, space, entry, torch.device("cpu"), [])[0]
    wanted = texts.embed([text])[0]
    removed = translators.each(lambda translator: share(translator, basis).astype(np.float32))

    def removals() -> Iterator[tuple[np.ndarray, Removal]]:
        shards = study["extraction"]["shards"]
        for image_id, features in iterate_whole(
            results / f"features/{model}", "features", shards, manifest, size=4096
        ):
            yield image_id, Removal(translators(features, image_id), removed(features, image_id))

    found = nearest_either_way(rank_by_text(removals(), wanted, len(manifest)), count)
    found = found.assign(
        **{name: manifest[name].to_numpy()[found["image_id"]] for name in ("label", "path")}
    )
    if as_json:
        print(
            json.dumps(
                {"text": text, "model": model, "space": space, "images": found.to_dict("records")},
                indent=2,
                ensure_ascii=False,
            )
        )
        return
    print(
        f"{text!r} in {space}, by {model}: {len(manifest)} images; angles in degrees, "
        "before and after the null component is removed"
    )
    print(
        f"{'rank':>6} {'after':>6} {'risen':>6} {'angle':>7} {'after':>7}  {'id':>7}  label, path"
    )
    for row in found.to_dict("records"):
        ranks = f"{row['rank']:>6} {row['equivalent_rank']:>6} {row['risen']:>+6}"
        print(
            f"{ranks} {row['angle_deg']:>7.2f} {row['equivalent_deg']:>7.2f}  {row['image_id']:>7}"
            f"  {row['label']}, {row['path']}"
        )
