"""List, draw, decode once and split the images of a study."""

from functools import partial
from pathlib import Path

from singflow import cli
from singflow.artifacts.tables import write_csv, write_parquet
from singflow.data.archives import ATTRIBUTE
from singflow.data.manifest import (
    Refusal,
    build_manifest,
    data_root,
    list_archives,
    list_folder,
    list_table,
    read_classes,
)
from singflow.data.parameters import Data
from singflow.errors import InputError

# folds of a study without cross-fitting; one of them is held out (paper: 2,000 of 10,000 images)
UNCROSSED = 5


class Flags(Data, cli.Step):
    folds: int
    reference: str | None = None
    seed: int
    threads: int


def main(flags: Flags) -> None:
    root = data_root(flags.source, flags.root)
    classes = read_classes(Path(flags.classes))
    of_archives = None
    if flags.source == "archive":
        candidates, rejected, of_archives = list_archives(
            root, flags.archives, flags.label_column, classes
        )
    elif flags.source == "folder":
        candidates, rejected = list_folder(root, classes)
    elif flags.table is None:
        raise InputError(f"data.source {flags.source} needs data.table: a CSV or Parquet file")
    else:
        candidates, rejected = list_table(Path(flags.table), flags.label_column, classes)
    # beside the log, because Snakemake removes the outputs of a step that fails
    refused = (flags.log or flags.path("rejected")).with_name("rejected.csv")
    try:
        manifest, rejected = build_manifest(
            root,
            candidates,
            rejected,
            per_class=flags.per_class,
            folds=flags.folds or UNCROSSED,
            max_pixels=flags.max_pixels,
            max_rejected_fraction=flags.max_rejected_fraction,
            seed=flags.seed,
            threads=flags.threads,
            referenced=bool(flags.reference),
            progress=partial(cli.progress, unit="images", description="decode"),
        )
    except Refusal as error:
        write_csv(refused, ["path", "reason"], error.rejected)
        raise InputError(f"{error}\n  all are listed in {refused}") from None
    refused.unlink(missing_ok=True)
    write_csv(flags.path("rejected"), ["path", "reason"], rejected)
    if of_archives:
        manifest.attrs[ATTRIBUTE] = of_archives
    write_parquet(flags.path("manifest"), manifest)
    held_out = int((manifest["split"] == "validation").sum())
    cli.log.info(
        "%d images under %d labels, %d held out; %d left out",
        len(manifest),
        manifest["label"].nunique(),
        held_out,
        len(rejected),
    )


if __name__ == "__main__":
    cli.run_step(main, Flags)
