"""The images in what a data loader yields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singflow.errors import InputError

if TYPE_CHECKING:
    import torch

Normalized = tuple[Sequence[float], Sequence[float]] | None
HALF_STEP = 0.5 / 255  # of an 8-bit image, to which values are rounded


def photos_of(item: Any, normalized: Normalized) -> list[Any]:
    """The images of an item: one image, or those of a batch, with or without labels."""
    import torch
    from PIL import Image

    kinds = (str | Path | bytes, Image.Image)
    if isinstance(item, kinds):
        return [item]
    if isinstance(item, torch.Tensor):
        return _as_images(item, normalized)
    if isinstance(item, Mapping) and "pixel_values" in item:
        return photos_of(item["pixel_values"], normalized)
    if isinstance(item, tuple | list) and item:
        alike = any(all(isinstance(part, kind) for part in item) for kind in kinds)
        return [*item] if alike else photos_of(item[0], normalized)
    raise InputError(
        f"images: {type(item).__name__} holds no images: give images of Pillow, paths, or batches "
        "of tensors (k, 3, H, W)"
    )


def _as_images(pixels: torch.Tensor, normalized: Normalized) -> list[Any]:
    """8-bit RGB images of a tensor (k, 3, H, W)."""
    import torch
    from PIL import Image

    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise InputError(
            f"images: a tensor of shape {tuple(pixels.shape)}, not (k, 3, H, W): give batches of "
            "RGB images"
        )
    try:
        scale = torch.tensor(normalized or [[0.0] * 3, [1.0] * 3]).reshape(2, 3, 1, 1)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"normalized is {normalized!r}: give (mean, std) of three numbers each, or None for "
            "values from 0 to 1"
        ) from None
    values = pixels.detach().cpu().float() * scale[1] + scale[0]
    low, high = float(values.min()), float(values.max())
    if not (low >= -HALF_STEP and high <= 1 + HALF_STEP):
        raise InputError(
            f"images: values from {low:.3g} to {high:.3g} with normalized={normalized!r} undone, "
            "not from 0 to 1: give the mean and std of their transform as normalized=(mean, std)"
        )
    bytes_ = (255 * values).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()
    return [Image.fromarray(image) for image in bytes_.numpy()]
