"""Checks of the DVC repository: its remote, caches, databases and lock."""

import fcntl
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from singflow.doctor.findings import Finding, Status
from singflow.extras import MissingExtra, check_installed
from singflow.system import ask, existing, in_bytes, writable

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
    from dvc.config import Config, ConfigError  # type: ignore[import-untyped]

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


def check_remote(root: Path, config: Any, seconds: float = 60, *, write: bool = True) -> Finding:
    """Whether the default remote answers, within this time if it is on another machine.

    write: whether it must accept files, if it is a folder.
    """
    from dvc.config import ConfigError
    from dvc.fs import get_cloud_fs  # type: ignore[import-untyped]

    add = "`dvc remote add --default <name> <folder or address>` names one"
    name = config["core"].get("remote")
    if not name:
        return Finding("DVC remote", "fail", "none is set (core.remote)", add)
    try:
        kind, _, path = get_cloud_fs(config, name=name)
    except ConfigError as error:
        return Finding("DVC remote", "fail", str(error), add)
    except ImportError as error:
        wanted = " ".join(re.findall(r"dvc-[a-z0-9]+", str(error)))
        return Finding("DVC remote", "fail", f"{name}: {error}", f"pip install {wanted}")
    settings = config["remote"][name]
    if kind.protocol == "local":
        folder = Path(path)
        place = existing(folder)
        if not write and os.access(folder, os.R_OK | os.X_OK):
            found = f"{name}: {folder} can be read"
        elif not writable(place):
            found = f"{name}: {place} is not a folder that can be written to"
            return Finding("DVC remote", "fail", found, f"`dvc remote modify {name} url <folder>`")
        else:
            made = "" if place == folder else "; the first push makes it"
            found = f"{name}: {folder} can be written to{made}"
    else:
        program = "from singflow.doctor.dvc import remote_answers; remote_answers()"
        answer = ask(sys.executable, "-c", program, str(root), name, seconds=seconds)
        found = f"{name} ({settings['url']}) answers"
        if not answer.ok:
            reason = answer.words.split("; ")[-1]
            fix = (
                "check its address and credentials, and whether this machine may reach it: `dvc "
                f"remote modify {name} --help`"
            )
            found = f"{name} ({settings['url']}) cannot be reached: {reason}"
            return Finding("DVC remote", "fail", found, fix)
    if settings.get("verify"):
        return Finding("DVC remote", "ok", found)
    found = f"{found}, but an object damaged there would be taken for good"
    return Finding("DVC remote", "warn", found, f"`dvc remote modify {name} verify true`")


def remote_answers() -> None:
    """Ask the remote in this process's arguments; the exit status is 0 if it answers."""
    from dvc.config import Config
    from dvc.fs import get_cloud_fs

    root, name = sys.argv[1:]
    try:
        kind, options, path = get_cloud_fs(Config(str(Path(root, ".dvc"))), name=name)
        files = kind(**options)
        if kind.protocol in ("http", "https"):
            files.fs.exists(f"{path}/files/md5/00/0", strict=True)
        elif not any(files.exists(place) for place in (path, *map(str, Path(path).parents))):
            raise FileNotFoundError(path)
    except Exception as error:  # noqa: BLE001 (clients of remotes raise many kinds)
        sys.exit(f"{type(error).__name__}: {error}".replace("\n", " "))


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
    from dvc.dirs import site_cache_dir  # type: ignore[import-untyped]

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
    with suppress(FileNotFoundError), path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = f"held by process {file.read().strip() or 'unknown'}"
            found = f"{holder}: `dvc repro` and `make publish` would stop"
            return Finding("DVC lock", "warn", found, "wait for it, or stop it")
    return Finding("DVC lock", "ok", "free")
