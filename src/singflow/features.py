"""Features: a tower run over every view of every image, in batches, with their statistics."""

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from singflow.errors import InputError
from singflow.images import read_unchanged
from singflow.parallel import map_ahead
from singflow.views import Views

log = logging.getLogger("singflow")

Forward = Callable[[torch.Tensor], torch.Tensor]


def pick_device(wanted: str) -> torch.device:
    """cpu, cuda, or for auto the GPU when there is one. Raises InputError for a GPU that is not there."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("extraction.device is cuda, but PyTorch sees no GPU: write auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def run_views(
    rows: pd.DataFrame,
    root: Path,
    views: Views,
    forward: Forward,
    *,
    device: torch.device,
    batch_size: int,
    threads: int,
    max_pixels: int,
    progress: Callable[[Iterable[torch.Tensor], int], Iterable[torch.Tensor]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run a tower over every view of every image, decoding ahead in threads.

    Returns outputs (n * views, m) float32, image_id (n * views,) int64 and view (n * views,) int32. The last batch is
    filled up to the batch size, so that a row's value does not depend on where batches end. When the GPU's memory is too small,
    batches are halved from there on; a row then differs by rounding alone.
    Raises InputError for an image that vanished or changed since the manifest, for non-finite outputs, and when the GPU cannot
    hold a single view.
    """
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    def load(row: Any) -> torch.Tensor:
        return views(read_unchanged(root, row.path, row.sha256, max_pixels), row.image_id)

    loaded = map_ahead(load, rows.itertuples(index=False), threads)
    outputs = []
    at_once = batch_size
    with torch.inference_mode():
        for batch in _batches(progress(loaded, len(rows)), batch_size):
            full = torch.cat([batch, batch[-1:].expand(batch_size - len(batch), *batch.shape[1:])])
            result, at_once = _within_memory(forward, full, device, at_once)
            outputs.append(result[: len(batch)].numpy())
    matrix = np.concatenate(outputs).astype(np.float32, copy=False)
    identifiers = np.repeat(rows["image_id"].to_numpy(np.int64), views.count)
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        raise InputError(
            f"image {rows['path'].iloc[int(np.argmin(finite)) // views.count]} gives NaN or infinite features: the weights are damaged"
        )
    return matrix, identifiers, np.tile(np.arange(views.count, dtype=np.int32), len(rows))


def _within_memory(forward: Forward, batch: torch.Tensor, device: torch.device, at_once: int) -> tuple[torch.Tensor, int]:
    """The tower's output of a batch, on the CPU, and how many views at once the device's memory was enough for."""
    while True:
        try:
            parts = [forward(part.to(device, memory_format=torch.channels_last)).cpu() for part in batch.split(at_once)]
            return torch.cat(parts), at_once
        except torch.OutOfMemoryError as error:
            if at_once == 1:
                raise InputError(
                    f"the GPU's memory is too small for a single view ({error}): take a larger GPU, or set extraction.device to cpu"
                ) from None
            at_once = (at_once + 1) // 2
        torch.cuda.empty_cache()
        log.warning("the GPU's memory is too small for extraction.batch_size: going on with %d views at once", at_once)


def statistics(matrix: np.ndarray) -> dict[str, float | int]:
    """Norms (mean, smallest, largest), share of exact zeros and number of non-finite values of rows (n, m)."""
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
    held: list[torch.Tensor] = []
    for chunk in chunks:
        for row in chunk:
            held.append(row)
            if len(held) == size:
                yield torch.stack(held)
                held.clear()
    if held:
        yield torch.stack(held)
