"""What the two steps that run a tower over a shard of the images share."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from singflow import cli
from singflow.config import Extraction
from singflow.store import Tensors, read_parquet, shard_rows

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from singflow.views import Preprocess


class ShardFlags(Extraction, cli.Command):
    """Flags of a step that runs a tower over one shard of the images."""

    study: str
    entry: Path
    shard: int
    manifest: Path
    source: str
    root: str
    max_pixels: int
    seed: int
    threads: int
    output: Path


def run_shard(flags: ShardFlags, tower: nn.Module, preprocess: Preprocess, name: str, tensor: str) -> tuple[pd.DataFrame, Tensors]:
    """The shard's rows of the manifest, and the tower's outputs as {tensor, image_id, view}."""
    import torch

    from singflow.data import data_root
    from singflow.features import fold_batch_norms, pick_device, run_views
    from singflow.views import Views

    manifest = read_parquet(flags.manifest)
    rows = manifest.iloc[list(shard_rows(len(manifest), flags.shard, flags.shards))]
    device = pick_device(flags.device)
    fold_batch_norms(tower, preprocess.size)
    outputs, image_id, view = run_views(
        rows,
        data_root(flags.source, flags.root),
        Views(preprocess, flags.views, flags.seed, (flags.crop_area[0], flags.crop_area[1]), flags.decode == "reduced"),
        tower.to(device).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        device=device,
        batch_size=flags.batch_size,
        threads=flags.threads,
        max_pixels=flags.max_pixels,
        precision=flags.precision,
        progress=partial(cli.progress, unit="images", description=f"{name} {flags.shard + 1}/{flags.shards}"),
    )
    cli.log.info("%s: %d views of %d images", name, len(outputs), len(rows))
    return rows, {tensor: outputs, "image_id": image_id, "view": view}
