"""Files on disk: written whole or not at all, same bytes for same content, checked when read."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from singflow.errors import InputError, in_one_line
from singflow.system import regular

FIX = "remove it and run the workflow again"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` if the block ends without an error."""
    with told(path), _locked(path, folder=False) as temporary:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; what the block does not move away is removed."""
    with told(path), _locked(path, folder=True) as temporary:
        temporary.chmod(0o777 & ~_umask())
        yield temporary


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Any OSError of the block, which writes `path`, becomes InputError with the fix."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = (
            "the disk or your quota is full: free some space"
            if full
            else f"{error.strerror}: see to its folder"
        )
        raise InputError(f"{path}: cannot be written, {reason}, then run the same again") from None


@contextmanager
def _locked(path: Path, *, folder: bool) -> Iterator[Path]:
    """A new temporary file or folder of `path`, locked if the file system has locks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = glob.escape(path.name), glob.escape(path.suffix)
    for leftover in path.parent.glob(f".{names[0]}.????????{names[1]}"):
        with suppress(OSError):
            handle = _opened(leftover)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails if its writer lives
                _remove(leftover)
            finally:
                os.close(handle)
    temporary, handle = _new(path, folder)
    try:
        yield temporary
    finally:
        _remove(temporary)
        os.close(handle)


def _new(path: Path, folder: bool) -> tuple[Path, int]:
    names = path.suffix, f".{path.name}.", path.parent
    while True:
        if folder:
            name = tempfile.mkdtemp(*names)
        else:
            handle, name = tempfile.mkstemp(*names)
            os.close(handle)
        with suppress(FileNotFoundError):
            handle = _opened(Path(name))
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
            if Path(name).exists():  # no other process removed it before the lock
                return Path(name), handle
            os.close(handle)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class Facts(dict[str, Any]):
    """Facts that an artifact states about itself; a missing key raises InputError with its path."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        super().__init__(content)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise InputError(f"{self.path}: says nothing of {key!r}: {FIX}")

    def of_kind(self, key: str, kind: Any) -> Any:
        """The fact, which must be of type `kind`. A list must hold texts only."""
        return self._checked(key, self[key], kind)

    def parsed(self, key: str, kind: Any) -> Any:
        """Like of_kind, for a fact that is written as JSON, as in the header of safetensors."""
        try:
            return self._checked(key, json.loads(self[key]), kind)
        except (TypeError, ValueError, RecursionError):
            raise InputError(f"{self.path}: {key} is {self[key]!r}, not JSON: {FIX}") from None

    def _checked(self, key: str, fact: Any, kind: Any) -> Any:
        if not isinstance(fact, kind) or (
            isinstance(fact, list) and not all(isinstance(item, str) for item in fact)
        ):
            raise InputError(f"{self.path}: {key} is {fact!r}: {FIX}")
        return fact


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole, in place of an existing one."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys. NaN and infinity raise ValueError."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_bytes(path, f"{text}\n".encode())


def read_json(path: Path) -> Facts:
    """Read a JSON object. Objects inside it are Facts, too."""
    with in_one_line(f"{path}: not readable as JSON", FIX):
        content = json.loads(path.read_text(encoding="utf-8"), object_hook=partial(Facts, path))
    if not isinstance(content, Facts):
        raise InputError(f"{path}: holds no JSON object: {FIX}")
    return content


def read_names(path: Path) -> Facts:
    """Read prompts/<space>.json: the lists of labels, concepts and targets."""
    names = read_json(path)
    for key in names:
        names.of_kind(key, list)
    return names


def read_header(path: Path) -> bytes:
    """The JSON header of a safetensors file, as it is written."""
    with in_one_line(f"{path}: not readable", FIX), regular(path).open("rb") as file:
        return file.read(min(int.from_bytes(file.read(8), "little"), 2**27))


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def md5_of(path: Path) -> str:
    """MD5 of a file's content, which is the hash that DVC uses."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def sources_sha256(*folders: str) -> str:
    """SHA-256 of the Python files in these folders of the package (`.`: the package itself)."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted((Path(__file__).parents[1] / folder).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
