"""Run a tower over every view of every image, in batches."""

import ctypes
import logging
import math
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from singflow.data.images import read_unchanged
from singflow.errors import InputError
from singflow.parallel import map_ahead
from singflow.system import usable_cores
from singflow.towers.device import autocast, use_tf32
from singflow.towers.gpu_errors import is_memory, too_small
from singflow.towers.parameters import CPU_BATCH, GPU_BATCH, WAITING_BYTES, Precision
from singflow.towers.views import Views

log = logging.getLogger("singflow")

FOLD_TOLERANCE = 1e-5
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # glibc's mallopt(3)

Forward = Callable[[torch.Tensor], torch.Tensor]
Progress = Callable[[Iterable[None], int], Iterable[None]]


@torch.no_grad()
def fold_batch_norms(tower: nn.Module, size: tuple[int, int]) -> int:
    """Fold batch norms into the convolutions before them, in place; return how many were folded.

    One made-up image shows which norm follows which convolution. Everything is undone if the
    tower's output changes by more than FOLD_TOLERANCE of its norm, because something else uses the
    convolution's output, too. See Jacob et al. 2018, section 3.2.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in tower.modules()):
        return 0
    names = {module: name for name, module in tower.named_modules()}
    made: dict[int, tuple[str, torch.Tensor]] = {}
    pairs: list[tuple[str, str]] = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            made[id(output)] = names[module], output
        elif module.running_mean is not None and id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], names[module]))

    kinds = (nn.Conv2d, nn.BatchNorm2d)
    hooks = [module.register_forward_hook(note) for module in names if isinstance(module, kinds)]
    image = torch.randn((1, 3, size[1], size[0]), generator=torch.Generator().manual_seed(0))
    expected = tower(image)
    for hook in hooks:
        hook.remove()
    replaced: dict[str, Any] = {name: tower.get_submodule(name) for pair in pairs for name in pair}
    for convolution, norm in pairs:
        tower.set_submodule(convolution, fuse_conv_bn_eval(replaced[convolution], replaced[norm]))
        # A norm of timm includes the activation.
        tower.set_submodule(norm, getattr(replaced[norm], "act", nn.Identity()))
    if pairs and not (tower(image) - expected).norm() <= FOLD_TOLERANCE * expected.norm():
        for name, module in replaced.items():
            tower.set_submodule(name, module)
        return 0
    return len(pairs)


def _keep_freed_memory() -> None:
    """Let glibc keep freed memory: asking anew costs up to half of a forward pass on a CPU."""
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, 2**30)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(_TOP_PAD, 2**26)


def run_views(
    rows: pd.DataFrame,
    root: Path,
    views: Views,
    forward: Forward,
    *,
    device: torch.device,
    batch_size: int | None = None,
    threads: int,
    decode_threads: int = 1,
    max_pixels: int,
    precision: Precision = "float32",
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run a tower over every view of every image; threads decode images ahead.

    Returns outputs (n * views, m) in float32, image ids and view numbers, image by image.

    On a CPU, the outputs do not depend on `threads`. Batches hold whole images, and the last is
    filled up, so that a row does not depend on where batches end. For the whole process, PyTorch's
    own threads are set to 1, and TF32 is on for precision tf32 alone.
    """
    torch.set_num_threads(1)
    use_tf32(precision == "tf32")
    at_once, passes, decoders = work_sizes(device, batch_size, threads, decode_threads)

    def load(row: Any) -> torch.Tensor:
        return views(read_unchanged(root, row, max_pixels), row.image_id)

    @torch.inference_mode()
    def run(batch: torch.Tensor) -> np.ndarray:
        nonlocal at_once
        with autocast(device, precision):
            result, at_once = _within_memory(forward, batch, device, at_once)
        return result.float().numpy()

    width, height = views.preprocess.size
    shape = views.count, 3, height, width
    matrix = run_batches(
        load,
        rows,
        shape,
        run,
        images=max(1, at_once // views.count),
        passes=passes,
        decoders=decoders,
        device=device,
        progress=progress,
    )
    identifiers = np.repeat(rows["image_id"].to_numpy(np.int64), views.count)
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        raise InputError(
            f"image {rows['path'].iloc[int(np.argmin(finite)) // views.count]} gives NaN or "
            "infinite features: the weights are damaged"
            + (", or values exceed float16: take bfloat16" if precision == "float16" else "")
        )
    return matrix, identifiers, np.tile(np.arange(views.count, dtype=np.int32), len(rows))


def work_sizes(
    device: torch.device, batch_size: int | None, threads: int, decode_threads: int
) -> tuple[int, int, int]:
    """Views per forward pass, passes at the same time, and threads that decode."""
    if device.type == "cpu":
        return min(batch_size or CPU_BATCH, CPU_BATCH), threads, threads
    return batch_size or GPU_BATCH, 1, min(decode_threads, usable_cores())


def run_batches(
    load: Callable[[Any], torch.Tensor],
    rows: pd.DataFrame,
    shape: tuple[int, ...],
    run: Callable[[torch.Tensor], np.ndarray],
    *,
    images: int,
    passes: int,
    decoders: int,
    device: torch.device,
    progress: Progress,
) -> np.ndarray:
    """The results of `run` for full batches of views of all rows, in order.

    Threads decode rows into their batches while `run` works. The last batch is filled up.
    """
    _keep_freed_memory()
    count, pinned = shape[0], device.type == "cuda"
    open_batches: deque[torch.Tensor] = deque()

    def places() -> Iterator[tuple[Any, torch.Tensor]]:
        for number, row in enumerate(rows.itertuples(index=False)):
            place = number % images * count
            if place == 0:
                size = images * count, *shape[1:]
                empty = torch.empty(size, pin_memory=pinned, memory_format=torch.channels_last)
                open_batches.append(empty)
            yield row, open_batches[-1][place : place + count]

    def fill(item: tuple[Any, torch.Tensor]) -> None:
        row, place = item
        place.copy_(load(row))

    def batches() -> Iterator[torch.Tensor]:
        most = WAITING_BYTES // (math.prod(shape) * torch.float32.itemsize)
        filled = progress(map_ahead(fill, places(), decoders, most=most), len(rows))
        for number, _ in enumerate(filled, start=1):
            if number % images == 0 or number == len(rows):
                batch = open_batches.popleft()
                last = (number - 1) % images * count
                for start in range(last + count, len(batch), count):
                    batch[start : start + count] = batch[last : last + count]
                yield batch

    results = list(map_ahead(run, _uploaded(batches(), device), passes, ahead=2))
    return np.concatenate(results)[: len(rows) * count]


def _within_memory(
    forward: Forward, batch: torch.Tensor, device: torch.device, at_once: int
) -> tuple[torch.Tensor, int]:
    """The tower's output on the CPU, and how many views at once fitted into the device's memory."""
    at_once = min(at_once, len(batch))
    while True:
        try:
            parts = [
                forward(part.to(device, memory_format=torch.channels_last)).cpu()
                for part in batch.split(at_once)
            ]
            return torch.cat(parts), at_once
        except RuntimeError as error:
            if not is_memory(error):
                raise
            if at_once == 1:
                raise too_small("a single view", error) from None
            fewer = (at_once + 1) // 2
        torch.cuda.empty_cache()
        log.warning("%d views do not fit into memory: taking %d", at_once, fewer)
        at_once = fewer


def statistics(matrix: np.ndarray) -> dict[str, float | int]:
    """Statistics of rows, for the metadata of their file."""
    norms = np.sqrt(np.einsum("nm,nm->n", matrix, matrix, dtype=np.float64))
    return {
        "norm_mean": float(norms.mean()),
        "norm_min": float(norms.min()),
        "norm_max": float(norms.max()),
        "zero_share": float((matrix == 0).mean()),
        "non_finite": int((~np.isfinite(matrix)).sum()),
    }


def _uploaded(batches: Iterable[torch.Tensor], device: torch.device) -> Iterator[torch.Tensor]:
    """Pinned batches, copied in a second stream to a GPU that has room for them."""
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)
    for batch in batches:
        try:
            with torch.cuda.stream(stream):
                copy = batch.to(device, non_blocking=True)
            stream.synchronize()
        except RuntimeError as error:
            if not is_memory(error):
                raise
            copy = batch
        yield copy
