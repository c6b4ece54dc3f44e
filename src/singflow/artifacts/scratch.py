"""Matrices that are too large for memory."""

import itertools
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from singflow.artifacts.files import told

# If at least one row in SPARSE is wanted, the rows between are read, too, up to SPAN_BYTES.
SPARSE, SPAN_BYTES = 8, 2**26


class Scratch:
    """A float32 matrix (rows, width) in a file without a name.

    The system deletes the file, however the step ends. Rows are read and written by an index or a
    slice. Reading does not map the file into memory: the system would map megabytes around each
    row, and they would count as memory.
    """

    def __init__(self, folder: Path, rows: int, width: int) -> None:
        self.shape = (rows, width)
        size = max(1, 4 * rows * width)
        with told(folder / "(a scratch file)"):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (the file lives as long as the matrix)
            self._file.truncate(size)
            if hasattr(os, "posix_fallocate"):  # a full disk is an error here, not a crash later
                os.posix_fallocate(self._file.fileno(), 0, size)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        if isinstance(rows, tuple):
            return self[rows[0]][..., rows[1]].copy()
        wanted = (
            np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows)
        )
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(f"rows {wanted.min()} to {wanted.max()} of {len(self)}")
        flat = wanted.reshape(-1)
        span = np.arange(flat[0], flat[-1] + 1) if flat.size else flat
        near = (
            flat.size < span.size <= SPARSE * flat.size
            and 4 * span.size * self.shape[1] <= SPAN_BYTES
        )
        near = near and bool((np.diff(flat) > 0).all())
        taken = self._read(span)[flat - flat[0]] if near else self._read(flat)
        return taken.reshape(*wanted.shape, self.shape[1])

    def _read(self, wanted: np.ndarray) -> np.ndarray:
        """Read rows. Consecutive rows are read in one call."""
        taken = np.empty((len(wanted), self.shape[1]), np.float32)
        if not taken.size:
            return taken
        number, width = self._file.fileno(), 4 * self.shape[1]
        into = taken.reshape(-1).view(np.uint8).data
        starts = [0, *(np.flatnonzero(np.diff(wanted) != 1) + 1).tolist()]
        for start, end in itertools.pairwise([*starts, len(wanted)]):
            place, first = start * width, int(wanted[start]) * width
            done, size = 0, (end - start) * width
            while done < size:  # one call reads at most 2 GB
                done += os.preadv(number, [into[place + done : place + size]], first + done)
        return taken

    def __setitem__(self, rows: Any, values: np.ndarray) -> None:
        if all(self.shape):
            np.memmap(self._file, np.float32, "r+", shape=self.shape)[rows] = values
