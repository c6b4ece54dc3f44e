"""A published study, on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from singflow.artifacts.catalog import Tier
from singflow.cli import log
from singflow.commands.options import PARAMS, Remote
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
    from singflow.config.reading import read_yaml
    from singflow.engines.code import write_digests
    from singflow.engines.stages import FIRST
    from singflow.sharing.fetching import (
        check_nothing_lost,
        check_same_study,
        check_there,
        download,
        inputs,
        place,
        wanted,
    )
    from singflow.sharing.remotes import (
        artifacts,
        check_idle,
        nothing_to_do,
        repository,
        sizes,
        snakemake,
        working_remote,
    )
    from singflow.study import check

    study = check(read_yaml(PARAMS), str(PARAMS))
    results = Path("results", study.study)
    check_idle()
    with repository() as repo:
        everything = artifacts(repo, study.study)
        kept = wanted(everything, tier)
        remote = working_remote(repo.config, remote, write=False)
        check_there(repo, kept, remote)
        images = (
            None if tier == "features" or study.data.source == "packaged" else Path(study.data.root)
        )
        if given := inputs(repo, images):
            repo.pull(targets=given, remote=remote)
            write_digests()
        check_same_study(repo)
        check_nothing_lost(repo, everything, results)
        for artifact in download(repo, kept, remote):
            log.warning(
                "%s: its object in the local cache was damaged, and is replaced", artifact.path
            )
        place(kept)
        write_digests()  # again: without archives here, the fetched manifest describes them
        left = (
            {stage: what for stage, what in repo.status().items() if stage != FIRST}
            if tier == "features"
            else {}
        )
    if left:
        raise InputError(
            f"DVC is not satisfied: {left}: remove what is not the study's from {results}"
        )
    snakemake("--touch", "--forceall", "--nolock", "--ignore-incomplete", "--cores", "1")
    if not nothing_to_do():
        raise InputError("Snakemake is not satisfied: `snakemake --dry-run` says why")
    print(
        f"study {study.study}: tier {tier}, {len(kept)} of {len(everything)} artifacts, are here; "
        "nothing is left to do"
    )
    print(f"tiers, each with those before it: {sizes(everything)}")
