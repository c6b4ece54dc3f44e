"""Compare two trees of results: MD5 first, then numbers within the catalog's tolerances."""

import io
import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from safetensors import SafetensorError, safe_open

from singflow.artifacts.catalog import CATALOG, COMPUTED, EXACT, Tolerance, artifact_of
from singflow.artifacts.files import md5_of
from singflow.config.reading import read_yaml
from singflow.data.images import FORMATS, any_size
from singflow.errors import MOST_NAMES, InputError, listed

NO_ARTIFACTS = ("logs", "benchmarks")
# Columns with the nearest of several values, which rounding may change
CHOICES = (
    *("translated", "equivalent", "embedding", "predicted_index", "top1_changed", "reachable"),
    *("place", "concept", "differ", "word_1", "word_2", "word_3"),
)
CHOSEN = 0.01  # share of a table's rows, rounded up, that may hold another choice
FACTS = "metadata "  # of a file of tensors
EXPLAINS = tuple(FACTS + name for name in ("software.", "weights_sha256", "device"))
ENDS = {
    ".pdf": b"%%EOF",
    ".svg": b"</svg>",
    ".html": b"</html>",
    ".png": b"\xaeB`\x82",
    ".txt": b"",
}
# what readers raise on damaged bytes
UNREADABLE = (OSError, ValueError, SyntaxError, LookupError, SafetensorError, InputError)


class Verdict(StrEnum):
    """The result of comparing an artifact."""

    IDENTICAL = "identical"
    WITHIN = "within tolerance"
    UNREAD = "not compared"
    DIFFERS = "different"
    MISSING = "missing here"
    EXTRA = "only here"


GOOD = Verdict.IDENTICAL, Verdict.WITHIN, Verdict.UNREAD
FIXES = {
    Verdict.UNREAD: "their bytes differ, and only a person can compare pictures and pages",
    Verdict.MISSING: "`singflow fetch`, or run the study; where only a tier was fetched, "
    "`--tier <tier>` looks at that alone",
    Verdict.EXTRA: "remove it if it is left from another study",
}


class Finding(NamedTuple):
    """The verdict on an artifact, the share of its tolerance that is used, and words for both."""

    name: str
    verdict: Verdict
    used: float = 0.0
    said: str = ""
    explained: tuple[str, ...] = ()


# A file of the other tree, by its path below the results; None if it cannot be had.
Original = Callable[[str], Path | None]


def is_artifact(name: str) -> bool:
    """Whether a path below the results is no log and no hidden (unfinished) file."""
    return Path(name).parts[0] not in NO_ARTIFACTS and Path(name).name[0] != "."


def hashes_of(tree: Path) -> dict[str, str]:
    """MD5 of every artifact of a tree, by its path below the tree."""
    if not tree.is_dir():
        raise InputError(f"{tree}: no such folder: run the study, or name a tree with --results")
    files = {path.relative_to(tree).as_posix(): path for path in tree.rglob("*") if path.is_file()}
    return {name: md5_of(path) for name, path in files.items() if is_artifact(name)}


@contextmanager
def published(
    study: str, rev: str, remote: str | None
) -> Iterator[tuple[dict[str, str], Original, bool]]:
    """MD5s and files of a study in a commit, and whether DVC has it: if not, git's files alone.

    Files come from git, from DVC's cache or from the remote (None: the default one).
    """
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexError
    from pygit2 import GitError

    root, known = f"/results/{study}/", dict[str, str]()
    try:
        files = DVCFileSystem(rev=rev, config={"core": {"remote": remote}} if remote else None)
        found = {path.removeprefix(root): at for path, at in files.find(root, detail=True).items()}
    except DataIndexError as error:
        raise InputError(
            f"{rev}: {error}: neither DVC's cache nor the remote lists its files: "
            "`--against <remote>` asks another one"
        ) from None
    except DvcException as error:
        raise InputError(f"DVC: {error}") from None
    except GitError as error:
        trust = f"`git config --global --add safe.directory {Path.cwd()}`"
        raise InputError(f"git: {error}: if this checkout is another user's: {trust}") from None
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")

        def original(name: str) -> Path | None:
            try:
                files.get_file(root + name, str(copy))
            except (OSError, DvcException):
                return None
            return copy if known.get(name) in (None, md5_of(copy)) else None

        for name, at in found.items():
            if is_artifact(name) and "md5" in at:
                known[name] = at["md5"]
            elif is_artifact(name) and "fs_info" in at and original(name):
                known[name] = md5_of(copy)
        yield known, original, any("md5" in at for at in found.values())


def compare(here: Path, known: dict[str, str], original: Original) -> list[Finding]:
    """Verdicts on all artifacts of two trees, in the order of the pipeline."""
    present, order = hashes_of(here), [*CATALOG, None]
    findings = []
    for name in sorted(present | known, key=lambda name: (order.index(artifact_of(name)), name)):
        if name not in present:
            findings.append(Finding(name, Verdict.MISSING))
        elif name not in known:
            findings.append(Finding(name, Verdict.EXTRA))
        elif present[name] == known[name]:
            findings.append(Finding(name, Verdict.IDENTICAL))
        else:
            findings.append(compare_files(name, here / name, original(name)))
    return findings


def compare_files(name: str, here: Path, there: Path | None) -> Finding:
    """The verdict on an artifact whose bytes differ; an unreadable file counts as different."""
    different = partial(Finding, name, Verdict.DIFFERS, math.inf)
    read, artifact, contents = READERS.get(Path(name).suffix), artifact_of(name), list[Any]()
    for path in filter(None, (here, there)):
        try:
            contents.append(read(path) if read else path.stat().st_size)
        except UNREADABLE as error:
            return different(f"{path}: not readable ({error}): remove it and run the study again")
    if Path(name).suffix in ENDS:
        return Finding(name, Verdict.UNREAD)
    if there is None:
        return different("only its hash is known: neither DVC's cache nor a remote has the file")
    if read is None:
        return different("{} bytes here, {} there".format(*contents))
    verdict, used, said, explained = Verdict.WITHIN, 0.0, "", []
    within = CATALOG[artifact].within if artifact else EXACT
    for share, words in _differences(within, *contents):
        if words.startswith(EXPLAINS):
            explained.append(words)
        elif math.isnan(share):
            verdict = Verdict.UNREAD
        elif share > used:
            used, said = share, words
        if used > 1:
            verdict = Verdict.DIFFERS
            break
    return Finding(name, verdict, used, said, tuple(explained))


def _read_tensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="numpy") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
        facts = _flat({key: _parsed(value) for key, value in (file.metadata() or {}).items()})
    tensors = {f"tensor {name} ({value.dtype})": value for name, value in found.items()}
    return tensors | {f"{FACTS}{name}": value for name, value in facts.items()}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _columns(table: pd.DataFrame) -> dict[str, Any]:
    return {f"column {name}": values.to_numpy() for name, values in table.items()}


def _flat(content: Any, path: str = "") -> dict[str, Any]:
    """All values of nested JSON, with their keys joined by dots; an empty container is a value."""
    if not isinstance(content, dict | list) or not content:
        return {path: content if isinstance(content, float | int | str) else repr(content)}
    found: dict[str, Any] = {}
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        found |= _flat(value, f"{path}.{key}" if path else str(key))
    return found


def _check_whole(path: Path) -> None:
    content = path.read_bytes()
    if not content.strip() or not content.rstrip().endswith(ENDS[path.suffix]):
        raise ValueError("it is empty, or its end is missing")
    if path.suffix == ".png":
        _check_picture(content)


def _check_picture(content: bytes) -> None:
    with any_size(), Image.open(io.BytesIO(content), formats=FORMATS) as picture:
        picture.load()


READERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": _read_tensors,
    ".parquet": lambda path: _columns(pd.read_parquet(path)),
    ".csv": lambda path: _columns(pd.read_csv(path, keep_default_na=False, na_values=[""])),
    ".json": lambda path: _flat(json.loads(path.read_bytes())),
    ".yaml": lambda path: _flat(read_yaml(path)),
} | dict.fromkeys(ENDS, _check_whole)
# Shares of the tolerance that are used, in words. Infinity: no tolerance; NaN: not compared.
Differences = Iterator[tuple[float, str]]


def _differences(within: Tolerance, here: dict[str, Any], there: dict[str, Any]) -> Differences:
    """Differences of values by name: tensors, columns, or facts of JSON."""
    for name in sorted(here.keys() ^ there.keys()):
        yield math.inf, f"{name}: only {'here' if name in here else 'there'}"
    pairs = {
        name: (np.asarray(here[name]), np.asarray(there[name])) for name in here if name in there
    }
    for name, (left, right) in pairs.items():
        if left.shape != right.shape:
            yield math.inf, f"{name}: shape {left.shape} here, {right.shape} there"
    flips = [
        _differs(*pairs.pop(f"column {name}")) for name in CHOICES if f"column {name}" in pairs
    ]
    other = np.any(flips, axis=0) if flips else np.zeros(1, dtype=bool)
    if count := int(other.sum()):
        most = math.ceil(CHOSEN * len(other))
        said = f"another choice in {count} of {len(other)} rows, first in row {other.argmax()}"
        yield count / most, f"{said} (tolerance {most})"
    for name, (left, right) in pairs.items():
        allowed = COMPUTED if name.startswith(FACTS) else within
        if name.startswith("tensor null_basis") and not np.array_equal(left, right):
            # a basis is free to rotate in its span
            apart = np.linalg.norm(left @ left.T - right @ right.T)
            yield from _values(allowed, f"{name}, distance of the spans", apart, np.zeros(()))
        else:
            yield from _values(
                allowed, name, left, np.where(other, left, right) if count else right
            )


def _values(within: Tolerance, name: str, here: Any, there: Any) -> Differences:
    """The largest difference of two arrays of floats, and every one of other values."""
    if {here.dtype.kind, there.dtype.kind} not in ({"f"}, {"f", "i"}):
        for place in np.argwhere(_differs(here, there)):
            at = tuple(map(int, place))
            yield _share(here[at], there[at]), _said(name, at, here, there)
        return
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.nan_to_num(np.abs(here - there), nan=np.inf, posinf=np.inf)
        size = np.where((here == there) | (np.isnan(here) & np.isnan(there)), 0.0, size)
        scale = np.fmax(np.abs(here), np.abs(there))
        if name.startswith("tensor "):
            squares = [np.square(x, dtype=np.float64) for x in (here, there)]
            means = (np.mean(x, where=np.isfinite(x)) for x in squares if np.isfinite(x).any())
            scale = np.fmax(scale, np.sqrt(max(means, default=0.0)))
    allowed = within.absolute + within.relative * np.nan_to_num(scale, posinf=0.0)
    used = np.divide(size, allowed, out=np.where(size > 0, np.inf, 0.0), where=allowed > 0)
    if used.any():
        at = tuple(map(int, np.unravel_index(np.argmax(used), used.shape)))
        off = f" (off by {size[at]:.2g}, tolerance {allowed[at]:.2g})"
        yield float(used[at]), _said(name, at, here, there) + off * bool(np.isfinite(size[at]))


def _differs(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    same = here.astype(object) == there.astype(object)
    return np.asarray(~(np.asarray(same, dtype=bool) | (pd.isna(here) & pd.isna(there))))


def _share(here: Any, there: Any) -> float:
    """NaN for two pictures that can be opened, infinity for all other values."""
    try:
        for content in (here, there):
            _check_picture(content)
    except (TypeError, *UNREADABLE):
        return math.inf
    return math.nan


def _said(name: str, at: tuple[int, ...], here: np.ndarray, there: np.ndarray) -> str:
    values = (f"{len(x)} bytes" if isinstance(x, bytes) else x for x in (here[at], there[at]))
    return "{}: {} here, {} there".format(f"{name}{[*at] if at else ''}", *values)


def summary(findings: list[Finding]) -> list[str]:
    """Lines for the folders, other software versions and what differs; the last is the verdict."""
    tops, lines = dict[str, list[Finding]](), []
    for finding in findings:
        tops.setdefault(finding.name.split("/")[0], []).append(finding)
    for top, members in tops.items():
        lines.append(f"{top}: {_counts(members)}")
        near = [one for one in members if one.verdict in GOOD and one.used]
        if nearest := max(near, key=lambda one: one.used, default=None):
            lines.append(f"    nearest to its limit: {nearest.name}: {nearest.said}")
    lines += sorted({line for finding in findings for line in finding.explained})
    for verdict, fix in FIXES.items():
        if names := [finding.name for finding in findings if finding.verdict == verdict]:
            named = ", ".join(names) if verdict == Verdict.UNREAD else listed(names)
            lines.append(f"{len(names)} {verdict}: {named}: {fix}")
    differing = [finding for finding in findings if finding.verdict == Verdict.DIFFERS]
    for finding in differing[:MOST_NAMES]:
        place = "the first that" if finding is differing[0] else "also"
        lines.append(f"{place} differs: {finding.name}: {finding.said}")
    same = all(finding.verdict in GOOD for finding in findings)
    unread = same and any(finding.verdict == Verdict.UNREAD for finding in findings)
    answer = "the same, where compared" if unread else "the same" if same else "NOT the same"
    return [*lines, f"{answer}: {len(findings)} artifacts: {_counts(findings)}"]


def _counts(findings: list[Finding]) -> str:
    counts = Counter(finding.verdict for finding in findings)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
