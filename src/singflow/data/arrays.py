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
from singflow.data.reading import is_litter
from singflow.errors import InputError, printable, readable_as
from singflow.extras import check_installed

BLOCK = 2**24  # numbers in a block of rows, about
Blocks = Iterator[np.ndarray]


@dataclass(frozen=True)
class Stored:
    """An array in a file: shape, type, and a function that reads blocks of its rows in order."""

    origin: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], Blocks]

    @property
    def of_numbers(self) -> bool:
        return self.dtype.kind in "fiu"

    def blocks(self) -> Blocks:
        """Blocks of rows as float32, all finite, as many rows as the shape says."""
        if not self.of_numbers:
            raise InputError(f"{self.origin}: holds {self.dtype}, not numbers: save it as float32")
        row = 0
        with readable_as("an array", self.origin, "save it anew"):
            for block in self.read():
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
    return _sliced(origin, array.shape, array.dtype, lambda start, end: array[start:end])


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
    files = in_natural_order(file for file in path.iterdir() if file.suffix.lower() in READERS)
    files = [file for file in files if re.search(r"\d", file.stem)] or files
    kinds = sorted({file.suffix.lower() for file in files})
    if len(kinds) != 1:
        raise InputError(
            f"{path}: holds {' and '.join(kinds) or 'no'} files of arrays: name a folder whose "
            f"files are of one kind ({', '.join(READERS)})"
        )
    return _joined(str(path), [_in_file(file, key, dimensions) for file in files])


def vectors_beside(place: str) -> list[Stored]:
    """All arrays of one dimension and of numbers in the file of the array at a place."""
    path, _ = _split(place)
    found = [] if path.is_dir() else _arrays_in(path).values()
    return [array for array in found if len(array.shape) == 1 and array.of_numbers]


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
    shape = sum(part.shape[0] for part in parts), *parts[0].shape[1:]
    float32 = np.dtype(np.float32)
    return Stored(origin, shape, float32, lambda: (b for part in parts for b in part.blocks()))


def _arrays_in(path: Path) -> dict[str, Stored]:
    ending = path.suffix.lower()
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if ending not in READERS:
        raise InputError(f"{path}: is none of {', '.join(READERS)}: save it as one of them")
    with readable_as(ending, path, "save it anew"):
        return READERS[ending](path)


def _in_file(path: Path, key: str | None, dimensions: int) -> Stored:
    if not (arrays := _arrays_in(path)):
        raise InputError(f"{path}: holds no array of numbers: write one row of numbers an image")
    found = {
        name: array
        for name, array in arrays.items()
        if len(array.shape) == dimensions and fnmatchcase(name, "*" if key is None else key)
    }
    found = {name: array for name, array in found.items() if array.of_numbers} or found
    numbered = len({re.sub(r"\d+", "", name) for name in found}) == 1
    if not found or (len(found) > 1 and key is None and not numbered):
        many = f"{'more than one' if found else 'no'} array{'' if key is None else f' {key!r}'}"
        shown = ", ".join(f"{printable(name)} {array.shape}" for name, array in arrays.items())
        raise InputError(
            f"{path}: has {many} of {dimensions} dimensions; it has {shown}: name one as "
            f"{path}:<key>"
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


def _sliced(
    origin: str, shape: tuple[int, ...], dtype: Any, rows: Callable[[int, int], np.ndarray]
) -> Stored:
    """An array whose rows from start to end a function reads."""
    count, width = shape[0] if shape else 0, int(np.prod(shape[1:], dtype=np.int64))
    spans = partial(_spans, count, width)
    return Stored(origin, shape, np.dtype(dtype), lambda: (rows(*span) for span in spans()))


def _npy(path: Path) -> dict[str, Stored]:
    def mapped() -> np.ndarray:
        # mapped anew for every block, so that no block stays in memory
        return np.load(path, mmap_mode="r", allow_pickle=False)

    def rows(start: int, end: int) -> np.ndarray:
        return np.array(mapped()[start:end])

    return {"": _sliced(str(path), mapped().shape, mapped().dtype, rows)}


def _npz(path: Path) -> dict[str, Stored]:
    arrays = {}
    with zipfile.ZipFile(path) as file:
        for member in file.namelist():
            name = member.removesuffix(".npy")
            if name != member:
                shape, _, kind = read_npy_header(file.open(member))
                read = partial(_unzipped, path, member)
                arrays[name] = Stored(f"{path}:{name}", shape, kind, read)
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
        spans = _spans(shape[0], width)
        if by_columns and len(shape) > 1:
            if size > 4 * BLOCK:
                raise InputError(
                    f"{path}: {name} is large and in Fortran's order: save it by rows, as "
                    "np.ascontiguousarray does"
                )
            spans = iter([(0, shape[0])])
        for start, end in spans:
            wanted = (end - start) * width * kind.itemsize
            content = stream.read(wanted)
            rows = len(content) // (width * kind.itemsize)
            block = np.frombuffer(content, kind, rows * width)
            yield block.reshape(rows, *shape[1:], order="F" if by_columns else "C")
            if len(content) < wanted:
                return


def _safetensors(path: Path) -> dict[str, Stored]:
    from safetensors import safe_open

    def rows(name: str, start: int, end: int) -> np.ndarray:
        with safe_open(path, framework="numpy") as file:
            return np.asarray(file.get_slice(name)[start:end])

    arrays = {}
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 (no mapping)
            part = file.get_slice(name)
            if part.get_dtype() == "BF16":
                raise InputError(f"{path}: {name} is bfloat16: save it as float32")
            kind = np.float32 if part.get_dtype()[0] in "FIU" else np.bool_
            shape, read = tuple(part.get_shape()), partial(rows, name)
            arrays[name] = _sliced(f"{path}:{name}", shape, kind, read)
    return arrays


def _parquet(path: Path) -> dict[str, Stored]:
    """The columns of lists of numbers; all columns of numbers as one array if there are none."""
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    # a buffer, so that a column of a row group is not in memory as a whole
    opened = partial(parquet.ParquetFile, path, buffer_size=2**16)

    def blocks(columns: list[str], width: int, origin: str) -> Blocks:
        for batch in opened().iter_batches(max(1, BLOCK // width // 4), columns=columns):
            nested = [column for column in batch.columns if pa.types.is_nested(column.type)]
            flat = [column.flatten() if nested else column for column in batch.columns]
            cells = np.stack([part.to_numpy(zero_copy_only=False) for part in flat], axis=1)
            if cells.size != len(batch) * width or any(column.null_count for column in nested):
                raise InputError(
                    f"{origin}: its lists do not all have {width} numbers: remove the rows that "
                    "differ"
                )
            yield cells.reshape(len(batch), width)

    def of_numbers(kind: Any) -> bool:
        return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))

    def length(name: str) -> int:
        first = next(opened().iter_batches(1, columns=[name]), None)
        return 0 if first is None else len(first.column(0).flatten())

    fields, count = opened().schema_arrow, opened().metadata.num_rows
    lists = [
        field.name
        for field in fields
        if (pa.types.is_list(field.type) or pa.types.is_large_list(field.type)
            or pa.types.is_fixed_size_list(field.type))
    ]  # fmt: skip
    numbers = [field.name for field in fields if of_numbers(field.type)]
    places = {
        name: (f"{path}:{name}", [name], length(name))
        for name in lists
        if of_numbers(fields.field(name).type.value_type)
    }
    if not lists and numbers:
        places = {"": (str(path), numbers, len(numbers))}
    return {
        name: Stored(
            origin, (count, width), np.dtype(np.float32), partial(blocks, columns, width, origin)
        )
        for name, (origin, columns, width) in places.items()
    }


def _hdf5(path: Path) -> dict[str, Stored]:
    check_installed("h5py")
    import h5py

    def rows(name: str, start: int, end: int) -> np.ndarray:
        with h5py.File(path, "r") as file:
            return np.asarray(file[name][start:end])

    arrays: dict[str, Stored] = {}

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.shape is not None:  # None: empty
            if np.prod(item.chunks or (), dtype=np.float64) > 4 * BLOCK:
                raise InputError(
                    f"{path}: {name} has chunks of {item.chunks} numbers, and one is read at a "
                    "time: write smaller ones"
                )
            arrays[name] = _sliced(f"{path}:{name}", item.shape, item.dtype, partial(rows, name))

    with h5py.File(path, "r") as file:
        file.visititems(note)  # links to other files are not followed
    return arrays


READERS = {
    ".npy": _npy,
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".parquet": _parquet,
    ".pq": _parquet,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
}
