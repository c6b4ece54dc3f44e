"""Repositories of the Hugging Face Hub, through huggingface_hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import (
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from singflow.errors import InputError
from singflow.translators.cards import FILE


def fetch(repo_id: str, revision: str | None, **options: Any) -> Path:
    """The linear.safetensors of a repository in the cache, downloaded if it is not there.

    The options are those of hf_hub_download.
    """
    with _told(repo_id, revision):
        try:
            return Path(hf_hub_download(repo_id, FILE, revision=revision, **options))
        except RemoteEntryNotFoundError:
            raise InputError(
                f"{repo_id}: holds no {FILE} at {constants.ENDPOINT}: name a repository or "
                "revision that push_to_hub wrote"
            ) from None


def push_folder(
    folder: Path | str,
    repo_id: str,
    *,
    branch: str | None,
    token: str | None,
    private: bool | None,
    commit_message: str,
) -> str:
    """Commit the files of a folder to a repository, which is made if it is not there.

    Returns the address of the commit.
    """
    api = HfApi(token=token)
    with _told(repo_id, branch):
        made = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        return api.upload_folder(
            repo_id=made, folder_path=folder, revision=branch, commit_message=commit_message
        ).commit_url


@contextmanager
def _told(repo_id: str, revision: str | None) -> Iterator[None]:
    """Raise InputError in place of the errors of the hub and of its client."""
    hub = constants.ENDPOINT
    try:
        yield
    except HFValidationError:
        reason = "is no name of a repository: write <owner>/<name>, or the path of a folder"
    except RepositoryNotFoundError:
        reason = (
            f"is no repository of {hub} that you may read: correct the name, or the path if a "
            "folder is meant, or log in with `hf auth login`"
        )
    except RevisionNotFoundError:
        reason = f"has no revision {revision!r} at {hub}: name one of its branches, tags or commits"
    except LocalEntryNotFoundError:
        reason = (
            f"is not in the cache, and {hub} was not reached: look at the connection, at "
            "HF_ENDPOINT and HF_HUB_OFFLINE, or name a folder"
        )
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        origin = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        said = " ".join(str(origin).split())
        reason = (
            f"{hub} says: {said}: look at the connection and at HF_ENDPOINT, or log in with "
            "`hf auth login` as one who may write there"
        )
    else:
        return
    raise InputError(f"{repo_id}: {reason}")
