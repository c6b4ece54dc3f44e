"""Run a classifier over one shard of the images and keep the input of its head."""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from singflow import cli
from singflow.config import Extraction
from singflow.data import data_root
from singflow.features import load_classifier, pick_device, run_views, timm_views, weights_sha256
from singflow.registry import ModelEntry, read_entry
from singflow.store import provenance, read_parquet, shard_rows, write_tensors


class Flags(Extraction, cli.Command):
    """Run a classifier over one shard of the images and keep the input of its head."""

    study: str
    model: str
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
    classifier = load_classifier(read_entry(flags.entry, ModelEntry))
    sha256 = weights_sha256(classifier.model)
    device = pick_device(flags.device)
    features, image_id, view = run_views(
        rows,
        data_root(flags.source, flags.root),
        timm_views(classifier.model, flags.views, flags.seed, flags.crop_area),
        classifier.to(device, memory_format=torch.channels_last),
        device=device,
        batch_size=flags.batch_size,
        threads=flags.threads,
        max_pixels=flags.max_pixels,
        progress=partial(cli.progress, unit="images", description=f"{flags.model} {flags.shard + 1}/{flags.shards}"),
    )
    known = rows["class_index"].to_numpy() >= 0
    predicted = classifier.logits(torch.from_numpy(features[view == 0])).argmax(dim=1).numpy()
    top1 = float(np.mean(predicted[known] == rows["class_index"].to_numpy()[known])) if known.any() else None
    metadata = provenance(
        ["torch", "torchvision", "timm", "pillow"],
        study=flags.study,
        model=flags.model,
        weights_sha256=sha256,
        head_max_error=classifier.head_max_error,
        top1=top1,
        top1_images=int(known.sum()),
    )
    write_tensors(flags.output, {"features": features, "image_id": image_id, "view": view}, metadata)
    cli.log.info(
        "%s: %d views of %d images; top-1 %s; head reproduces the logits within %.1e",
        flags.model, len(features), len(rows), "unknown" if top1 is None else f"{top1:.3f}", classifier.head_max_error,
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(main, Flags)
