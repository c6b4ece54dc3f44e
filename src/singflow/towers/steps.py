"""Flags and work that are shared by the steps that run towers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from singflow import cli
from singflow.artifacts.shards import read_manifest, shard_rows
from singflow.artifacts.tensors import Tensors
from singflow.towers.parameters import Extraction, Prompts

if TYPE_CHECKING:
    import pandas as pd

    from singflow.config.registry import SpaceEntry
    from singflow.towers.classifiers import LoadedClassifier
    from singflow.towers.spaces import Encode, ImageTower
    from singflow.towers.views import Preprocess

SENTENCES = ["sentence-transformers", "transformers"]
LIBRARIES = {  # that embed the texts of a space, by its source
    "conse": SENTENCES,
    "open_clip": ["open_clip_torch"],
    "transformers": ["transformers"],
    "features": SENTENCES,
}


class ShardFlags(Extraction, cli.Step):
    """Flags of a step that runs a tower over one shard of the images."""

    shard: int
    source: str
    root: str
    max_pixels: int
    seed: int
    threads: int

    @property
    def shard_id(self) -> str:
        """Name of the shard."""
        return f"{self.shard:05d}"

    def rows(self) -> pd.DataFrame:
        """The shard's rows of the manifest."""
        manifest = read_manifest(self.path("manifest"))
        return manifest.iloc[list(shard_rows(len(manifest), self.shard, self.shards))]


def run_shard(
    flags: ShardFlags, name: str, tower: LoadedClassifier | ImageTower, tensor: str
) -> tuple[pd.DataFrame, Tensors, dict[str, Any]]:
    """A shard's rows, the outputs of a tower, and facts. The tower is changed in place."""
    import torch

    from singflow.data.manifest import data_root
    from singflow.towers.device import pick_device, recorded
    from singflow.towers.extraction import fold_batch_norms, run_views, statistics
    from singflow.towers.gpu_errors import in_memory
    from singflow.towers.views import Views

    rows = flags.rows()
    device = pick_device(flags.device)
    made = recorded(device)
    preprocess = cast("Preprocess", tower.preprocess)  # of a registry's tower
    fold_batch_norms(tower, preprocess.size)
    smallest, largest = flags.crop_area
    shown = f"{name} {flags.shard + 1}/{flags.shards}"
    with in_memory(f"the weights of {name}"):
        tower.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    outputs, image_id, view = run_views(
        rows,
        data_root(flags.source, flags.root),
        Views(preprocess, flags.views, flags.seed, (smallest, largest)),
        tower,
        device=device,
        batch_size=flags.batch_size,
        threads=flags.threads,
        decode_threads=flags.decode_threads,
        max_pixels=flags.max_pixels,
        precision=flags.precision,
        progress=partial(cli.progress, unit="images", description=shown),
    )
    cli.log.info("%s: %d views of %d images", name, len(outputs), len(rows))
    facts = made | {tensor: statistics(outputs)}
    return rows, {tensor: outputs, "image_id": image_id, "view": view}, facts


def run_imported(
    flags: ShardFlags, artifact: str, **names: str
) -> tuple[pd.DataFrame, Tensors, dict[str, Any]]:
    """Like run_shard(), for features or embeddings that were imported."""
    import numpy as np

    from singflow.config.sections import outside
    from singflow.data.imported import imported_shard
    from singflow.towers.extraction import statistics

    rows = flags.rows()
    outputs, facts = imported_shard(outside(flags.root), rows["path"], artifact, **names)
    image_id = np.repeat(rows["image_id"].to_numpy(), flags.views)
    view = np.tile(np.arange(flags.views, dtype=np.int32), len(rows))
    places = {"image_id": image_id, "view": view}
    return rows, {artifact: outputs, **places}, facts | {artifact: statistics(outputs)}


class TextFlags(Prompts, cli.Step):
    """Flags of a step that embeds texts in a space, on a GPU if there is one."""

    space: str
    device: str
    threads: int

    def text_tower(self, entry: SpaceEntry) -> tuple[Encode, dict[str, str]]:
        """What embeds texts in the space, with a progress bar, and facts for metadata."""
        import torch

        from singflow.towers.checkpoints import weights_sha256
        from singflow.towers.device import pick_device, recorded
        from singflow.towers.spaces import load_text_tower

        torch.set_num_threads(1)
        # The step asks a cluster for no GPU, so that cuda is as auto.
        device = pick_device("auto" if self.device == "cuda" else self.device)
        made = recorded(device)
        tower = load_text_tower(entry, device)
        embed = partial(
            tower.embed,
            batch_size=self.batch_size,
            threads=self.threads if device.type == "cpu" else 1,
            progress=partial(cli.progress, unit="chunks of texts", description=self.space),
        )
        return embed, made | {"weights_sha256": weights_sha256(tower.module)}
