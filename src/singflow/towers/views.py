"""From an image to the input of a tower: evaluation transforms of four libraries, and views."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from singflow.data.images import view_box
from singflow.errors import InputError

RAMP = 1024  # pixels of the longest side of an image that stands for another of its shape

ToTensor = Callable[[Image.Image], torch.Tensor]


@dataclass(frozen=True)
class Transform:
    """A tower's evaluation transform."""

    whole: ToTensor  # any RGB image -> (3, height, width)

    def seen(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the part of an image that `whole` shows, in shares."""
        # Lines are fitted to what ramps from black to white become.
        scale = min(1.0, RAMP / max(width, height))
        width, height = max(1, round(scale * width)), max(1, round(scale * height))
        black, white = (
            float(self.whole(Image.new("RGB", (width, height), colour))[0].mean())
            for colour in ("black", "white")
        )
        edges = []
        for axis, side in enumerate((width, height)):
            ramp = np.linspace(0, 255, side).round().astype(np.uint8)
            pixels = np.broadcast_to(ramp if axis == 0 else ramp[:, None], (height, width))
            line = self.whole(Image.fromarray(pixels).convert("RGB"))[0].double().mean(axis)
            middle = np.arange(len(line))[len(line) // 4 : -(len(line) // 4)]
            slope, start = np.polyfit(middle, (line.numpy()[middle] - black) / (white - black), 1)
            # the centre of a pixel to its edge, and a ramp that ends at the centres of its pixels
            ends = start + slope * np.array([-0.5, len(line) - 0.5])
            edges.append((ends * (side - 1) + 0.5) / side)
        (left, right), (top, bottom) = np.round(edges, 3).tolist()
        return left, top, right, bottom


@dataclass(frozen=True)
class Preprocess(Transform):
    """An evaluation transform whose steps are known, so that crops can be views, too."""

    to_tensor: ToTensor  # its last steps, for a crop that has the right size already
    size: tuple[int, int]  # width, height
    resample: Image.Resampling  # filter that resizes the crop


@dataclass(frozen=True)
class Views:
    """How an image is turned into views: as a whole, and then in crops at the tower's size."""

    preprocess: Preprocess
    count: int
    seed: int
    crop_area: tuple[float, float]

    def __call__(self, image: Image.Image, image_id: int) -> torch.Tensor:
        """Views of one image: (count, 3, height, width)."""
        boxes = [
            view_box(self.seed, image_id, view, *self.crop_area) for view in range(1, self.count)
        ]
        crops = [box.crop(image, *self.preprocess.size, self.preprocess.resample) for box in boxes]
        return torch.stack([self.preprocess.whole(image), *map(self.preprocess.to_tensor, crops)])


def from_timm(model: nn.Module, changes: dict[str, Any] | None) -> Preprocess:
    """Evaluation transform of a timm model, after `changes` to the model's data configuration."""
    from timm.data import create_transform, resolve_data_config

    config = resolve_data_config(dict(changes or {}), model=model)
    whole = create_transform(**config, is_training=False)
    return _from_steps(whole, config["input_size"], config["interpolation"])


def from_open_clip(configuration: dict[str, Any]) -> Preprocess:
    """Evaluation transform of an open_clip image tower, from its preprocess_cfg."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    settings = PreprocessCfg(**configuration)
    whole = image_transform_v2(settings, is_train=False)
    return _from_steps(whole, settings.input_size, settings.interpolation)


def _from_steps(whole: Any, input_size: tuple[int, int, int], interpolation: str) -> Preprocess:
    """The transform whose steps are resizing, ..., to-tensor and normalization."""
    from torchvision.transforms import Compose, Normalize, ToTensor

    if not isinstance(whole, Compose) or not isinstance(whole.transforms[-1], Normalize):
        raise InputError("the evaluation transform does not end in to-tensor and normalize")
    to_tensor = Compose([ToTensor(), whole.transforms[-1]])
    _, height, width = input_size
    resample = Image.Resampling[interpolation.upper()]
    return Preprocess(whole, to_tensor, (width, height), resample)


def from_torchvision(preset: Any) -> Preprocess:
    """Evaluation transform of weights of torchvision, from what their transforms() returns."""
    from torchvision.transforms import Compose, ConvertImageDtype, Normalize, PILToTensor

    pixels = Compose(
        [PILToTensor(), ConvertImageDtype(torch.float32), Normalize(preset.mean, preset.std)]
    )
    (side,), resample = preset.crop_size, Image.Resampling[preset.interpolation.name]
    return Preprocess(preset, pixels, (side, side), resample)


def from_processor(processor: Any) -> Preprocess:
    """Evaluation transform of a transformers image processor. A trial run gives its output size."""

    def whole(image: Image.Image, **options: bool) -> torch.Tensor:
        found = processor(images=image, return_tensors="pt", **options)
        pixels: torch.Tensor = found["pixel_values"][0]
        return pixels

    pixels_only = partial(whole, do_resize=False, do_center_crop=False)
    _, height, width = whole(Image.new("RGB", (640, 480))).shape
    resample = Image.Resampling(int(processor.resample))
    return Preprocess(whole, pixels_only, (width, height), resample)
