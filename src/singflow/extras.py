"""Libraries that extras of this distribution bring: what is said where one is not installed."""

import importlib.metadata
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from singflow.errors import InputError

DISTRIBUTIONS = {
    "PIL": "pillow",
    "faiss": "faiss-cpu",
    "open_clip": "open-clip-torch",
    "ruamel": "ruamel-yaml",
    "sklearn": "scikit-learn",
}


class MissingExtra(InputError, ImportError):
    """A library is not installed; the message names the extra that brings it."""


@contextmanager
def explained() -> Iterator[None]:
    """Tell of a library that is not installed which extra brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if extra := _extra_of(library):
            raise MissingExtra(
                f"{library} is not installed: in the checkout, pip install -c constraints.txt -e '.[{extra}]' (docs/installation.md)"
            ) from error
        raise


def check_installed(library: str) -> None:
    """Refuse to go on without a library, before it is imported."""
    with explained():
        if find_spec(library) is None:
            raise ModuleNotFoundError(f"No module named {library!r}", name=library)


def _extra_of(library: str) -> str | None:
    """The extra of singflow that names a library's distribution; None where there is none."""
    wanted = DISTRIBUTIONS.get(library, library).replace("_", "-")
    for each in importlib.metadata.requires("singflow") or []:
        named = re.fullmatch(r"([\w.-]+).*; extra == \W(\w+)\W", each)
        if named and re.sub(r"[-_.]+", "-", named[1]).lower() == wanted:
            return named[2]
    return None
