"""Fetching a published study: what may be fetched, and its way out of a remote through DVC's cache into results/."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from singflow.artifacts.files import md5_of, read_json
from singflow.engines.code import FILE
from singflow.engines.stages import FIRST
from singflow.errors import InputError
from singflow.sharing.remotes import (
    MOST_NAMES,
    TIERS,
    Artifact,
    Tier,
    is_damaged,
    listed,
    remove_damaged,
)

HEAL = 'To heal the remote, where the results still are: make publish PUBLISH="--repair"; then fetch again.'


def inputs(repo: Any, but: Path | None) -> list[str]:
    """DVC's files of what was added with `dvc add`, as own weights and images are."""
    left_out = Path(repo.root_dir, but) if but else None
    return sorted(
        {
            out.stage.addressing
            for out in repo.index.outs
            if out.stage.cmd is None
            and not (left_out and Path(out.fs_path).is_relative_to(left_out))
        }
    )


def check_same_study(repo: Any) -> None:
    """Check that parameters, code and other files here are those that dvc.lock was written for."""
    made = {out.fs_path for out in repo.index.outs if out.stage.name != FIRST}
    absent = (
        [] if read_json(FILE).get("archives") else ["archives"]
    )  # which cannot be compared where they are not
    changed = set()
    for stage in repo.index.stages:
        if stage.changed_stage():
            changed.add(stage.addressing)
        for dep in stage.deps:
            if not any(path == dep.fs_path or path.startswith(f"{dep.fs_path}/") for path in made):
                status = {
                    file: [key for key in what if key not in absent]
                    if isinstance(what, dict)
                    else True
                    for file, what in dep.workspace_status().items()
                }
                changed |= {
                    f"{file}: {', '.join(what)}" if isinstance(what, list) else file
                    for file, what in status.items()
                    if what
                }
    if changed:
        raise InputError(
            f"not as the published study had it: {listed(changed)}: `git diff` shows your changes, `git checkout <tag or commit>` goes back"
        )


def wanted(kept: Iterable[Artifact], tier: Tier) -> list[Artifact]:
    """The artifacts of a tier and of those before it."""
    return [each for each in kept if TIERS.index(each.tier) <= TIERS.index(tier)]


def check_nothing_lost(repo: Any, kept: Iterable[Artifact], results: Path) -> None:
    """Check that fetching replaces no results but those that DVC's cache holds, as it holds those of other versions."""

    def only_here(out: Any) -> bool:
        if not out.exists or not out.workspace_status():
            return False
        md5 = md5_of(Path(out.fs_path))
        return not repo.cache.local.exists(md5) or is_damaged(repo.cache.local, md5)

    other = [each.path for each in kept if only_here(each.out)]
    if other:
        raise InputError(
            f"results here differ from the published ones: {listed(other)}: `make publish` or move {results} away first"
        )


def check_there(repo: Any, kept: Iterable[Artifact], remote: str) -> None:
    """Check that a remote has something of the study, where the cache lacks it."""
    source, cache = repo.cloud.get_remote_odb(remote), repo.cache.local
    lacking = [each.md5 for each in kept if not cache.exists(each.md5)]
    if lacking and not any(
        source.fs.exists(source.oid_to_path(md5)) for md5 in lacking
    ):  # oids_exist removes what is damaged
        mend = f"is it the right one? `dvc remote modify --local {remote} url <folder or address>`"
        raise InputError(
            f"remote {remote} ({repo.config['remote'][remote]['url']}) has nothing of this study: {mend}"
        )


def download(repo: Any, kept: list[Artifact], remote: str) -> list[Artifact]:
    """Bring objects into the cache, each with its hash checked."""
    cache, source = repo.cache.local, repo.cloud.get_remote_odb(remote)
    damaged = remove_damaged(cache, kept)
    in_folder = {
        each.md5 for each in kept if source.fs.protocol == "local" and source.exists(each.md5)
    }
    failed = {
        hash_info.value
        for hash_info in repo.cloud.pull(
            [each.out.hash_info for each in kept], remote=remote
        ).failed
    }
    lost = [each for each in kept if each.md5 in failed or not cache.exists(each.md5)]
    if lost:
        faults = [
            (
                each.path,
                source.oid_to_path(each.md5),
                _fault(source, each.md5, each.md5 in in_folder),
            )
            for each in lost
        ]
        named = [
            f"{path}: its object {place} is {fault} in remote {remote}"
            for path, place, fault in faults[:MOST_NAMES]
        ]
        more = [f"and {len(lost) - MOST_NAMES} more"] if len(lost) > MOST_NAMES else []
        raise InputError("\n".join([*named, *more, HEAL]))
    return damaged


def _fault(source: Any, md5: str, was_there: bool) -> str:
    """What is wrong with an object; was_there: before DVC looked, which removes what is damaged in a folder."""
    try:
        return "damaged" if is_damaged(source, md5) else "there, but could not be fetched"
    except FileNotFoundError:
        return "damaged" if was_there else "missing"


def place(kept: Iterable[Artifact]) -> None:
    """Put artifacts where they belong, out of the cache."""
    for each in kept:
        each.out.checkout(force=True)
