from pathlib import Path
from typing import Annotated

import typer

from singflow.artifacts.catalog import Tier
from singflow.cli import log
from singflow.commands.options import Remote
from singflow.errors import InputError


def fetch(
    remote: Remote = None,
    tier: Annotated[
        Tier,
        typer.Option(
            help="metrics: tables, figures, page; translators: all but features and embeddings "
            "too; features: all."
        ),
    ] = "features",
) -> None:
    """Fetch a published study, or a tier of it. Afterwards no step is left to run."""
    from singflow.engines.dvc import FIRST, write_digests
    from singflow.sharing import fetching, remotes
    from singflow.study import read_params

    study = read_params()
    results, whole = Path("results", study.study), tier == "features"
    remotes.check_idle()
    with remotes.repository() as repo:
        everything = remotes.artifacts(repo, study.study)
        kept = [one for one in everything if one.tier in remotes.tiers_up_to(tier)]
        remote = remotes.working_remote(repo.config, remote, write=False)
        fetching.check_there(repo, kept, remote)
        images = None if whole or study.data.source == "packaged" else Path(study.data.root)
        if given := fetching.inputs(repo, images):
            fetching.check_listings(repo, given, remote)
            repo.pull(targets=given, remote=remote)
            write_digests()
        fetching.check_same_study(repo)
        fetching.check_nothing_lost(repo, everything, results)
        for artifact in fetching.download(repo, kept, remote):
            log.warning(
                "%s: its object in the local cache was damaged, and is replaced", artifact.path
            )
        for artifact in kept:
            artifact.out.checkout(force=True)
        write_digests()  # again: without archives here, the fetched manifest describes them
        left = repo.status() if whole else {}
    left.pop(FIRST, None)
    if left:
        raise InputError(
            f"DVC is not satisfied: {left}: remove what is not the study's from {results}"
        )
    remotes.snakemake("--touch", "--forceall", "--nolock", "--ignore-incomplete", "--cores", "1")
    if not remotes.nothing_to_do():
        raise InputError("Snakemake is not satisfied: `snakemake --dry-run` says why")
    print(
        f"study {study.study}: tier {tier}, {len(kept)} of {len(everything)} artifacts, are here; "
        "nothing is left to do"
    )
    print(f"tiers, each with those before it: {remotes.sizes(everything)}")
