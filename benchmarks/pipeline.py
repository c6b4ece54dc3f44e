"""Share of the time in which a GPU waits for images, shown without a GPU.

A stand-in takes the tower's place: a batch takes it a stated time, on the tower's own thread, and
no processor. It waits from the end of a batch to the start of the next. At the stated rates all
images are decoded already, so that it waits for the pipeline alone. Then JPEGs of ImageNet's size
are decoded, for a stand-in that takes a share (`--load`) of the images that decoding gives a
second. The cores for a rate are the rate, times the processor time of an image on its way from its
file to a batch. Ends with exit status 1 when a mark is missed.
"""

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from pydantic import Field

from singflow import cli
from singflow.data.manifest import data_root
from singflow.errors import InputError
from singflow.towers.parameters import GPU_BATCH, WAITING_BYTES

ROOT = Path(__file__).resolve().parents[1]
SIZE, QUALITY = (500, 375), 95  # pixels and quality of the JPEGs that are made
SIDE = 224
BATCHES = 5  # in memory at once: two that are filled, two that wait, one that the tower has
MAX_PIXELS = 10**9


class Flags(cli.Command):
    images: Path | None = Field(
        None, description="folder of JPEGs (default: the packaged photos, at ImageNet's size)"
    )
    rates: list[int] = Field([300, 1200, 3000], description="images a second of the stand-in")
    seconds: float = Field(20.0, gt=0, description="seconds that the stand-in works")
    batch_size: int = Field(GPU_BATCH, ge=1, description="images of a batch")
    threads: int = Field(os.cpu_count() or 1, ge=1, description="threads that decode")
    load: float = Field(0.8, gt=0, le=1, description="share of what decoding gives")
    limit: float = Field(0.05, ge=0, description="share of the time that it may wait")


class StandIn:
    """A tower that takes 1 / rate seconds for an image, and no processor."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.spans: list[tuple[float, float]] = []

    def __call__(self, batch: Any) -> np.ndarray:
        start = time.perf_counter()
        time.sleep(len(batch) / self.rate)
        self.spans.append((start, time.perf_counter()))
        return np.zeros((len(batch), 1), np.float32)

    def waited(self) -> float:
        """Share of the time, from its first batch to its last, in which it had none."""
        busy = sum(end - start for start, end in self.spans)
        return 1 - busy / (self.spans[-1][1] - self.spans[0][0])


def stream(flags: Flags, rows: pd.DataFrame, load: Callable[[Any], Any], tower: Any) -> float:
    """Milliseconds of processor time that an image takes from `load` to the tower."""
    import torch

    from singflow.towers.extraction import run_batches

    used = time.process_time()
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
    return 1000 * (time.process_time() - used) / len(rows)


def photos(folder: Path, images: Path | None) -> pd.DataFrame:
    """Rows of a manifest (path, sha256) of the JPEGs in a folder, or of some made in `folder`."""
    if images is None:
        from PIL import Image

        root, images = data_root("packaged", "."), folder
        for path in pd.read_csv(ROOT / "config/vocab/packaged.csv")["path"]:
            photo = Image.open(root / path).convert("RGB").resize(SIZE)
            photo.save(folder / f"{Path(path).stem}.jpg", quality=QUALITY)
    files = sorted(path for path in images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise InputError(f"{images}: holds no JPEGs: name another folder")
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return pd.DataFrame({"path": list(map(str, files)), "sha256": hashes})


def repeated(rows: pd.DataFrame, count: float) -> pd.DataFrame:
    """The first `count` of the rows, again and again."""
    return rows.iloc[np.arange(int(count)) % len(rows)]


def main(flags: Flags) -> None:
    import timm
    import torch

    from singflow.data.images import read_unchanged
    from singflow.towers.views import Views, from_timm

    torch.set_num_threads(1)
    preprocess = from_timm(timm.create_model("resnet50"), None)
    ready = torch.zeros(1, 3, SIDE, SIDE)
    before, lines = psutil.Process().memory_info().rss, []
    with tempfile.TemporaryDirectory() as folder:
        rows = photos(Path(folder), flags.images)
        for rate in flags.rates:
            tower = StandIn(rate)
            ms = stream(flags, repeated(rows, flags.seconds * rate), lambda row: ready, tower)
            lines.append({"images": "decoded", "rate": rate, "waited": tower.waited(), "ms": ms})
        for decode in ("full", "reduced"):
            views = Views(preprocess, 1, 0, (0.3, 1.0), decode == "reduced")

            def load(row: Any, views: Views = views) -> torch.Tensor:
                return views(read_unchanged(Path(), row, MAX_PIXELS, views.least_side), 0)

            sample = repeated(rows, flags.threads * flags.seconds * 50)
            start = time.perf_counter()
            stream(flags, sample, load, lambda batch: np.zeros((len(batch), 1), np.float32))
            rate = flags.load * len(sample) / (time.perf_counter() - start)
            tower = StandIn(rate)
            ms = stream(flags, repeated(rows, flags.seconds * rate), load, tower)
            line = {"images": decode, "rate": rate, "waited": tower.waited(), "ms": ms}
            lines.append(
                line | {f"cores for {wanted}": wanted * ms / 1000 for wanted in flags.rates}
            )
    table = pd.DataFrame(lines)
    print(table.to_string(index=False, float_format="{:.3g}".format, na_rep="-"))
    judge(table["waited"].max(), flags.limit, peak_bytes() - before, flags.batch_size)


def peak_bytes() -> int:
    """Largest resident memory of this process so far, and not of the one that started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(re.search(r"^VmHWM:\s+(\d+) kB", status, re.M)[1])  # type: ignore[index]


def judge(waited: float, limit: float, memory: int, batch_size: int) -> None:
    """Hold the longest wait and the memory to their marks. Raises InputError if one is missed."""
    most = WAITING_BYTES + BATCHES * batch_size * 3 * SIDE**2 * 4
    print(f"waited at most {waited:.1%} (limit: {limit:.0%})")
    print(f"memory {memory / 1e6:,.0f} MB (limit: {most / 1e6:,.0f} MB)")
    if waited > limit or memory > most:
        raise InputError("a mark is missed")


if __name__ == "__main__":
    cli.run_step(main, Flags)
