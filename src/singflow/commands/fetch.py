import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from singflow.artifacts.catalog import Fetched
from singflow.commands.options import Remote
from singflow.errors import InputError, listed

FETCH = [sys.executable, "-m", "singflow", "fetch"]


def fetch(
    remote: Remote = None,
    tier: Annotated[
        Fetched,
        typer.Option(
            help="report: tables, figures, page; translators: all but features and embeddings; "
            "towers: all."
        ),
    ] = "towers",
    study: Annotated[
        str | None, typer.Option(help="Check out the tag study/<name> first, as git does.")
    ] = None,
) -> None:
    """Fetch a published study, or a tier of it. Afterwards no step is left to run."""
    from singflow.artifacts.catalog import brought
    from singflow.engines.records import vouch_for
    from singflow.sharing import published
    from singflow.study import read_params

    source = ["--remote", remote] if remote else []
    if study:  # whose own code goes on
        published.git("checkout", "--quiet", f"study/{study}")
        os.execv(sys.executable, [*FETCH, "--tier", tier, *source])  # noqa: S606
    params = read_params()
    results = Path("results", params.study)
    if (held := published.studies_in(published.LOCK)) != {params.study}:
        raise InputError(
            f"{published.LOCK}: holds {listed(held) or 'no study'}, and params.yaml names "
            f"{params.study}: `git tag --list 'study/*'` lists published studies, "
            "--study <name> takes one"
        )
    published.check_verifies(remote)
    published.forget_index()
    own = published.git("ls-files", "-z", "*.dvc")
    if tier != "towers" and params.data.source not in ("packaged", "features"):  # without photos
        own = [name for name in own if not Path(name).is_relative_to(params.data.root)]
    if own:
        published.dvc("pull", *source, *own)
    given, _ = published.changes(results)
    if given:
        raise InputError(
            f"not as the published study had it: {listed(given)}: `git status --ignored` lists "
            "your changes, `git checkout <tag or commit>` goes back"
        )
    wanted = published.folders(results, brought(tier))
    published.dvc("pull", *source, *wanted)
    if left := published.changes(results)[1] & {*wanted}:
        raise InputError(
            f"{listed(left)}: not as published: `git checkout` what git keeps, remove all else, "
            "and fetch again; if it is wrong again, DVC's cache is damaged: remove `dvc cache dir`"
        )
    vouch_for(["all"])
    print(f"study {params.study}, tier {tier}: all is here, and no step is left to run")
