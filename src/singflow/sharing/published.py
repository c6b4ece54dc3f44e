"""What dvc.lock, DVC and git know of a study, asked by their own commands."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path

from singflow.artifacts.catalog import CATALOG, TIERS, asked
from singflow.config.reading import read_yaml
from singflow.engines.records import results_of
from singflow.errors import InputError, in_one_line, listed
from singflow.study import Params
from singflow.system import ask

LOCK = Path("dvc.lock")
CODE = ("rules/", "scripts/", "src/", "report/")  # folders that dvc.yaml watches


def git(*arguments: str) -> list[str]:
    """The NUL-separated names that a git command prints; InputError if the command fails."""
    answer = ask("git", *arguments, seconds=60)
    if not answer.ok:
        raise InputError(f"git {' '.join(arguments)}: {answer.message}")
    return list(filter(None, answer.out.split("\0")))


def dvc(*arguments: str) -> None:
    """Run DVC, which prints its progress and its errors."""
    if subprocess.run([sys.executable, "-m", "dvc", *arguments], check=False).returncode:
        raise InputError(f"dvc {' '.join(arguments)}: failed, as said above")


def forget_index() -> None:
    """Let DVC look again at what a remote has.

    A transfer that is killed leaves DVC sure of objects that never arrived
    (github.com/treeverse/dvc, issue 10977).
    """
    from dvc.repo import Repo, lock_repo

    with in_one_line("DVC is at work here", "wait for it"), Repo() as repo, lock_repo(repo):
        repo.drop_data_index()


def remove_torn(remote: str | None) -> None:
    """Remove objects that a killed publication left half sent, as DVC takes them for whole.

    Only a server of SSH or WebDAV keeps them: an object store takes all of a file or nothing, and
    in a folder DVC hashes an object again unless it was write-protected after it was whole.
    """
    from dvc.repo import Repo

    with Repo() as repo, in_one_line("the remote does not answer", "`make doctor` asks it, too"):
        odb, cache = repo.cloud.get_remote_odb(remote, "push"), repo.cache.local
        if odb.fs.protocol not in ("ssh", "webdav", "webdavs"):
            return
        used = {entry.value for among in repo.used_objs(push=True).values() for entry in among}
        for md5 in filter(cache.exists, used):
            place, whole = odb.oid_to_path(md5), cache.fs.size(cache.oid_to_path(md5))
            if odb.fs.exists(place) and odb.fs.size(place) not in (None, whole):
                odb.fs.remove(place)


def check_verifies(name: str | None) -> None:
    """Check that DVC compares what it takes from a remote with its hash.

    Without the setting it takes a damaged object for good (github.com/treeverse/dvc, issue 10498).
    """
    from dvc.config import Config

    config = Config(".dvc")
    chosen = name or config["core"].get("remote")
    if chosen not in config["remote"]:
        known = ", ".join(config["remote"]) or "none"
        raise InputError(
            f"remote {chosen}: DVC has {known}: `dvc remote add --default <name> <folder or "
            "address>` names one"
        )
    if not config["remote"][chosen].get("verify"):
        raise InputError(
            f"remote {chosen}: an object damaged there would be taken for good: "
            f"`dvc remote modify {chosen} verify true`"
        )


def check_committed() -> None:
    """Check that git has all tracked files, and all code, as they are here."""
    status = git("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all")
    changed = [
        line[3:]
        for line in status
        if not line[3:].startswith(("results/", LOCK.name))
        and (line[:2] != "??" or line[3:].startswith(CODE))
    ]
    if changed:
        raise InputError(
            f"changed since the last commit: {listed(changed)}: commit it, "
            "so that others get what the results were made of"
        )


def check_given(study: Params, own: Iterable[str]) -> None:
    """Check that the user's own files are in git, or in DVC by `dvc add`.

    Of `checkpoints/` all files are, as dvc.yaml watches the folder.
    """
    added = {str(Path(name).with_suffix("")) for name in git("ls-files", "-z", "*.dvc")}
    named = [*own, study.data.table, study.data.classes, study.concepts.vocabulary, "checkpoints"]
    inside = [name for name in named if name and not Path(name).is_absolute()]
    alone = [
        name
        for name in git("ls-files", "--others", "-z", "--", *inside)
        if not name.endswith(".dvc") and not {name, *map(str, Path(name).parents)} & added
    ]
    if alone:
        raise InputError(
            f"dvc.yaml watches what is neither in git nor in DVC: {listed(alone)}: `dvc add "
            f"{alone[0]}` and commit {alone[0]}.dvc; or `git add` it where it is small, or move it"
        )


def strangers(study: Params, results: Path) -> list[str]:
    """Files in the results that the study does not have, as of a model that left it."""
    known = {
        "model": study.models,
        "space": study.spaces,
        "kind": ["linear", *study.comparison.kinds],
        "shard": study.extraction.shard_ids,
    }

    wanted = asked(study.analyses) | {n: one for n, one in CATALOG.items() if not one.wildcards}

    def belongs(path: str) -> bool:
        found = (one.names_in(path) for one in wanted.values())
        return any(
            all(name in known[key] for key, name in names.items())
            for names in found
            if names is not None
        )

    paths = (path.relative_to(results).as_posix() for path in results_of(results))
    return [f"{results}/{path}" for path in paths if not belongs(path)]


def studies_in(lock: Path) -> set[str]:
    """Names of the studies whose results dvc.lock holds.

    InputError if it cannot be read, as where a kill left it half written by DVC.
    """
    try:
        stages = read_yaml(lock).get("stages", {}) if lock.is_file() else {}
    except InputError as error:
        raise InputError(
            f"{error}: `git checkout {lock}` brings back the committed one; remove it if there is "
            "none"
        ) from None
    outs = (out for stage in stages.values() for out in stage.get("outs", []))
    return {Path(out["path"]).parts[1] for out in outs}


def check_kept(study: str) -> None:
    """Check that no other study is lost when dvc.lock gets this one."""
    held = studies_in(LOCK)
    if not held or study in held:
        return
    (other, *_) = held
    kept = ask("git", "show", f"study/{other}:{LOCK}")
    if not kept.ok or kept.out != LOCK.read_text(encoding="utf-8"):
        raise InputError(
            f"{LOCK}: holds study {other}, and no tag study/{other} keeps it: publish it first, "
            f"or give it up: `rm {LOCK}`"
        )


def changes(results: Path) -> tuple[set[str], set[str]]:
    """What `dvc status` finds: changed inputs, code and parameters; and changed results.

    DVC reads every file again, as it believes its own records of what its cache holds.
    """
    with tempfile.TemporaryDirectory() as empty:
        environment = {**os.environ, "DVC_SITE_CACHE_DIR": empty}
        command = [sys.executable, "-m", "dvc", "status", "--json", *TIERS]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"dvc status: {done.stderr.strip()}")
    given, made = set[str](), set[str]()
    for stage, found in json.loads(done.stdout).items():
        for entry in found:
            if isinstance(entry, str):
                given.add(f"dvc.yaml: {stage}: {entry}")
                continue
            for path, what in entry.get("changed deps", {}).items():
                names = [f"{path}: {key}" for key in what] if isinstance(what, dict) else [path]
                given |= {name for name in names if not name.startswith(f"{results}/")}
            made |= {*entry.get("changed outs", {})}
    return given, made


def folders(results: Path, artifacts: Collection[str]) -> list[str]:
    """The outputs of dvc.yaml in which artifacts lie."""
    names = {CATALOG[name].path.split("/")[0] for name in artifacts}
    return [f"{results}/{name}" for tier in TIERS.values() for name in tier if name in names]
