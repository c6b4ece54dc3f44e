"""Read arrays that other programs saved, in blocks of rows: NumPy, safetensors, Parquet, HDF5."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from singflow.config.sections import WIDEST
from singflow.data.reading import is_litter, readable_as
from singflow.errors import InputError, printable
from singflow.extras import check_installed

BLOCK = 2**24  # numbers in a block of rows, about
ENDINGS = (".npy", ".npz", ".safetensors", ".parquet", ".pq", ".h5", ".hdf5")
Blocks = Iterator[np.ndarray]


@dataclass(frozen=True)
class Stored:
    """An array in a file: its shape, and a function that reads blocks of its rows in order."""

    origin: str
    shape: tuple[int, ...]
    read: Callable[[], Blocks]

    def blocks(self) -> Blocks:
        """Blocks of rows as float32, all finite, as many rows as the shape says."""
        row = 0
        with readable_as("an array", self.origin, "save it anew"):
            for block in self.read():
                if block.dtype.kind not in "fiu":
                    raise InputError(
                        f"{self.origin}: holds {block.dtype}, not numbers: save it as float32"
                    )
                with np.errstate(over="ignore"):
                    numbers = block.astype(np.float32)
                finite = np.isfinite(numbers.reshape(len(numbers), -1)).all(axis=1)
                if not finite.all():
                    wrong = row + int(np.flatnonzero(~finite)[0])
                    raise InputError(
                        f"{self.origin}: row {wrong} holds NaN or infinite values, or beyond "
                        "float32: remove the row everywhere, or compute it anew"
                    )
                row += len(numbers)
                yield numbers
        if row != self.shape[0]:
            raise InputError(
                f"{self.origin}: ends after {row} of {self.shape[0]} rows: it is damaged, save it "
                "anew"
            )

    def whole(self) -> np.ndarray:
        return np.concatenate(list(self.blocks()))


def in_memory(origin: str, array: np.ndarray) -> Stored:
    """An array that is no file's."""
    return _sliced(origin, array.shape, lambda start, end: array[start:end])


def find_arrays(place: str, dimensions: int) -> Stored:
    """The array with so many dimensions at `<path>` or `<path>:<key>`.

    A key is the name of an array or column in the file; a pattern as in `features_*` names several
    whose rows follow each other. Without a key the file must have one array of these dimensions, or
    several that are numbered. A path may be a folder of files of one kind, or of such files with a
    number in their names: their rows follow each other in the order of the numbers.
    """
    path, key = _split(place)
    if not path.is_dir():
        return _in_file(path, key, dimensions)
    files = in_natural_order(file for file in path.iterdir() if file.suffix.lower() in ENDINGS)
    files = [file for file in files if re.search(r"\d", file.stem)] or files
    kinds = sorted({file.suffix.lower() for file in files})
    if len(kinds) != 1:
        raise InputError(
            f"{path}: holds {' and '.join(kinds) or 'no'} files of arrays: name a folder whose "
            f"files are of one kind ({', '.join(ENDINGS)})"
        )
    return _joined(str(path), [_in_file(file, key, dimensions) for file in files])


def vectors_beside(place: str) -> list[Stored]:
    """All arrays of one dimension and of numbers in the file of the array at a place."""
    path, _ = _split(place)
    found = [] if path.is_dir() else _arrays_in(path).values()
    return [array for array in found if len(array.shape) == 1 and _holds_numbers(array)]


def _holds_numbers(array: Stored) -> bool:
    with readable_as("an array", array.origin, "save it anew"):
        try:
            return all(block.dtype.kind in "fiu" for block in array.read())
        except InputError:  # it is of objects
            return False


def _split(place: str) -> tuple[Path, str | None]:
    """Path and key of `<path>` or `<path>:<key>`."""
    path = Path(place)
    stem, _, key = place.rpartition(":")
    return (Path(stem), key) if stem and not path.exists() and Path(stem).exists() else (path, None)


def in_natural_order(paths: Iterable[Path]) -> list[Path]:
    """Sorted by name, with part_2 before part_10, without litter."""
    return sorted((path for path in paths if not is_litter(path.name)), key=_natural)


def _natural(name: object) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", str(name))
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _joined(origin: str, parts: list[Stored]) -> Stored:
    if len(parts) == 1:
        return parts[0]
    if len(shapes := {part.shape[1:] for part in parts}) > 1:
        raise InputError(
            f"{origin}: its arrays have rows of different shapes, {' and '.join(map(str, shapes))}:"
            " name one of them as <path>:<key>"
        )
    rows = sum(part.shape[0] for part in parts)
    return Stored(
        origin, (rows, *parts[0].shape[1:]), lambda: (b for part in parts for b in part.blocks())
    )


def _arrays_in(path: Path) -> dict[str, Stored]:
    readers: dict[str, Callable[[Path], dict[str, Stored]]] = {
        ".npy": _npy,
        ".npz": _npz,
        ".safetensors": _safetensors,
        ".parquet": _parquet,
        ".pq": _parquet,
        ".h5": _hdf5,
        ".hdf5": _hdf5,
    }
    ending = path.suffix.lower()
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if ending not in readers:
        raise InputError(f"{path}: is none of {', '.join(ENDINGS)}: save it as one of them")
    with readable_as(ending, path, "save it anew"):
        return readers[ending](path)


def _in_file(path: Path, key: str | None, dimensions: int) -> Stored:
    arrays = _arrays_in(path)
    found = {
        name: array
        for name, array in arrays.items()
        if len(array.shape) == dimensions and (key is None or fnmatchcase(name, key))
    }
    numbered = len({re.sub(r"\d+", "", name) for name in found}) == 1
    if not found or (len(found) > 1 and key is None and not numbered):
        many = f"{'more than one' if found else 'no'} array{'' if key is None else f' {key!r}'}"
        shown = ", ".join(f"{printable(name)} {array.shape}" for name, array in arrays.items())
        raise InputError(
            f"{path}: has {many} of {dimensions} dimensions; it has {shown or 'nothing'}: name one "
            f"as {path}:<key>"
        )
    chosen = _joined(str(path), [found[name] for name in sorted(found, key=_natural)])
    if not all(chosen.shape):
        raise InputError(
            f"{path}: its array has the shape {chosen.shape}, without a number in it: remove the "
            "file, or save it anew"
        )
    if max(chosen.shape[1:], default=1) > WIDEST:
        raise InputError(f"{path}: its array has the shape {chosen.shape}: no tower is so wide")
    return chosen


def _spans(rows: int, width: int) -> Iterator[tuple[int, int]]:
    step = max(1, BLOCK // max(width, 1))
    return ((start, min(rows, start + step)) for start in range(0, rows, step))


def _sliced(origin: str, shape: tuple[int, ...], rows: Callable[[int, int], np.ndarray]) -> Stored:
    """An array whose rows from start to end a function reads."""
    count, width = shape[0] if shape else 0, int(np.prod(shape[1:], dtype=np.int64))
    return Stored(origin, shape, lambda: (rows(*span) for span in _spans(count, width)))


def _npy(path: Path) -> dict[str, Stored]:
    def rows(start: int, end: int) -> np.ndarray:
        # mapped anew for every block, so that no block stays in memory
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False)[start:end])

    return {"": _sliced(str(path), np.load(path, mmap_mode="r", allow_pickle=False).shape, rows)}


def _npz(path: Path) -> dict[str, Stored]:
    arrays = {}
    with zipfile.ZipFile(path) as file:
        for member in file.namelist():
            name = member.removesuffix(".npy")
            if name != member:
                shape, _, _ = read_npy_header(file.open(member))
                arrays[name] = Stored(f"{path}:{name}", shape, partial(_unzipped, path, member))
    return arrays


def read_npy_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order (whether by columns) and type of the array that a stream holds from here on."""
    first = np.lib.format.read_magic(stream) == (1, 0)
    formats = np.lib.format
    return (formats.read_array_header_1_0 if first else formats.read_array_header_2_0)(stream)


def _unzipped(path: Path, name: str) -> Blocks:
    with zipfile.ZipFile(path) as file, file.open(name) as stream:
        shape, by_columns, kind = read_npy_header(stream)
        width, size = (int(np.prod(part, dtype=np.int64)) for part in (shape[1:], shape))
        by_columns &= len(shape) > 1
        if kind.hasobject or (by_columns and size > 4 * BLOCK):
            raise InputError(
                f"{path}: {name} is of objects, or large and in Fortran's order: save numbers by "
                "rows, as np.ascontiguousarray does"
            )
        if by_columns:
            content = stream.read(size * kind.itemsize)
            if len(content) == size * kind.itemsize:
                yield np.frombuffer(content, kind).reshape(shape, order="F")
            return
        for start, end in _spans(shape[0], width):
            wanted = (end - start) * width * kind.itemsize
            content = stream.read(wanted)
            rows = len(content) // (width * kind.itemsize)
            yield np.frombuffer(content, kind, rows * width).reshape(rows, *shape[1:])
            if len(content) < wanted:
                return


def _safetensors(path: Path) -> dict[str, Stored]:
    from safetensors import safe_open

    def rows(name: str, start: int, end: int) -> np.ndarray:
        with safe_open(path, framework="numpy") as file:
            return np.asarray(file.get_slice(name)[start:end])

    with safe_open(path, framework="numpy") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        if halves := sorted(name for name, part in slices.items() if part.get_dtype() == "BF16"):
            raise InputError(f"{path}: {', '.join(halves)} is bfloat16: save it as float32")
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
    return {
        name: _sliced(f"{path}:{name}", shape, partial(rows, name))
        for name, shape in shapes.items()
    }


def _parquet(path: Path) -> dict[str, Stored]:
    """The columns of lists of numbers; all columns of numbers as one array if there are none."""
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    # a buffer, so that a column of a row group is not in memory as a whole
    opened = partial(parquet.ParquetFile, path, buffer_size=2**16)
    file = opened()
    schema, count = file.schema_arrow, file.metadata.num_rows
    lists = [
        field.name
        for field in schema
        if (pa.types.is_list(field.type) or pa.types.is_large_list(field.type)
            or pa.types.is_fixed_size_list(field.type))
    ]  # fmt: skip
    numbers = [
        field.name
        for field in schema
        if pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
    ]

    def of_lists(name: str) -> Blocks:
        for batch in opened().iter_batches(_batch(width[name]), columns=[name]):
            column = batch.column(0)
            flat = column.flatten().to_numpy(zero_copy_only=False)
            if column.null_count or len(flat) != len(column) * width[name]:
                raise InputError(
                    f"{path}: its lists in {name!r} do not all have {width[name]} numbers: remove "
                    "the rows that differ"
                )
            yield flat.reshape(len(column), width[name])

    def of_columns() -> Blocks:
        for batch in opened().iter_batches(_batch(len(numbers)), columns=numbers):
            columns = [column.to_numpy(zero_copy_only=False) for column in batch.columns]
            yield np.stack(columns, axis=1)

    width = {name: _first_length(opened(), name) for name in lists}
    if lists:
        return {
            name: Stored(f"{path}:{name}", (count, width[name]), partial(of_lists, name))
            for name in lists
        }
    return {"": Stored(str(path), (count, len(numbers)), of_columns)} if numbers else {}


def _batch(width: int) -> int:
    return max(1, BLOCK // max(width, 1) // 4)


def _first_length(file: Any, name: str) -> int:
    for batch in file.iter_batches(1, columns=[name]):
        return len(batch.column(0).flatten())
    return 0


def _hdf5(path: Path) -> dict[str, Stored]:
    check_installed("h5py")
    import h5py

    def rows(name: str, start: int, end: int) -> np.ndarray:
        with h5py.File(path, "r") as file:
            return np.asarray(file[name][start:end])

    found: dict[bool, dict[str, tuple[int, ...]]] = {True: {}, False: {}}  # whether of numbers

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            if np.prod(item.chunks or (), dtype=np.float64) > 4 * BLOCK:
                raise InputError(
                    f"{path}: {name} has chunks of {item.chunks} numbers, and one is read at a "
                    "time: write smaller ones"
                )
            found[item.dtype.kind in "fiu"][name] = item.shape

    with h5py.File(path, "r") as file:
        file.visititems(note)  # links to other files are not followed
    return {
        name: _sliced(f"{path}:{name}", shape, partial(rows, name))
        for name, shape in (found[True] or found[False]).items()
    }
