"""Run a space's image tower over one shard of the images."""

from singflow import cli
from singflow.artifacts.made import Made
from singflow.artifacts.tensors import provenance, write_tensors
from singflow.config.registry import read_space
from singflow.towers.steps import LIBRARIES, ShardFlags, run_imported, run_shard


class Flags(ShardFlags):
    space: str


def main(flags: Flags) -> None:
    import torch

    from singflow.towers.classifiers import weights_sha256
    from singflow.towers.spaces import ConSE, load_image_tower

    torch.set_num_threads(flags.threads)
    entry = read_space(flags.path("space_entry"))
    if flags.source == "features":
        _, tensors, facts = run_imported(flags, "embeddings", space=flags.space)
        metadata = provenance([], **flags.named, **{"tower": entry.identity} | facts)
        write_tensors(flags.path("embeddings", shard=flags.shard_id), tensors, metadata)
        return
    tower = load_image_tower(entry)
    # before the tower is changed to run faster
    made = Made(entry.identity, weights_sha256(tower), flags.precision, "full").header()
    if isinstance(tower, ConSE):
        made["classifier_sha256"] = weights_sha256(tower.classifier.model)
    _, tensors, facts = run_shard(flags, flags.space, tower, "embeddings")
    libraries = ["torch", "torchvision", "timm", "pillow", *LIBRARIES[entry.source]]
    metadata = provenance(libraries, **flags.named, **made, **facts)
    write_tensors(flags.path("embeddings", shard=flags.shard_id), tensors, metadata)


if __name__ == "__main__":
    cli.run_step(main, Flags)
