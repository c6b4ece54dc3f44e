"""Compare two result trees artifact by artifact, in pipeline order, within stated tolerances."""

import io
import json
import math
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy
from PIL import Image
from safetensors import SafetensorError, safe_open

from singflow.artifacts.catalog import CATALOG, IN_GIT, artifact_of
from singflow.artifacts.files import md5_of
from singflow.artifacts.tolerances import PRINTED, tolerance_of
from singflow.config.reading import read_yaml
from singflow.data.images import FORMATS, any_size
from singflow.errors import InputError
from singflow.sharing.remotes import (
    LOCK,
    MD5,
    MOST_NAMES,
    RESTORE,
    listed,
    result_files,
    working_remote,
)

NO_ARTIFACTS = ("logs", "benchmarks")
BLOCK = 4096  # rows that are compared at once
LEVELS = 16  # of 255, by which any pixel may differ
PIXELS = 0.02  # share of a picture's pixels that may differ by more, where an edge moves a little
CHOICES = (
    *("translated", "equivalent", "embedding", "predicted_index", "top1_changed", "reachable"),
    *("place", "concept", "differ", "word_1", "word_2", "word_3"),
)
CHOSEN = 0.01  # share of a table's rows, rounded up, in which a column of CHOICES may differ
DECIMAL = re.compile(r"-?\d+\.\d+(?:e[-+]?\d+)?")
# Metadata that explains a difference but is not itself one: random weights, for example, depend on
# the processor, and it is the tensors that are compared.
EXPLAINS = ("software.", "weights_sha256", "device")
ONLY_HASH = "only the hash is known: `--against <remote or folder>` tells how far it is off"
# what readers raise on damaged bytes
UNREADABLE = (OSError, ValueError, SyntaxError, LookupError, SafetensorError)
SCALES: dict[str, Callable[[np.ndarray], Any]] = {
    "itself": np.abs,
    "row": lambda block: np.linalg.norm(block, axis=-1, keepdims=True),
    "tensor": lambda block: np.sqrt(np.mean(np.square(block))),
}


class Verdict(StrEnum):
    """The result of comparing an artifact."""

    IDENTICAL = "identical"
    WITHIN = "within tolerance"
    DIFFERS = "different"
    MISSING = "missing here"
    EXTRA = "only here"


class Difference(NamedTuple):
    """A place where two artifacts differ, the size of the difference, and the allowed size."""

    where: str
    here: Any
    there: Any
    size: float = math.inf
    allowed: float = 0.0

    @property
    def used(self) -> float:
        """The difference as a share of the tolerance; above 1 it is too large."""
        return self.size / self.allowed if self.allowed else math.inf

    def __str__(self) -> str:
        said = f"{self.where}: {self.here} here, {self.there} there"
        if not math.isfinite(self.size) or not self.size:
            return said
        return f"{said} (off by {self.size:.2g}, tolerance {self.allowed:.2g})"


class ArtifactComparison(NamedTuple):
    """The verdict on an artifact, and its differences up to the first one that is too large."""

    name: str
    verdict: Verdict
    differences: tuple[Difference, ...] = ()
    note: str = ""

    @property
    def good(self) -> bool:
        """Whether the artifact counts as the same."""
        return self.verdict in (Verdict.IDENTICAL, Verdict.WITHIN)

    @property
    def worst(self) -> Difference | None:
        """The difference that uses up most of its tolerance."""
        return max(self.differences, key=lambda difference: difference.used, default=None)

    def __str__(self) -> str:
        parts = (f"{self.name}: {self.verdict}", self.worst, self.note)
        return "; ".join(str(part) for part in parts if part)


Differences = Iterator[Difference]


def hashes_of(tree: Path) -> dict[str, str]:
    """MD5 of every artifact of a tree, by its path below the tree."""
    if not tree.is_dir():
        raise InputError(
            f"{tree}: no such folder: run the study, or name its results with --results"
        )
    files = result_files(tree, *NO_ARTIFACTS)
    return {path.relative_to(tree).as_posix(): md5_of(path) for path in files}


def place_in_pipeline(name: str) -> tuple[int, str]:
    """Sort key: artifacts come before those that are computed from them; unknown ones come last."""
    artifact = artifact_of(name)
    return list(CATALOG).index(artifact) if artifact else len(CATALOG), name


def compare(
    here: Path, known: dict[str, str], original: Callable[[str, str], Path | None]
) -> list[ArtifactComparison]:
    """Verdicts on all artifacts of two trees, in the order of the pipeline.

    known: MD5s of the other tree, by path below it; original: returns the other tree's file for a
    path and its MD5, or None if only the hash is known.
    """
    present, findings = hashes_of(here), []
    follows = False  # whether an earlier artifact is within tolerance, and pages may show it
    for name in sorted(present.keys() | known.keys(), key=place_in_pipeline):
        mine, other = present.get(name), known.get(name)
        if mine is None:
            finding = ArtifactComparison(name, Verdict.MISSING)
        elif other is None:
            finding = ArtifactComparison(name, Verdict.EXTRA)
        elif mine == other:
            finding = ArtifactComparison(name, Verdict.IDENTICAL)
        elif follows and Path(name).suffix in (".pdf", ".svg", ".html"):
            finding = ArtifactComparison(name, Verdict.WITHIN)
        elif there := original(name, other):
            finding = compare_files(name, here / name, there)
        else:
            difference = Difference("MD5", mine, other)
            finding = ArtifactComparison(name, Verdict.DIFFERS, (difference,), ONLY_HASH)
        follows |= finding.verdict == Verdict.WITHIN
        findings.append(finding)
    return findings


def compare_files(name: str, here: Path, there: Path) -> ArtifactComparison:
    """The verdict on an artifact whose bytes differ; an unreadable file counts as different."""
    read, differences_of = KINDS.get(Path(name).suffix, (Path.read_bytes, _bytes))
    contents, differences = [], []
    for path in (here, there):
        try:
            contents.append(read(path))
        except UNREADABLE as error:
            note = f"{path}: not readable ({error}): remove it and run the workflow again"
            return ArtifactComparison(name, Verdict.DIFFERS, note=note)
    for difference in differences_of(name, *contents):
        differences.append(difference)
        if difference.used > 1:
            return ArtifactComparison(name, Verdict.DIFFERS, tuple(differences))
    return ArtifactComparison(name, Verdict.WITHIN, tuple(differences))


def _exact(where: str, here: Any, there: Any) -> Differences:
    if here != there:
        yield Difference(where, here, there)


def _numbers(
    name: str, field: str, here: Any, there: Any, where: Callable[..., str]
) -> Differences:
    """In each block of rows: the first difference that is too large, or else the nearest to it.

    Both arrays have the same shape; where: turns indices into words for the place.
    """
    rule, here, there = tolerance_of(name, field), np.atleast_1d(here), np.atleast_1d(there)
    scale_of = SCALES[rule.scale]
    for start in range(0, len(here), BLOCK):
        left, right = (array[start : start + BLOCK].astype(np.float64) for array in (here, there))
        with np.errstate(invalid="ignore", over="ignore"):
            gap = np.nan_to_num(np.abs(left - right), nan=np.inf)
            size = np.where((left == right) | (np.isnan(left) & np.isnan(right)), 0.0, gap)
            scale = np.nan_to_num(np.fmax(scale_of(left), scale_of(right)), posinf=0.0)
            allowed = np.broadcast_to(rule.absolute + rule.relative * scale, size.shape)
            used = np.divide(size, allowed, out=np.where(size > 0, np.inf, 0.0), where=allowed > 0)
        if used.any():
            first = np.argmax(used > 1) if (used > 1).any() else np.argmax(used)
            at = np.unravel_index(first, used.shape)
            numbers = (float(array[at]) for array in (left, right, size, allowed))
            yield Difference(where(start + int(at[0]), *map(int, at[1:])), *numbers)


def _values(
    name: str, field: str, here: np.ndarray, there: np.ndarray, where: Callable[..., str]
) -> Differences:
    """Like _numbers, for any type: floats and pictures within tolerance, all else exactly."""
    kinds = {here.dtype.kind, there.dtype.kind}
    if "f" in kinds and kinds <= set("fi"):
        yield from _numbers(name, field, here, there, where)
        return
    for place in np.argwhere(_differs(here, there)).tolist():
        pair = here[tuple(place)], there[tuple(place)]
        if not all(isinstance(value, bytes) for value in pair):
            yield Difference(where(*place), *pair)
            return
        try:
            yield from _pictures(where(*place), *(_read_picture(io.BytesIO(v)) for v in pair))
        except UNREADABLE:  # a picture is damaged
            left, right = (f"{len(value)} bytes" for value in pair)
            yield Difference(where(*place), left, right)


def _differs(here: Any, there: Any) -> np.ndarray:
    return np.asarray(~((here == there) | (pd.isna(here) & pd.isna(there))), dtype=bool)


def _read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with safe_open(path, framework="numpy") as file:
        metadata = {key: _parsed(value) for key, value in (file.metadata() or {}).items()}
        return {field: file.get_tensor(field) for field in file.keys()}, metadata  # noqa: SIM118 (it is no dictionary)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _tensors(name: str, here: Any, there: Any) -> Differences:
    (left, facts), (right, others) = here, there
    yield from _exact("tensors", sorted(left), sorted(right))
    yield from _facts("", facts, others)  # metadata have the general tolerances
    for field in sorted(left):
        pair = left[field], right[field]
        kinds = ((tensor.shape, str(tensor.dtype)) for tensor in pair)
        yield from _exact(f"shape and type of tensor {field}", *kinds)
        if field == "null_basis" and not np.array_equal(*pair):
            yield from _spans(name, *pair)
        else:
            where = partial("tensor {}{}".format, field)
            yield from _values(name, field, *pair, lambda *place, where=where: where(list(place)))


def _spans(name: str, here: np.ndarray, there: np.ndarray) -> Differences:
    """Compare two orthonormal bases A and B (d, k) by their spans: their columns may be rotated.

    ||B'B - I|| is 0 for orthonormal columns, and the sine of the largest angle between the spans,
    ||(I - AA')B||, is 0 where the spans are the same.
    """
    finite = [int(np.isfinite(basis).sum()) for basis in (here, there)]
    if min(finite) < here.size:
        yield Difference("finite values of tensor null_basis", *finite)
    off, other = (np.linalg.norm(b.T @ b - np.eye(b.shape[1]), 2) for b in (here, there))
    sine = np.sin(scipy.linalg.subspace_angles(here, there).max())
    for what, mine, theirs in (
        ("tensor null_basis, distance of its columns from orthonormal ones", off, other),
        ("sine of the largest angle between the spans of null_basis", sine, 0.0),
    ):
        yield from _numbers(name, "null_basis", mine, theirs, lambda _, what=what: what)


def _facts(name: str, here: Any, there: Any) -> Differences:
    """Differences of JSON values; metadata that explains a difference is not itself one."""
    left, right = dict(_flat(here)), dict(_flat(there))
    for path in right | left:
        value_here, value_there = left.get(path, "nothing"), right.get(path, "nothing")
        if path.startswith(EXPLAINS) and value_here != value_there:
            yield Difference(path, value_here, value_there, size=0.0, allowed=1.0)
        elif isinstance(value_here, float) and isinstance(value_there, float):
            field = re.sub(r"(\.\d+)+$", "", path).split(".")[-1]
            yield from _numbers(name, field, value_here, value_there, lambda _, path=path: path)
        else:
            yield from _exact(path, value_here, value_there)


def _flat(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All values of nested JSON, with their keys joined by dots; an empty container is a value."""
    if not isinstance(content, dict | list) or not content:
        yield path, content
        return
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield from _flat(value, f"{path}.{key}" if path else str(key))


def _tables(name: str, here: pd.DataFrame, there: pd.DataFrame) -> Differences:
    """Differences of two tables; rows with another choice are counted, and not compared further."""
    yield from _exact("columns", list(here.columns), list(there.columns))
    yield from _exact("rows", len(here), len(there))
    chosen = [column for column in here if column in CHOICES and here[column].dtype.kind != "f"]
    flipped = pd.DataFrame({c: _differs(here[c], there[c]) for c in chosen}, index=here.index)
    other, most = flipped.any(axis=1), math.ceil(CHOSEN * len(here))
    if count := int(other.sum()):
        row = int(other.argmax())
        column = chosen[int(flipped.iloc[row].argmax())]
        said = f"one of {count} rows in {len(here)} with another choice"
        values = here[column][row], there[column][row]
        yield Difference(f"column {column}, row {row}, {said}", *values, count, most)
    kept = np.flatnonzero(~other)
    for column in here.columns.drop(chosen):
        left, right = here[column].to_numpy()[kept], there[column].to_numpy()[kept]
        yield from _values(
            name, column, left, right, lambda at, column=column: f"column {column}, row {kept[at]}"
        )


def _read_picture(source: Path | io.BytesIO) -> np.ndarray:
    with any_size(), Image.open(source, formats=FORMATS) as picture:
        return np.asarray(picture.convert("RGBA")).astype(np.int16)


def _pictures(name: str, here: np.ndarray, there: np.ndarray) -> Differences:
    yield from _exact(f"{name}, height and width", here.shape[:2], there.shape[:2])
    off = np.abs(here - there).max(axis=2)
    y, x = map(int, np.unravel_index(off.argmax(), off.shape))
    where = f"{name}, share of pixels more than {LEVELS} levels off, most at x {x}, y {y}"
    left, right = (tuple(picture[y, x].tolist()) for picture in (here, there))
    yield Difference(where, left, right, float(np.mean(off > LEVELS)), PIXELS)


def differences_of_texts(name: str, here: str, there: str) -> Differences:
    """Differences of lines: words exactly, decimal numbers within tolerance."""
    lines = zip_longest(here.splitlines(), there.splitlines(), fillvalue="nothing")
    for row, pair in enumerate(lines, 1):
        words = (" ".join(DECIMAL.sub("#", line).split()) for line in pair)
        yield from _exact(f"line {row}", *words)
        left, right = (np.array(DECIMAL.findall(line), dtype=np.float64) for line in pair)
        where = partial("line {}, number {}".format, row)
        yield from _numbers(name, PRINTED, left, right, lambda at, where=where: where(at + 1))


def _bytes(name: str, here: bytes, there: bytes) -> Differences:
    for at, pair in enumerate(zip_longest(here, there, fillvalue="nothing")):
        yield from _exact(f"byte {at}", *pair)


KINDS: dict[str, tuple[Callable[[Path], Any], Callable[..., Differences]]] = {
    ".safetensors": (_read_tensors, _tensors),
    ".parquet": (pd.read_parquet, _tables),
    ".csv": (partial(pd.read_csv, keep_default_na=False, na_values=[""]), _tables),
    ".json": (lambda path: json.loads(path.read_bytes()), _facts),
    ".png": (_read_picture, _pictures),
    ".txt": (partial(Path.read_text, encoding="utf-8"), differences_of_texts),
}


FIXES = {
    Verdict.MISSING: "`singflow fetch`, or run the study; where only a tier was fetched, "
    "`--tier <tier>` looks at that alone",
    Verdict.EXTRA: "remove it if it is left from another study",
}


def published(lock: Path, study: str) -> dict[str, str]:
    """MD5s of a study's published artifacts, by path below its results; none if it has none."""
    stages = read_yaml(lock).get("stages", {}) if lock.exists() or lock != LOCK else {}
    try:
        lists = [stage.get("outs", []) for stage in stages.values()]
        outs = {out["path"]: out["md5"] for outs in lists for out in outs}
        odd = [path for path, md5 in outs.items() if ".." in path or not re.fullmatch(MD5, md5)]
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{lock}: not as DVC writes it: {RESTORE}") from None
    if odd:
        raise InputError(f"{lock}: {listed(odd)}: not a path and a hash of a result: {RESTORE}")
    prefix = f"results/{study}/"
    return {path.removeprefix(prefix): md5 for path, md5 in outs.items() if path.startswith(prefix)}


def committed(results: Path, study: str) -> dict[str, str]:
    """MD5s of a study's artifacts in the last commit, by path below its results."""
    if not CATALOG["manifest"].at(results).is_file():
        raise InputError(f"{results}: the study has not run here: `singflow run` runs it")
    with _checkout() as (_, commit, copy):
        known = {}
        for name in IN_GIT:
            if commit.exists(place := f"/results/{study}/{name}"):
                commit.get_file(place, str(copy))
                known[name] = md5_of(copy)
        return known


def compare_with_known(
    results: Path, study: str, known: dict[str, str], remote: str | None
) -> list[ArtifactComparison]:
    """Verdicts against published or committed MD5s; takes none of DVC's locks.

    The files come from the remote, from DVC's local cache without one, or from git.
    """
    with _checkout() as (repo, commit, copy):
        odb = repo.cache.local
        if remote:
            odb = repo.cloud.get_remote_odb(working_remote(repo.config, remote, write=False))

        def original(name: str, md5: str) -> Path | None:
            place = f"/results/{study}/{name}"
            for files, path in ((odb.fs, odb.oid_to_path(md5)), (commit, place)):
                if files.exists(path):
                    files.get_file(path, str(copy))
                    if md5_of(copy) == md5:
                        return copy
            return None

        return compare(results, known, original)


@contextmanager
def _checkout() -> Iterator[tuple[Any, Any, Path]]:
    """DVC's view of this checkout, the files of the last commit, and a place for a copy of one."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from pygit2 import GitError

    try:
        with Repo() as repo, tempfile.TemporaryDirectory() as folder:
            yield repo, repo.scm.get_fs("HEAD"), Path(folder, "copy")
    except DvcException as error:
        raise InputError(f"DVC: {error}") from None
    except GitError as error:
        trust = f"`git config --global --add safe.directory {Path.cwd()}`"
        raise InputError(f"git: {error}: if this checkout is another user's: {trust}") from None


def summary(findings: list[ArtifactComparison]) -> list[str]:
    """Lines for the folders, other software versions and what differs; the last is the verdict."""
    lines = []
    for top in dict.fromkeys(finding.name.split("/")[0] for finding in findings):
        members = [finding for finding in findings if finding.name.split("/")[0] == top]
        lines.append(f"{top}: {_counts(members)}")
        near = [
            (worst.used, f"    nearest to its limit: {finding.name}: {worst}")
            for finding in members
            if finding.good and (worst := finding.worst) and worst.size
        ]
        lines += [words for _, words in sorted(near)[-1:]]
    differences = [difference for finding in findings for difference in finding.differences]
    lines += sorted({str(found) for found in differences if found.where.startswith(EXPLAINS)})
    for verdict, fix in FIXES.items():
        if names := [finding.name for finding in findings if finding.verdict == verdict]:
            lines.append(f"{verdict}: {listed(names)}: {fix}")
    differing = [finding for finding in findings if finding.verdict == Verdict.DIFFERS]
    for finding in differing[:MOST_NAMES]:
        place = "the first that" if finding is differing[0] else "also"
        lines.append(f"{place} differs: {finding}")
    answer = "the same" if all(finding.good for finding in findings) else "NOT the same"
    return [*lines, f"{answer}: {len(findings)} artifacts: {_counts(findings)}"]


def _counts(findings: list[ArtifactComparison]) -> str:
    counts = Counter(finding.verdict for finding in findings)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
