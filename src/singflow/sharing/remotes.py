"""Finished studies, shared through DVC's remotes: what publishing and fetching have in common."""

import hashlib
import json
import logging
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from singflow.config.reading import read_yaml
from singflow.config.study import PARAMS
from singflow.doctor.dvc import check_lock, check_remote
from singflow.engines.code import write_digests
from singflow.engines.stages import FIRST
from singflow.errors import InputError
from singflow.system import ask, in_bytes

Tier = Literal["metrics", "translators", "features"]
TIERS: tuple[Tier, ...] = ("metrics", "translators", "features")
READ = re.compile(r"(tables|figures)/|[^/]+\.(json|html)$")
SHARD = re.compile(r"(features|embeddings)/.*/shard-\d+\.safetensors$")
MOST_NAMES = 5  # that a message lists
HALVES = (
    "ssh",
    "webdav",
    "webdavs",
)  # kinds of remotes whose servers keep the half of a file whose sender was killed
LOCK = Path("dvc.lock")
RWLOCK = Path(".dvc/tmp/rwlock")  # who reads and writes what, which DVC does not write whole
CACHE = Path(".dvc/cache")
LOCK_BEFORE = Path(
    ".dvc/tmp/dvc.lock.before"
)  # while a publication writes dvc.lock, which takes DVC many steps; empty: there was none


def tier_of(path: str) -> Tier:
    """The smallest tier that holds an artifact.

    metrics: what people read; translators: all but the shards of features and embeddings; features: all.
    """
    return "metrics" if READ.match(path) else "features" if SHARD.match(path) else "translators"


def listed(names: Collection[str]) -> str:
    """The first names, and how many more there are."""
    first = sorted(names)[:MOST_NAMES]
    return ", ".join(first) + (
        f" and {len(names) - len(first)} more" if len(names) > len(first) else ""
    )


class Artifact(NamedTuple):
    """An artifact that DVC keeps: path relative to the repository, tier, MD5 and bytes as dvc.lock has them, and DVC's own record of it."""

    path: str
    tier: Tier
    md5: str
    size: int
    out: Any


@contextmanager
def repository() -> Iterator[Any]:
    """DVC's view of this checkout, its lock held, dvc.lock as it was before a publication that was killed, and no half copies.

    DVC's list of what to transfer is made anew: a process killed while it wrote one leaves a part that DVC takes for the whole, and then
    it calls a transfer complete that never was. The digests of the code, on which its stages depend, are those of the code here.
    """
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]
    from dvc.repo import Repo, lock_repo  # type: ignore[import-untyped]
    from dvc.utils.serialize import LOADERS, parse_yaml  # type: ignore[import-untyped]

    parsed = cache(parse_yaml)
    LOADERS[".yaml"] = lambda path, fs: deepcopy(
        parsed(fs.cat_file(path), path)
    )  # DVC parses params.yaml anew for every step
    write_digests()
    for name in ("dvc", "dvc_data"):
        logging.getLogger(name).setLevel(logging.ERROR)  # of what lacks, messages here tell
    try:
        with Repo() as repo, lock_repo(repo):
            if LOCK_BEFORE.exists():
                LOCK_BEFORE.replace(LOCK) if LOCK_BEFORE.stat().st_size else LOCK.unlink(
                    missing_ok=True
                )
                LOCK_BEFORE.unlink(missing_ok=True)
            _remove_torn(RWLOCK)
            _remove_torn_copies(Path("results"))
            if not CACHE.is_symlink():  # to one that others share
                _remove_torn_copies(CACHE)
            repo.drop_data_index()
            yield repo
    except DvcException as error:
        raise InputError(f"DVC: {error}") from None


def _remove_torn_copies(folder: Path) -> None:
    """Remove what a killed DVC left half copied, under the names that it gives to copies until they are whole."""
    for path in folder.rglob(".*.tmp"):
        if re.fullmatch(r"\.[\w-]{22}\.tmp", path.name):
            path.unlink(missing_ok=True)


def _remove_torn(path: Path) -> None:
    """Remove a JSON file that a killed process left half written."""
    try:
        json.loads(path.read_bytes())
    except FileNotFoundError:
        pass
    except ValueError:
        path.unlink()


def artifacts(repo: Any, study: str) -> list[Artifact]:
    """The study's artifacts that the cache holds."""
    results = Path(repo.root_dir, "results", study)
    outs = [
        out
        for out in repo.index.outs
        if out.use_cache and Path(out.fs_path).is_relative_to(results)
    ]
    lacking = [str(out) for out in outs if not out.hash_info]
    if lacking:
        stages = read_yaml(LOCK).get("stages", {}).values() if LOCK.is_file() else []
        if old := [
            dep["path"]
            for stage in stages
            for dep in stage.get("deps", [])
            if dep["path"].startswith("src/")
        ]:
            raise InputError(
                f"{LOCK}: was written when steps depended on files of code, as {old[0]}, and had other names: "
                "`git checkout <tag or commit>` of that publication fetches it; by this version the study must be computed again"
            )
        raise InputError(
            f"dvc.lock knows nothing of {listed(lacking)}: no such study has been published in this commit"
        )
    return [
        Artifact(
            str(out),
            tier_of(str(Path(out.fs_path).relative_to(results))),
            out.hash_info.value,
            out.meta.size or 0,
            out,
        )
        for out in outs
    ]


def sizes(kept: Iterable[Artifact]) -> str:
    """How large the tiers are, each with those before it."""
    total, parts = 0, []
    for tier in TIERS:
        total += sum({each.md5: each.size for each in kept if each.tier == tier}.values())
        parts.append(f"{tier} {in_bytes(total)}")
    return ", ".join(parts)


def is_damaged(odb: Any, md5: str) -> bool:
    """Whether an object in a cache or a remote holds something else than its name says."""
    digest = hashlib.md5(usedforsecurity=False)
    with odb.fs.open(odb.oid_to_path(md5), "rb") as file:
        for block in iter(lambda: file.read(2**20), b""):
            digest.update(block)
    return digest.hexdigest() != md5


def remove_damaged(odb: Any, kept: Iterable[Artifact]) -> list[Artifact]:
    """Remove what a cache or a remote holds damaged, so that it comes there again."""
    damaged = [each for each in kept if odb.exists(each.md5) and is_damaged(odb, each.md5)]
    for each in damaged:
        odb.fs.remove(odb.oid_to_path(each.md5))
    return damaged


def remove_torn(repo: Any, odb: Any) -> None:
    """Remove what a killed publication left half in a remote, so that it comes there again; DVC takes what is there for whole.

    An object is half where it has another size than in the cache. Only servers that keep halves are asked: object stores take an object
    whole or not at all, and in a folder DVC looks at the content of what it did not write-protect yet.
    """
    if odb.fs.protocol not in HALVES:
        return
    cache = repo.cache.local
    md5s = sorted(
        {
            used.value
            for among in repo.used_objs(push=True).values()
            for used in among
            if cache.exists(used.value)
        }
    )
    places = [odb.oid_to_path(md5) for md5 in md5s]
    for md5, place, there in zip(
        md5s, places, odb.fs.info(places, return_exceptions=True), strict=True
    ):
        if isinstance(there, FileNotFoundError):
            continue
        if isinstance(there, Exception):
            raise there
        if there["size"] not in (
            None,
            cache.fs.size(cache.oid_to_path(md5)),
        ):  # None: the server does not tell
            odb.fs.remove(place)


def check_idle() -> None:
    """Check that no other process works on this checkout, with either engine."""
    locks = Path(".snakemake/locks")
    if locks.is_dir() and any(locks.iterdir()):
        raise InputError(
            f"{locks}: Snakemake is at work here: wait for it; if it was killed: `snakemake --unlock`"
        )
    lock = check_lock(Path(".dvc/tmp/lock"))
    if lock.status != "ok":
        raise InputError(f".dvc/tmp/lock: {lock.found.partition(':')[0]}: {lock.mend}")


def working_remote(config: Any, name: str | None, *, write: bool) -> str:
    """Name of the remote to use, once it is known to work; it becomes the default one in `config`."""
    if name and name not in config["remote"]:
        raise InputError(f"remote {name}: there is none of that name: `dvc remote list` shows them")
    chosen: str = name or config["core"].get("remote")
    config["core"]["remote"] = chosen
    finding = check_remote(Path(), config)
    if finding.status != "ok":
        raise InputError(f"{finding.found}: {finding.mend}")
    settings = config["remote"][chosen]
    if write and settings["url"].startswith(("http:", "https:")) and "method" not in settings:
        raise InputError(
            f"remote {chosen} ({settings['url']}) is for reading only: publish to another one, `dvc remote list` shows them"
        )
    return chosen


def snakemake(*options: str) -> str:
    """What a call of Snakemake says."""
    answer = ask("snakemake", *options, seconds=3600)
    if not answer.ok:
        raise InputError(
            f"snakemake {' '.join(options)}: {answer.out.strip() or answer.words}"
        )  # a dry run complains on standard output
    return answer.out


def nothing_to_do(params: Path = PARAMS) -> bool:
    """Whether Snakemake has nothing left to do."""
    return "Nothing to be done" in snakemake(
        "--dry-run", *([] if params == PARAMS else ["--configfile", str(params)])
    )


def check_finished(params: Path = PARAMS) -> None:
    """Check that one of the engines has nothing left to do; of what the other one made, an engine may know nothing."""
    if nothing_to_do(params):
        return
    if params == PARAMS and LOCK.is_file():
        with repository() as repo:
            if repo.status().keys() <= {FIRST}:
                return
    raise InputError(
        "the run is not finished: `snakemake --dry-run` lists what is left, `singflow run` does it"
    )
