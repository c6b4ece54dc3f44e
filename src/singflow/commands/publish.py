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
    from singflow.sharing import publishing, remotes
    from singflow.study import own_files, settle

    study, entries = settle(read_yaml(PARAMS), str(PARAMS))
    remotes.check_idle()
    publishing.check_committed()
    remotes.check_finished()
    with remotes.repository() as repo:
        remote = remotes.working_remote(repo.config, remote, write=True)
        publishing.check_given(repo, own_files(study, entries))
        publishing.check_unchanged(repo)
        manifest = read_manifest(CATALOG["manifest"].at(Path("results", study.study)))
        bar = partial(progress, total=len(manifest), unit="images", description="hashing images")
        root = data_root(study.data.source, study.data.root)
        publishing.check_images(root, manifest, study.data.max_pixels, study.threads, bar)
        kept = publishing.commit(repo, study.study)
        publishing.name_translators(kept, study.study)
        there = repo.cloud.get_remote_odb(remote)
        remotes.remove_torn(repo, there)
        for artifact in remotes.remove_damaged(there, kept) if repair else []:
            log.warning(
                "%s: its object in remote %s was damaged, and is replaced", artifact.path, remote
            )
        pushed = repo.push(remote=remote)
    print(
        f"study {study.study}: {len(kept)} artifacts, {pushed} pushed to remote {remote}; tiers, "
        f"each with those before it: {remotes.sizes(kept)}"
    )
    print(f"now: git add dvc.lock results/{study.study} && git commit -m 'study {study.study}'")
