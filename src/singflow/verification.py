"""Whether one result tree is the same as another: artifact by artifact, in the order of the pipeline, within stated tolerances."""

import hashlib
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from singflow.config import read_yaml
from singflow.errors import InputError
from singflow.store import read_json

ORDER = (
    "data", "registry", r"features/[^/]+/head", "features", "embeddings", "prompts", "projectors", "translators", "controls", "scores",
    "rank_curves", "null_validation", "concepts", "steering", "probes", "neighbours", "pictures", "tables", "metrics", "figures", "report",
)  # fmt: skip
NOT_ARTIFACTS = ("logs", "benchmarks")
BLOCK = 4096  # rows of a tensor that are in memory at once
LEVELS = 16  # of 255, by which a channel of a pixel may differ
PIXELS = 0.02  # share of the pixels of a picture that may differ by more than LEVELS: a line that moves by a fraction of a pixel
FLIPS = {"predicted_index", "top1_changed", "original_id", "equivalent_id", "neighbour_id", "place", "concept", "leaks", "differ"}
FLIPPED = 0.01  # share of the rows of a table, rounded up, in which a choice among FLIPS may fall otherwise
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


class Tolerance(NamedTuple):
    """A number may differ by absolute + relative * scale; scale: its own size, its row's norm, or the root mean square of its tensor."""

    files: str
    fields: str
    absolute: float
    relative: float
    scale: str
    why: str


TOLERANCES = (
    Tolerance("features/.*/shard|embeddings/", "features|embeddings", 0, 1e-4, "row", "float32 sums of a network: kernels, batches, CUDA"),
    Tolerance("features/.*/head", ".*", 0, 0, "value", "copied out of the weights"),
    Tolerance("features/|embeddings/", "head_max_error", 1e-3, 0, "value", "rounding itself, in logits"),
    Tolerance("prompts/", ".*_embeddings", 0, 1e-4, "row", "float32 sums of a text tower"),
    Tolerance("projectors/", "null_basis", 1e-6, 0, "value", "sine of the largest angle between the spans: a basis is free to rotate"),
    Tolerance("projectors/", "singular_values", 0, 1e-6, "value", "float64 sums"),
    Tolerance("translators/.*/linear.safetensors", ".*", 0, 1e-2, "tensor", "a linear system, solved out of float32 features"),
    Tolerance("translators/.*safetensors", ".*", 0, 1e-1, "tensor", "rounding that every step of training makes larger"),
    Tolerance(".*", ".*logit.*|max_logit_change|orthonormality_error", 1e-4, 1e-3, "value", "of null parts: rounding alone, in logits"),
    Tolerance(".*", ".*_p|.*_q|p|p_holm|.*spearman|.*kendall|.*pearson", 2e-2, 0, "value", "counts of permutations that ties may flip"),
    Tolerance(".*", ".*mse|.*loss", 0, 1e-2, "value", "mean squares of small numbers"),
    Tolerance(".*", ".*r2|.*cosine|energy|.*share|accuracy.*|gain.*", 1e-3, 0, "value", "shares and cosines, between 0 and 1"),
    Tolerance(".*", ".*", 1e-2, 1e-3, "value", "degrees, and what is computed from them"),
)  # fmt: skip


def tolerance_of(name: str, field: str) -> Tolerance:
    """The first tolerance in the table that fits an artifact and a tensor, column or key of it."""
    return next(each for each in TOLERANCES if re.match(each.files, name) and re.fullmatch(each.fields, field))


class Verdict(StrEnum):
    """What is said of one artifact."""

    IDENTICAL = "identical"
    EQUAL = "equal in content"
    WITHIN = "within tolerance"
    NOTED = "other bytes, sources within tolerance"
    DIFFERS = "differs"
    MISSING_HERE = "missing here"
    MISSING_THERE = "missing there"
    EXTRA = "extra"


GOOD = (Verdict.IDENTICAL, Verdict.EQUAL, Verdict.WITHIN, Verdict.NOTED)


class Deviation(NamedTuple):
    """A place where two artifacts differ: by how much, and by how much they may."""

    where: str
    here: str
    there: str
    size: float = math.inf
    allowed: float = 0.0

    @property
    def share(self) -> float:
        """Share of the tolerance that is used up; above 1: too much."""
        return self.size / self.allowed if self.allowed else math.inf

    def __str__(self) -> str:
        far = f", {self.size:.2g} apart, tolerance {self.allowed:.2g}" if math.isfinite(self.size) else ""
        return f"{self.where}: {self.here} here, {self.there} there{far}"


class Finding(NamedTuple):
    """The verdict on an artifact, the place that decides it (first that differs, or largest deviation), and notes."""

    name: str
    verdict: Verdict
    place: Deviation | None = None
    notes: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether the artifact counts as the same."""
        return self.verdict in GOOD


Found = Iterator[Deviation | str]  # deviations in the order of the file, and notes


def artifacts(tree: Path) -> list[str]:
    """Paths of a tree's artifacts, relative to it. Raises InputError when there is no such folder."""
    if not tree.is_dir():
        raise InputError(f"{tree}: no such folder: run the study, or name its results with --results")
    paths = (path.relative_to(tree) for path in tree.rglob("*") if path.is_file() and not path.name.startswith("."))
    return [path.as_posix() for path in paths if path.parts[0] not in NOT_ARTIFACTS]


def locked(lock: Path, study: str) -> dict[str, str]:
    """MD5 of every artifact of a study in dvc.lock, by its path below results/<study>/.

    Raises InputError when the file is unusable or knows nothing of the study.
    """
    prefix = f"results/{study}/"
    stages = read_yaml(lock).get("stages", {})
    outs = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}
    known = {path.removeprefix(prefix): md5 for path, md5 in outs.items() if path.startswith(prefix)}
    if not known:
        raise InputError(f"{lock}: holds no artifact of study {study}: run `make publish`, or name another file with --lock")
    return known


def in_order(names: Iterable[str]) -> list[str]:
    """Artifacts in the order of the pipeline, a cause before its consequences."""
    return sorted(names, key=lambda name: (next((i for i, each in enumerate(ORDER) if re.match(each, name)), len(ORDER)), name))


def md5_of(path: Path) -> str:
    """DVC's hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def compare_trees(here: Path, there: Path) -> list[Finding]:
    """Verdicts on all artifacts of two result trees, in the order of the pipeline."""
    left, right = set(artifacts(here)), set(artifacts(there))
    findings = []
    for name in in_order(left | right):
        if name not in left:
            findings.append(Finding(name, Verdict.MISSING_HERE))
        elif name not in right:
            findings.append(Finding(name, Verdict.MISSING_THERE))
        else:
            findings.append(compare(name, here / name, there / name))
    return with_sources(findings)


def compare_hashes(here: Path, known: dict[str, str], fetch: Callable[[str, str], Path | None], mend: str) -> list[Finding]:
    """Verdicts on all artifacts against their hashes, in the order of the pipeline.

    fetch: (name, hash) to the file that had it, or None; mend: what is said where it is None.
    """
    present = set(artifacts(here))
    findings = []
    for name in in_order(present | set(known)):
        if name not in present:
            findings.append(Finding(name, Verdict.MISSING_HERE))
        elif name not in known:
            findings.append(Finding(name, Verdict.EXTRA))
        elif (md5 := md5_of(here / name)) == known[name]:
            findings.append(Finding(name, Verdict.IDENTICAL))
        elif there := fetch(name, known[name]):
            findings.append(compare(name, here / name, there))
        else:
            findings.append(Finding(name, Verdict.DIFFERS, Deviation("MD5", md5, known[name]), (mend,)))
    return with_sources(findings)


def with_sources(findings: list[Finding]) -> list[Finding]:
    """Findings, where other bytes of a PDF whose PNG is the same, and of a page all of whose sources are, are a note."""
    good = {each.name for each in findings if each.good}

    def same_sources(name: str) -> bool:
        if name == "report.html":
            return all(each.good or each.name == name or each.name.endswith(".pdf") for each in noted)
        return name.endswith(".pdf") and f"{name.removesuffix('pdf')}png" in good

    noted: list[Finding] = []
    for each in findings:
        if each.verdict == Verdict.DIFFERS and same_sources(each.name):
            each = each._replace(verdict=Verdict.NOTED)
        noted.append(each)
    return noted


def compare(name: str, here: Path, there: Path) -> Finding:
    """The verdict on one artifact that is in both trees; name: its path below results/<study>/, which says its kind."""
    if _same_bytes(here, there):
        return Finding(name, Verdict.IDENTICAL)
    kind = KINDS.get(Path(name).suffix, _bytes)
    places: list[Deviation] = []
    notes: list[str] = []
    try:
        for each in kind(name, here, there):
            if isinstance(each, str):
                notes.append(each)
            elif each.share > 1:
                return Finding(name, Verdict.DIFFERS, each, tuple(notes))
            else:
                places.append(each)
    except InputError as error:
        return Finding(name, Verdict.DIFFERS, Deviation("the file", "unreadable", "unreadable"), (str(error),))
    largest = max(places, key=lambda each: each.share, default=None)
    return Finding(name, Verdict.WITHIN if largest or notes else Verdict.EQUAL, largest, tuple(notes))


def _same_bytes(here: Path, there: Path) -> bool:
    return here.stat().st_size == there.stat().st_size and md5_of(here) == md5_of(there)


def _numbers(name: str, field: str, here: np.ndarray, there: np.ndarray, scale: np.ndarray | float, label: Callable[..., str]) -> Found:
    """Compare arrays of one shape; label: indices to a place. Yields the first place beyond tolerance, else the largest deviation."""
    rule = tolerance_of(name, field)
    left, right = here.astype(np.float64), there.astype(np.float64)
    with np.errstate(invalid="ignore"):
        gap = np.where((left == right) | (np.isnan(left) & np.isnan(right)), 0.0, np.abs(left - right))
    gap = np.where(np.isnan(gap), np.inf, gap)
    allowed = np.broadcast_to(rule.absolute + rule.relative * np.asarray(scale, dtype=np.float64), gap.shape)
    allowed = np.where(np.isfinite(allowed), allowed, 0.0)
    if not gap.any():
        return
    beyond = np.flatnonzero(gap > allowed)
    with np.errstate(divide="ignore", invalid="ignore"):
        worst = beyond[0] if len(beyond) else np.nanargmax(np.where(gap > 0, gap / allowed, 0.0))
    place = np.unravel_index(worst, gap.shape)
    yield Deviation(label(*map(int, place)), repr(here[place].item()), repr(there[place].item()), float(gap[place]), float(allowed[place]))


def _structure(what: str, here: Any, there: Any) -> Found:
    if here != there:
        yield Deviation(what, str(here), str(there))


def _tensors(name: str, here: Path, there: Path) -> Found:
    from safetensors import SafetensorError, safe_open

    with ExitStack() as stack:
        files = []
        for path in (here, there):
            try:
                files.append(stack.enter_context(safe_open(path, framework="numpy")))
            except (OSError, SafetensorError) as error:
                raise InputError(f"{path}: not readable as safetensors ({error}): remove it and run the workflow again") from None
        left, right = files
        yield from _structure("tensors", sorted(left.keys()), sorted(right.keys()))
        yield from _metadata(name, left.metadata() or {}, right.metadata() or {})
        for field in sorted(left.keys()):
            one, other = left.get_slice(field), right.get_slice(field)
            shapes = [(each.get_shape(), each.get_dtype()) for each in (one, other)]
            yield from _structure(f"shape and type of {field}", *shapes)
            if field == "null_basis":
                yield from _spans(name, one[:], other[:])
            else:
                yield from _rows(name, field, one, other)


def _rows(name: str, field: str, here: Any, there: Any) -> Found:
    """A tensor, in blocks of rows."""
    rows = here.get_shape()[0]
    blocks = [slice(start, min(start + BLOCK, rows)) for start in range(0, rows, BLOCK)]
    scale = tolerance_of(name, field).scale
    squares = sum(float(np.sum(np.square(there[block], dtype=np.float64))) for block in blocks) if scale == "tensor" else 0.0
    for block in blocks:
        left, right = here[block], there[block]

        def label(row: int, *rest: int, start: int = block.start) -> str:
            return f"tensor {field}, row {start + row}" + "".join(f", column {each}" for each in rest)

        if right.dtype.kind != "f":
            for place in np.argwhere(left != right)[:1].tolist():
                yield Deviation(label(*place), str(left[tuple(place)]), str(right[tuple(place)]))
        elif scale == "row" and right.ndim == 2:
            yield from _numbers(name, field, left, right, np.linalg.norm(right.astype(np.float64), axis=1, keepdims=True), label)
        else:
            size = math.sqrt(squares / math.prod(there.get_shape())) if scale == "tensor" else np.abs(right)
            yield from _numbers(name, field, left, right, size, label)


def _spans(name: str, here: np.ndarray, there: np.ndarray) -> Found:
    """Two orthonormal bases (d, k): their spans, and the norms of their columns."""
    from scipy.linalg import subspace_angles

    if not here.shape[1] or np.array_equal(here, there):
        return
    norms, ones = np.linalg.norm(here, axis=0), np.ones(here.shape[1])
    if not np.isfinite(norms).all():
        yield Deviation("tensor null_basis", "NaN or infinite values", "finite values")
    yield from _numbers(name, "null_basis", norms, ones, 1.0, lambda column: f"norm of column {column} of null_basis")
    angle = np.sin(subspace_angles(here, there).max(keepdims=True))
    yield from _numbers(name, "null_basis", angle, np.zeros(1), 1.0, lambda _: "sine of the largest angle between the spans of null_basis")


def _metadata(name: str, here: dict[str, str], there: dict[str, str]) -> Found:
    left, right = (dict(_flat({key: _parsed(value) for key, value in each.items()})) for each in (here, there))
    versions = {key for key in left | right if key.startswith("software.") and left.get(key) != right.get(key)}
    yield from (f"made with {key.removeprefix('software.')} {left.get(key)} here, {right.get(key)} there" for key in sorted(versions))
    yield from _facts(name, *({k: v for k, v in each.items() if not k.startswith("software.")} for each in (left, right)))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _flat(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All values of nested JSON, each with the keys that lead to it, joined by dots; an empty container is a value."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    if not items or not content:
        yield path, content
    for key, value in items:
        yield from _flat(value, f"{path}.{key}" if path else str(key))


def _facts(name: str, here: dict[str, Any], there: dict[str, Any]) -> Found:
    for path in [*there, *(each for each in here if each not in there)]:
        left, right = here.get(path, "nothing"), there.get(path, "nothing")
        if isinstance(left, float) and isinstance(right, float):
            field = next(part for part in reversed(path.split(".")) if not part.isdigit())
            yield from _numbers(name, field, np.array([left]), np.array([right]), abs(right), lambda _, path=path: path)
        elif left != right or type(left) is not type(right):
            yield Deviation(path, repr(left), repr(right))


def _json(name: str, here: Path, there: Path) -> Found:
    yield from _facts(name, dict(_flat(read_json(here))), dict(_flat(read_json(there))))


def _parquet(name: str, here: Path, there: Path) -> Found:
    from pyarrow import ArrowException, parquet  # type: ignore[import-untyped]

    files = []
    for path in (here, there):
        try:
            files.append(parquet.ParquetFile(path))
        except (OSError, ArrowException) as error:
            raise InputError(f"{path}: not readable as Parquet ({error}): remove it and run the workflow again") from None
    left, right = files
    yield from _structure("columns and types", *([(each.name, str(each.type)) for each in file.schema_arrow] for file in files))
    yield from _structure("rows", left.metadata.num_rows, right.metadata.num_rows)
    layouts = [[file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] for file in files]
    groups: list[list[int]] = [[i] for i in range(left.num_row_groups)] if layouts[0] == layouts[1] else [list(range(left.num_row_groups))]
    others = groups if layouts[0] == layouts[1] else [list(range(right.num_row_groups))]

    def frames() -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
        for one, other in zip(groups, others, strict=True):
            parts = []
            for path, file, group in zip((here, there), files, (one, other), strict=True):
                try:
                    parts.append(file.read_row_groups(group).to_pandas())
                except (OSError, ArrowException) as error:
                    raise InputError(f"{path}: not readable as Parquet ({error}): remove it and run the workflow again") from None
            yield parts[0], parts[1]

    yield from _frames(name, frames(), left.metadata.num_rows)


def _csv(name: str, here: Path, there: Path) -> Found:
    frames = []
    for path in (here, there):
        try:
            frames.append(pd.read_csv(path, keep_default_na=False, na_values=[""]))
        except ValueError as error:
            raise InputError(f"{path}: not readable as CSV ({error}): remove it and run the workflow again") from None
    left, right = frames
    yield from _structure("columns", list(left.columns), list(right.columns))
    yield from _structure("rows", len(left), len(right))
    yield from _frames(name, iter([(left, right)]), len(left))


def _frames(name: str, pairs: Iterator[tuple[pd.DataFrame, pd.DataFrame]], rows: int) -> Found:
    """Tables of the same columns and rows, in blocks. A row in which a choice fell otherwise is counted, and not compared further."""
    start, flipped, first = 0, 0, None
    for left, right in pairs:
        chosen = [column for column in left.columns if column in FLIPS and left[column].dtype.kind != "f"]
        flips = np.zeros(len(left), dtype=bool)
        for column in chosen:
            other = ~_same(left[column], right[column])
            if first is None and other.any():
                at = int(np.flatnonzero(other)[0])
                first = Deviation(f"column {column}, row {start + at}", repr(left[column].iloc[at]), repr(right[column].iloc[at]))
            flips |= other
        flipped += int(flips.sum())
        for column in left.columns.difference(chosen, sort=False):
            yield from _column(name, column, left.loc[~flips, column], right.loc[~flips, column], start)
        start += len(left)
    if first and flipped > math.ceil(FLIPPED * rows):
        yield first
    elif first:
        yield f"{flipped} of {rows} rows with another choice, which are not compared further; first {first}"


def _same(left: pd.Series, right: pd.Series) -> np.ndarray:
    return ((left == right) | (left.isna() & right.isna())).to_numpy(dtype=bool)


def _column(name: str, column: str, left: pd.Series, right: pd.Series, start: int) -> Found:
    def label(at: int) -> str:
        return f"column {column}, row {start + left.index[at]}"

    kinds = {left.dtype.kind, right.dtype.kind}
    if "f" in kinds and kinds <= set("fi"):
        there = right.to_numpy(np.float64)
        yield from _numbers(name, column, left.to_numpy(np.float64), there, np.abs(there), label)
        return
    for at in np.flatnonzero(~_same(left, right)):
        here, there = left.iloc[at], right.iloc[at]
        if isinstance(here, bytes) and isinstance(there, bytes):
            yield from _pixels(here, there, f"{label(int(at))}, ")
        else:
            yield Deviation(label(int(at)), repr(here), repr(there))
            return


def _png(name: str, here: Path, there: Path) -> Found:
    yield from _pixels(here, there, "")


def _pixels(here: Path | bytes, there: Path | bytes, prefix: str) -> Found:
    from PIL import Image

    pixels = []
    for each in (here, there):
        try:
            with Image.open(io.BytesIO(each) if isinstance(each, bytes) else each) as picture:
                pixels.append(np.asarray(picture.convert("RGBA")).astype(np.int16))
        except (OSError, SyntaxError) as error:
            file = "picture" if isinstance(each, bytes) else each
            raise InputError(f"{prefix}{file}: not readable as a picture ({error}): remove it and run the workflow again") from None
    left, right = pixels
    if left.shape != right.shape:
        yield Deviation(f"{prefix}height, width, channels", str(left.shape), str(right.shape))
        return
    gap = np.abs(left - right).max(axis=2)
    beyond = np.argwhere(gap > LEVELS)
    y, x = beyond[0] if len(beyond) / gap.size > PIXELS else np.unravel_index(gap.argmax(), gap.shape)
    if len(beyond):
        where = f"{prefix}{len(beyond) / gap.size:.2%} of the pixels by more than {LEVELS} levels ({PIXELS:.0%} may), as x {x}, y {y}"
        size, allowed = len(beyond) / gap.size, PIXELS
    else:
        where, size, allowed = f"{prefix}x {x}, y {y}", float(gap.max()), float(LEVELS)
    if gap.any():
        yield Deviation(where, str(tuple(left[y, x].tolist())), str(tuple(right[y, x].tolist())), size, allowed)


def _text(name: str, here: Path, there: Path) -> Found:
    """Words exactly, numbers within tolerance and one unit of their last digit."""
    lines = [path.read_text(encoding="utf-8", errors="replace").splitlines() for path in (here, there)]
    yield from _structure("lines", *map(len, lines))
    for row, (one, other) in enumerate(zip(*lines, strict=True), 1):
        words = [" ".join(NUMBER.sub("#", line).split()) for line in (one, other)]
        yield from _structure(f"line {row}", *words)
        for left, right in zip(NUMBER.findall(one), NUMBER.findall(other), strict=True):
            rule = tolerance_of(name, "")
            digit = 10.0 ** -len(right.partition(".")[2]) if "." in right else 0.0
            gap = abs(float(left) - float(right))
            if gap:
                yield Deviation(
                    f"line {row}", left, right, gap, (rule.absolute + rule.relative * abs(float(right)) + digit) if digit else 0.0
                )


def _bytes(name: str, here: Path, there: Path) -> Found:
    left, right = here.read_bytes(), there.read_bytes()
    length = min(len(left), len(right))
    other = np.flatnonzero(np.frombuffer(left[:length], np.uint8) != np.frombuffer(right[:length], np.uint8))
    at = int(other[0]) if len(other) else length
    one, another = (f"0x{each[at]:02x}" if at < len(each) else "the end" for each in (left, right))
    yield Deviation(f"byte {at}", one, another)


KINDS: dict[str, Callable[[str, Path, Path], Found]] = {
    ".safetensors": _tensors,
    ".parquet": _parquet,
    ".csv": _csv,
    ".json": _json,
    ".png": _png,
    ".txt": _text,
}


def summary(findings: list[Finding]) -> list[str]:
    """A line for each folder and kind of file, then notes, and the first artifact that differs, if one does."""
    lines = []
    kinds: dict[str, list[Finding]] = {}
    for each in findings:
        kinds.setdefault(f"{each.name.split('/')[0] if '/' in each.name else '.'} {Path(each.name).suffix}", []).append(each)
    for kind, members in kinds.items():
        counts = Counter(each.verdict for each in members)
        within = [each for each in members if each.verdict == Verdict.WITHIN and each.place]
        line = f"{kind}: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        if within:
            worst = max(within, key=lambda each: each.place.share if each.place else 0.0)
            line += f"; largest: {worst.name}, {worst.place}"
        lines.append(line)
    lines += [f"note: {each.name}: {note}" for each in findings if each.good for note in each.notes]
    bad = [each for each in findings if not each.good]
    if not bad:
        return [*lines, f"the same: {len(findings)} artifacts"]
    first = bad[0]
    detail = "".join(f"; {each}" for each in (first.place, *first.notes) if each)
    return [*lines, f"NOT the same: {len(bad)} of {len(findings)} artifacts; the first: {first.name}: {first.verdict}{detail}"]
