"""A finished study, for others."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from singflow.cli import log, progress
from singflow.commands.options import PARAMS, Remote


def publish(
    remote: Remote = None,
    repair: Annotated[
        bool,
        typer.Option(help="Also read the objects that the remote has, and replace damaged ones."),
    ] = False,
) -> None:
    """Check a finished study, record it with DVC, and push it to a remote."""
    from singflow.artifacts.catalog import CATALOG
    from singflow.artifacts.shards import read_manifest
    from singflow.config.reading import read_yaml
    from singflow.data.manifest import data_root
    from singflow.sharing.publishing import (
        check_committed,
        check_given,
        check_images,
        check_unchanged,
        commit,
    )
    from singflow.sharing.remotes import (
        check_finished,
        check_idle,
        remove_damaged,
        remove_torn,
        repository,
        sizes,
        working_remote,
    )
    from singflow.study import own_files, settle

    study, entries = settle(read_yaml(PARAMS), str(PARAMS))
    check_idle()
    check_committed(study.study)
    check_finished()
    with repository() as repo:
        remote = working_remote(repo.config, remote, write=True)
        check_given(repo, own_files(study, entries))
        check_unchanged(repo)
        manifest = read_manifest(CATALOG["manifest"].at(Path("results", study.study)))
        bar = partial(progress, total=len(manifest), unit="images", description="hashing images")
        check_images(
            data_root(study.data.source, study.data.root),
            manifest,
            study.data.max_pixels,
            study.threads,
            bar,
        )
        kept = commit(repo, study.study)
        there = repo.cloud.get_remote_odb(remote)
        remove_torn(repo, there)
        for artifact in remove_damaged(there, kept) if repair else []:
            log.warning(
                "%s: its object in remote %s was damaged, and is replaced", artifact.path, remote
            )
        pushed = repo.push(remote=remote)
    print(
        f"study {study.study}: {len(kept)} artifacts, {pushed} pushed to remote {remote}; tiers, "
        f"each with those before it: {sizes(kept)}"
    )
    print(
        f"now: git add dvc.lock results/{study.study}/metrics.json "
        f"&& git commit -m 'study {study.study}'"
    )
