"""Show what features mean, changed and unchanged, in pictures and in words."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from singflow import cli
from singflow.analyses.inputs import Inputs
from singflow.analyses.steering import Steering
from singflow.artifacts.shards import read_manifest
from singflow.artifacts.tables import write_parquet
from singflow.config.registry import read_space
from singflow.data.images import read_unchanged
from singflow.data.manifest import data_root
from singflow.pictures.generator import choose_renderer, load_generator
from singflow.pictures.parameters import Pictures
from singflow.pictures.rendering import add_words, encode, generate, photos, picture_table, undrawn
from singflow.pictures.selection import (
    Picture,
    SteeredHead,
    Subject,
    choose_images,
    perturbation_pictures,
    removal_pictures,
    steering_pictures,
)
from singflow.pictures.word_neighbours import vocabulary


class Flags(Pictures, Steering, cli.PairStep):
    target_is_deg: list[float] = Field([])  # none: figure 1 alone
    models: list[str]
    kinds: list[str]
    source: str
    root: str
    max_pixels: int
    device: str
    seed: int


def all_pictures(flags: Flags, inputs: Inputs, chosen: pd.DataFrame) -> list[Picture]:
    """All pictures of a model, in the order of the figures."""
    images = list(chosen["image_id"])
    wanted = inputs.manifest["image_id"].isin(images).to_numpy()
    found = dict(
        pair for part in inputs.features(images=wanted) for pair in zip(*part, strict=True)
    )
    features = [found[image_id] for image_id in images]
    label_texts = inputs.label_texts[inputs.label_of[images]]
    subjects = [
        Subject(int(image_id), *of_image)
        for image_id, *of_image in zip(images, chosen["label"], features, label_texts, strict=True)
    ]
    weight, bias = (inputs.head[name].astype(np.float64) for name in ("weight", "bias"))
    head = SteeredHead(weight, bias, inputs.null_basis)
    translators = inputs.translators.map(lambda translator: translator.astype(np.float64))
    own = [(s, translators.members[translators.member_of[s.image_id]]) for s in subjects]
    pictures = []
    for subject, translator in own:
        pictures += removal_pictures("fig1", subject, head, translator)
    if flags.model != flags.closeup or not flags.target_is_deg:
        return pictures
    prompts = inputs.targets(flags.prompts)
    most = max(flags.target_is_deg)
    for subject, translator in own:
        pictures += steering_pictures("fig6", subject, head, translator, prompts, [most])
    first, translator = own[0]
    ladder = dict(list(prompts.items())[:1])
    pictures += steering_pictures("fig10", first, head, translator, ladder, flags.ladder_is_deg)
    pictures += removal_pictures("fig11", first, head, translator)
    for kind in flags.kinds if flags.model in flags.models else []:
        network = nonlinear(flags.path("network", kind=kind))
        pictures += removal_pictures("fig11", first, head, network, kind)
    return pictures + perturbation_pictures("fig13", first, head, translator, flags.seed)


def nonlinear(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A nonlinear translator as a function of features (n, d)."""
    import torch

    from singflow.translators.networks import load_network

    network = load_network(path)

    def translate(features: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(features.astype(np.float32))).numpy().astype(np.float64)

    return translate


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    entry = read_space(flags.path("space_entry"))
    inputs, manifest = Inputs.of(flags), read_manifest(flags.path("manifest"))
    pixels = flags.source != "features"
    renderer = choose_renderer(flags.space, entry, flags) if pixels else "words"
    chosen = choose_images(manifest, flags.images, flags.count, flags.seed)
    pictures = all_pictures(flags, inputs, chosen)
    root = data_root(flags.source, flags.root)

    def photo(image_id: int) -> bytes:
        return encode(read_unchanged(root, manifest.iloc[image_id], flags.max_pixels), "JPEG")

    rows = list(photos(chosen["image_id"], chosen["label"], photo if pixels else lambda _: b""))
    on: dict[str, str] = {}
    if renderer == "unclip":
        from singflow.towers.device import prepare, recorded

        device = prepare(flags.device, flags.threads)
        on = recorded(device)
        generator = load_generator(flags, device)
        what = f"{flags.model} in {flags.space}"
        progress = partial(cli.progress, unit="pictures", description=what)
        rows += generate(pictures, flags.seeds, generator.render, progress)
    else:
        rows += undrawn(pictures)
    add_words(rows, *vocabulary(inputs))
    write_parquet(flags.path("pictures"), picture_table(rows), **on)
    made = f"{len(rows)} pictures of {len(chosen)} images by {renderer}"
    cli.log.info("%s in %s: %s", flags.model, flags.space, made)


if __name__ == "__main__":
    cli.run_step(main, Flags)
