from typing import Annotated

import typer

from singflow.cli import log


def accept(
    steps: Annotated[
        list[str],
        typer.Argument(help="Steps whose finished artifacts stay valid, as dvc.yaml names them."),
    ],
    reason: Annotated[
        str,
        typer.Option(
            help="Why the change of code changes no artifact; the page of the study shows it."
        ),
    ],
) -> None:
    """Keep finished artifacts valid after a change of the code that does not change them.

    Writes config/accepted.yaml, for both engines and for everybody who fetches the study.
    Commit this file.
    """
    from singflow.engines.acceptance import accept as declare
    from singflow.engines.code import ACCEPTED
    from singflow.sharing.remotes import repository

    with repository() as repo:
        declared = declare(repo, steps, reason, ACCEPTED)
    for step in steps:
        said = "accepted" if step in declared else "made by the present code: nothing to accept"
        log.info("%s: %s", step, said)
