"""Entries, checkpoints and a hub cache for the tests of towers."""

import hashlib
import os

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from singflow.config.registry import ModelEntry

RESNET, FIVE = "test_resnet.r160_in1k", ["ant", "bee", "cat", "dog", "elk"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def entry_of(identifier=RESNET, weights="random", **fields):
    """The entry of a timm model, or of a torchvision model if the id says so."""
    source = "torchvision" if "IMAGENET" in identifier else "timm"
    return ModelEntry(**{"source": source, "id": identifier, "weights": weights} | fields)


def saved(path, content):
    """Write tensors, or a checkpoint of any content as .pth; its entry."""
    (save_file if path.suffix == ".safetensors" else torch.save)(content, path)
    return f"file:{path}"


class Payload:
    """A pickle that runs a command."""

    def __reduce__(self):
        return os.system, ("touch executed",)


def in_hub(hub, repository, name, revision="main", commit=COMMIT):
    """An empty file where the hub's cache keeps it."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    for path in (folder / "snapshots" / commit, folder / "refs", folder / "blobs"):
        path.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / revision).write_text(commit)
    file = folder / "snapshots" / commit / name
    file.parent.mkdir(exist_ok=True)
    file.touch()
    return file


def made_up(texts, width=8):
    """Unit embeddings of texts, by their hashes."""
    seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) for text in texts]
    rows = np.array([np.random.default_rng(seed).standard_normal(width) for seed in seeds])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def noise(width, height):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)
