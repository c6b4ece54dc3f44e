from pathlib import Path
from typing import Annotated

import typer

from singflow.artifacts.catalog import Fetched as Tier
from singflow.cli import log
from singflow.errors import InputError

LOCK = Path("dvc.lock")


def verify(
    results: Annotated[
        Path | None, typer.Option(help="Tree to look at; by default results/<study>.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Another tree, or a DVC remote; by default dvc.lock and DVC's local cache, or git "
            "if the study was not published."
        ),
    ] = None,
    lock: Annotated[
        Path,
        typer.Option(help="Hashes of the published study; not read where another tree is given."),
    ] = LOCK,
    tier: Annotated[
        Tier, typer.Option(help="Look only at what `singflow fetch` brings with this tier.")
    ] = "features",
) -> None:
    """Compare a tree of results with the published study, or with another tree."""
    from singflow.sharing import verification
    from singflow.sharing.remotes import tier_of, tiers_up_to
    from singflow.study import read_params

    study = read_params().study
    tree = results or Path("results", study)
    if against and Path(against).is_dir():
        there = Path(against)
        known = verification.hashes_of(there)
        findings = verification.compare(tree, known, lambda name, _: there / name)
    elif known := verification.published(lock, study):
        findings = verification.compare_with_known(tree, study, known, against)
    elif not against and lock == LOCK and (known := verification.committed(tree, study)):
        log.warning("study %s was not published: only what git has of it is compared", study)
        found = verification.compare_with_known(tree, study, known, None)
        findings = [finding for finding in found if finding.name in known]
    else:
        raise InputError(
            f"{lock}: knows nothing of study {study}: nothing of it was published: `make publish` "
            "publishes a finished run; `--against <folder>` compares with another tree"
        )
    kept = [finding for finding in findings if tier_of(finding.name) in tiers_up_to(tier)]
    print("\n".join(verification.summary(kept)))
    raise typer.Exit(not all(finding.good for finding in kept))
