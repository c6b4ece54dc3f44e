from pathlib import Path
from typing import Annotated

import typer

from singflow.artifacts.catalog import TIERS, Tier


def verify(
    results: Annotated[
        Path | None, typer.Option(help="Tree to look at; by default results/<study>.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Another tree, or a DVC remote; by default dvc.lock and DVC's local cache."
        ),
    ] = None,
    lock: Annotated[
        Path,
        typer.Option(help="Hashes of the published study; not read where another tree is given."),
    ] = Path("dvc.lock"),
    tier: Annotated[
        Tier, typer.Option(help="Look only at what `singflow fetch` brings with this tier.")
    ] = "features",
) -> None:
    """Compare a tree of results with the published study, or with another tree."""
    from singflow.sharing.remotes import tier_of
    from singflow.sharing.verification import compare, compare_with_published, hashes_of, summary
    from singflow.study import read_params

    study = read_params().study
    tree = results or Path("results", study)
    if against and Path(against).is_dir():
        there = Path(against)
        findings = compare(tree, hashes_of(there), lambda name, _: there / name)
    else:
        findings = compare_with_published(tree, study, lock, against)
    looked_at = TIERS[: TIERS.index(tier) + 1]
    kept = [finding for finding in findings if tier_of(finding.name) in looked_at]
    print("\n".join(summary(kept)))
    raise typer.Exit(not all(finding.good for finding in kept))
