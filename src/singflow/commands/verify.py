from pathlib import Path
from typing import Annotated

import typer

from singflow.artifacts.catalog import CATALOG, Fetched, artifact_of, brought
from singflow.cli import log
from singflow.errors import InputError


def verify(
    results: Annotated[
        Path | None, typer.Option(help="Tree to look at; by default results/<study>.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Another tree, or a DVC remote; by default DVC's cache and the default remote."
        ),
    ] = None,
    rev: Annotated[
        str, typer.Option(help="Commit with the published study, such as study/demo.")
    ] = "HEAD",
    tier: Annotated[
        Fetched, typer.Option(help="Look only at what `singflow fetch` brings with this tier.")
    ] = "towers",
) -> None:
    """Compare a tree of results with the published study, or with another tree."""
    from singflow.sharing.verification import GOOD, compare, hashes_of, published, summary
    from singflow.study import read_params

    study = read_params().study
    tree = results or Path("results", study)
    if against and (there := Path(against)).is_dir():
        findings = compare(tree, hashes_of(there), lambda name: there / name)
    else:
        with published(study, rev, against) as (known, original, by_dvc):
            if not known:
                raise InputError(
                    f"{rev}: knows nothing of study {study}: `make publish` publishes a finished "
                    "run; `--against <folder>` compares with another tree"
                )
            if not by_dvc:
                if not CATALOG["manifest"].at(tree).is_file():
                    raise InputError(f"{tree}: the study has not run here: `singflow run` runs it")
                log.warning("study %s was not published: only what git has is compared", study)
            findings = compare(tree, known, original)
        findings = [one for one in findings if by_dvc or one.name in known]
    names = brought(tier)
    kept = [one for one in findings if (artifact_of(one.name) or tier) in {*names, tier}]
    print("\n".join(summary(kept)))
    raise typer.Exit(not all(one.verdict in GOOD for one in kept))
