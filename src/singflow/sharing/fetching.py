"""Fetch a published study: what is checked first, and the way from a remote into results/."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from singflow.artifacts.files import md5_of, read_json
from singflow.engines.dvc import FILE, FIRST
from singflow.errors import InputError
from singflow.sharing.remotes import (
    MOST_NAMES,
    PublishedArtifact,
    is_damaged,
    listed,
    remove_damaged,
)

HEAL = (
    'To heal the remote, where the results still are: make publish PUBLISH="--repair"; '
    "then fetch again."
)


def inputs(repo: Any, but: Path | None) -> list[str]:
    """The .dvc files of a user's own weights and images, without those below the folder `but`."""
    added = [out for out in repo.index.outs if out.stage.cmd is None]
    if but:
        folder = Path(repo.root_dir, but)
        added = [out for out in added if not Path(out.fs_path).is_relative_to(folder)]
    return sorted({out.stage.addressing for out in added})


def check_listings(repo: Any, given: list[str], remote: str | None) -> None:
    """Refuse folders whose listing leads out of them: DVC would write there, as into .git/hooks.

    given: .dvc files. Listings that are not here come from the remote, without what they list.
    """
    for out in repo.index.outs:
        if out.stage.addressing not in given or not (out.is_dir_checksum or out.files):
            continue
        if out.is_dir_checksum:
            out.get_dir_cache(remote=remote)
        listing = out.get_obj()
        if listing is None:
            raise InputError(f"{out.stage.addressing}: the listing of {out} cannot be read: {HEAL}")
        for parts, _, _ in listing:
            if {"", ".", ".."} & {*parts} or "\0" in "".join(parts):
                raise InputError(
                    f"{out.stage.addressing}: the listing of {out} has {'/'.join(parts)!r}, which "
                    "leads out of it: ask its publisher, and fetch nothing from this remote"
                )


def check_same_study(repo: Any) -> None:
    """Check that parameters, code and other inputs here are those that dvc.lock was written for."""
    made = {out.fs_path for out in repo.index.outs if out.stage.name != FIRST}
    # archives that are not on this machine cannot be compared
    absent = [] if read_json(FILE).get("archives") else ["archives"]
    changed = set()
    for stage in repo.index.stages:
        if stage.changed_stage():
            changed.add(stage.addressing)
        for dep in stage.deps:
            if any(path == dep.fs_path or path.startswith(f"{dep.fs_path}/") for path in made):
                continue
            for file, what in dep.workspace_status().items():
                if not isinstance(what, dict):
                    changed.add(file)
                elif keys := [key for key in what if key not in absent]:
                    changed.add(f"{file}: {', '.join(keys)}")
    if changed:
        raise InputError(
            f"not as the published study had it: {listed(changed)}: `git diff` shows your changes, "
            "`git checkout <tag or commit>` goes back"
        )


def check_nothing_lost(repo: Any, kept: Iterable[PublishedArtifact], results: Path) -> None:
    """Check that fetching replaces no result that is neither published nor in DVC's cache."""

    def only_here(out: Any) -> bool:
        if not out.exists or not out.workspace_status():
            return False
        md5 = md5_of(Path(out.fs_path))
        return not repo.cache.local.exists(md5) or is_damaged(repo.cache.local, md5)

    if unsaved := [artifact.path for artifact in kept if only_here(artifact.out)]:
        raise InputError(
            f"results here differ from the published ones: {listed(unsaved)}: "
            f"`make publish` or move {results} away first"
        )


def check_there(repo: Any, kept: Iterable[PublishedArtifact], remote: str) -> None:
    """Check that the remote has any of the objects that the cache lacks, unless it lacks none."""
    source, cache = repo.cloud.get_remote_odb(remote), repo.cache.local
    lacking = [artifact.md5 for artifact in kept if not cache.exists(artifact.md5)]
    # not source.oids_exist(), which removes damaged objects
    if lacking and not any(source.fs.exists(source.oid_to_path(md5)) for md5 in lacking):
        raise InputError(
            f"remote {remote} ({repo.config['remote'][remote]['url']}) has nothing of this study: "
            f"is it the right one? `dvc remote modify --local {remote} url <folder or address>`"
        )


def download(repo: Any, kept: list[PublishedArtifact], remote: str) -> list[PublishedArtifact]:
    """Bring objects into the cache and check them; returns artifacts of objects damaged there.

    InputError names the objects that the remote lacks or holds damaged.
    """
    cache, source = repo.cache.local, repo.cloud.get_remote_odb(remote)
    damaged = remove_damaged(cache, kept)
    folder = source.fs.protocol == "local"
    in_folder = {one.md5 for one in kept if folder and source.exists(one.md5)}
    pulled = repo.cloud.pull([artifact.out.hash_info for artifact in kept], remote=remote)
    failed = {hash_info.value for hash_info in pulled.failed}
    if lost := [one for one in kept if one.md5 in failed or not cache.exists(one.md5)]:
        lines = [
            f"{one.path}: its object {source.oid_to_path(one.md5)} is "
            f"{_fault(source, one.md5, one.md5 in in_folder)} in remote {remote}"
            for one in lost[:MOST_NAMES]
        ]
        lines += [f"and {len(lost) - MOST_NAMES} more"] if len(lost) > MOST_NAMES else []
        raise InputError("\n".join([*lines, HEAL]))
    return damaged


def _fault(source: Any, md5: str, was_there: bool) -> str:
    """What is wrong with an object; was_there: a remote folder had it before DVC looked at it."""
    try:
        return "damaged" if is_damaged(source, md5) else "there, but could not be fetched"
    except FileNotFoundError:
        return "damaged" if was_there else "missing"
