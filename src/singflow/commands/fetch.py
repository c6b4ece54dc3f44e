"""Fetch a published study, whole or the small parts of it, so that neither engine has anything left to do."""

from pathlib import Path

from pydantic import Field

from singflow import cli
from singflow.config import check, read_yaml
from singflow.errors import InputError
from singflow.fetching import check_nothing_lost, check_same_study, download, inputs, place, wanted
from singflow.sharing import Tier, artifacts, check_idle, nothing_to_do, repository, sizes, snakemake, working_remote

PARAMS = Path("params.yaml")


class Flags(cli.Command):
    """Fetch a published study, whole or the small parts of it, so that neither engine has anything left to do."""

    remote: str | None = Field(None, description="DVC remote; not given: the default one")
    tier: Tier = Field(
        "features", description="metrics (tables, figures, page) | translators (also all but features and embeddings) | features (all)"
    )


def main(flags: Flags) -> None:
    study = check(read_yaml(PARAMS), str(PARAMS))
    results = Path("results", study.study)
    check_idle()
    with repository() as repo:
        everything = artifacts(repo, study.study)
        kept = wanted(everything, flags.tier)
        remote = working_remote(repo.config, flags.remote, write=False)
        images = None if flags.tier == "features" or study.data.source == "packaged" else Path(study.data.root)
        if given := inputs(repo, images):
            repo.pull(targets=given, remote=remote)
        check_same_study(repo)
        check_nothing_lost(repo, everything, results)
        for each in download(repo, kept, remote):
            cli.log.warning("%s: its object in the local cache was damaged, and is replaced", each.path)
        place(kept)
        left = repo.status() if flags.tier == "features" else {}
    if left:
        raise InputError(f"DVC is not satisfied: {left}: remove what is not the study's from {results}")
    snakemake("--touch", "--forceall", "--nolock", "--ignore-incomplete", "--cores", "1")
    if not nothing_to_do():
        raise InputError("Snakemake is not satisfied: `snakemake --dry-run` says why")
    print(f"study {study.study}: tier {flags.tier}, {len(kept)} of {len(everything)} artifacts, are here; nothing is left to do")
    print(f"tiers, each with those before it: {sizes(everything)}")


if __name__ == "__main__":
    cli.run(main, Flags)
