"""Whether a remote of DVC works, for those who check this machine and those who share a study."""

import os
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

from singflow.system import ask, existing, writable


class RemoteAnswer(NamedTuple):
    """What is known about a remote."""

    works: bool
    found: str  # in words
    fix: str = ""  # of what is wrong; of a drawback, where the remote works


def ask_remote(root: Path, config: Any, seconds: float = 60, *, write: bool = True) -> RemoteAnswer:
    """Whether the default remote answers, within this time if it is on another machine.

    write: whether it must accept files, if it is a folder.
    """
    from dvc.config import ConfigError
    from dvc.fs import get_cloud_fs

    add = "`dvc remote add --default <name> <folder or address>` names one"
    name = config["core"].get("remote")
    if not name:
        return RemoteAnswer(False, "none is set (core.remote)", add)
    try:
        kind, _, path = get_cloud_fs(config, name=name)
    except ConfigError as error:
        return RemoteAnswer(False, str(error), add)
    except ImportError as error:
        wanted = " ".join(re.findall(r"dvc-[a-z0-9]+", str(error)))
        return RemoteAnswer(False, f"{name}: {error}", f"pip install {wanted}")
    settings = config["remote"][name]
    answer = (
        _ask_folder(name, Path(path), write)
        if kind.protocol == "local"
        else _ask_server(root, name, settings["url"], seconds)
    )
    if not answer.works or settings.get("verify"):
        return answer
    found = f"{answer.found}, but an object damaged there would be taken for good"
    return RemoteAnswer(True, found, f"`dvc remote modify {name} verify true`")


def _ask_folder(name: str, folder: Path, write: bool) -> RemoteAnswer:
    if not write and os.access(folder, os.R_OK | os.X_OK):
        return RemoteAnswer(True, f"{name}: {folder} can be read")
    place = existing(folder)
    if not writable(place):
        found = f"{name}: {place} is not a folder that can be written to"
        return RemoteAnswer(False, found, f"`dvc remote modify {name} url <folder>`")
    made = "" if place == folder else "; the first push makes it"
    return RemoteAnswer(True, f"{name}: {folder} can be written to{made}")


def _ask_server(root: Path, name: str, url: str, seconds: float) -> RemoteAnswer:
    """Ask in a process of its own, because the clients of some remotes wait without end."""
    answer = ask(sys.executable, "-m", __name__, str(root), name, seconds=seconds)
    if answer.ok:
        return RemoteAnswer(True, f"{name} ({url}) answers")
    reason = answer.message.split("; ")[-1]
    fix = (
        "check its address and credentials, and whether this machine may reach it: `dvc remote "
        f"modify {name} --help`"
    )
    return RemoteAnswer(False, f"{name} ({url}) cannot be reached: {reason}", fix)


def main(root: str, name: str) -> None:
    """Ask a remote of a repository on another machine; the exit status is 0 if it answers."""
    from dvc.config import Config
    from dvc.fs import get_cloud_fs

    try:
        kind, options, path = get_cloud_fs(Config(str(Path(root, ".dvc"))), name=name)
        files = kind(**options)
        if kind.protocol in ("http", "https"):
            files.fs.exists(f"{path}/files/md5/00/0", strict=True)
        elif not any(files.exists(place) for place in (path, *map(str, Path(path).parents))):
            raise FileNotFoundError(path)
    except Exception as error:  # noqa: BLE001 (clients of remotes raise many kinds)
        sys.exit(f"{type(error).__name__}: {error}".replace("\n", " "))


if __name__ == "__main__":
    main(*sys.argv[1:])
