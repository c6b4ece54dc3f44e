"""Artifacts on disk: written whole or not at all, byte-identical for identical content, checked when read."""

from __future__ import annotations

import csv
import errno
import fcntl
import glob
import hashlib
import importlib.metadata
import io
import itertools
import json
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from singflow.errors import InputError
from singflow.tables import BASIS

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = "1"
MEND = "remove it and run the workflow again"
TEXTS = ["space", "model", "model_a", "model_b", "label", "concept", "path", "prompt", "text", "note", "reason", "translator"]
TENSORS = {  # kind and dimensions of the artifacts' tensors
    **dict.fromkeys(["image_id", "view"], ("i", 1)),
    **dict.fromkeys(["bias", "singular_values", "feature_mean", "embedding_mean"], ("f", 1)),
    **dict.fromkeys(["features", "embeddings", "weight", "null_basis"], ("f", 2)),
    **dict.fromkeys(["label_embeddings", "concept_embeddings", "target_embeddings"], ("f", 2)),
}
COLUMNS = {  # of the tables of rows, with their kinds
    table: {name: kind for kind, names in kinds.items() for name in names.split()}
    for table, kinds in {
        "manifest": {"i": "image_id class_index width height", "O": "path label prompt split sha256"},
        "scores": {
            "i": "image_id class_index predicted_index", "O": "label",
            "f": "is_deg as_deg angle_original_deg angle_equivalent_deg null_energy logit_change control_is_deg control_as_deg",
        },
        "controls": {"i": "image_id dimension", "O": "subspace", "f": "is_deg as_deg as_abs_deg"},
        "neighbours": {"i": "image_id original_id equivalent_id", "f": "original_deg equivalent_deg"},
        "null_validation": {"i": "image_id", "O": "perturbation", "f": "norm logit_change softmax_change", "b": "top1_changed"},
        "pictures": {"O": "figure picture"},
        "rank_curves": {"O": "point", "f": "kept", "i": "rank null_dim"},
        "steering": {
            "i": "image_id", "O": "label prompt", "b": "reachable",
            "f": "target_is_deg step is_deg as_target_deg as_label_deg logit_change",
        },
    }.items()
}  # fmt: skip
KINDS = {"i": "integers", "f": "floats", "b": "truth values", "O": "texts"}

Tensors = dict[str, np.ndarray]


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that is moved into place when the block ends well, and removed otherwise.

    What a killed process left of the same file is removed. Raises InputError when the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_behind(path)
        handle, temporary = _locked_file(path)
        try:
            with os.fdopen(handle):
                yield temporary
                temporary.chmod(0o666 & ~_umask())
                with temporary.open("rb") as written:
                    os.fsync(written.fileno())
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk or your quota is full: free some space" if full else f"{error.strerror}: see to its folder"
        raise InputError(f"{path}: cannot be written, {reason}, then run the same again") from None


def _locked_file(path: Path) -> tuple[int, Path]:
    """A new file beside `path`, open and locked where the file system has locks."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        if Path(name).exists():  # not removed by another process between the two
            return handle, Path(name)
        os.close(handle)


def _remove_left_behind(path: Path) -> None:
    """Remove temporary files of `path` whose writer was killed: no process holds them locked."""
    for each in path.parent.glob(f".{glob.escape(path.name)}.*"):
        with suppress(OSError), each.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            each.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class Facts(dict[str, Any]):
    """What an artifact says of itself; looking up what it does not say raises InputError that names the file."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        super().__init__(content)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise InputError(f"{self.path}: says nothing of {key!r}: {MEND}")

    def of_kind(self, key: str, kind: Any) -> Any:
        """A fact of the given type."""
        return self._checked(key, self[key], kind)

    def parsed(self, key: str, kind: Any) -> Any:
        """A fact of the given type that is written as JSON, as those in the header of safetensors are."""
        try:
            return self._checked(key, json.loads(self[key]), kind)
        except (TypeError, ValueError, RecursionError):
            raise InputError(f"{self.path}: {key} is {self[key]!r}, not JSON: {MEND}") from None

    def _checked(self, key: str, fact: Any, kind: Any) -> Any:
        if not isinstance(fact, kind) or (isinstance(fact, list) and not all(isinstance(each, str) for each in fact)):
            raise InputError(f"{self.path}: {key} is {fact!r}: {MEND}")
        return fact


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys; NaN is refused because JSON has none."""
    write_bytes(path, (json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Facts:
    """Read a JSON object, or raise InputError that names the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_hook=partial(Facts, path))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}): {MEND}") from None
    if not isinstance(content, Facts):
        raise InputError(f"{path}: holds no JSON object: {MEND}")
    return content


def read_names(path: Path) -> Facts:
    """Lists of labels, concepts and targets of prompts/<space>.json; raises InputError as read_json does."""
    names = read_json(path)
    for key in names:
        names.of_kind(key, list)
    return names


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV table."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def read_table(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """A table of the study: labels and other texts are what they are, whether they look like numbers or like nothing.

    Raises InputError that names the file when it cannot be read or lacks one of the columns.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(TEXTS, str))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as CSV ({error}): {MEND}") from None
    if missing := [column for column in columns if column not in table]:
        raise InputError(f"{path}: has no column {', '.join(missing)}: {MEND}")
    return table


def read_models(path: Path, columns: Sequence[str] = BASIS) -> pd.DataFrame:
    """tables/models.csv; raises InputError as read_table does. columns: those that it must have besides space and model."""
    return read_table(path, ["space", "model", *columns])


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV."""
    write_bytes(path, table.to_csv(index=False, lineterminator="\n").encode())


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a table of rows, without its index."""
    with atomic(path) as temporary:
        frame.to_parquet(temporary, index=False)


def read_parquet(path: Path, kind: str | None = None) -> pd.DataFrame:
    """Read a table of rows, or raise InputError that names the file, also when it is not of a kind of COLUMNS."""
    import pandas as pd

    with parquet_errors(path):
        frame = pd.read_parquet(path)
    for column, letter in COLUMNS[kind].items() if kind else ():
        if column not in frame or (len(frame) and frame[column].dtype.kind != letter):
            raise InputError(f"{path}: has no column {column!r} of {KINDS[letter]}: {MEND}")
    return frame


def read_manifest(path: Path) -> pd.DataFrame:
    """Read the manifest, or raise InputError that names it, also when its images are not 0, 1, 2, ... below the data root."""
    manifest = read_parquet(path, "manifest")
    if not np.array_equal(manifest["image_id"], np.arange(len(manifest))):
        raise InputError(f"{path}: image_id does not count 0, 1, 2, ...: {MEND}")
    for place in manifest["path"][manifest["path"].str.contains(r"^/|(?:^|/)\.\.(?:/|$)", na=True)]:
        raise InputError(f"{path}: {place!r} leads out of the data root: {MEND}")
    return manifest


def write_row_groups(path: Path, frames: Iterable[pd.DataFrame]) -> None:
    """Write a table that need not fit into memory: one row group for each frame, all with the same columns.

    Categories are written as the strings that they stand for.
    """
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    def plain(frame: pd.DataFrame) -> Any:
        table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()
        kinds = [(field.name, pa.string() if pa.types.is_dictionary(field.type) else field.type) for field in table.schema]
        return table.cast(pa.schema(kinds))

    tables = map(plain, frames)
    first = next(tables)
    with atomic(path) as temporary, parquet.ParquetWriter(temporary, first.schema, store_schema=False) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table, row_group_size=len(table))


def iterate_row_groups(path: Path, categories: Sequence[str], columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
    """One row group after the other of a table that need not fit into memory; the strings in `categories` come as categories.

    Raises InputError that names the file when it cannot be read.
    """
    from pyarrow import parquet

    with parquet_errors(path):
        file = parquet.ParquetFile(path, read_dictionary=list(categories))
    if missing := {*categories, *(columns or ())} - set(file.schema_arrow.names):
        raise InputError(f"{path}: has no column {', '.join(sorted(missing))}: {MEND}")
    for group in range(file.num_row_groups):
        with parquet_errors(path):
            frame = file.read_row_group(group, columns).to_pandas()
        yield frame


def read_rows(path: Path, column: str, values: Sequence[str]) -> pd.DataFrame:
    """The rows of a table whose `column` holds one of the values; no more than a row group and these rows are in memory."""
    import pandas as pd

    parts = [frame[frame[column].isin(values)] for frame in iterate_row_groups(path, [column])]
    return pd.concat(parts, ignore_index=True).astype({column: str})


@contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """What a damaged Parquet file makes pyarrow raise becomes InputError that names the file."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 (pyarrow raises whatever damaged bytes provoke)
        raise InputError(f"{path}: not readable as Parquet ({error}): {MEND}") from None


def provenance(packages: Sequence[str], **facts: Any) -> dict[str, str]:
    """Metadata of an artifact: schema version, the facts given, and the versions of the packages that made it."""
    versions = {name: importlib.metadata.version(name) for name in sorted({"singflow", "numpy", *packages})}
    return {
        "schema_version": SCHEMA_VERSION,
        "software": json.dumps(versions, sort_keys=True),
        **{name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in facts.items()},
    }


def write_tensors(path: Path, tensors: Tensors, metadata: dict[str, str]) -> None:
    """Write safetensors with the header's keys in a fixed order (the library's own order is random)."""
    from safetensors.numpy import save

    payload = save({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}, metadata)
    (length,) = struct.unpack("<Q", payload[:8])
    header = json.dumps(json.loads(payload[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(header)))
        file.write(header)
        file.write(memoryview(payload)[8 + length :])


def sha256_of(path: Path) -> str:
    """Hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def md5_of(path: Path) -> str:
    """DVC's hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def read_tensors(path: Path, names: Sequence[str]) -> tuple[Tensors, Facts]:
    """Tensors and metadata of a safetensors file.

    Raises InputError when the file is missing, corrupt, lacks a tensor, or holds one of other types or dimensions than TENSORS
    says, or non-finite values.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            missing = sorted(set(names) - set(file.keys()))
            if missing:
                raise InputError(f"{path}: holds no tensor {', '.join(missing)}: {MEND}")
            tensors = {name: file.get_tensor(name) for name in names}
            metadata = Facts(path, file.metadata() or {})
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 (types that NumPy lacks surface as many kinds)
        raise InputError(f"{path}: not readable as safetensors ({error}): {MEND}") from None
    for name, tensor in tensors.items():
        kind, dimensions = TENSORS.get(name, (tensor.dtype.kind, tensor.ndim))
        if (tensor.dtype.kind, tensor.ndim) != (kind, dimensions):
            raise InputError(f"{path}: {name} is {tensor.dtype} {tensor.shape}, not {KINDS[kind]} of {dimensions} dimensions: {MEND}")
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            row = int(np.argwhere(~np.isfinite(tensor))[0][0])
            raise InputError(f"{path}: {name} holds NaN or infinite values, first in row {row}: {MEND}")
    return tensors, metadata


def read_null_basis(path: Path) -> np.ndarray:
    """Null basis (d, k), float64, of a projector's file; raises InputError as read_tensors does."""
    return read_tensors(path, ["null_basis"])[0]["null_basis"]


def shard_path(folder: Path, shard: int) -> Path:
    """Where a shard of features or embeddings lies."""
    return folder / f"shard-{shard:05d}.safetensors"


def shard_rows(n_images: int, shard: int, shards: int) -> range:
    """The image ids of one shard: contiguous, sizes differing by one at most."""
    if shards > n_images:
        raise InputError(f"extraction.shards is {shards}, but there are only {n_images} images: lower it")
    return range(n_images * shard // shards, n_images * (shard + 1) // shards)


def iterate_shards(folder: Path, tensor: str, shards: int, manifest: pd.DataFrame, weights_sha256: str | None = None) -> Iterator[Tensors]:
    """One shard after the other, as {tensor, image_id, view}; at the end every image must have been seen.

    Raises InputError when a shard is unusable, when images of the manifest are missing, or when a shard was made with
    other weights than those given.
    """
    seen = np.zeros(len(manifest), dtype=np.int64)
    for shard in range(shards):
        path = shard_path(folder, shard)
        tensors, metadata = read_tensors(path, [tensor, "image_id", "view"])
        if weights_sha256 is not None and metadata.get("weights_sha256") != weights_sha256:
            raise InputError(f"{path}: was made with other weights than the head: remove the folder and run the workflow again")
        identifiers = tensors["image_id"]
        if len({len(each) for each in tensors.values()}) > 1:
            raise InputError(f"{path}: its tensors differ in length: {MEND}")
        if len(identifiers) and not 0 <= identifiers.min() <= identifiers.max() < len(manifest):
            raise InputError(f"{path}: holds images that the manifest does not: {MEND}")
        np.add.at(seen, identifiers[tensors["view"] == 0], 1)
        yield tensors
    if not (seen == 1).all():
        wrong = int(np.flatnonzero(seen != 1)[0])
        raise InputError(
            f"{folder}: image {wrong} occurs {seen[wrong]} times instead of once: remove the folder and run the workflow again"
        )


def in_blocks(rows: np.ndarray, size: int = 4096) -> list[np.ndarray]:
    """Rows in their order, in blocks of nearly equal size, none above `size`; one empty block where there are none."""
    return np.array_split(rows, max(1, -(-len(rows) // size)))


def iterate_whole(folder: Path, tensor: str, shards: int, manifest: pd.DataFrame) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Image ids (n,) and view 0 of their images (n, width), a shard at a time; raises InputError as iterate_shards does."""
    for each in iterate_shards(folder, tensor, shards, manifest):
        whole = each["view"] == 0
        yield each["image_id"][whole], each[tensor][whole]


def read_whole(folder: Path, tensor: str, shards: int, n_images: int, image_id: Sequence[int]) -> np.ndarray:
    """View 0 of the given images (n, width), in their order; only their rows are read.

    Raises InputError when a shard is unusable or lacks an image.
    """
    from safetensors import SafetensorError, safe_open

    found = {}
    for shard in range(shards):
        wanted = set(image_id) & set(shard_rows(n_images, shard, shards))
        if not wanted:
            continue
        path = shard_path(folder, shard)
        places, _ = read_tensors(path, ["image_id", "view"])
        try:
            with safe_open(path, framework="numpy") as file:
                rows = file.get_slice(tensor)
                for row in np.flatnonzero((places["view"] == 0) & np.isin(places["image_id"], list(wanted))):
                    found[int(places["image_id"][row])] = rows[int(row) : int(row) + 1][0]
        except (SafetensorError, ValueError, IndexError) as error:
            raise InputError(f"{path}: holds no {tensor} of its images ({error}): {MEND}") from None
    if missing := set(image_id) - set(found):
        raise InputError(f"{folder}: image {min(missing)} is missing: remove the folder and run the workflow again")
    return np.stack([found[each] for each in image_id])


def iterate_pairs(features: Path, embeddings: Path, shards: int, manifest: pd.DataFrame) -> Iterator[tuple[Tensors, np.ndarray]]:
    """Feature shards with the embeddings of the same rows; raises InputError when rows differ."""
    for shard, (left, right) in enumerate(
        zip(
            iterate_shards(features, "features", shards, manifest),
            iterate_shards(embeddings, "embeddings", shards, manifest),
            strict=True,
        )
    ):
        if not (np.array_equal(left["image_id"], right["image_id"]) and np.array_equal(left["view"], right["view"])):
            places = f"{shard_path(features, shard)} and {shard_path(embeddings, shard)}"
            raise InputError(f"{places} hold different rows: remove both and run the workflow again")
        yield left, right["embeddings"]
