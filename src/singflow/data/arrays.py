"""Arrays that a user gives: read in blocks of rows, and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from singflow.artifacts.shards import in_shards
from singflow.errors import InputError, in_one_line

if TYPE_CHECKING:
    import torch

    Array = np.ndarray | torch.Tensor
    Rows = Array | Callable[[], Iterable[Array]]
    Linear = Array | tuple[Array, Array] | torch.nn.Module

IMAGES, NUMBERS = 4096, 2**23  # images, and numbers of an array, that are read at once, at most


def as_array(name: str, values: Any, fix: str = "give rows of one length") -> np.ndarray:
    """An array of NumPy with the values of an array or of a tensor of PyTorch."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if "bfloat16" in str(values.dtype) else values.numpy()
    with in_one_line(f"{name}: makes no array", fix):
        return np.asarray(values)


def images_of(name: str, values: Rows) -> Iterator[np.ndarray]:
    """Rows in float32, finite and of one shape, in blocks (images, views, width)."""
    given = _checked(name, values)
    if (first := next(given, None)) is None:
        raise InputError(f"{name}: has no rows: a function must begin anew on each call")
    yield from in_shards(chain([first], given), images_at_once(first.shape))


def images_at_once(shape: tuple[int, ...]) -> int:
    return max(1, min(IMAGES, NUMBERS // max(1, int(np.prod(shape[1:])))))


def _checked(name: str, values: Rows) -> Iterator[np.ndarray]:
    row, known = 0, None
    for part in _parts(name, values):
        array = as_array(name, part)
        if array.dtype.kind not in "fiu":
            raise InputError(f"{name}: holds {array.dtype}, not numbers: give an array of numbers")
        shape = array.shape[1:]
        known = shape if known is None else known
        if shape != known or len(shape) not in (1, 2) or 0 in shape:
            raise InputError(
                f"{name}: its rows have the shape {shape}, and the first {known}: give (n, width) "
                "or (n, views, width)"
            )
        with np.errstate(over="ignore"):
            block = np.ascontiguousarray(array, np.float32).reshape(len(array), -1, shape[-1])
        if not (finite := np.isfinite(block).all(axis=(1, 2))).all():
            raise InputError(
                f"{name}: row {row + int(np.argmin(finite))} holds NaN, or values that are "
                "infinite in float32: leave the image out everywhere"
            )
        row += len(block)
        yield block


def _parts(name: str, values: Rows) -> Iterable[Array]:
    if isinstance(values, Iterator):
        raise InputError(
            f"{name}: can be read once alone: give a function that returns such an iterator anew"
        )
    if callable(values):
        return values()
    shape = tuple(getattr(values, "shape", ()))
    if len(shape) not in (2, 3):
        raise InputError(
            f"{name}: is a {type(values).__name__} of shape {shape}, not an array (n, width) or "
            "(n, views, width): join rows with np.stack, and batches with np.concatenate"
        )
    step = images_at_once(shape)
    return (values[start : start + step] for start in range(0, shape[0], step))


def matrix_of(name: str, values: Any, width: int, unit_of: str) -> np.ndarray:
    """Finite rows (n, width) in float64."""
    matrix = as_array(name, values)
    if matrix.dtype.kind not in "fiu" or matrix.ndim != 2 or matrix.shape[1] != width:
        raise InputError(
            f"{name}: has shape {matrix.shape} and type {matrix.dtype}, but rows need {width} "
            f"{unit_of}: give an array (rows, {width})"
        )
    if not np.isfinite(matrix).all():
        row = int(np.argmin(np.isfinite(matrix).all(axis=1)))
        raise InputError(f"{name}: row {row} holds NaN or infinite values: correct it")
    return matrix.astype(np.float64)


def head_of(head: Linear, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Weight (C, d) and bias (C,) in float32."""
    given: Any = head
    weight, bias = (
        given if is_pair(given) else (getattr(given, "weight", given), getattr(given, "bias", None))
    )
    matrix = as_array("head", weight, "give the weight, or a pair of weight and bias")
    if matrix.shape[2:] == (1, 1):  # a convolution on pooled features
        matrix = matrix[:, :, 0, 0]
    if matrix.ndim == 2 and matrix.shape[0] == width != matrix.shape[1]:
        raise InputError(
            f"head: has shape {matrix.shape}, but features have {width} columns: give "
            "its transpose, weight.T"
        )
    wide = matrix_of("head", matrix, width, "columns, as features have")
    if len(wide) < 2 or not wide.any():
        raise InputError(
            f"head: has {len(wide)} rows, or zeros alone: give a trained head of two classes or "
            "more; of one logit, give two rows, the first with weight and bias 0"
        )
    vector = np.zeros(len(wide)) if bias is None else as_array("head", bias)
    if vector.shape != (len(wide),) or not np.isfinite(vector).all():
        raise InputError(
            f"head: its bias has shape {vector.shape}, but the weight has {len(wide)} rows: give "
            "one finite number a row"
        )
    return wide.astype(np.float32), vector.astype(np.float32)


def is_pair(given: Any) -> bool:
    """Whether an argument is a pair of arrays, and not one array as a list of rows."""
    return isinstance(given, tuple | list) and len(given) == 2 and np.ndim(given[0]) >= 2
