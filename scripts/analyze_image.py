"""Say what a model's head ignores in single images, with the artifacts of a finished study."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from singflow import cli
from singflow.config import Listed, check, read_yaml
from singflow.errors import InputError
from singflow.finished import load_model, read_artifacts, read_texts, registry_entry
from singflow.image_analysis import analyze, describe, predict
from singflow.images import Unusable, decode
from singflow.store import write_json

if TYPE_CHECKING:
    import torch

    from singflow.classifiers import Classifier

PARAMS = "params.yaml"


class Flags(cli.Command):
    """Say what a model's head ignores in single images, with the artifacts of a finished study.

    Writes analysis.json and one picture per image, and prints a few lines about each.
    """

    positional: ClassVar[str | None] = "images"

    images: list[Path] = Field(min_length=1, description="image files")
    model: str = Field(description="model of the study")
    space: str = Field(description="space of the study")
    texts: list[Listed] = Field([], description="texts that the image is compared with, word for word")
    results: Path | None = Field(None, description="folder of the study; not given: that of the study in params.yaml")
    output: Path = Field(Path("analysis"), description="folder that is written to; default: analysis")
    concepts: int = Field(8, ge=1, description="concepts listed as gained, and as lost; default: 8")
    classes: Path | None = Field(
        None,
        description="the study's data.classes, with --results; not given: that of params.yaml, and with --results vocab/imagenet_1k.csv",
    )
    max_pixels: int = Field(10**8, ge=1, description="pixels; larger images are refused unread; default: 100000000")
    threads: int = Field(2, ge=1, description="threads of every numerical step; default: 2")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto (default): a GPU when there is one")


def read_image(path: Path, max_pixels: int) -> Image.Image:
    """An upright RGB image. Raises InputError that names the file and the reason."""
    try:
        return decode(path.read_bytes(), max_pixels)
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


def feature_of(image: Image.Image, classifier: "Classifier", device: "torch.device") -> np.ndarray:
    """The input of the head for view 0, the model's own evaluation transform: (1, d) float32."""
    import torch

    with torch.inference_mode():
        view = classifier.preprocess.whole(image)[None]
        return classifier(view.to(device, memory_format=torch.channels_last)).cpu().numpy()


def main(flags: Flags) -> None:
    results, classes = flags.results, flags.classes or Path("vocab/imagenet_1k.csv")
    if results is None:
        study = check(read_yaml(PARAMS), PARAMS)
        results, classes = Path("results") / study.study, flags.classes or Path(study.data.classes)
    model_entry, space_entry = registry_entry(results, "model", flags.model), registry_entry(results, "space", flags.space)
    for path in flags.images:
        read_image(path, flags.max_pixels)
    try:
        flags.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {flags.output}: {error.strerror}: name another folder") from None

    import torch

    from singflow.features import pick_device
    from singflow.figures import save
    from singflow.figures_image import draw_image

    started = time.perf_counter()
    cli.limit_threads(flags.threads)
    torch.set_num_threads(flags.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = pick_device(flags.device)
    texts, concepts = read_texts(results, flags.space, space_entry, device)
    artifacts, weights = read_artifacts(results, flags.model, flags.space, classes, concepts, texts.tensors["concept_embeddings"])
    classifier = load_model(model_entry, weights, results / f"features/{flags.model}/head.safetensors", device)
    cli.log.info("model and artifacts loaded in %.1f s", time.perf_counter() - started)
    wanted = dict(zip(flags.texts, texts.embed(flags.texts), strict=True)) if flags.texts else {}

    seconds = 0.0
    records = []
    for path, picture in zip(flags.images, picture_paths(flags.images, flags.output), strict=True):
        started = time.perf_counter()
        photo = read_image(path, flags.max_pixels)
        features = feature_of(photo, classifier, device)
        seconds += time.perf_counter() - started
        predicted = texts.of_class(predict(features, artifacts)[0].index, artifacts.class_names)
        started = time.perf_counter()
        analysis = analyze(features, artifacts, predicted, wanted, flags.concepts)
        save(draw_image(photo, path.name, analysis, artifacts.setting), picture)
        records.append({"image": str(path), "picture": picture.name, **asdict(analysis), "setting": asdict(artifacts.setting)})
        seconds += time.perf_counter() - started
        print(describe(str(path), analysis, artifacts.setting))
    write_json(flags.output / "analysis.json", records)
    cli.log.info("%d images, %.2f s each, into %s", len(records), seconds / len(records), flags.output)


if __name__ == "__main__":
    cli.run(main, Flags)
