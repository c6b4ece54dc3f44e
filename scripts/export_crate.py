"""Pack a finished study and the workflow that made it into one archive, a Workflow Run RO-Crate."""

import datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field

from singflow import cli
from singflow.config import check, read_yaml
from singflow.crate import collect, describe, write_crate
from singflow.errors import InputError


class Flags(cli.Command):
    """Pack a finished study and the workflow that made it into one archive, a Workflow Run RO-Crate."""

    params: Path = Path("params.yaml")
    output: Path | None = Field(None, description="the archive; not given: <study>.crate.zip")
    license: Annotated[str, Field(pattern=r"^[\w.+-]+$")] | None = Field(
        None, description="SPDX name of the licence that the results get, as CC-BY-4.0; not given: the workflow's"
    )
    date: datetime.date | None = Field(None, description="datePublished of the archive; not given: today")
    with_tensors: bool = Field(False, description="true: features, embeddings, projectors and translators too, which are large")


def main(flags: Flags) -> None:
    output = flags.output or Path(f"{check(read_yaml(flags.params), str(flags.params)).study}.crate.zip")
    if output.exists():
        raise InputError(f"{output}: is there already: remove it, or give another --output")
    study, files, cut, found = collect(flags.params, with_tensors=flags.with_tensors)
    absent = [path for path in found if path.as_posix() not in files]
    size = sum(path.stat().st_size for path in absent) / 2**20
    left_out = f"{len(absent)} results, {size:.1f} MiB of tensors and pictures, were left out. " if absent else ""
    crate = describe(study, files, found, flags.license, flags.date or datetime.date.today(), left_out)
    write_crate(crate, files, output)
    if cut:
        cli.log.warning(
            "%s: %s lie outside this checkout: the archive holds the last part of these paths alone", flags.params, ", ".join(cut)
        )
    print(f"{output}: {output.stat().st_size / 2**20:.1f} MiB, {len(files)} files. {left_out}The image files are not in it.")


if __name__ == "__main__":
    cli.run(main, Flags)
