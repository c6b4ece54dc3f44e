"""What a model's head ignores in single images."""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from singflow.cli import limit_threads, log
from singflow.commands.options import PARAMS
from singflow.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

    from singflow.towers.classifiers import Classifier


def analyze(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    model: Annotated[str, typer.Option(help="Model of the study.")],
    space: Annotated[str, typer.Option(help="Space of the study.")],
    text: Annotated[list[str] | None, typer.Option(help="Text that the images are compared with, word for word; may be repeated.")] = None,
    results: Annotated[Path | None, typer.Option(help="Folder of the study; by default that of the study in params.yaml.")] = None,
    output: Annotated[Path, typer.Option(help="Folder that is written to.")] = Path("analysis"),
    concepts: Annotated[int, typer.Option(min=1, max=1000, help="Concepts listed as gained, and as lost.")] = 8,
    classes: Annotated[
        Path | None,
        typer.Option(help="The study's data.classes; by default that of params.yaml, and with --results config/vocab/imagenet_1k.csv."),
    ] = None,
    max_pixels: Annotated[int, typer.Option(min=1, max=10**9, help="Pixels; larger images are refused unread.")] = 10**8,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Threads of every numerical step.")] = 2,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto: a GPU when there is one.")] = "auto",
) -> None:
    """Say what a model's head ignores in single images, with the artifacts of a finished study.

    Writes analysis.json and one picture per image, and prints a few lines about each.
    """
    from singflow.artifacts.files import sha256_of, write_json
    from singflow.config.reading import read_yaml
    from singflow.config.study import check
    from singflow.photo.analysis import analyze as analyze_feature
    from singflow.photo.analysis import describe, predict
    from singflow.photo.study import load_model, read_artifacts, read_photos, read_texts, registry_entry

    if results is None:
        study = check(read_yaml(PARAMS), str(PARAMS))
        results, classes = Path("results") / study.study, classes or Path(study.data.classes)
    classes = classes or Path("config/vocab/imagenet_1k.csv")
    model_entry, space_entry = registry_entry(results, "model", model), registry_entry(results, "space", space)
    for path in images:
        read_image(path, max_pixels)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {output}: {error.strerror}: name another folder") from None

    import torch

    from singflow.figures.style import save
    from singflow.photo.figure import draw_image
    from singflow.towers.device import pick_device

    started = time.perf_counter()
    limit_threads(threads)
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    picked = pick_device(device)
    stored, concepts_of_study = read_texts(results, space, space_entry, picked)
    artifacts, weights = read_artifacts(results, model, space, classes, concepts_of_study, stored.tensors["concept_embeddings"])
    photos = read_photos(results, space)
    if not photos.folder.is_dir():
        log.warning("%s: not here, so the nearest photos are left out: `make fetch` brings it", photos.folder)
    classifier = load_model(model_entry, weights, results / f"features/{model}/head.safetensors", picked)
    log.info("model and artifacts loaded in %.1f s", time.perf_counter() - started)
    wanted = dict(zip(text, stored.embed(text), strict=True)) if text else {}

    seconds = 0.0
    records = []
    for path, picture in zip(images, picture_paths(images, output), strict=True):
        started = time.perf_counter()
        photo = read_image(path, max_pixels)
        features = feature_of(photo, classifier, picked)
        seconds += time.perf_counter() - started
        predicted = stored.of_class(predict(features, artifacts)[0].index, artifacts.class_names)
        started = time.perf_counter()
        analysis = analyze_feature(features, artifacts, predicted, wanted, concepts, partial(photos.nearest, sha256_of(path)))
        near = [photos.picture(each, max_pixels) for each in analysis.nearest]
        save(draw_image(photo, path.name, analysis, artifacts.setting, near), picture)
        records.append({"image": str(path), "picture": picture.name, **asdict(analysis), "setting": asdict(artifacts.setting)})
        seconds += time.perf_counter() - started
        print(describe(str(path), analysis, artifacts.setting))
    write_json(output / "analysis.json", records)
    log.info("%d images, %.2f s each, into %s", len(records), seconds / len(records), output)


def read_image(path: Path, max_pixels: int) -> Image.Image:
    """An upright RGB image. Raises InputError that names the file and the reason."""
    from singflow.data.images import Unusable, decode, read

    try:
        return decode(read(path, max_pixels), max_pixels)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except Unusable as error:
        raise InputError(f"{path}: {error}") from None


def picture_paths(images: list[Path], output: Path) -> list[Path]:
    """A picture for each image, named by its stem; the second of a stem is <stem>-2, whatever the case of its letters."""
    taken: set[str] = set()
    paths = []
    for image in images:
        name, number = image.stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{image.stem}-{number}"
        taken.add(name.casefold())
        paths.append(output / f"{name}.png")
    return paths


def feature_of(image: Image.Image, classifier: Classifier, device: torch.device) -> np.ndarray:
    """The input of the head for view 0, the model's own evaluation transform: (1, d) float32."""
    import torch

    with torch.inference_mode():
        view = classifier.preprocess.whole(image)[None]
        return classifier(view.to(device, memory_format=torch.channels_last)).cpu().numpy()
