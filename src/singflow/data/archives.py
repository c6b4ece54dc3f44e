"""Archives of images, tar and Parquet: list their images in one pass, read one where it lies."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import accumulate, islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from singflow.data.reading import OUTSIDE, is_litter
from singflow.errors import InputError, printable, readable_as
from singflow.system import regular

if TYPE_CHECKING:
    from pyarrow import parquet  # type: ignore[import-untyped]

PARQUET = (".parquet", ".pq")
IMAGES = {".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png"}
IMAGES |= {".tif", ".tiff", ".webp"}
MOST_LABEL, MOST_GROUP = 2**16, 2**30  # bytes of a .cls, and of a row group
GROUPS, FOOTERS = 2, 16  # in memory: threads that read ahead need two row groups
SAMPLE = 2**20  # bytes at both ends of an archive that tell its state
COUNTED = 500  # members of a tar from which the number of its images is estimated
CUT = "it is cut, damaged or compressed: fetch or pack it anew, or take it out of data.archives"
ANEW = "fetch or write it anew"
REPLACED = "a later member of the tar has its name, and replaces it"
NO_CONTENT = (
    "a link, a device or a sparse file in a tar: pack the images themselves, with tar "
    "--dereference --hard-dereference and without --sparse"
)
ATTRIBUTE = "archives"  # of the manifest: the fingerprint of its archives


class Member(NamedTuple):
    """A file in a tar."""

    name: str
    offset: int = 0
    size: int = -1
    label: str | None = None  # that the .cls beside it states
    unusable: str = ""  # why it cannot be used


def find_archives(root: Path, patterns: Sequence[str]) -> list[str]:
    """The archives that match the patterns: sorted, relative to the root, without litter."""
    for pattern in patterns:
        if not fitting(root, [pattern]):
            raise InputError(
                f"data.archives: {pattern}: no file below {root} has such a name: correct it, or "
                "data.root"
            )
    archives = fitting(root, patterns)
    for path in (regular(root / archive) for archive in archives):
        if path.suffix.lower() not in (".tar", *PARQUET):
            raise InputError(
                f"{path}: neither a .tar nor a .parquet file: name only such files in "
                "data.archives, as in [train-*.tar], and unpack a compressed tar (gunzip -k)"
            )
    return archives


def fitting(root: Path, patterns: Sequence[str]) -> list[str]:
    """What find_archives() finds, without its checks."""
    found = {path for pattern in patterns for path in root.glob(pattern)}
    return sorted(
        path.relative_to(root).as_posix()
        for path in found
        if not is_litter(path.name) and not path.is_dir()
    )


def is_parquet(archive: str) -> bool:
    return PurePosixPath(archive).suffix.lower() in PARQUET


def is_image(name: str) -> bool:
    """Whether a file name ends like that of an image, in any case."""
    return PurePosixPath(name).suffix.lower() in IMAGES


def estimate_images(path: Path) -> float:
    """About how many images an archive has, told from its first members; 0 if it is damaged."""
    with suppress(Exception):  # the step that reads the archive reports damage
        if is_parquet(path.name):
            return float(_open(path).metadata.num_rows)
        first = [info for info, _ in islice(_members(path), COUNTED)]
        share = (first[-1].offset_data + first[-1].size) / path.stat().st_size
        images = sum(is_image(info.name) for info in first)
        return images / share if len(first) == COUNTED else images
    return 0


def archive_fingerprint(root: Path, archives: Sequence[str]) -> str:
    """SHA-256 of the archives' names, sizes, and first and last bytes, whatever their times."""
    digest = hashlib.sha256()
    for archive in archives:
        with (root / archive).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest.update(os.fsencode(f"{archive}\0{size}\n"))
            for place in sorted({0, max(0, size - SAMPLE)}):
                file.seek(place)
                digest.update(file.read(SAMPLE))
    return digest.hexdigest()


def state(root: Path, patterns: Sequence[str], manifest: Path) -> str | None:
    """The fingerprint of a study's archives, or, where no archive is, the one in its manifest."""
    from pyarrow import ArrowException, parquet

    try:
        if archives := fitting(root, patterns):
            return archive_fingerprint(root, archives)
        facts = parquet.read_schema(manifest).pandas_metadata or {}
    except (OSError, ArrowException):
        return None
    return cast("str | None", facts.get("attributes", {}).get(ATTRIBUTE))


def _members(path: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Members of a tar but for folders, and what a .cls holds, in one pass over the headers."""
    with (
        readable_as("tar", path, CUT),
        _claims_bounded(),
        path.open("rb", buffering=0) as file,
        tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar,
    ):
        before = -1
        while info := tar.next():
            tar.members.clear()  # type: ignore[attr-defined]  # the list would grow with the archive
            if info.size < 0 or tar.offset <= before:
                raise ValueError(f"a member of negative size at byte {info.offset}")
            before, content = tar.offset, b""
            if info.isreg() and info.name.lower().endswith(".cls"):
                file.seek(info.offset_data)
                content = file.read(min(info.size, MOST_LABEL))
            if not info.isdir():
                yield info, content
        file.seek(tar.offset)
        rest = file.read(2**20)
        if not rest or rest.strip(b"\0"):  # tarfile takes an invalid header for the end
            raise ValueError(f"neither a member nor the end at byte {tar.offset}, or more after it")


@contextmanager
def _claims_bounded() -> Iterator[None]:
    try:
        yield
    except MemoryError:  # a damaged header may claim any size
        raise ValueError("headers that are larger than the memory") from None


def list_tar(path: Path, skipped: Counter[str]) -> Iterator[Member]:
    """The files of a tar, usable or not; what lies beside the images of WebDataset is counted."""
    found: dict[str, tuple[int, int]] = {}
    labels: dict[str, str | None] = {}
    for info, content in _members(path):
        parts = [part for part in info.name.split("/") if part not in ("", ".")]
        name = "/".join(parts)
        if ".." in parts or not parts:
            yield Member(name, unusable=OUTSIDE)
        elif litter := next(filter(is_litter, parts), None):
            skipped[litter] += 1
        elif info.issparse() or not info.isreg():
            yield Member(name, unusable=NO_CONTENT)
        else:
            if name in found:
                yield Member(name, unusable=REPLACED)
            found[name] = info.offset_data, info.size
            if name.lower().endswith(".cls"):
                labels[_sample(name)] = content.decode(errors="surrogateescape").strip() or None
    samples = {_sample(name) for name in found if is_image(name)}
    for name, place in found.items():
        sample = _sample(name)
        if sample in samples and not is_image(name):
            skipped[f"*{PurePosixPath(name).suffix.lower()}"] += 1
        else:
            yield Member(name, *place, labels.get(sample))


def _sample(name: str) -> str:
    """What the members of a WebDataset sample have in common: the name up to the first dot."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def list_parquet(path: Path, label_column: str) -> tuple[list[Any], list[str] | None]:
    """The labels of a Parquet file of images, and what numbers among them stand for, if it says."""
    with readable_as("Parquet", path, ANEW):
        file = _open(path)
        _image_leaf(file, path)
        if label_column not in (names := file.schema_arrow.names):
            raise InputError(
                f"{path}: has no column {label_column!r} (data.label_column); it has "
                f"{', '.join(map(printable, names))}: name another"
            )
        labels = file.read(columns=[label_column])[label_column].to_pylist()
        metadata = file.schema_arrow.metadata or {}
    try:  # the library `datasets` writes names
        said = json.loads(metadata[b"huggingface"])["info"]["features"][label_column]["names"]
        return labels, list(map(str, said))
    except (ValueError, KeyError, TypeError, RecursionError):
        return labels, None


def _image_leaf(file: parquet.ParquetFile, path: Path) -> str:
    """The bytes of the column `image`, or of the only column that has a field `bytes`."""
    leaves = {file.schema.column(number).path for number in range(len(file.schema.names))}
    found = [name for name in file.schema_arrow.names if f"{name}.bytes" in leaves]
    column = "image" if "image" in found else ", ".join(map(printable, found))
    if column not in found:
        which = f"several columns of images: {column}" if found else "no column of images (bytes)"
        raise InputError(f"{path}: has {which}: write the file with one that is called image")
    groups = map(file.metadata.row_group, range(file.num_row_groups))
    if (size := max((group.total_byte_size for group in groups), default=0)) > MOST_GROUP:
        raise InputError(
            f"{path}: a row group has {size} bytes, and one is read at a time: write it anew with "
            "fewer rows in each, as Dataset.to_parquet(path, batch_size=100) does"
        )
    return f"{column}.bytes"


def _open(path: Path) -> parquet.ParquetFile:
    from pyarrow import parquet

    path.stat()  # its error says more than pyarrow's
    return parquet.ParquetFile(path, pre_buffer=False, buffer_size=2**16)


def read(path: Path, offset: int, size: int) -> bytes:
    """The image at a place that was listed: a part of a tar, or a row of a Parquet file."""
    if is_parquet(path.name):
        return _read_row(path, offset)
    with path.open("rb", buffering=0) as file:  # a file of its own for every thread
        return os.pread(file.fileno(), size, offset)


_reading = threading.Lock()


@lru_cache(FOOTERS)
def _opened(path: Path, _state: tuple[int, int]) -> tuple[Any, str, list[int]]:
    """A Parquet file, its leaf of images, and the row groups' first rows and the number of rows."""
    file = _open(path)
    groups = map(file.metadata.row_group, range(file.num_row_groups))
    starts = list(accumulate((group.num_rows for group in groups), initial=0))
    return file, _image_leaf(file, path), starts


@lru_cache(GROUPS)
def _group(path: Path, state: tuple[int, int], number: int) -> Any:
    """The images of a row group."""
    file, leaf, _ = _opened(path, state)
    return file.read_row_group(number, columns=[leaf]).column(0)


def _read_row(path: Path, row: int) -> bytes:
    """The image in a row. Its whole row group is read and kept, for the rows beside it."""
    facts = path.stat()
    state = (facts.st_mtime_ns, facts.st_size)
    with readable_as("Parquet", path.name, ANEW):
        with _reading:  # one row group at a time, and no row group twice
            _, _, starts = _opened(path, state)
            number = bisect_right(starts, row) - 1
            image = _group(path, state, number)[row - starts[number]].as_py()
        if image is None or image["bytes"] is None:
            raise InputError(
                "a row without an image's bytes: write the images into the file, as "
                "Dataset.push_to_hub does"
            )
        return bytes(image["bytes"])
