"""Share of the time in which a GPU waits for images, shown without a GPU.

A stand-in takes the tower's place: it takes a stated time for a batch, on the tower's own thread,
and no processor. It waits from the end of a batch to the start of the next. At the stated rates
the images are decoded already, so that it waits for the pipeline alone. Then JPEGs of ImageNet's
size are decoded in as many threads as there are cores, for a stand-in that takes as many images as
decoding alone gives (`--load`, a share of them). Cores for a rate: the processor time that an image takes
from its file to its batch. Ends with exit status 1 if the stand-in waits longer than the limit.
"""

import hashlib
import math
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from singflow import cli
from singflow.data.manifest import data_root
from singflow.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
SIZE, QUALITY = (500, 375), 95  # pixels and quality of the JPEGs
SIDE = 224
MAX_PIXELS = 10**9


class Flags(cli.Command):
    images: Path | None = Field(
        None, description="folder of JPEGs (default: the packaged photos, at ImageNet's size)"
    )
    rates: list[int] = Field([300, 1200, 3000], description="images a second of the stand-in")
    seconds: float = Field(20.0, gt=0, description="seconds that the stand-in works")
    batch_size: int = Field(256, ge=1, description="images of a batch")
    threads: int = Field(os.cpu_count() or 1, ge=1, description="threads that decode")
    load: float = Field(0.8, gt=0, le=1, description="share of what decoding alone gives")
    limit: float = Field(0.05, ge=0, description="share of the time that it may wait")


class StandIn:
    """A tower that takes 1 / rate seconds for an image, and no processor."""

    def __init__(self, rate: float) -> None:
        self.rate, self.spans = rate, []

    def __call__(self, batch: Any) -> np.ndarray:
        start = time.perf_counter()
        time.sleep(len(batch) / self.rate)
        self.spans.append((start, time.perf_counter()))
        return np.zeros((len(batch), 1), np.float32)

    def waited(self) -> float:
        """Share of the time, between its first and its last batch, in which it had none."""
        busy = sum(end - start for start, end in self.spans)
        return 1 - busy / (self.spans[-1][1] - self.spans[0][0])


def stream(flags: Flags, rows: pd.DataFrame, load: Callable[[Any], Any], tower: Any) -> float:
    """Processor seconds of an image on its way from `load` to the tower."""
    import torch

    from singflow.towers.extraction import run_batches

    used = processor_seconds()
    run_batches(
        load,
        rows,
        (1, 3, SIDE, SIDE),
        tower,
        images=flags.batch_size,
        passes=1,
        decoders=flags.threads,
        device=torch.device("cpu"),
        progress=lambda items, total: items,
    )
    return (processor_seconds() - used) / len(rows)


def processor_seconds() -> float:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def photos(folder: Path, images: Path | None) -> pd.DataFrame:
    """Rows of a manifest (path, sha256, image_id) of JPEGs."""
    if images is None:
        from PIL import Image

        root = data_root("packaged", ".")
        for path in pd.read_csv(ROOT / "config/vocab/packaged.csv")["path"]:
            photo = Image.open(root / path).convert("RGB").resize(SIZE)
            photo.save(folder / f"{Path(path).stem}.jpg", quality=QUALITY)
        images = folder
    files = sorted(path for path in images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise InputError(f"{images}: holds no JPEGs")
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return pd.DataFrame({"path": list(map(str, files)), "sha256": hashes, "image_id": 0})


def repeated(rows: pd.DataFrame, count: float) -> pd.DataFrame:
    return rows.iloc[np.arange(math.ceil(count)) % len(rows)]


def main(flags: Flags) -> None:
    import timm
    import torch

    from singflow.data.images import read_unchanged
    from singflow.towers.views import Views, from_timm

    torch.set_num_threads(1)
    ready = torch.zeros(1, 3, SIDE, SIDE)
    lines = []
    for rate in flags.rates:
        count = flags.seconds * rate
        tower = StandIn(rate)
        used = stream(flags, pd.DataFrame({"image_id": range(int(count))}), lambda row: ready, tower)
        lines.append({"images": "decoded", "rate": rate, "waited": tower.waited(), "ms": 1000 * used})
    preprocess = from_timm(timm.create_model("resnet50"), None)
    with tempfile.TemporaryDirectory() as folder:
        rows = photos(Path(folder), flags.images)
        for decode in ("full", "reduced"):
            views = Views(preprocess, 1, 0, (0.3, 1.0), decode == "reduced")

            def load(row: Any, views: Views = views) -> Any:
                return views(read_unchanged(Path(), row, MAX_PIXELS, views.least_side), 0)

            start = time.perf_counter()
            sample = repeated(rows, 100 * flags.threads)
            stream(flags, sample, load, lambda batch: np.zeros((len(batch), 1)))
            rate = flags.load * len(sample) / (time.perf_counter() - start)
            tower = StandIn(rate)
            used = stream(flags, repeated(rows, flags.seconds * rate), load, tower)
            line = {"images": decode, "rate": rate, "waited": tower.waited(), "ms": 1000 * used}
            lines.append(line | {f"cores for {rate}": used * rate for rate in flags.rates})
    table = pd.DataFrame(lines)
    print(table.to_string(index=False, float_format="{:.3g}".format, na_rep="-"))
    print(f"peak {peak_mb():,.0f} MB")
    judge(table, flags.limit)


def judge(table: pd.DataFrame, limit: float) -> None:
    """Raises InputError if the stand-in waited longer than the limit."""
    late = table[table["waited"] > limit]
    if len(late):
        raise InputError(f"the stand-in waited longer than {limit:g} of the time: {late}")


if __name__ == "__main__":
    cli.run_step(main, Flags)
