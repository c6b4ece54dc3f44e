from pathlib import Path
from typing import Annotated

import typer

from singflow.artifacts.catalog import Fetched
from singflow.commands.options import Remote
from singflow.errors import InputError, listed


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

    if study:
        published.git("checkout", "--quiet", f"study/{study}")
    params = read_params()
    results = Path("results", params.study)
    if (held := published.study_in(published.LOCK)) != params.study:
        raise InputError(
            f"{published.LOCK}: holds {f'study {held}' if held else 'no study'}, and params.yaml "
            f"names {params.study}: `git tag --list 'study/*'` lists published studies, "
            "--study <name> takes one"
        )
    published.check_verifies(remote)
    published.forget_index()
    source = ["--remote", remote] if remote else []
    own = published.git("ls-files", "-z", "*.dvc")
    if tier != "towers" and params.data.source != "packaged":  # without the photos
        own = [name for name in own if not Path(name).is_relative_to(params.data.root)]
    if own:
        published.dvc("pull", *source, *own)
    given, _ = published.changes(results)
    if given:
        raise InputError(
            f"not as the published study had it: {listed(given)}: `git diff` shows your changes, "
            "`git checkout <tag or commit>` goes back"
        )
    wanted = published.folders(results, brought(tier))
    published.dvc("pull", *source, *wanted)
    if left := published.changes(results)[1] & {*wanted}:
        raise InputError(f"{listed(left)}: not as published: remove what is there, and fetch again")
    vouch_for(["all"])
    print(f"study {params.study}, tier {tier}: all is here, and no step is left to run")
