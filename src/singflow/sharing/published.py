"""What dvc.lock, DVC and git know of a study, asked by their own commands."""

import json
import subprocess
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from singflow.artifacts.catalog import CATALOG, TIERS, asked
from singflow.config.reading import read_yaml
from singflow.engines.records import results_of
from singflow.errors import InputError, listed
from singflow.study import Params
from singflow.system import ask

LOCK = Path("dvc.lock")


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
    from dvc.repo import Repo

    with Repo() as repo:
        repo.drop_data_index()


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
    """Check that git has all tracked files as they are, except what publishing writes."""
    status = git("status", "--porcelain", "-z", "--no-renames", "--untracked-files=no")
    changed = [line[3:] for line in status if not line[3:].startswith(("results/", LOCK.name))]
    if changed:
        raise InputError(
            f"changed since the last commit: {listed(changed)}: commit it, "
            "so that others get what the results were made of"
        )


def check_given(own: Iterable[str]) -> None:
    """Check that the user's own files are in git, or in DVC by `dvc add`."""
    added = {str(Path(name).with_suffix("")) for name in git("ls-files", "-z", "*.dvc")}
    inside = [name for name in own if not Path(name).is_absolute()]
    alone = [
        name
        for name in (git("ls-files", "--others", "-z", "--", *inside) if inside else [])
        if not {name, *map(str, Path(name).parents)} & added
    ]
    if alone:
        raise InputError(
            f"the study reads what is neither in git nor in DVC: {listed(alone)}: "
            f"`git add {alone[0]}`, or `dvc add {alone[0]}` where it is large"
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


def study_in(lock: Path) -> str | None:
    """Name of the study that dvc.lock holds."""
    if not lock.is_file():
        return None
    outs = read_yaml(lock)["stages"].get("report", {}).get("outs", [])
    return next((Path(out["path"]).parts[1] for out in outs), None)


def check_kept(study: str) -> None:
    """Check that no other study is lost when dvc.lock gets this one."""
    held = study_in(LOCK)
    if held in (None, study):
        return
    kept = ask("git", "show", f"study/{held}:{LOCK}")
    if not kept.ok or kept.out != LOCK.read_text(encoding="utf-8"):
        raise InputError(
            f"{LOCK}: holds study {held}, which no tag study/{held} keeps: publish it first, or "
            f"give it up with `git rm {LOCK}`"
        )


def changes(results: Path) -> tuple[set[str], set[str]]:
    """What `dvc status` finds: changed inputs, code and parameters; and changed results."""
    done = ask(sys.executable, "-m", "dvc", "status", "--json", *TIERS, seconds=3600)
    if not done.ok:
        raise InputError(f"dvc status: {done.message}")
    given, made = set[str](), set[str]()
    for stage, found in json.loads(done.out).items():
        for entry in found:
            if isinstance(entry, str):
                given.add(f"dvc.yaml: {stage}: {entry}")
                continue
            for path, what in {**entry.get("changed deps", {})}.items():
                names = [f"{path}: {key}" for key in what] if isinstance(what, dict) else [path]
                given |= {name for name in names if not name.startswith(f"{results}/")}
            made |= {*entry.get("changed outs", {})}
    return given, made


def folders(results: Path, artifacts: Collection[str]) -> list[str]:
    """The outputs of dvc.yaml in which artifacts lie."""
    names = {CATALOG[name].path.split("/")[0] for name in artifacts}
    return [f"{results}/{name}" for tier in TIERS.values() for name in tier if name in names]
