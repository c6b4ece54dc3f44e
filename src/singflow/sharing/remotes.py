"""What publishing and fetching of studies through DVC's remotes have in common."""

import json
import logging
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from singflow.artifacts.catalog import CATALOG, TIERS, Tier, artifact_of
from singflow.config.reading import read_yaml
from singflow.engines.at_work import lock_holder, running_dvc
from singflow.engines.dvc import FIRST, write_digests
from singflow.engines.remotes import ask_remote
from singflow.errors import InputError
from singflow.study import PARAMS
from singflow.system import ask, in_bytes

MOST_NAMES = 5  # names that a message lists at most
# protocols whose servers keep a partial file when the process that sends it is killed
HALVES = ("ssh", "webdav", "webdavs")
LOCK = Path("dvc.lock")
MD5 = "[0-9a-f]{32}"
RESTORE = "restore it with `git checkout <tag or commit>`"
NAMES = "dvc.yaml"  # of a study's results: the names of its translators
RWLOCK = Path(".dvc/tmp/rwlock")  # which process reads or writes what; DVC writes it in parts
CACHE = Path(".dvc/cache")
# copy of dvc.lock while a publication rewrites it in many steps; empty if there was no dvc.lock
LOCK_BEFORE = Path(".dvc/tmp/dvc.lock.before")


def tiers_up_to(tier: Tier) -> tuple[Tier, ...]:
    """The tiers that a fetch of this tier brings."""
    return TIERS[: TIERS.index(tier) + 1]


def tier_of(path: str) -> Tier:
    """The smallest tier with a file, by its path in a study's results; unknown files are in all."""
    artifact = artifact_of(path)
    return CATALOG[artifact].tier if artifact else TIERS[0]


def result_files(results: Path, *without: str) -> list[Path]:
    """The files of a study, sorted, without hidden (unfinished) files and without some folders."""
    files = [path for path in results.rglob("*") if path.is_file() and path.name[0] != "."]
    left_out = {*without, NAMES}
    return sorted(path for path in files if path.relative_to(results).parts[0] not in left_out)


def listed(names: Collection[str]) -> str:
    """The first MOST_NAMES names in alphabetical order, and how many more there are."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(sorted(names)[:MOST_NAMES]) + more


class PublishedArtifact(NamedTuple):
    """A result that DVC keeps."""

    path: str  # relative to the repository
    tier: Tier
    md5: str  # as in dvc.lock
    size: int  # in bytes
    out: Any  # DVC's record of it


@contextmanager
def repository() -> Iterator[Any]:
    """DVC's view of this checkout, locked, and without the leftovers of killed processes.

    A killed publication's dvc.lock is restored, and partial copies are deleted. DVC's index of data
    is dropped: a process that is killed while it writes the index leaves a part of it, and DVC then
    reports transfers as complete that never happened. The digests of the code are written again.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo, lock_repo
    from dvc.utils.serialize import LOADERS, parse_yaml

    parsed = cache(parse_yaml)
    # parse params.yaml once; DVC would parse it again for every step
    LOADERS[".yaml"] = lambda path, fs: deepcopy(parsed(fs.cat_file(path), path))
    write_digests()
    for name in ("dvc", "dvc_data"):
        logging.getLogger(name).setLevel(logging.ERROR)  # our messages name missing files
    try:
        with Repo() as repo, lock_repo(repo):
            if LOCK_BEFORE.exists():
                if LOCK_BEFORE.stat().st_size:
                    LOCK_BEFORE.replace(LOCK)
                else:
                    LOCK.unlink(missing_ok=True)
                    LOCK_BEFORE.unlink()
            with suppress(FileNotFoundError):
                try:
                    json.loads(RWLOCK.read_bytes())
                except ValueError:  # half-written by a killed process
                    RWLOCK.unlink()
            _remove_torn_copies(Path("results"))
            if not CACHE.is_symlink():  # a link leads to a cache that others share
                _remove_torn_copies(CACHE)
            repo.drop_data_index()
            yield repo
    except DvcException as error:
        if LOCK.is_file():
            read_yaml(LOCK)  # says how to resolve the conflict markers of a merge
        raise InputError(f"DVC: {error}") from None


def _remove_torn_copies(folder: Path) -> None:
    """Remove partial copies that a killed DVC left, by the names that DVC gives to them."""
    for path in folder.rglob(".*.tmp"):
        if re.fullmatch(r"\.[\w-]{22}\.tmp", path.name):
            path.unlink(missing_ok=True)


def artifacts(repo: Any, study: str) -> list[PublishedArtifact]:
    """The results of the study that DVC keeps; InputError if dvc.lock does not have this study."""
    results = Path(repo.root_dir, "results", study)
    cached = [out for out in repo.index.outs if out.use_cache]
    kept = [out for out in cached if Path(out.fs_path).is_relative_to(results)]
    lacking = [str(out) for out in kept if not out.hash_info]
    if lacking:
        raise InputError(
            f"dvc.lock knows nothing of {listed(lacking)}: no such study has been published in "
            "this commit"
        )
    if odd := [str(out) for out in kept if not re.fullmatch(MD5, out.hash_info.value)]:
        raise InputError(f"{LOCK}: {listed(odd)}: its hash is not that of a file: {RESTORE}")
    tiers = [tier_of(str(Path(out.fs_path).relative_to(results))) for out in kept]
    return [
        PublishedArtifact(str(out), tier, out.hash_info.value, out.meta.size or 0, out)
        for tier, out in zip(tiers, kept, strict=True)
    ]


def sizes(kept: Collection[PublishedArtifact]) -> str:
    """The sizes of the tiers as text; the size of a tier includes the smaller tiers."""
    parts = []
    for tier in TIERS:
        objects = {one.md5: one.size for one in kept if one.tier in tiers_up_to(tier)}
        parts.append(f"{tier} {in_bytes(sum(objects.values()))}")
    return ", ".join(parts)


def is_damaged(odb: Any, md5: str) -> bool:
    """Whether an object's content does not have the MD5 that is the object's name.

    DVC's own check would remove the object.
    """
    from dvc_data.hashfile.hash import file_md5

    return file_md5(odb.oid_to_path(md5), odb.fs) != md5


def remove_damaged(odb: Any, kept: Iterable[PublishedArtifact]) -> list[PublishedArtifact]:
    """Remove damaged objects from a cache or remote and return their artifacts."""
    damaged = [one for one in kept if odb.exists(one.md5) and is_damaged(odb, one.md5)]
    for artifact in damaged:
        odb.fs.remove(odb.oid_to_path(artifact.md5))
    return damaged


def remove_torn(repo: Any, odb: Any) -> None:
    """Remove incomplete objects of a killed publication from a remote; DVC takes them for complete.

    An object is incomplete if its size differs from that in the cache. Only protocols in HALVES are
    checked: object stores take an object whole or not at all, and in a folder DVC checks the
    content of every object that it has not write-protected yet.
    """
    if odb.fs.protocol not in HALVES:
        return
    cache = repo.cache.local
    used = {entry.value for among in repo.used_objs(push=True).values() for entry in among}
    md5s = sorted(filter(cache.exists, used))
    places = [odb.oid_to_path(md5) for md5 in md5s]
    found = odb.fs.info(places, return_exceptions=True)
    for md5, place, there in zip(md5s, places, found, strict=True):
        if isinstance(there, FileNotFoundError):
            continue
        if isinstance(there, Exception):
            raise there
        # None: the server does not tell the size
        if there["size"] not in (None, cache.fs.size(cache.oid_to_path(md5))):
            odb.fs.remove(place)


def check_idle() -> None:
    """Check that neither Snakemake nor DVC is at work in this checkout."""
    locks = Path(".snakemake/locks")
    if locks.is_dir() and any(locks.iterdir()):
        raise InputError(
            f"{locks}: Snakemake is at work here: wait for it; if it was killed: "
            "`snakemake --unlock`"
        )
    if process := running_dvc(Path.cwd()):
        raise InputError(f"`dvc repro` is at work here (process {process}): wait for its end")
    if holder := lock_holder(Path(".dvc/tmp/lock")):
        raise InputError(f".dvc/tmp/lock: held by process {holder}: wait for it, or stop it")


def working_remote(config: Any, name: str | None, *, write: bool) -> str:
    """The name of a remote that was found to work; it becomes the default in `config`.

    `name` None is the default remote; with `write` the remote must accept files.
    """
    if name and name not in config["remote"]:
        raise InputError(f"remote {name}: there is none of that name: `dvc remote list` shows them")
    chosen: str = name or config["core"].get("remote")
    config["core"]["remote"] = chosen
    answer = ask_remote(Path(), config, write=write)
    if answer.fix:
        raise InputError(f"{answer.found}: {answer.fix}")
    settings = config["remote"][chosen]
    if write and settings["url"].startswith(("http:", "https:")) and "method" not in settings:
        raise InputError(
            f"remote {chosen} ({settings['url']}) is for reading only: publish to another one, "
            "`dvc remote list` shows them"
        )
    return chosen


def snakemake(*options: str) -> str:
    """What a Snakemake command prints; raises InputError with its messages if it fails."""
    answer = ask("snakemake", *options, seconds=3600)
    if not answer.ok:  # a dry run complains on standard output
        raise InputError(f"snakemake {' '.join(options)}: {answer.out.strip() or answer.message}")
    return answer.out


def nothing_to_do(params: Path = PARAMS) -> bool:
    """Whether a dry run of Snakemake finds nothing to do."""
    own = [] if params == PARAMS else ["--configfile", str(params)]
    return "Nothing to be done" in snakemake("--dry-run", *own)


def check_finished(params: Path = PARAMS) -> None:
    """Check that Snakemake or DVC has nothing left to do.

    One engine may not know what the other one has made. DVC knows the study in params.yaml only.
    """
    if nothing_to_do(params):
        return
    if params == PARAMS and LOCK.is_file():
        with repository() as repo:
            if repo.status().keys() <= {FIRST}:
                return
    raise InputError(
        "the run is not finished: `snakemake --dry-run` lists what is left, `singflow run` does it"
    )
