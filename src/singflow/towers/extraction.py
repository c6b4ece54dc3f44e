"""Run a tower over every view of every image, in batches."""

import ctypes
import logging
import platform
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from singflow.data.images import read_unchanged
from singflow.errors import InputError
from singflow.parallel import map_ahead
from singflow.towers.parameters import CPU_BATCH, WAITING_BYTES
from singflow.towers.views import Views

log = logging.getLogger("singflow")

FOLD_TOLERANCE = 1e-5
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # glibc's mallopt(3)

Forward = Callable[[torch.Tensor], torch.Tensor]


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
    batch_size: int,
    threads: int,
    decode_threads: int | None = None,
    max_pixels: int,
    precision: Literal["float32", "bfloat16"] = "float32",
    progress: Callable[[Iterable[torch.Tensor], int], Iterable[torch.Tensor]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run a tower over every view of every image; threads decode images ahead.

    Returns outputs (n * views, m) in float32, image ids and view numbers, image by image.

    On a CPU, `threads` forward passes run at the same time, each of at most CPU_BATCH views and on
    one thread, so that the outputs do not depend on `threads`. The last batch is padded, so that a
    row does not depend on where batches end. For the whole process, PyTorch's own threads are set
    to 1 and TF32 is turned off.
    """
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    side_by_side = 1
    if device.type == "cpu":
        side_by_side, batch_size = threads, min(batch_size, CPU_BATCH)
        _keep_freed_memory()
    at_once = batch_size

    def load(row: Any) -> torch.Tensor:
        return views(read_unchanged(root, row, max_pixels, views.least_side), row.image_id)

    @torch.inference_mode()
    def run(batch: torch.Tensor) -> np.ndarray:
        nonlocal at_once
        full = torch.cat([batch, batch[-1:].expand(batch_size - len(batch), *batch.shape[1:])])
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            result, at_once = _within_memory(forward, full, device, at_once)
        return result[: len(batch)].float().numpy()

    width, height = views.preprocess.size
    most = WAITING_BYTES // (views.count * 3 * height * width * torch.float32.itemsize)
    images = rows.itertuples(index=False)
    decoded = map_ahead(load, images, decode_threads or threads, most=most)
    batches = _uploaded(_batches(progress(decoded, len(rows)), batch_size), device)
    matrix = np.concatenate(list(map_ahead(run, batches, side_by_side, ahead=2)))
    identifiers = np.repeat(rows["image_id"].to_numpy(np.int64), views.count)
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        raise InputError(
            f"image {rows['path'].iloc[int(np.argmin(finite)) // views.count]} gives NaN or "
            "infinite features: the weights are damaged"
        )
    return matrix, identifiers, np.tile(np.arange(views.count, dtype=np.int32), len(rows))


def _within_memory(
    forward: Forward, batch: torch.Tensor, device: torch.device, at_once: int
) -> tuple[torch.Tensor, int]:
    """The tower's output on the CPU, and how many views at once fitted into the device's memory."""
    while True:
        try:
            parts = [
                forward(part.to(device, memory_format=torch.channels_last)).cpu()
                for part in batch.split(at_once)
            ]
            return torch.cat(parts), at_once
        except torch.OutOfMemoryError as error:
            if at_once == 1:
                raise InputError(
                    f"the GPU's memory is too small for a single view ({error}): take a larger "
                    "GPU, or set extraction.device to cpu"
                ) from None
            at_once = (at_once + 1) // 2
        torch.cuda.empty_cache()
        log.warning(
            "the GPU's memory is too small for extraction.batch_size: going on with %d views at "
            "once",
            at_once,
        )


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


def _batches(chunks: Iterable[torch.Tensor], size: int) -> Iterator[torch.Tensor]:
    """Cut a stream of tensors into batches of `size` rows; the last may be smaller."""
    rows = chain.from_iterable(chunks)
    while batch := list(islice(rows, size)):
        yield torch.stack(batch)


def _uploaded(batches: Iterable[torch.Tensor], device: torch.device) -> Iterator[torch.Tensor]:
    """Batches, copied to a GPU that has room for them, in a second stream from pinned memory."""
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)
    for batch in batches:
        try:
            with torch.cuda.stream(stream):
                copy = batch.pin_memory().to(device, non_blocking=True)
            stream.synchronize()
        except torch.OutOfMemoryError:
            copy = batch
        yield copy
