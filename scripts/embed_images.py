"""Run a space's image tower over one shard of the images."""

from singflow import cli
from singflow.artifacts.tensors import provenance, write_tensors
from singflow.config.registry import read_space
from singflow.towers.shards import ShardFlags, run_shard


class Flags(ShardFlags):
    space: str


def main(flags: Flags) -> None:
    import torch

    from singflow.towers.classifiers import weights_sha256
    from singflow.towers.device import pick_tower_device
    from singflow.towers.extraction import statistics
    from singflow.towers.spaces import LIBRARIES, ConSE, load_image_tower, text_facts
    from singflow.towers.text_cache import CACHE, TextCache

    torch.set_num_threads(flags.threads)
    entry = read_space(flags.path("space_entry"))
    tower = load_image_tower(entry)
    hashes = {"weights_sha256": weights_sha256(tower)}  # before the tower is changed to run faster
    if isinstance(tower, ConSE):  # all shards need nearly the same sentences
        facts = text_facts(
            entry, weights_sha256(tower.text.module), pick_tower_device(flags.device), batch_size=1
        )
        tower.embed = TextCache(CACHE, facts, tower.text.embed, lambda chunks, _: chunks, at_once=1)
        hashes["classifier_sha256"] = weights_sha256(tower.classifier.model)
    _, tensors = run_shard(flags, tower, tower.preprocess, flags.space, "embeddings")
    metadata = provenance(
        ["torch", "torchvision", "timm", "pillow", *LIBRARIES[entry.source]],
        study=flags.study,
        space=flags.space,
        **hashes,
        tower=entry.identity,
        decode=flags.decode,
        precision=flags.precision,
        embeddings=statistics(tensors["embeddings"]),
    )
    write_tensors(flags.path("embeddings", shard=flags.shard_id), tensors, metadata)


if __name__ == "__main__":
    cli.run_step(main, Flags)
