"""Download a file over HTTP, with a timeout; another call goes on where an earlier one stopped."""

import fcntl
import glob
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException, HTTPResponse
from os import SEEK_END
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from singflow import cli
from singflow.artifacts.files import sha256_of
from singflow.errors import InputError

TIMEOUT = 60.0  # seconds to wait for a connection, and for the next bytes
BLOCK = 2**20  # bytes that are read at once
NO_HEAD = (403, 405, 501)  # status of servers that answer GET alone
AGAIN = "run the same again, and it goes on there if the server allows it"


@dataclass(frozen=True)
class Download:
    """A file on a server, and the path that it will have.

    size: in bytes; None: the server does not say. version: differs where the content does; None:
    unknown, so that nothing is resumed. sha256: of the content, or the beginning of it. headers:
    for the server of the address alone, not for servers that it refers to.
    """

    url: str
    path: Path
    size: int | None
    version: str | None
    sha256: str | None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def part(self) -> Path:
        """What has come so far of this version."""
        digest = hashlib.sha256(f"{self.url} {self.version} {self.size}".encode()).hexdigest()
        return self.path.with_name(f"{self.path.name}.{digest[:16]}.part")

    @property
    def remaining(self) -> int | None:
        """Bytes that are still to come; None: unknown."""
        if self.size is None:
            return None
        begun = self.part.stat().st_size if self.version and self.part.is_file() else 0
        return self.size - begun if begun <= self.size else self.size

    def run(self) -> None:
        """Download what is still to come, verify the file, and move it to its path."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.part.open("ab") as out:
            try:
                fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"{self.url}: another process downloads it already: wait for its end"
                ) from None
            except OSError:  # a file system without locks
                pass
            if not self.path.is_file():  # another process may have been faster
                try:
                    with _explained(self.url):
                        self._complete(out)
                    out.flush()
                    self._verify()
                    self.part.replace(self.path)
                finally:
                    if self.version is None:
                        self.part.unlink(missing_ok=True)
        for other in self.path.parent.glob(f"{glob.escape(self.path.name)}.*.part"):
            other.unlink()  # of another version

    def _complete(self, out: BinaryIO) -> None:
        """Append what follows, or write the whole file if the server sends no parts."""
        if self.version is None or out.tell() > (self.size or 0):
            out.truncate(0)
        if (begun := out.seek(0, SEEK_END)) == self.size:
            return
        asked = {"Range": f"bytes={begun}-"} if begun else {}
        with _answer(self.url, "GET", asked, self.headers) as answer:
            told = answer.headers.get("Content-Range", "")
            if whole := begun and not told.startswith(f"bytes {begun}-"):
                out.truncate(0)
            else:
                blocks = iter(partial(answer.read, BLOCK), b"")
                total = None if self.size is None else -(-(self.size - begun) // BLOCK)
                for block in cli.progress(blocks, total, unit="MiB", description=self.path.name):
                    out.write(block)
        if whole:
            self._complete(out)

    def _verify(self) -> None:
        came = self.part.stat().st_size
        if self.size is not None and came != self.size:
            raise InputError(f"{self.url}: {came} of its {self.size} bytes came: {AGAIN}")
        found = sha256_of(self.part)
        if self.sha256 and not found.startswith(self.sha256):
            self.part.unlink()
            raise InputError(
                f"{self.url}: its SHA-256 is {found}, not {self.sha256}, so it was removed: run "
                "the same again; if this comes again, the server has another file"
            )


def look_up(url: str, path: Path, sha256: str | None) -> Download:
    """What the server of an address says of a file before it is downloaded."""
    length = version = None
    with _explained(url):
        try:
            with _answer(url, "HEAD") as answer:
                length = answer.headers.get("Content-Length")
                version = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        except HTTPError as error:
            if error.code not in NO_HEAD:
                raise
    if length is None or not length.isdecimal():
        return Download(url, path, None, None, sha256)
    return Download(url, path, int(length), version, sha256)


def _answer(
    url: str, method: str, asked: Mapping[str, str] = {}, own: Mapping[str, str] = {}
) -> HTTPResponse:
    """The answer to a request. own: headers that no other server gets."""
    request = Request(url, headers={"User-Agent": "singflow", **asked}, method=method)  # noqa: S310 (addresses are those of registries and libraries)
    for name, value in own.items():
        request.add_unredirected_header(name, value)
    answer: HTTPResponse = urlopen(request, timeout=TIMEOUT)  # noqa: S310
    return answer


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Raise what goes wrong on the network as InputError."""
    try:
        yield
    except HTTPError as error:
        raise InputError(
            f"{url}: the server answers {error.code} ({error.reason}): is the address right?"
        ) from None
    except (URLError, ConnectionError, TimeoutError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            reason = f"nothing came for {TIMEOUT:g} s"
        raise InputError(f"{url}: the connection failed ({reason}): {AGAIN}") from None
