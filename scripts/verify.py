"""Say whether a result tree is the same as another, or as the published one."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from pydantic import Field

from singflow import cli
from singflow.config import check, read_yaml
from singflow.errors import InputError
from singflow.verification import Finding, compare_hashes, compare_trees, locked, md5_of, summary

ONLY_HASH = "only the hash in dvc.lock is known: `--against <remote or folder>` tells how far it differs"


class Flags(cli.Command):
    """Say whether a result tree is the same as another, or as the published one."""

    params: Path = Field(Path("params.yaml"), description="the study")
    results: Path | None = Field(None, description="tree to look at; not given: results/<study>")
    against: str | None = Field(None, description="another tree, or a DVC remote; not given: dvc.lock and DVC's local cache")
    lock: Path = Field(Path("dvc.lock"), description="hashes of the published artifacts")


def main(flags: Flags) -> None:
    study = check(read_yaml(flags.params), str(flags.params)).study
    results = flags.results or Path("results", study)
    findings = (
        compare_trees(results, Path(flags.against)) if flags.against and Path(flags.against).is_dir() else published(flags, results, study)
    )
    print("\n".join(summary(findings)))
    sys.exit(not all(each.good for each in findings))


def published(flags: Flags, results: Path, study: str) -> list[Finding]:
    """Verdicts against dvc.lock, with objects out of a remote, or out of DVC's local cache."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    known = locked(flags.lock, study)
    try:
        with Repo() as repo, tempfile.TemporaryDirectory() as folder:
            if flags.against is None:
                return compare_hashes(results, known, lambda _, md5: in_cache(repo, md5), ONLY_HASH)
            if flags.against not in repo.config["remote"]:
                raise InputError(f"--against {flags.against}: neither a folder nor a remote: `dvc remote list` shows the remotes")
            odb = repo.cloud.get_remote_odb(flags.against)
            return compare_hashes(results, known, lambda name, md5: fetched(odb, name, md5, Path(folder)), f"not in remote {flags.against}")
    except DvcException as error:
        raise InputError(f"DVC: {error}") from None


def in_cache(repo: Any, md5: str) -> Path | None:
    """The object of a hash in DVC's local cache."""
    path = Path(repo.cache.local.oid_to_path(md5))
    return path if path.is_file() and md5_of(path) == md5 else None


def fetched(odb: Any, name: str, md5: str, folder: Path) -> Path | None:
    """The object of a hash out of a remote. Raises InputError when it is damaged."""
    path = folder / "object"
    try:
        odb.fs.get_file(odb.oid_to_path(md5), str(path))
    except FileNotFoundError:
        return None
    if md5_of(path) != md5:
        raise InputError(
            f'{odb.oid_to_path(md5)}: the remote\'s object of {name} is damaged: `make publish PUBLISH="--repair true"` heals it'
        )
    return path


if __name__ == "__main__":
    cli.run(main, Flags)
