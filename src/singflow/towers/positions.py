"""The positions in an image of which a feature is the mean."""

from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from singflow.towers.classifiers import LoadedClassifier

TOLERANCE = 1e-5  # of a feature's norm: how far the mean over positions may be from it
MEANS = {
    *(torch.Tensor.mean, torch.mean, functional.avg_pool2d),
    *(functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d),
}


@dataclass(frozen=True)
class Positions:
    """Features of n images by positions, on the CPU.

    features: (n, d) float32. parts: (n, h, w, d) float64. rest: (n, d) float64, the part without a
    position, such as a class token. A feature is the mean of its parts over positions, plus its
    rest. parts is None if neither a feature nor some of its columns are such a mean.
    """

    features: torch.Tensor
    parts: torch.Tensor | None
    rest: torch.Tensor


class _LastMean(TorchFunctionMode):
    """Keeps input and output of a model's last mean, and the arguments of a layer norm after it."""

    mean: tuple[torch.Tensor, torch.Tensor] | None = None
    norm: tuple[Any, Any, float] | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        options = kwargs or {}
        output = func(*args, **options)
        values: Any = args[0] if args else options.get("input")
        if func in MEANS and values.ndim > 2 and output.ndim > 1:
            self.mean, self.norm = (values, output), None
        elif (
            func is functional.layer_norm
            and self.mean is not None
            and values.shape[-1] == values[0].numel() == self.mean[1][0].numel()
        ):
            self.norm = _scale_shift_eps(*args, **options)
        return output


@torch.no_grad()
def split_by_position(classifier: LoadedClassifier, images: torch.Tensor) -> Positions:
    """Run a classifier on images (n, 3, H, W), and split its features by positions."""
    with _LastMean() as caught:
        made = classifier(images).cpu()
    features = made.double()
    if caught.mean is None:
        return Positions(made, None, features)
    values, pooled = _by_position(*(tensor.cpu().double() for tensor in caught.mean))
    if caught.norm:
        mean, variance = pooled.mean(1), pooled.var(1, correction=0)
        weight, bias, eps = caught.norm
        scale = (variance + eps).rsqrt()[:, None, None]
        values = (values - mean[:, None, None]) * scale * weight + bias
    height, width = _grid(values.shape[1], images.shape[-2] / images.shape[-1])
    for columns in (slice(-pooled.shape[1], None), slice(1, None, 2)):  # joined or interleaved
        rest = features.clone()
        rest[:, columns] = 0
        parts = torch.zeros(*values.shape[:2], features.shape[1], dtype=torch.float64)
        if parts[..., columns].shape == values.shape:
            parts[..., columns] = values
            error = (parts.mean(dim=1) + rest - features).norm(dim=1)
            if height and bool((error <= TOLERANCE * features.norm(dim=1)).all()):
                return Positions(made, parts.unflatten(1, (height, width)), rest)
    return Positions(made, None, features)


def _scale_shift_eps(
    input: torch.Tensor,
    normalized_shape: Any,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> tuple[Any, Any, float]:
    """Scale, shift and eps of a layer norm, on the CPU, from its arguments."""
    scale, shift = (None if part is None else part.cpu().double() for part in (weight, bias))
    return 1.0 if scale is None else scale, 0.0 if shift is None else shift, eps


def _by_position(values: torch.Tensor, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Values (n, p, k) and their mean (n, k), from a mean's input and output in any layout."""
    pooled = pooled.flatten(1)
    last = values.shape[-1] == pooled.shape[1]
    if last and values.shape[1] == pooled.shape[1]:
        last = torch.allclose(values.flatten(1, -2).mean(1), pooled, rtol=1e-4, atol=1e-6)
    values = values if last else values.movedim(1, -1)
    return values.flatten(1, -2), pooled


def _grid(positions: int, aspect: float) -> tuple[int, int]:
    """Height and width of a grid of positions on an image of an aspect; (0, 0): there is none."""
    height = max(1, round(sqrt(positions * aspect)))
    return (height, positions // height) if positions % height == 0 else (0, 0)
