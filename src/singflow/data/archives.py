"""Archives of images, tar and Parquet: find them, list members in one pass, read parts of them."""

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
from functools import lru_cache
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from singflow.data.reading import UNPRINTABLE, is_litter
from singflow.errors import InputError, printable, readable_as
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
IMAGES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"),
    *(".gif", ".bmp", ".dib", ".tif", ".tiff"),
}
SIDECARS = (".cls", ".json")  # files of a WebDataset sample that may state its label
# Most bytes of a member's headers, and of a sidecar that is read; most characters of a name.
MOST_HEADER, MOST_SIDECAR, MOST_NAME = 2**20, 2**16, 4096
MOST_GROUP = 2**30  # most bytes of images, or of labels, in a row group
LEAST_IMAGE = 30  # bytes; no file of an image is smaller
# Row groups, and footers, in memory: threads that read ahead need two row groups.
GROUPS, FOOTERS = 2, 16
# An archive of up to WHOLE bytes is fingerprinted whole, a larger one by SAMPLES of SAMPLE bytes.
WHOLE, SAMPLES, SAMPLE = 2**20, 16, 2**14
CUT = "it is cut or damaged: fetch or pack it anew, or take it out of data.archives"
COUNTED = 500  # members of a tar from which the number of its images is estimated
BLOCK = tarfile.BLOCKSIZE
ATTRIBUTE = "archives"  # of the manifest: the fingerprint of its archives


class Damaged(Exception):
    """An unusable archive or part of one. The message is the reason and, after a colon, the fix."""


class Member(NamedTuple):
    """A member of a tar."""

    name: str
    offset: int  # of its first byte
    size: int
    unusable: str = ""  # why its content cannot be used
    head: bytes = b""  # the content of a sidecar


def find_archives(root: Path, patterns: Sequence[str]) -> list[str]:
    """The archives that match the patterns: sorted, relative to the root, without litter."""
    for pattern in patterns:
        if not _fitting(root, [pattern]):
            raise InputError(
                f"data.archives: {pattern}: no file below {root} has such a name: correct it, or "
                "data.root"
            )
    archives = _fitting(root, patterns)
    for archive in archives:
        _check_kind(root / archive)
    return archives


def _fitting(root: Path, patterns: Sequence[str]) -> list[str]:
    found = {path for pattern in patterns for path in root.glob(pattern)}
    return sorted(
        path.relative_to(root).as_posix()
        for path in found
        if not is_litter(path.name) and not path.is_dir()
    )


def _check_kind(path: Path) -> None:
    """Refuse a file whose images cannot be read in place, such as a compressed archive."""
    if str(path) != printable(str(path)):
        raise InputError(f"{path}: {UNPRINTABLE}")
    fix = "correct data.archives, or the permissions of the file"
    with readable_as("an archive", path, fix), regular(path).open("rb") as file:
        start = file.read(8)
    for magic, command in PACKED.items():
        if start.startswith(magic):
            raise InputError(
                f"{path}: is compressed, so that no image can be read without all before it "
                f"(images are compressed already): unpack it with `{command} {path.name}`, and "
                "name the .tar"
            )
    if path.suffix.lower() not in (*TAR, *PARQUET):
        raise InputError(
            f"{path}: neither a .tar nor a .parquet file: name archives alone in data.archives, as "
            "in [train-*.tar]"
        )


def is_parquet(archive: str) -> bool:
    return PurePosixPath(archive).suffix.lower() in PARQUET


def is_image(name: str) -> bool:
    """Whether a file name ends like that of an image, in any case."""
    return PurePosixPath(name).suffix.lower() in IMAGES


def estimate_images(root: Path, patterns: Sequence[str], looked_at: int) -> int:
    """Estimate the number of images in archives, from the first members of `looked_at` archives."""
    archives = _fitting(root, patterns)
    some = archives[:: max(1, -(-len(archives) // looked_at))]
    images = sum(_estimate_of(root / archive) for archive in some)
    return round(len(archives) * images / max(len(some), 1))


def _estimate_of(path: Path) -> float:
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
            digest.update(f"{archive}\0{size}\n".encode())
            places, length = [0], WHOLE
            if size > WHOLE:
                places = [(size - SAMPLE) * part // (SAMPLES - 1) for part in range(SAMPLES)]
                length = SAMPLE
            for place in places:
                file.seek(place)
                digest.update(file.read(length))
    return digest.hexdigest()


def state(root: Path, patterns: Sequence[str], manifest: Path) -> str | None:
    """The fingerprint of a study's archives, or, where no archive is, the one in its manifest."""
    from pyarrow import ArrowException, parquet

    if not patterns:
        return None
    try:
        if archives := _fitting(root, patterns):
            return archive_fingerprint(root, archives)
        facts = parquet.read_schema(manifest).pandas_metadata or {}
    except (OSError, ArrowException):
        return None
    return cast("str | None", facts.get("attributes", {}).get(ATTRIBUTE))


class _Headers(io.BufferedReader):
    """A file for tarfile that ends at the byte `end`, and reads no contents into memory.

    left: bytes that may still be read for the headers of one member.
    """

    end: int
    left: int

    def read(self, size: int | None = -1, /) -> bytes:
        size = MOST_HEADER + 1 if size is None or size < 0 else size
        self.left -= size
        if self.left < 0:
            raise Damaged(f"headers of over {MOST_HEADER} bytes before byte {self.tell()}: {CUT}")
        return super().read(max(0, min(size, self.end - self.tell())))


def tar_members(path: Path) -> Iterator[Member]:
    """Members of a tar, except folders, in one pass that reads headers and skips contents.

    Members of a tar inside the tar, as in ImageNet, are yielded, too.
    """
    with path.open("rb", buffering=0) as raw, _Headers(raw) as file:
        yield from _members(file, 0, path.stat().st_size, "")


def _members(file: _Headers, start: int, end: int, prefix: str) -> Iterator[Member]:
    """Members of the tar between two bytes of a file. `prefix`: the name of an inner tar and /."""
    file.end = end
    file.left = MOST_HEADER
    file.seek(start)
    with _errors("tar", CUT), tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
        while True:
            before, file.left = tar.offset, MOST_HEADER
            info = tar.next()
            file.left = MOST_HEADER
            if info is None:
                break
            tar.members.clear()  # type: ignore[attr-defined]  # the list would grow with the archive
            if info.size < 0 or tar.offset <= min(before, info.offset):
                raise Damaged(f"member sizes make no sense at byte {info.offset}: {CUT}")
            if info.isdir():
                continue
            place, name = info.offset_data, prefix + info.name
            if len(name) > MOST_NAME:
                raise Damaged(f"a name of {len(name)} characters before byte {place}: {CUT}")
            if info.isreg() and not info.issparse():
                if end < place + info.size:
                    raise Damaged(f"ends within {printable(name)}: {CUT}")
                if not prefix and info.name.lower().endswith(TAR):
                    yield from _members(file, place, place + info.size, f"{name}/")
                    file.end = end
                    continue
            head = b""
            if info.name.lower().endswith(SIDECARS) and info.isreg() and info.size <= MOST_SIDECAR:
                file.seek(place)
                head = file.read(info.size)
            yield Member(name, place, info.size, _kind(info), head)
        file.seek(tar.offset)
        rest = file.read(MOST_HEADER)
        if rest[:BLOCK] != bytes(BLOCK):  # tarfile takes an invalid header for the end
            raise Damaged(f"no end of the archive, and no member, at byte {tar.offset}: {CUT}")
        if rest.strip(b"\0"):
            raise Damaged(
                f"goes on after its end at byte {tar.offset}, as joined tars do: keep them apart, "
                "and name each"
            )


def _kind(info: tarfile.TarInfo) -> str:
    """Why a member has no content of its own. Empty for a regular file."""
    if info.issparse():
        return "a sparse file of a tar: pack it without --sparse"
    if info.issym() or info.islnk():
        return "a link in a tar: pack it with tar --dereference --hard-dereference"
    return "" if info.isreg() else "not a regular file"


@contextmanager
def _errors(kind: str, fix: str) -> Iterator[None]:
    """Raise Damaged for whatever damaged bytes provoke; errors of the disk stay what they are."""
    try:
        yield
    except (Damaged, InputError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise
        raise Damaged(f"not readable as {kind} ({printable(str(error))}): {fix}") from None


def parquet_rows(path: Path, label_column: str) -> tuple[list[Any], list[str] | None]:
    """The labels of a Parquet file of images, and the names that numbers among them stand for."""
    with _errors("Parquet", "fetch or write it anew"):
        file = _open(path)
        image_column(file, path)
        leaves = {file.schema.column(number).path for number in range(len(file.schema.names))}
        # it is not there, or holds other columns
        if label_column not in leaves.intersection(file.schema_arrow.names):
            raise InputError(
                f"{path}: has no column {label_column!r} of numbers or texts (data.label_column); "
                f"it has {', '.join(map(printable, file.schema_arrow.names))}: name another"
            )
        _check_groups(file, path, label_column, "labels")
        rows, size = file.metadata.num_rows, path.stat().st_size
        if rows * LEAST_IMAGE > size:
            raise Damaged(f"has {rows} rows in {size} bytes, too few for images: write it anew")
        file = _open(path, metadata=file.metadata, read_dictionary=[label_column])
        batches = file.iter_batches(columns=[label_column])
        labels = [label for batch in batches for label in _values(batch[label_column])]
        if len(labels) != rows:
            raise Damaged(f"has {len(labels)} labels for {rows} rows: write it anew")
        return labels, _class_names(file, label_column)


def _values(column: Any) -> list[Any]:
    """The values of a column. A text that is repeated is in memory once."""
    import pyarrow as pa

    if not isinstance(column, pa.DictionaryArray):
        return list(column.to_pylist())
    texts = column.dictionary.to_pylist()
    return [None if index is None else texts[index] for index in column.indices.to_pylist()]


def image_column(file: parquet.ParquetFile, path: Path) -> str:
    """The column of a Parquet file with images: `image`, or the only one with a field `bytes`."""
    import pyarrow as pa

    found = [
        field.name
        for field in file.schema_arrow
        if pa.types.is_struct(field.type)
        and field.type.get_field_index("bytes") >= 0
        and _is_bytes(field.type.field("bytes").type)
    ]
    column = "image" if "image" in found else ", ".join(map(printable, found))
    if column not in found:
        which = (
            f"several columns of images: {column}" if found else "no column of images (bytes, path)"
        )
        raise InputError(f"{path}: has {which}: write the file with one that is called image")
    _check_groups(file, path, f"{column}.bytes", "images")
    return column


def _check_groups(file: parquet.ParquetFile, path: Path, leaf: str, what: str) -> None:
    """Refuse row groups that would take too much memory."""
    for group in map(file.metadata.row_group, range(file.num_row_groups)):
        chunks = map(group.column, range(group.num_columns))
        of_leaf = (chunk for chunk in chunks if chunk.path_in_schema == leaf)
        size = sum(chunk.total_uncompressed_size for chunk in of_leaf)
        if size > MOST_GROUP:
            raise InputError(
                f"{path}: a row group has {size} bytes of {what}, and one is read at a time: "
                "write it anew with fewer rows in each, as Dataset.to_parquet(path, "
                "batch_size=100) does"
            )


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    return (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or (pa.types.is_dictionary(kind) and _is_bytes(kind.value_type))
    )


def _class_names(file: parquet.ParquetFile, column: str) -> list[str] | None:
    """The names of a column's classes, if the library `datasets` wrote them into the schema."""
    try:
        content = json.loads((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
        names = content["info"]["features"][column]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    known = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if known else None


def _open(path: Path, **options: Any) -> parquet.ParquetFile:
    from pyarrow import parquet

    path.stat()  # its error says more than pyarrow's
    return parquet.ParquetFile(path, **options)


_reading = threading.Lock()


@lru_cache(FOOTERS)
def _footer(path: Path, _state: tuple[int, int]) -> tuple[Any, str, list[int]]:
    """The metadata, the leaf with images, and the row groups' first rows and the number of rows."""
    file = _open(path)
    groups = map(file.metadata.row_group, range(file.num_row_groups))
    starts = list(accumulate((group.num_rows for group in groups), initial=0))
    return file.metadata, f"{image_column(file, path)}.bytes", starts


@lru_cache(GROUPS)
def _group(path: Path, state: tuple[int, int], number: int) -> Any:
    """The images of a row group as a dictionary: a content that is repeated is held once."""
    metadata, leaf, _ = _footer(path, state)
    file = _open(
        path, metadata=metadata, read_dictionary=[leaf], pre_buffer=False, buffer_size=2**16
    )
    return file.read_row_group(number, columns=[leaf]).column(0)


def read_row(path: Path, row: int) -> bytes:
    """The image in a row. Its whole row group is read and kept, for the rows beside it."""
    facts = path.stat()
    state = (facts.st_mtime_ns, facts.st_size)
    with _errors("Parquet", "fetch or write it anew"):
        with _reading:  # one row group at a time, and no row group twice
            _, _, starts = _footer(path, state)
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
