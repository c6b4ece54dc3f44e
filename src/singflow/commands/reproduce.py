import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from singflow.cli import log
from singflow.errors import InputError


def reproduce(
    folder: Annotated[
        Path | None,
        typer.Option(help="Where the clone is made, and stays; by default a temporary folder."),
    ] = None,
) -> None:
    """Compute the published study again in a fresh clone, and compare the results.

    The clone has only the files of git and DVC.
    """
    from singflow.sharing.fetching import check_listings, inputs
    from singflow.sharing.publishing import check_committed
    from singflow.sharing.remotes import repository
    from singflow.study import read_params

    study = read_params()
    check_committed()
    if folder and folder.exists():
        raise InputError(f"{folder}: is there already: remove it, or give another --folder")
    with repository() as repo:
        remotes = {name: settings["url"] for name, settings in repo.config["remote"].items()}
        given = inputs(repo, None)
        check_listings(repo, given, None)
    with tempfile.TemporaryDirectory(prefix="reproduce-") as temporary:
        clone = (folder or Path(temporary, "clone")).absolute()
        run(Path(), "git", "clone", "--quiet", ".", str(clone))
        if (private := Path(".dvc/config.local")).is_file():
            (clone / private).write_bytes(private.read_bytes())
        for name, url in remotes.items():
            run(clone, "dvc", "remote", "modify", "--local", name, "url", url)
        if given:
            run(clone, "dvc", "pull", *given)
        images = Path(study.data.root)
        if study.data.source != "packaged" and not (clone / images).is_dir():
            log.warning(
                "data.root %s: neither git nor DVC gives it: the images are read from here", images
            )
            (clone / images).symlink_to(images.absolute())
        # DVC would read and write all of dvc.lock after every step
        (clone / "dvc.lock").unlink(missing_ok=True)
        run(clone, "dvc", "repro", "--force")
        verify = [sys.executable, "-m", "singflow", "verify"]
        compared = subprocess.run(
            [*verify, "--results", str(clone / "results" / study.study)], check=False
        )
    raise typer.Exit(compared.returncode)


def run(folder: Path, *command: str) -> None:
    """Run a command on the code in a folder; raises InputError if it fails."""
    code = os.environ | {"PYTHONPATH": str(folder.absolute() / "src")}
    if subprocess.run(command, cwd=folder, env=code, check=False).returncode:
        raise InputError(
            f"{' '.join(command)}: failed in the clone, as said above: "
            'REPRODUCE="--folder <new folder>" keeps the clone'
        )
