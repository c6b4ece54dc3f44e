import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from singflow.cli import limit_threads, log, progress
from singflow.commands.options import Device, MaxPixels, Models, Reference, Spaces, TowerThreads
from singflow.errors import InputError


def analyze(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    model: Annotated[
        str,
        typer.Option(help="Model of the registry, or of the study; <source>/<id> needs no entry."),
    ],
    space: Annotated[
        str, typer.Option(help="Space of the registry, or of the study.")
    ] = "conse_minilm",
    text: Annotated[
        list[str] | None,
        typer.Option(
            help="Text that the images are compared with, word for word; may be repeated."
        ),
    ] = None,
    reference: Reference = "packaged",
    results: Annotated[
        Path | None,
        typer.Option(help="Results folder of a finished study whose translator is used."),
    ] = None,
    translator: Annotated[
        Path | None, typer.Option(help="File of an imported or fitted linear translator to use.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder that receives a picture and a JSON file of each image."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    extremes: Annotated[
        int,
        typer.Option(min=1, max=1000, help="Classes and concepts listed as gained, and as lost."),
    ] = 8,
    models: Models = Path("config/models.yaml"),
    spaces: Spaces = Path("config/spaces.yaml"),
    classes: Annotated[
        Path | None,
        typer.Option(
            help="Class list of a head that names none; by default the study's data.classes, "
            "or config/vocab/imagenet_1k.csv."
        ),
    ] = None,
    max_pixels: MaxPixels = 10**8,
    threads: TowerThreads = 2,
    device: Device = "auto",
) -> None:
    """Say what a model's head ignores in single photos.

    By default the translator is fitted on the packaged reference.
    --results uses that of a finished study, --translator that of a file.
    """
    import torch
    from tqdm import tqdm

    from singflow.artifacts.files import write_json
    from singflow.figures.style import save
    from singflow.photo.analyzer import Analyzer
    from singflow.towers.live import open_image
    from singflow.towers.texts import checked_texts

    for path in images:
        open_image(path, max_pixels)
    texts = checked_texts(text or [])
    try:
        if output:
            output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {output}: {error.strerror}: name another folder") from None
    limit_threads(1)  # the matrices of a photo are too small for threads to be of use
    torch.set_num_threads(threads)
    started = time.perf_counter()
    analyzer = Analyzer.load(
        model,
        space,
        reference=reference,
        results=results,
        translator=translator,
        models=models,
        spaces=spaces,
        classes=classes,
        device=device,
        threads=threads,
    )
    log.info("model and translator loaded in %.1f s", time.perf_counter() - started)

    started = time.perf_counter()
    records, several = [], len(images) > 1
    shown = progress(images, len(images), "images", model) if several else images
    for path, name in zip(shown, stems(images), strict=True):
        result = analyzer.analyze(path, texts, extremes=extremes, max_pixels=max_pixels)
        records.append(result.to_dict())
        if output:
            save(result.figure(), output / f"{name}.png")
            write_json(output / f"{name}.json", records[-1])
        if not as_json:
            tqdm.write(str(result))
    if as_json:
        json.dump(records, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
        print()
    seconds = (time.perf_counter() - started) / len(images)
    place = f", into {output}" if output else ""
    log.info("%d image%s, %.2f s each%s", len(images), "s" if several else "", seconds, place)


def stems(images: list[Path]) -> list[str]:
    """Names for the files of the images: the stem, or <stem>-2 and so on if the stem is taken."""
    names, taken = [], set[str]()  # taken: without case, which a disk may ignore
    for image in images:
        name, number = image.stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{image.stem}-{number}"
        names.append(name)
        taken.add(name.casefold())
    return names
