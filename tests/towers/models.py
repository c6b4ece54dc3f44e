"""Entries, checkpoints and a hub cache for the tests of towers."""

import hashlib
import os

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from singflow.config.registry import ModelEntry, OpenCLIPEntry

RESNET, FIVE = "test_resnet.r160_in1k", ["ant", "bee", "cat", "dog", "elk"]
DISTILLED = "deit_tiny_distilled_patch16_224.fb_in1k"  # with two heads
OPEN_CLIP, OPEN_CLIP_WIDTH = "ViT-S-32-alt", 256
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def entry_of(identifier=RESNET, weights="random", **fields):
    """The entry of a timm model, or of a torchvision model if the id says so."""
    source = "torchvision" if "IMAGENET" in identifier else "timm"
    return ModelEntry(**{"source": source, "id": identifier, "weights": weights} | fields)


def open_clip_space(identifier=OPEN_CLIP, weights="random", dim=OPEN_CLIP_WIDTH, **fields):
    return OpenCLIPEntry(source="open_clip", id=identifier, weights=weights, dim=dim, **fields)


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


def pictures(count, side=160):
    """Images that differ in more than noise."""
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(side))
    return nn.functional.interpolate(coarse, size=side, mode="bicubic")


IMAGES = torch.rand(7, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(7) % 5
LOADER = [(IMAGES[:4], LABELS[:4]), (IMAGES[4:], LABELS[4:])]


class Nested(nn.Module):
    """A small network whose head is two modules deep; `after` changes its logits."""

    def __init__(self, after=lambda logits: logits):
        super().__init__()
        torch.manual_seed(3)
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.backbone.classifier = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 5))
        self.spare = nn.Linear(8, 5)
        self.after = after

    def pooled(self, images):
        return self.backbone[:3](images).mean(dim=(2, 3))

    def forward(self, images):
        return self.after(self.backbone.classifier(self.pooled(images)))
