"""Matrices of a step that are too large for memory."""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


class Scratch:
    """A float32 matrix (rows, width) in a file without a name beside a step's output, which the system removes however the step ends.

    Rows are read and written by an index or a slice; what has been read is no longer mapped, so that it does not count as memory.
    """

    def __init__(self, folder: Path, rows: int, width: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.shape = (rows, width)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (it lives as long as the matrix)
        size = max(1, 4 * rows * width)
        self._file.truncate(size)
        if hasattr(os, "posix_fallocate"):  # a full disk is then an error here, not a crash later
            os.posix_fallocate(self._file.fileno(), 0, size)

    def __len__(self) -> int:
        return self.shape[0]

    def _map(self) -> np.ndarray:
        return np.memmap(self._file, np.float32, "r+", shape=self.shape) if all(self.shape) else np.empty(self.shape, np.float32)

    def __getitem__(self, rows: Any) -> np.ndarray:
        taken = np.asarray(self._map())[rows]
        return taken if taken.base is None else taken.copy()

    def __setitem__(self, rows: Any, values: np.ndarray) -> None:
        self._map()[rows] = values
