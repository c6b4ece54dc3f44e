"""Run a space's image tower over one shard of the images."""

import torch

from singflow import cli
from singflow.extraction import ShardFlags, run_shard
from singflow.features import weights_sha256
from singflow.registry import SpaceEntry, read_entry
from singflow.spaces import load_image_tower
from singflow.store import provenance, write_tensors


class Flags(ShardFlags):
    """Run a space's image tower over one shard of the images."""

    space: str


def main(flags: Flags) -> None:
    torch.set_num_threads(flags.threads)
    tower = load_image_tower(read_entry(flags.entry, SpaceEntry))
    sha256 = weights_sha256(tower)
    _, tensors = run_shard(flags, tower, tower.classifier.model, flags.space, "embeddings")
    metadata = provenance(
        ["torch", "torchvision", "timm", "pillow", "sentence-transformers", "transformers"],
        study=flags.study,
        space=flags.space,
        weights_sha256=sha256,
    )
    write_tensors(flags.output, tensors, metadata)


if __name__ == "__main__":
    cli.run(main, Flags)
