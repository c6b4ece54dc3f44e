"""Archives of images, tar and Parquet: find them, list members in one pass, read parts of them.

Nothing is ever unpacked.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from singflow.data.reading import is_litter
from singflow.errors import InputError, printable
from singflow.system import regular

if TYPE_CHECKING:
    from pyarrow import parquet  # type: ignore[import-untyped]

TAR, PARQUET = (".tar",), (".parquet", ".pq")
# First bytes of a compressed file, which has no random access -> command that unpacks it.
PACKED = {
    b"\x1f\x8b": "gunzip -k",
    b"BZh": "bunzip2 -k",
    b"\xfd7zXZ\0": "unxz -k",
    b"\x28\xb5\x2f\xfd": "unzstd",
    b"PK\x03\x04": "unzip",
}
IMAGES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".gif",
    ".bmp",
    ".dib",
    ".tif",
    ".tiff",
)
SIDECARS = (".cls", ".json")  # files of a WebDataset sample that may state its label
# Most bytes of a member's name and attributes, and of a sidecar that is read.
MOST_HEADER, MOST_SIDECAR = 2**20, 2**16
MOST_GROUP = 2**30  # most bytes of images in a row group
# Row groups, and lists of row groups, in memory: threads that read ahead need two row groups.
GROUPS, FOOTERS = 2, 16
# An archive of up to WHOLE bytes is fingerprinted whole, a larger one by SAMPLES of SAMPLE bytes.
WHOLE, SAMPLES, SAMPLE = 2**20, 16, 2**14
COUNTED = 500  # members of a tar from which the number of its images is estimated
BLOCK = tarfile.BLOCKSIZE
ATTRIBUTE = "archives"  # of the manifest: the fingerprint of its archives


class Damaged(Exception):
    """An unusable archive or part of one. The message is the reason and, after a colon, the fix."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a tar.

    offset: of its first byte; size: in bytes; unusable: why its content cannot be used, else empty;
    head: the content of a sidecar, else empty.
    """

    name: str
    offset: int
    size: int
    unusable: str = ""
    head: bytes = b""


def find_archives(root: Path, patterns: Sequence[str]) -> list[str]:
    """The archives that match the patterns: sorted, relative to the root, without litter.

    InputError is raised for a pattern that matches no file, and for a file that cannot be read in
    place.
    """
    if not patterns:
        raise InputError(
            "data.source archive needs data.archives: tar or Parquet files, or globs, as in "
            "archives: [train-*.tar]"
        )
    for pattern in patterns:
        fitting = list(_fitting(root, [pattern]))
        if not fitting:
            raise InputError(
                f"data.archives: {pattern}: no file below {root} has such a name: correct it, or "
                "data.root"
            )
        for path in fitting:
            _check_kind(root / path)
    return _fitting(root, patterns)


def _fitting(root: Path, patterns: Sequence[str]) -> list[str]:
    found = {
        path
        for pattern in patterns
        for path in root.glob(pattern)
        if not is_litter(path.name) and not path.is_dir()
    }
    return sorted(path.relative_to(root).as_posix() for path in found)


def _check_kind(path: Path) -> None:
    """Raise InputError for a file that cannot be read in place, as a compressed archive."""
    if str(path) != printable(str(path)):
        raise InputError(f"{path}: name is not UTF-8 or holds control characters: rename the file")
    try:
        with regular(path).open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise InputError(
            f"{path}: not readable: {error.strerror}: correct data.archives, or the permissions "
            "of the file"
        ) from None
    command = next((command for magic, command in PACKED.items() if start.startswith(magic)), None)
    if command:
        raise InputError(
            f"{path}: is compressed, so that no image can be read without all before it (images "
            f"are compressed already): unpack it with `{command} {path.name}`, and name the .tar"
        )
    if path.suffix.lower() not in (*TAR, *PARQUET):
        raise InputError(
            f"{path}: neither a .tar nor a .parquet file: name archives alone in data.archives, "
            "as in [train-*.tar]"
        )


def is_parquet(archive: str) -> bool:
    return PurePosixPath(archive).suffix.lower() in PARQUET


def is_image(name: str) -> bool:
    """Whether a file name ends like that of an image, in any case."""
    return PurePosixPath(name).suffix.lower() in IMAGES


def expected(root: Path, patterns: Sequence[str], looked_at: int) -> int:
    """Estimate how many images a study's archives hold, from the first members of some archives.

    At most `looked_at` archives are opened. Damaged archives count as empty.
    """
    archives = _fitting(root, patterns)
    some = archives[:: -(-len(archives) // looked_at)] if archives else []
    return round(
        len(archives) * sum(_expected_of(root / archive) for archive in some) / max(len(some), 1)
    )


def _expected_of(path: Path) -> float:
    images, end = 0, 1
    try:
        if is_parquet(path.name):
            return float(_open(path).metadata.num_rows)
        size = path.stat().st_size
        for number, member in enumerate(tar_members(path), start=1):
            images, end = images + is_image(member.name), member.offset + member.size
            if number == COUNTED:
                return images * size / end
    except Exception:  # noqa: BLE001 (damaged bytes raise anything; the step that reads them reports it)
        return 0.0
    return float(images)


def archive_fingerprint(root: Path, archives: Sequence[str]) -> str:
    """SHA-256 of the archives' names, sizes and contents, whatever their folder and times.

    Of an archive larger than WHOLE only SAMPLES parts are read. A change between these parts is
    noticed when the changed image is read.
    """
    digest = hashlib.sha256()
    for archive in archives:
        with (root / archive).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            places = (
                [0]
                if size <= WHOLE
                else [(size - SAMPLE) * part // (SAMPLES - 1) for part in range(SAMPLES)]
            )
            digest.update(f"{archive}\0{size}\n".encode())
            for place in places:
                file.seek(place)
                digest.update(file.read(WHOLE if size <= WHOLE else SAMPLE))
    return digest.hexdigest()


def state(root: Path, patterns: Sequence[str], manifest: Path) -> str | None:
    """The fingerprint of a study's archives, on which both engines let its manifest depend.

    If no archive is here, because a colleague has the results only, it is the fingerprint that the
    manifest keeps. None means that the manifest has none either.
    """
    from pyarrow import ArrowException, parquet

    try:
        if archives := _fitting(root, patterns):
            return archive_fingerprint(root, archives)
        made_of = (
            (parquet.read_schema(manifest).pandas_metadata or {}).get("attributes", {})
            if patterns
            else {}
        )
    except (OSError, ArrowException):
        return None
    return made_of.get(ATTRIBUTE)


class _Headers:
    """A part of a file, as tarfile reads it.

    It refuses to read more than MOST_HEADER bytes at once, so that no content gets into memory.
    """

    def __init__(self, file: io.BufferedReader, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def read(self, size: int) -> bytes:
        if size > MOST_HEADER:
            raise Damaged(f"a header of {size} bytes at byte {self._start + self._at}")
        self._file.seek(self._start + self._at)
        content = self._file.read(max(0, min(size, self._size - self._at)))
        self._at += len(content)
        return content

    def seek(self, place: int) -> int:
        self._at = place
        return place

    def tell(self) -> int:
        return self._at


def tar_members(path: Path) -> Iterator[Member]:
    """Members of a tar, except folders, in one pass that reads headers and skips contents.

    Members of a tar inside the tar, as in ImageNet, are yielded, too: their names begin with the
    inner tar's name. A tar that is cut raises Damaged, at the end.
    """
    with path.open("rb") as file:
        yield from _members(file, 0, path.stat().st_size, "", inner=False)


def _members(
    file: io.BufferedReader, start: int, size: int, prefix: str, *, inner: bool
) -> Iterator[Member]:
    view = _Headers(file, start, size)
    fix = "it is cut or damaged: fetch or pack it anew, or take it out of data.archives"
    with _tar_errors(fix), tarfile.open(fileobj=view, mode="r:", encoding="utf-8") as tar:  # type: ignore[call-overload]
        while True:
            before = tar.offset
            info = tar.next()
            if info is None:
                break
            tar.members.clear()  # the list would grow with the archive
            if info.size < 0 or tar.offset <= min(before, info.offset):
                raise Damaged(f"member sizes make no sense at byte {start + info.offset}: {fix}")
            if info.isdir():
                continue
            place, name = start + info.offset_data, prefix + info.name
            if info.isreg() and not info.issparse():
                if start + size < place + info.size:
                    raise Damaged(f"ends within {printable(name)}: {fix}")
                if not inner and info.name.lower().endswith(TAR):
                    yield from _members(file, place, info.size, f"{name}/", inner=True)
                    continue
            head = b""
            if info.name.lower().endswith(SIDECARS) and info.isreg() and info.size <= MOST_SIDECAR:
                file.seek(place)
                head = file.read(info.size)
            yield Member(name, place, info.size, _kind(info), head)
        view.seek(tar.offset)
        rest = view.read(MOST_HEADER)
        if rest[:BLOCK] != bytes(BLOCK):  # tarfile takes an invalid header for the end
            raise Damaged(
                f"no end of the archive, and no member, at byte {start + tar.offset}: {fix}"
            )
        if rest.strip(b"\0"):
            raise Damaged(
                f"goes on after its end at byte {start + tar.offset}, as joined tars do: keep "
                "them apart, and name each"
            )


def _kind(info: tarfile.TarInfo) -> str:
    """Why a member has no content of its own. Empty for a regular file."""
    if info.issparse():
        return "a sparse file of a tar: pack it without --sparse"
    if info.issym() or info.islnk():
        return "a link in a tar: pack it with tar --dereference --hard-dereference"
    return "" if info.isreg() else "not a regular file"


@contextmanager
def _tar_errors(fix: str) -> Iterator[None]:
    try:
        yield
    except (Damaged, OSError):
        raise
    except Exception as error:  # noqa: BLE001 (tarfile raises whatever damaged bytes provoke)
        raise Damaged(f"not readable as tar ({printable(str(error))}): {fix}") from None


@dataclass(frozen=True)
class Labelled:
    """Labels of the rows of a Parquet file.

    labels: None for a row without a label; names: what numbers among the labels stand for, if the
    file says it.
    """

    labels: list[Any]
    names: list[str] | None


def parquet_rows(path: Path, label_column: str) -> Labelled:
    """Read the labels of a Parquet file of images. The images themselves are not read."""
    with _parquet_errors():
        file = _open(path)
        image_column(file, path)
        if label_column not in file.schema_arrow.names:
            raise InputError(
                f"{path}: has no column {label_column!r} (data.label_column); it has "
                f"{', '.join(file.schema_arrow.names)}"
            )
        labels = [
            label
            for batch in file.iter_batches(columns=[label_column])
            for label in (batch.column(0).to_pylist() if batch.num_columns else [])
        ]
        if len(labels) != file.metadata.num_rows:
            raise Damaged(
                f"has {len(labels)} labels for {file.metadata.num_rows} rows: write it anew"
            )
        features = _features(file).get(label_column)
    names = features.get("names") if isinstance(features, dict) else None
    return Labelled(
        labels,
        names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None,
    )


def image_column(file: parquet.ParquetFile, path: Path) -> str:
    """The column of a Parquet file with images: `image`, or the only one with a field `bytes`.

    A row group with more than MOST_GROUP bytes of images raises InputError.
    """
    import pyarrow as pa

    found = [
        field.name
        for field in file.schema_arrow
        if pa.types.is_struct(field.type)
        and field.type.get_field_index("bytes") >= 0
        and _is_bytes(field.type.field("bytes").type)
    ]
    if "image" not in found and len(found) != 1:
        which = (
            f"several columns of images: {', '.join(found)}"
            if found
            else "no column of images (bytes, path)"
        )
        raise InputError(f"{path}: has {which}: write the file with one that is called image")
    column = "image" if "image" in found else found[0]
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        chunks = (group.column(index) for index in range(group.num_columns))
        size = sum(
            chunk.total_uncompressed_size
            for chunk in chunks
            if chunk.path_in_schema == f"{column}.bytes"
        )
        if size > MOST_GROUP:
            raise InputError(
                f"{path}: a row group has {size} bytes of images, and one is read at a time: "
                "write it anew with fewer rows in each, as Dataset.to_parquet(path, "
                "batch_size=100) does"
            )
    return column


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    return (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or (pa.types.is_dictionary(kind) and _is_bytes(kind.value_type))
    )


def _features(file: parquet.ParquetFile) -> dict[str, Any]:
    """The features that the library `datasets` describes in the schema. Empty if there are none."""
    try:
        content = json.loads((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
        features = content["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _open(path: Path, **options: Any) -> parquet.ParquetFile:
    from pyarrow import parquet

    path.stat()  # its error says more than pyarrow's
    return parquet.ParquetFile(path, **options)


@contextmanager
def _parquet_errors() -> Iterator[None]:
    try:
        yield
    except (Damaged, InputError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise
        raise Damaged(
            f"not readable as Parquet ({printable(str(error))}): fetch or write it anew"
        ) from None


_reading = threading.Lock()


@lru_cache(FOOTERS)
def _starts(path: Path, _state: tuple[int, int]) -> list[int]:
    """The first row of every row group, and then the number of rows."""
    metadata = _open(path).metadata
    return [
        0,
        *accumulate(
            metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)
        ),
    ]


@lru_cache(GROUPS)
def _group(path: Path, _state: tuple[int, int], number: int) -> Any:
    """The images of a row group as a dictionary: a content that is repeated is held once."""
    column = image_column(_open(path), path)
    leaf = f"{column}.bytes"
    return (
        _open(path, read_dictionary=[leaf], pre_buffer=False, buffer_size=2**16)
        .read_row_group(number, columns=[leaf])
        .column(0)
    )


def read_row(path: Path, row: int) -> bytes:
    """The image in a row. Its whole row group is read and kept, for the rows beside it."""
    facts = path.stat()
    state = (facts.st_mtime_ns, facts.st_size)
    with _parquet_errors():
        with _reading:  # one row group at a time, and no row group twice
            starts = _starts(path, state)
            number = bisect_right(starts, row) - 1
            if not 0 <= number < len(starts) - 1:
                raise Damaged(f"no row {row}: fetch or write it anew")
            image = _group(path, state, number)[row - starts[number]]
        content = image.as_py()["bytes"] if image.is_valid else None
    if content is None:
        raise Damaged(
            "a row without an image's bytes: write the images into the file, as "
            "Dataset.push_to_hub does"
        )
    return bytes(content)


def read_bytes(path: Path, offset: int, size: int) -> bytes:
    """A part of a file. A file that ends before raises Damaged."""
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read(size)
    if len(content) < size:
        raise Damaged(
            f"{path.name} ends at byte {offset + len(content)}, before the image does: fetch or "
            "pack it anew"
        )
    return content
