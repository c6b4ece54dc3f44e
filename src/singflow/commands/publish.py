"""Record a finished study with DVC and push it to a remote, unless something of it is not as it should be."""

from functools import partial
from pathlib import Path

from pydantic import Field

from singflow import cli
from singflow.config import check, read_yaml
from singflow.data import data_root
from singflow.errors import InputError
from singflow.publishing import check_committed, check_given, check_images, check_unchanged, commit
from singflow.sharing import check_idle, nothing_to_do, remove_damaged, repository, sizes, working_remote
from singflow.store import read_manifest

PARAMS = Path("params.yaml")


class Flags(cli.Command):
    """Record a finished study with DVC and push it to a remote, unless something of it is not as it should be."""

    remote: str | None = Field(None, description="DVC remote; not given: the default one")
    repair: bool = Field(False, description="true: read back what the remote has already, and replace what is damaged")


def main(flags: Flags) -> None:
    study = check(read_yaml(PARAMS), str(PARAMS))
    check_idle()
    check_committed(study.study)
    if not nothing_to_do():
        raise InputError("the run is not finished: `snakemake --dry-run` lists what is left, `snakemake --cores all` does it")
    with repository() as repo:
        remote = working_remote(repo.config, flags.remote, write=True)
        check_given(repo)
        check_unchanged(repo)
        manifest = read_manifest(Path("results", study.study, "data/manifest.parquet"))
        progress = partial(cli.progress, total=len(manifest), unit="images", description="hashing images")
        check_images(data_root(study.data.source, study.data.root), manifest, study.threads, progress)
        kept = commit(repo, study.study)
        for each in remove_damaged(repo.cloud.get_remote_odb(remote), kept) if flags.repair else []:
            cli.log.warning("%s: its object in remote %s was damaged, and is replaced", each.path, remote)
        pushed = repo.push(remote=remote)
    print(
        f"study {study.study}: {len(kept)} artifacts, {pushed} pushed to remote {remote}; tiers, each with those before it: {sizes(kept)}"
    )
    print(f"now: git add dvc.lock results/{study.study}/metrics.json && git commit -m 'study {study.study}'")


if __name__ == "__main__":
    cli.run(main, Flags)
