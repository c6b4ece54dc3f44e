"""Check a finished study before it is published, and record it in DVC's cache."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.files import read_json, sha256_of, write_bytes
from singflow.config.sections import LOCAL
from singflow.data.images import Unusable, read_image
from singflow.engines.dvc import FIRST
from singflow.errors import InputError
from singflow.parallel import map_ahead
from singflow.sharing.remotes import (
    LOCK,
    LOCK_BEFORE,
    NAMES,
    PublishedArtifact,
    artifacts,
    listed,
    remove_damaged,
)
from singflow.system import ask

if TYPE_CHECKING:
    import pandas as pd


def git(*arguments: str) -> list[str]:
    """The NUL-separated names that a git command prints; InputError if the command fails."""
    answer = ask("git", *arguments, seconds=60)
    if not answer.ok:
        raise InputError(f"git {arguments[0]}: {answer.message}")
    return list(filter(None, answer.out.split("\0")))


def check_committed() -> None:
    """Check that tracked files are as in the last commit, except results and dvc.lock."""
    status = git("status", "--porcelain", "-z", "--no-renames", "--untracked-files=no")
    changed = [line[3:] for line in status if not line[3:].startswith(("results/", "dvc.lock"))]
    if changed:
        raise InputError(
            f"changed since the last commit: {listed(changed)}: commit it, "
            "so that others get what the results were made of"
        )


def check_given(repo: Any, own: Iterable[str]) -> None:
    """Check that the files on which steps depend, and the user's own, are in git or in DVC."""
    root = Path(repo.root_dir)
    deps = [dep for stage in repo.index.stages for dep in stage.deps if dep.protocol == "local"]
    needed = {*(Path(dep.fs_path) for dep in deps), *(root / name for name in own)}
    there = [path for path in needed if path.is_relative_to(root) and path.exists()]
    inside = sorted(str(path.relative_to(root)) for path in there)
    outs = [Path(out.fs_path) for out in repo.index.outs]
    alone = [
        name
        for name in git("ls-files", "--others", "-z", "--", *inside)
        if not name.endswith(".dvc")
        and Path(name).name != ".gitignore"
        and not any((root / name).is_relative_to(out) for out in outs)
    ]
    if alone:
        fix = f"`dvc add {alone[0]}`"
        if Path(alone[0]).parts[0] != LOCAL:  # git ignores what is there
            fix = f"`git add {alone[0]}`, {fix} where it is large, or move it away"
        raise InputError(
            f"steps depend on what is neither in git nor in DVC: {listed(alone)}: {fix}"
        )


def check_images(
    root: Path,
    manifest: pd.DataFrame,
    max_pixels: int,
    threads: int,
    progress: Callable[[Iterable[str]], Iterable[str]],
) -> None:
    """Check by SHA-256 that the images are still those that the manifest lists."""

    def mistake(row: Any) -> str:
        with suppress(OSError, Unusable):
            if hashlib.sha256(read_image(root, row, max_pixels)).hexdigest() == row.sha256:
                return ""
        return row.path

    rows = manifest.itertuples(index=False)
    if wrong := list(filter(None, progress(map_ahead(mistake, rows, threads)))):
        raise InputError(
            f"{root}: changed or gone since the study listed its images: {listed(wrong)}: "
            "restore them, or run `snakemake --cores all --forcerun build_manifest`"
        )


def check_unchanged(repo: Any) -> None:
    """Check by content that every result is what its step computed from the present inputs.

    Either Snakemake's records or dvc.lock must confirm it. A result is as its step left it if it
    still has the time stamp of that moment, or the content that a later step read.
    """
    from snakemake.io import IOFile
    from snakemake.persistence.file import FilePersistence

    persistence = FilePersistence(nolock=True, path=Path(".snakemake"))
    stages = [stage for stage in repo.index.stages if stage.cmd is not None and stage.name != FIRST]
    outs = [str(out) for stage in stages for out in stage.outs]
    records = {out: persistence.metadata(IOFile(out)) for out in outs}
    found: dict[str, str] = {}
    for record in filter(None, records.values()):
        found |= record.input_checksums or {}
    hashed = cache(lambda name: f"sha256:{sha256_of(Path(name))}" if Path(name).is_file() else "")

    def doubts(out: str) -> Iterator[tuple[str, str]]:
        record = records[out]
        if not record or (
            record.endtime != Path(out).stat().st_mtime and found.get(out) != hashed(out)
        ):
            yield out, "is not as its step left it: remove it, and run `singflow run`"
            return
        again = f"restore it, or run `snakemake --cores all --forcerun {record.rule}`"
        for name, checksum in (record.input_checksums or {}).items():
            if hashed(name) != checksum:
                yield name, f"has changed since {out} was computed from it: {again}"

    reasons: dict[str, str] = {}
    for stage in stages:
        against = dict(doubt for out in stage.outs for doubt in doubts(str(out)))
        entries = (*stage.deps, *stage.outs)
        if against and (stage.changed_stage() or any(one.workspace_status() for one in entries)):
            reasons |= against
    if reasons:
        raise InputError("; ".join(" ".join(doubt) for doubt in list(reasons.items())[:3]))


def name_translators(kept: Iterable[PublishedArtifact], study: str) -> None:
    """Make every published translator a named artifact of DVC, in results/<study>/dvc.yaml."""
    results, named = Path("results", study), {}
    for artifact in kept:
        path = str(Path(artifact.path).relative_to(results))
        if not (names := CATALOG["network"].names_in(path)):
            continue
        space, model, kind = names["space"], names["model"], names["kind"]
        name = re.sub(r"[^\w/-]", "-", f"{space}/{model}/{kind}")  # DVC takes no other characters
        while name in named:  # another model's, where a dot of one is a dash of the other
            name += "-2"
        report = read_json(Path(artifact.path).with_suffix(".json"))
        facts = {key: report[key] for key in ("n_train", "validation_r2", "validation_cosine")}
        named[name] = {
            "path": path,
            "type": "model",
            "desc": f"features of {model} to embeddings of {space}, study {study}",
            "labels": ["translator", space, model, kind],
            "meta": {"study": study, **names, **facts},
        }
    text = yaml.safe_dump({"artifacts": named}, sort_keys=False)
    write_bytes(results / NAMES, f"# `make publish` writes this file.\n{text}".encode())


def commit(repo: Any, study: str) -> list[PublishedArtifact]:
    """Record all results in dvc.lock and copy them into DVC's cache; replace damaged objects there.

    Like `dvc commit --force`, but it records only what changed, which takes less time. Steps that
    the study no longer has, such as those of removed models, leave dvc.lock.
    """
    from dvc.utils.serialize import load_yaml, modify_yaml

    write_bytes(LOCK_BEFORE, LOCK.read_bytes() if LOCK.exists() else b"")
    changed = []
    for stage in repo.index.stages:
        if any(stage.changed_entries()):
            stage.save()
            changed.append(stage)
        stage.commit(relink=False)
    for file, stages in groupby(changed, key=lambda stage: stage.dvcfile):
        file.dump_stages(list(stages), update_pipeline=False)
    steps = {stage.name for stage in repo.index.stages if stage.cmd is not None}
    if left := load_yaml(LOCK)["stages"].keys() - steps:
        with modify_yaml(LOCK) as recorded:
            for name in left:
                del recorded["stages"][name]
    LOCK_BEFORE.unlink()
    kept = artifacts(repo, study)
    for artifact in remove_damaged(repo.cache.local, kept):
        artifact.out.commit(relink=False)
    return kept
