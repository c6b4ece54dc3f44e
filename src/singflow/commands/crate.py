import datetime
from pathlib import Path
from typing import Annotated

import typer

from singflow.cli import log
from singflow.commands.options import PARAMS, Params
from singflow.errors import InputError


def crate(
    params: Params = PARAMS,
    output: Annotated[
        Path | None, typer.Option(help="The archive; by default <study>.crate.zip.")
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(
            help="SPDX name of the licence that the results get, as CC-BY-4.0; "
            "by default the workflow's."
        ),
    ] = None,
    date: Annotated[
        datetime.datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="datePublished of the archive; by default today."),
    ] = None,
    with_tensors: Annotated[
        bool,
        typer.Option(help="Also pack features, embeddings, projectors and translators (large)."),
    ] = False,
) -> None:
    """Pack a finished study and its workflow into one archive, a Workflow Run RO-Crate."""
    from singflow.sharing.crate import check_license, collect, crate_metadata, write_crate
    from singflow.sharing.remotes import check_finished
    from singflow.study import read_params

    check_license(license)
    study = read_params(params)
    output = output or Path(f"{study.study}.crate.zip")
    if output.exists():
        raise InputError(f"{output}: is there already: remove it, or give another --output")
    check_finished(params)
    files, cut, found = collect(study, params, with_tensors=with_tensors)
    absent = [path for path in found if path.as_posix() not in files]
    size = sum(path.stat().st_size for path in absent) / 2**20
    left_out = ""
    if absent:
        left_out = f"{len(absent)} results, {size:.1f} MiB of tensors and pictures, were left out. "
    published = (date or datetime.datetime.now()).date().isoformat()
    write_crate(crate_metadata(study, files, found, license, published, left_out), files, output)
    if cut:
        log.warning(
            f"{params}: {', '.join(cut)} lie outside this checkout: the archive holds only the "
            "last part of these paths"
        )
    print(
        f"{output}: {output.stat().st_size / 2**20:.1f} MiB, {len(files)} files. "
        f"{left_out}The image files are not in it."
    )
