"""Tensors and their metadata, in safetensors files."""

from __future__ import annotations

import importlib.metadata
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from singflow.artifacts.catalog import KIND_NAMES, TENSORS
from singflow.artifacts.files import FIX, Facts, atomic
from singflow.errors import InputError, in_one_line
from singflow.system import regular

SCHEMA_VERSION = "1"
Tensors = dict[str, np.ndarray]


def provenance(packages: Sequence[str], **facts: Any) -> dict[str, str]:
    """Metadata of an artifact: schema version, versions of packages, and facts (texts, or JSON)."""
    versions = {
        name: importlib.metadata.version(name) for name in sorted({"singflow", "numpy", *packages})
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "software": json.dumps(versions, sort_keys=True),
        **{
            name: fact if isinstance(fact, str) else json.dumps(fact)
            for name, fact in facts.items()
        },
    }


def write_tensors(path: Path, tensors: Tensors, metadata: dict[str, str]) -> None:
    """Write safetensors with sorted keys in the header. The library's own order is random."""
    from safetensors.numpy import save

    payload = save(
        {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}, metadata
    )
    (length,) = struct.unpack("<Q", payload[:8])
    header = json.dumps(
        json.loads(payload[8 : 8 + length]), sort_keys=True, separators=(",", ":")
    ).encode()
    header += b" " * (-len(header) % 8)
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(header)))
        file.write(header)
        file.write(memoryview(payload)[8 + length :])


def read_tensors(path: Path, names: Sequence[str] | None = None) -> tuple[Tensors, Facts]:
    """The named tensors, or all, and the metadata; checked against TENSORS, and finite."""
    from safetensors import safe_open

    with (
        in_one_line(f"{path}: not readable as safetensors", FIX),
        safe_open(regular(path), framework="numpy") as file,
    ):
        names = list(file.keys()) if names is None else names
        if missing := sorted(set(names) - set(file.keys())):
            raise InputError(f"{path}: holds no tensor {', '.join(missing)}: {FIX}")
        tensors = {name: file.get_tensor(name) for name in names}
        metadata = Facts(path, file.metadata() or {})
    for name, tensor in tensors.items():
        kind, dimensions = TENSORS.get(name, (tensor.dtype.kind, tensor.ndim))
        if (tensor.dtype.kind, tensor.ndim) != (kind, dimensions):
            raise InputError(
                f"{path}: {name} is {tensor.dtype} {tensor.shape}, not {KIND_NAMES[kind]} of "
                f"{dimensions} dimensions: {FIX}"
            )
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            row = int(np.argwhere(~np.isfinite(tensor))[0][0])
            raise InputError(
                f"{path}: {name} holds NaN or infinite values, first in row {row}: {FIX}"
            )
    return tensors, metadata


def stored_precision(weight: np.ndarray) -> str:
    """The coarsest of bfloat16, float16 and float32 that holds every float32 weight exactly."""
    if not (weight.view(np.uint32) & 0xFFFF).any():
        return "bfloat16"
    with np.errstate(over="ignore"):
        return "float16" if (weight.astype(np.float16) == weight).all() else "float32"


def read_null_basis(path: Path) -> np.ndarray:
    """Null basis (d, k) with orthonormal columns, from projectors/<model>.safetensors."""
    return read_tensors(path, ["null_basis"])[0]["null_basis"]
