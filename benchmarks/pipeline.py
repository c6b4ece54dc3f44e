"""Share of the time in which a GPU waits for images, shown without a GPU.

A stand-in takes the tower's place: a batch takes it a stated time, on the tower's own thread, and
no processor. It waits from the end of a batch to the start of the next. At the stated rates all
images are decoded already, so that it waits for the pipeline alone. Then JPEGs of ImageNet's size
are decoded, for a stand-in that takes a share (LOAD) of the images that decoding gives a
second. The cores for a rate are the rate, times the processor time of an image on its way from its
file to a batch. Ends with exit status 1 when a mark is missed.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np
import pandas as pd
import psutil
from common import Mark, size
from pydantic import Field

from singflow import cli
from singflow.towers.parameters import GPU_BATCH, WAITING_BYTES

SIZE, QUALITY = (500, 375), 95  # pixels and quality of the JPEGs that are made
SIDE = 224
BATCHES = 5  # in memory at once: two that are filled, two that wait, one that the tower has
LOAD = 0.8  # share of the images that decoding gives a second, which the stand-in takes


class Flags(common.Flags):
    images: Path | None = Field(
        None, description="folder of JPEGs (default: the packaged photos, at ImageNet's size)"
    )
    rates: list[int] = Field([300, 1200, 3000], description="images a second of the stand-in")
    seconds: float = Field(20.0, gt=0, description="seconds that the stand-in works")
    batch_size: int = size(GPU_BATCH, 1, "images of a batch")
    threads: int = size(os.cpu_count() or 1, 1, "threads that decode")


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


def make_photos(folder: Path) -> None:
    """Write the packaged photos as JPEGs of ImageNet's size."""
    from PIL import Image

    root, rows = common.photos(None)
    for path in rows["path"]:
        photo = Image.open(root / path).convert("RGB").resize(SIZE)
        photo.save(folder / f"{Path(path).stem}.jpg", quality=QUALITY)


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
        if flags.images is None:
            make_photos(Path(folder))
        root, photos = common.photos(flags.images or Path(folder))

        def run(images: str, rate: float, load: Callable[[Any], Any]) -> dict[str, Any]:
            """The line of the table for a stand-in with this rate."""
            tower = StandIn(rate)
            ms = stream(flags, common.repeated(photos, flags.seconds * rate), load, tower)
            return {"images": images, "rate": rate, "waited": tower.waited(), "ms": ms}

        lines += [run("decoded", rate, lambda row: ready) for rate in flags.rates]
        for decode in ("full", "reduced"):
            views = Views(preprocess, 1, 0, (0.3, 1.0), decode == "reduced")

            def load(row: Any, views: Views = views) -> torch.Tensor:
                return views(read_unchanged(root, row, common.MAX_PIXELS, views.least_side), 0)

            sample = common.repeated(photos, flags.threads * flags.seconds * 50)
            start = time.perf_counter()
            stream(flags, sample, load, lambda batch: np.zeros((len(batch), 1), np.float32))
            line = run(decode, LOAD * len(sample) / (time.perf_counter() - start), load)
            cores = {f"cores for {rate}": rate * line["ms"] / 1000 for rate in flags.rates}
            lines.append(line | cores)
    table = pd.DataFrame(lines)
    common.show(table)
    memory = common.peak_bytes() - before
    most = WAITING_BYTES + BATCHES * flags.batch_size * 3 * SIDE**2 * 4
    marks = [
        Mark("share of the time without a batch", table["waited"].max(), "<=", 0.05),
        Mark("memory beyond the libraries (MB)", memory / 1e6, "<=", most / 1e6),
    ]
    common.hold(marks, flags.ease)


if __name__ == "__main__":
    cli.run_step(main, Flags)
