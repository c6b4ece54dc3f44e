"""Checks of the DVC repository: its remote, caches, databases and lock."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from singflow.doctor.findings import Finding, Status
from singflow.engines.at_work import lock_holder
from singflow.engines.remotes import ask_remote
from singflow.extras import MissingExtra, check_installed
from singflow.system import existing, in_bytes, writable

LINKS = ("reflink", "hardlink", "symlink")
NETWORK = re.compile(
    r"nfs|lustre|gpfs|beegfs|cifs|smb|ceph|afs|9p|glusterfs|orangefs|panfs|wekafs|fuse\.(sshfs|rclone|s3fs|gcsfuse)"
)


def check_dvc(root: Path, estimated: int) -> Iterator[Finding]:
    """Check a DVC repository; estimated: bytes that would go into its cache."""
    try:
        check_installed("dvc")
    except MissingExtra as error:
        yield Finding("DVC", "absent", f"results are kept by Snakemake alone: {error}")
        return
    from dvc.config import Config, ConfigError

    if not (root / ".dvc").is_dir():
        yield Finding("DVC", "absent", "not a DVC repository: results are kept by Snakemake alone")
        return
    try:
        config = Config(str(root / ".dvc"))
    except ConfigError as error:
        yield Finding("DVC", "fail", str(error), f"correct {root / '.dvc/config'}")
        return
    yield check_remote(root, config)
    yield check_cache(root, config["cache"], estimated)
    yield check_shared_cache(root, config["cache"])
    yield check_state(config["core"], mounts())
    yield check_lock(root / ".dvc/tmp/lock")


def check_remote(root: Path, config: Any, seconds: float = 60) -> Finding:
    """Whether the default remote answers, within this time if it is on another machine."""
    answer = ask_remote(root, config, seconds)
    drawback: Status = "warn" if answer.fix else "ok"
    return Finding("DVC remote", drawback if answer.works else "fail", answer.found, answer.fix)


def check_cache(root: Path, config: dict[str, Any], estimated: int) -> Finding:
    """Whether DVC's cache can hold results as links. estimated: bytes that copies would take."""
    from dvc.fs import generic, localfs

    kinds = config.get("type") or ["reflink", "copy"]
    place = existing(Path(config.get("dir") or root / ".dvc/cache"))
    target = str(root.absolute() / "dvc.yaml")
    try:
        works = generic.test_links(list(LINKS), localfs, str(place), localfs, target)
    except OSError as error:
        found = f"{error.filename or place}: {error.strerror}"
        return Finding("DVC cache", "fail", found, "`dvc cache dir <folder>` moves the cache")
    first = next((kind for kind in kinds if kind in works or kind == "copy"), None)
    same = place.stat().st_dev == root.absolute().stat().st_dev
    apart = "" if same else ", which is on another file system"
    tried = f"cache.type is {', '.join(kinds)}"
    fix = f"`dvc config cache.type {'reflink,' if 'reflink' in works else ''}symlink,copy`"
    if first is None:
        found = f"{tried}, but only {', '.join(works)} reach {place}{apart}"
        return Finding("DVC cache", "fail", found, fix)
    if first == "copy":
        copied = f"results are copied into {place}{apart}: about {in_bytes(estimated)} once more"
        return Finding("DVC cache", "warn", f"{tried}: {copied}", fix)
    return Finding("DVC cache", "ok", f"{tried}: {first}s from {place}{apart}")


def check_shared_cache(root: Path, config: dict[str, Any]) -> Finding:
    """Whether the users of a group can share one cache."""
    folder = Path(config.get("dir") or root / ".dvc/cache")
    shared = config.get("shared") == "group"
    if not shared and folder.is_relative_to(root.absolute() if folder.is_absolute() else root):
        return Finding("shared cache", "absent", "this checkout has a cache of its own")
    faults, fixes = [], []
    if not shared:
        faults.append("what one user puts there others cannot change: cache.shared is not group")
        fixes.append("dvc config cache.shared group")
    if "hardlink" in (config.get("type") or []):
        faults.append("a result edited in place would change the cache: cache.type has hardlink")
        fixes.append("dvc config cache.type symlink,copy")
    for path in (folder, *folder.glob("files/md5/*")):
        if not path.is_dir() or path.stat().st_mode & 0o2070 != 0o2070:
            faults.append(
                f"{path} is not a folder that its group can write to and that hands its group on "
                "(setgid)"
            )
            opened = f"find {folder} -type d -exec chmod g+rwxs {{}} +"
            fixes.append(f"mkdir -p {folder} && chgrp -R <group> {folder} && {opened}")
            break
    if faults:
        status: Status = "fail" if shared else "warn"
        return Finding("shared cache", status, "; ".join(faults), f"`{' && '.join(fixes)}`")
    return Finding("shared cache", "ok", f"{folder} is shared with its group")


def mounts() -> list[tuple[Path, str]]:
    """Mount points and kinds (such as ext4 or nfs) of the mounted file systems."""
    import psutil

    return [(Path(disk.mountpoint), disk.fstype) for disk in psutil.disk_partitions(all=True)]


def file_system(path: Path, mounted: Iterable[tuple[Path, str]]) -> str:
    """Kind of the file system of a path: the last one mounted at the nearest folder above it."""
    kinds = dict(mounted)
    real = path.resolve()
    return next((kinds[folder] for folder in (real, *real.parents) if folder in kinds), "unknown")


def check_state(core: dict[str, Any], mounted: Iterable[tuple[Path, str]]) -> Finding:
    """Whether DVC's databases are on a disk of this machine."""
    from dvc.dirs import site_cache_dir

    folder = Path(site_cache_dir(core.get("site_cache_dir")))
    kind = file_system(folder, mounted)
    fix = "`dvc config --local core.site_cache_dir <folder on a disk of this machine>`"
    if NETWORK.match(kind):
        found = f"{folder} is on a network drive ({kind}): its databases fail or crawl there"
        return Finding("DVC state", "fail", found, fix)
    place = existing(folder)
    if not writable(place):
        return Finding("DVC state", "fail", f"{place} is not a folder that can be written to", fix)
    return Finding("DVC state", "ok", f"{folder} ({kind})")


def check_lock(path: Path) -> Finding:
    """Whether another DVC command holds the lock of the repository."""
    if holder := lock_holder(path):
        found = f"held by process {holder}: `dvc repro` and `make publish` would stop"
        return Finding("DVC lock", "warn", found, "wait for it, or stop it")
    return Finding("DVC lock", "ok", "free")
