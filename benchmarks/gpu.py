"""Images a second of towers on a GPU: this workflow, timm's own benchmark, and a plain DataLoader.

`product` is this workflow, from files to features. `dataloader` is PyTorch's DataLoader over the
same files, with the transform and the model as their library builds them, and as many workers as
this workflow has threads that decode. `timm` is the recipe of inference in timm's benchmark.py: a
random batch that is on the device already, passes to warm up, then timed ones, each waited for.
Weights are random, on which no rate depends. Prints a table in Markdown, and writes all rates as
CSV. What cannot be measured is named with its reason. The same runs on a CPU.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, get_args

import common
import pandas as pd
from common import size
from extraction import Photos
from pydantic import Field

from singflow import cli
from singflow.artifacts.tables import write_table
from singflow.config.registry import MODELS, SPACES, resolve_models, resolve_spaces
from singflow.errors import InputError, brief
from singflow.system import processor, usable_cores
from singflow.towers.parameters import CPU_BATCH, GPU_BATCH, Precision

if TYPE_CHECKING:
    import torch

WARM_UP = 10  # passes, as in timm's benchmark.py
LOOKS = 0.1  # seconds between two looks at how busy a GPU is
COLUMNS = (
    *("device", "tower", "source", "gmacs", "precision", "path", "batch", "decode_threads"),
    *("images_per_s", "busy", "torch", "on", "note"),  # no rate: note says why
)
SHOWN = {"product": "this workflow", "timm": "timm's benchmark", "dataloader": "DataLoader"}


class Flags(cli.Command):
    models: list[str] = Field(
        [
            "timm/resnet50.a1_in1k",
            "convnext_base",
            "timm/vit_large_patch14_clip_224.openai_ft_in12k_in1k",
        ],
        description="classifiers, as params.yaml names them",
    )
    spaces: list[str] = Field(
        ["clip_vit_l14"], description="spaces whose image towers are measured, by the same"
    )
    precisions: list[Precision] = Field(list(get_args(Precision)), min_length=1)
    images: Path | None = Field(
        None, description="folder of images (default: the packaged ones, again and again)"
    )
    count: int = size(10_000, 1, "images of a pass over files")
    iterations: int = size(40, 1, "timed passes of timm's recipe")
    batch_size: int | None = size(
        None, 1, "images per forward pass (default: 256 on a GPU, 8 on a CPU)"
    )
    threads: int = size(os.cpu_count() or 1, 1, "threads of a CPU")
    decode_threads: int = size(8, 1, "threads, or workers, that decode for a GPU")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    output: Path = Field(Path("benchmarks/rates.csv"), description="file for the rates")


@dataclass(frozen=True)
class Bench:
    """What all measurements share."""

    device: "torch.device"
    batch: int
    threads: int
    decoders: int
    iterations: int
    root: Path
    rows: pd.DataFrame

    def measure(self, tower: Any, path: str, precision: Precision) -> tuple[float, float | None]:
        """Images a second of a tower, and the share of the time in which the GPU was busy."""
        import torch

        from singflow.towers.device import use_tf32

        cuda = self.device.type == "cuda"
        # GPUs of NVIDIA that have bfloat16 have TF32, too.
        if precision == "tf32" and not (cuda and torch.cuda.is_bf16_supported(False)):
            raise InputError("this device has no TF32")
        if cuda:
            torch.cuda.empty_cache()
        torch.set_num_threads(self.threads)
        torch.backends.cudnn.benchmark = path == "timm"  # as its benchmark.py has it
        use_tf32(precision == "tf32")
        tower.to(self.device).to(memory_format=torch.channels_last)
        run = self._autocast(as_built(tower), precision)
        if path == "timm":
            return self._recipe(run, tower.preprocess.size), None
        if path == "dataloader":
            return self._timed(lambda rows: self._load(run, tower.preprocess.whole, rows))
        return self._timed(lambda rows: self._product(tower, precision, rows))

    def _autocast(self, module: Any, precision: Precision) -> Callable[[Any], Any]:
        import torch

        from singflow.towers.device import autocast

        @torch.inference_mode()
        def run(batch: "torch.Tensor") -> Any:
            with autocast(self.device, precision):
                return module(batch)

        return run

    def _recipe(self, run: Callable[[Any], Any], size: tuple[int, int]) -> float:
        """Images a second of timm's recipe."""
        import torch

        width, height = size
        images = torch.randn(self.batch, 3, height, width, device=self.device)
        images = images.contiguous(memory_format=torch.channels_last)

        def step() -> None:
            run(images)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)

        for _ in range(WARM_UP):
            step()
        start = time.perf_counter()
        for _ in range(self.iterations):
            step()
        return self.iterations * self.batch / (time.perf_counter() - start)

    def _timed(self, work: Callable[[pd.DataFrame], object]) -> tuple[float, float | None]:
        """Images a second of a pass over the files, after a batch to warm up, and how busy."""
        work(self.rows.head(self.batch))
        with watched(self.device) as shares:
            start = time.perf_counter()
            work(self.rows)
            took = time.perf_counter() - start
        return len(self.rows) / took, fmean(shares) if shares else None

    def _product(self, tower: Any, precision: Precision, rows: pd.DataFrame) -> None:
        from singflow.towers.extraction import run_views
        from singflow.towers.views import Views

        run_views(
            rows,
            self.root,
            Views(tower.preprocess, 1, 0, (0.3, 1.0)),
            tower,
            device=self.device,
            batch_size=self.batch,
            threads=self.threads,
            decode_threads=self.decoders,
            max_pixels=common.MAX_PIXELS,
            precision=precision,
            progress=lambda items, total: items,
        )

    def _load(self, run: Callable[[Any], Any], transform: Any, rows: pd.DataFrame) -> None:
        import torch
        from torch.utils.data import DataLoader

        batches: Any = DataLoader(
            Photos(self.root, list(rows["path"]), transform),  # type: ignore[arg-type]
            self.batch,
            num_workers=self.decoders,
            pin_memory=self.device.type == "cuda",
            multiprocessing_context="fork",
        )
        for batch in batches:
            output = run(
                batch.to(self.device, non_blocking=True, memory_format=torch.channels_last)
            )
            getattr(output, "logits", output).cpu()


def as_built(tower: Any) -> Any:
    """The tower as its library builds it."""
    return getattr(tower, "model", getattr(tower, "visual", tower))


@contextmanager
def watched(device: "torch.device") -> Iterator[list[float]]:
    """Gather, while the block runs, the shares of time in which NVML saw a GPU busy."""
    shares: list[float] = []
    if device.type != "cuda":
        yield shares
        return
    import pynvml
    import torch

    done = threading.Event()

    def look() -> None:
        with suppress(pynvml.NVMLError):  # of a card that does not tell
            while not done.wait(LOOKS):
                shares.append(torch.cuda.utilization(device) / 100)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield shares
    finally:
        done.set()
        watcher.join()


def multiply_adds(tower: Any) -> float:
    """10^9 multiply-adds of a tower for a view."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    width, height = tower.preprocess.size
    # Only operations that are not fused are counted, which needs gradients and this back end.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        as_built(tower)(torch.zeros(1, 3, height, width))
    return counter.get_total_flops() / 2e9


def measure_towers(flags: Flags, bench: Bench) -> Iterator[dict[str, Any]]:
    """The rows of the table of rates."""
    import torch

    from singflow.towers.classifiers import load_classifier
    from singflow.towers.extraction import fold_batch_norms
    from singflow.towers.spaces import load_image_tower

    cuda = bench.device.type == "cuda"
    same = {
        "device": torch.cuda.get_device_name(bench.device) if cuda else processor(),
        "batch": bench.batch,
        "decode_threads": bench.decoders,
        "torch": torch.__version__,
        "on": "GPU" if cuda else "CPU",
    }
    models = resolve_models(MODELS, flags.models, "random")
    spaces = resolve_spaces(SPACES, flags.spaces, "random")
    loads = [(entry, load_classifier) for entry in models.values()]
    loads += [(entry, load_image_tower) for entry in spaces.values()]
    for entry, load in loads:
        tower = load(entry)
        named = {"tower": getattr(entry, "id", entry.source), "source": entry.source}
        named |= {"gmacs": multiply_adds(tower)}
        for path in ("timm", "dataloader", "product"):
            if path == "product":
                fold_batch_norms(tower.cpu(), tower.preprocess.size)
            for precision in flags.precisions:
                row = same | named | {"precision": precision, "path": path}
                try:
                    row["images_per_s"], row["busy"] = bench.measure(tower, path, precision)
                except InputError as error:
                    row["note"] = str(error)
                except Exception as error:  # noqa: BLE001 (libraries raise their own exceptions)
                    row["note"] = brief(error)
                outcome = row.get("note") or f"{row['images_per_s']:.4g} images/s"
                cli.log.info("-- %s, %s, %s: %s", row["tower"], precision, path, outcome)
                yield row


def shown(table: pd.DataFrame) -> str:
    """The table of rates in Markdown, and what was not measured."""
    lines = []
    for (tower, precision), rows in table.groupby(["tower", "precision"], sort=False):
        of_path = rows.set_index("path")
        line = {"tower": tower, "precision": precision}
        for path, name in SHOWN.items():
            line[f"{name}, images/s"] = _cell(of_path.at[path, "images_per_s"], "{:.4g}")
        for path in ("product", "dataloader"):
            line[f"GPU busy in {SHOWN[path]}"] = _cell(of_path.at[path, "busy"], "{:.0%}")
        lines.append(line)
    missing = [
        f"not measured: {row.tower}, {row.precision}, {SHOWN[row.path]}: {row.note}"
        for row in table[table["images_per_s"].isna()].itertuples()
    ]
    return "\n".join([pd.DataFrame(lines).to_markdown(index=False), "", *missing])


def _cell(number: float, form: str) -> str:
    return "-" if pd.isna(number) else form.format(number)


def main(flags: Flags) -> None:
    from singflow.towers.device import pick_device

    device = pick_device(flags.device)
    cuda = device.type == "cuda"
    root, rows = common.photos(flags.images)
    bench = Bench(
        device,
        flags.batch_size or (GPU_BATCH if cuda else CPU_BATCH),
        flags.threads,
        min(flags.decode_threads, usable_cores()) if cuda else flags.threads,
        flags.iterations,
        root,
        common.repeated(rows, flags.count),
    )
    table = pd.DataFrame(measure_towers(flags, bench), columns=COLUMNS)
    print(
        f"{table['device'].iloc[0]}, PyTorch {table['torch'].iloc[0]}, batches of {bench.batch}, "
        f"{bench.decoders} threads or workers that decode, {flags.count} images a pass\n"
    )
    print(shown(table))
    write_table(flags.output, table)


if __name__ == "__main__":
    cli.run_step(main, Flags)
