"""What Snakemake's records say of a study's files, and how files of others get records."""

import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from singflow.artifacts.catalog import IN_GIT, TIERS
from singflow.errors import InputError, listed


def results_of(study: Path, tiers: Iterable[str] = TIERS) -> Iterator[Path]:
    """The files in the folders of tiers, without hidden (unfinished) ones."""
    for name in (name for tier in tiers for name in TIERS[tier] if name not in IN_GIT):
        place = study / name
        for path in [place] if place.is_file() else sorted(place.rglob("*")):
            if path.is_file() and path.name[0] != ".":
                yield path


def made_elsewhere(study: Path, tiers: Iterable[str] = TIERS) -> list[str]:
    """Files of tiers that no run of Snakemake in this folder has made or vouched for.

    Either they have no record, or their time is not that of their record, or of the record of
    another file that DVC has linked to the same object of its cache. Files of a job that was killed
    do not count: Snakemake makes them again.
    """
    from snakemake.io import IOFile
    from snakemake.persistence.file import FilePersistence

    records = FilePersistence(nolock=True, path=Path(".snakemake"))
    ended = {path: records.metadata(IOFile(str(path))) for path in results_of(study, tiers)}
    times = {(path.stat().st_ino, each.endtime) for path, each in ended.items() if each}
    found = [
        str(path)
        for path, each in ended.items()
        if not each or (path.stat().st_ino, path.stat().st_mtime) not in times
    ]
    return sorted({*found} - records._filter_incomplete_keys(found))


def check_made_here(study: Path) -> None:
    """Refuse a run on files that were made elsewhere: Snakemake would take them as they are."""
    if found := made_elsewhere(study):
        raise InputError(
            f"{study}: {len(found)} files were made elsewhere (copied, checked out or changed), so "
            f"Snakemake does not know of what: {listed(found)}\n"
            "- results of the published study: `make fetch` checks them and records them\n"
            "- known to fit params.yaml and the code: `snakemake --touch --forceall --cores 1`\n"
            "- otherwise remove them"
        )


def vouch_for(targets: Iterable[str]) -> None:
    """Let Snakemake take files as they are, whatever their clocks and its own records say."""
    quiet = ["--quiet", "host", "progress", "rules", "--ignore-incomplete"]  # of errors too: all
    command = ["snakemake", "--touch", "--forceall", "--cores", "1", *quiet, "--", *targets]
    environment = os.environ | {"SNAKEMAKE_PROFILE": "none"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")


def fill(study: Path, tiers: Iterable[str]) -> None:
    """Make folders of analyses that the study does not ask for, as DVC misses no output."""
    for name in (name for tier in tiers for name in TIERS[tier] if "." not in name):
        (study / name).mkdir(parents=True, exist_ok=True)
