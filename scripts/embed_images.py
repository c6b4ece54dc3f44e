"""Run a space's image tower over one shard of the images."""

from functools import partial
from pathlib import Path

import torch

from singflow import cli
from singflow.config import Extraction
from singflow.data import data_root
from singflow.features import pick_device, run_views, timm_views, weights_sha256
from singflow.registry import SpaceEntry, read_entry
from singflow.spaces import load_image_tower
from singflow.store import provenance, read_parquet, shard_rows, write_tensors


class Flags(Extraction, cli.Command):
    """Run a space's image tower over one shard of the images."""

    study: str
    space: str
    entry: Path
    shard: int
    manifest: Path
    source: str
    root: str
    max_pixels: int
    seed: int
    threads: int
    output: Path


def main(flags: Flags) -> None:
    manifest = read_parquet(flags.manifest)
    rows = manifest.iloc[shard_rows(len(manifest), flags.shard, flags.shards)]
    torch.set_num_threads(flags.threads)
    tower = load_image_tower(read_entry(flags.entry, SpaceEntry))
    sha256 = weights_sha256(tower)
    device = pick_device(flags.device)
    embeddings, image_id, view = run_views(
        rows,
        data_root(flags.source, flags.root),
        timm_views(tower.classifier.model, flags.views, flags.seed, flags.crop_area),
        tower.to(device, memory_format=torch.channels_last),
        device=device,
        batch_size=flags.batch_size,
        threads=flags.threads,
        max_pixels=flags.max_pixels,
        progress=partial(cli.progress, unit="images", description=f"{flags.space} {flags.shard + 1}/{flags.shards}"),
    )
    metadata = provenance(
        ["torch", "torchvision", "timm", "pillow", "sentence-transformers", "transformers"],
        study=flags.study,
        space=flags.space,
        weights_sha256=sha256,
    )
    write_tensors(flags.output, {"embeddings": embeddings, "image_id": image_id, "view": view}, metadata)
    cli.log.info("%s: %d views of %d images", flags.space, len(embeddings), len(rows))


if __name__ == "__main__":
    cli.run(main, Flags)
