import json
from pathlib import Path
from typing import Annotated

import typer

from singflow.commands.options import PARAMS
from singflow.errors import InputError


def search(
    text: Annotated[str, typer.Argument(help="Text to compare the images with, word for word.")],
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
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
    threads: Annotated[
        int, typer.Option(min=1, max=1024, help="Threads of every numerical step.")
    ] = 2,
) -> None:
    """Rank a study's images by a text, before and after removal of the null component.

    The rank follows from the angle between the text and the translated feature of the image.
    """
    import torch

    from singflow.analyses.inputs import Inputs
    from singflow.analyses.search import nearest_either_way, rank_by_text
    from singflow.artifacts.catalog import CATALOG
    from singflow.cli import limit_threads
    from singflow.config.reading import read_yaml
    from singflow.config.registry import read_space
    from singflow.photo.finished import read_texts, registry_entry, require_file
    from singflow.study import check, read_params, with_defaults
    from singflow.towers.texts import checked_texts

    asked = checked_texts([text])
    if results is None and not PARAMS.is_file():
        raise InputError(
            "--results: missing, and there is no params.yaml here: name the folder of a finished "
            "study"
        )
    results = results or Path("results") / read_params().study
    path = require_file(CATALOG["params"].at(results))
    study = check(with_defaults(read_yaml(path)), str(path))
    model, space = model or study.models[0], space or study.spaces[0]
    registry_entry(results, "model", model)
    entry = read_space(registry_entry(results, "space", space))
    limit_threads(threads)
    inputs = Inputs(results, model, space, ("path",), study.extraction.shards)
    for artifact in ("manifest", "projector", "translator", "features"):
        require_file(inputs.path(artifact))
    manifest = inputs.manifest
    texts = read_texts(inputs, entry, torch.device("cpu"), [])[0]
    wanted = texts.embed(asked)[0]

    ranked = rank_by_text(inputs.removals(size=4096), wanted, len(manifest))
    found = nearest_either_way(ranked, count)
    found = found.assign(
        **{name: manifest[name].to_numpy()[found["image_id"]] for name in ("label", "path")}
    )
    if as_json:
        facts = {"text": text, "model": model, "space": space, "images": found.to_dict("records")}
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    print(
        f"{text!r} in {space}, by {model}: {len(manifest)} images; angles in degrees, "
        "before and after the null component is removed"
    )
    print("  rank  after  risen   angle   after       id  label, path")
    for row in found.to_dict("records"):
        ranks = f"{row['rank']:>6} {row['equivalent_rank']:>6} {row['risen']:>+6}"
        print(
            f"{ranks} {row['angle_deg']:>7.2f} {row['equivalent_deg']:>7.2f}  {row['image_id']:>7}"
            f"  {row['label']}, {row['path']}"
        )
