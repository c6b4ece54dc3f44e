"""List, draw, decode once and split the images of a study.

Labels and images that the study chooses are checked before the images are decoded.
"""

from pathlib import Path

import pandas as pd

from singflow import cli
from singflow.artifacts.tables import write_csv, write_parquet
from singflow.config.reading import read_yaml
from singflow.data.archives import ATTRIBUTE
from singflow.data.imported import listed_rows, source_fingerprint
from singflow.data.listing import list_archives, list_folder, list_table
from singflow.data.manifest import Candidate, Refusal, build_manifest, data_root, read_classes
from singflow.data.parameters import Data
from singflow.errors import InputError
from singflow.study import check, check_chosen
from singflow.translators.reference import unseen_images

# folds of a study without cross-fitting; one of them is held out (paper: 2,000 of 10,000 images)
UNCROSSED = 5


class Flags(Data, cli.Step):
    params: Path | None = None  # can stop this step, and changes nothing that it writes
    folds: int
    reference: str | None = None
    seed: int
    threads: int


def main(flags: Flags) -> None:
    root, known = data_root(flags.source, flags.root), None
    classes = read_classes(Path(flags.classes))
    column, of_archives = flags.label_column, None
    if flags.source == "archive":
        found, rejected, of_archives = list_archives(root, flags.archives, column, classes)
    elif flags.source == "features":
        found, known = listed_rows(root)
        rejected, of_archives = [], source_fingerprint(root)
    elif flags.source == "folder":
        found, rejected = list_folder(root, classes)
    else:
        found, rejected = list_table(Path(flags.table), column, classes)
    if flags.params:
        study = check(read_yaml(flags.params), str(flags.params))
        check_chosen(study, pd.DataFrame(found, columns=Candidate._fields))
    # beside the log, because Snakemake removes the outputs of a step that fails
    refused = (flags.log or flags.path("rejected")).with_name("rejected.csv")
    try:
        manifest, rejected = build_manifest(
            root,
            found,
            rejected,
            flags,
            folds=flags.folds or UNCROSSED,
            seed=flags.seed,
            threads=flags.threads,
            referenced=bool(flags.reference),
            known=known,
        )
    except Refusal as error:
        write_csv(refused, ["path", "reason"], error.rejected)
        raise InputError(f"{error}\n  all are listed in {refused}") from None
    refused.unlink(missing_ok=True)
    if flags.reference:
        unseen_images(flags.reference, manifest)
    write_csv(flags.path("rejected"), ["path", "reason"], rejected)
    if of_archives:
        manifest.attrs[ATTRIBUTE] = of_archives
    write_parquet(flags.path("manifest"), manifest)
    labels, held_out = manifest["label"].nunique(), (manifest["split"] == "validation").sum()
    told = f"{len(manifest)} images under {labels} labels, {held_out} held out"
    cli.log.info("%s; %d left out", told, len(rejected))
    if known is not None:
        cli.log.info(
            "imported features have no pixels: this study has no photos and generated "
            "pictures, and a photo cannot be analyzed with it"
        )


if __name__ == "__main__":
    cli.run_step(main, Flags)
