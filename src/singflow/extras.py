"""Optional libraries: which extra of this distribution installs them."""

import importlib.metadata
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from singflow.errors import InputError

DISTRIBUTIONS = {
    "PIL": "pillow",
    "open_clip": "open-clip-torch",
    "ruamel": "ruamel-yaml",
    "sklearn": "scikit-learn",
}


class MissingExtra(InputError, ImportError):
    """A library is not installed; the message names the extra that brings it."""


@contextmanager
def explained() -> Iterator[None]:
    """Raise MissingExtra in place of ModuleNotFoundError for a library that an extra installs."""
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if extra := _extra_of(library):
            raise MissingExtra(
                f"{library} is not installed: pip install 'singflow[{extra}]', or, in a checkout, "
                f"pip install -c constraints.txt -e '.[{extra}]'"
            ) from error
        raise


def check_installed(library: str) -> None:
    """Raise MissingExtra if a library is not installed, without importing it."""
    with explained():
        if find_spec(library) is None:
            raise ModuleNotFoundError(f"No module named {library!r}", name=library)


def _extra_of(library: str) -> str | None:
    """The extra of singflow that installs a library; None if no extra does."""
    wanted = DISTRIBUTIONS.get(library, library).replace("_", "-")
    for requirement in importlib.metadata.requires("singflow") or []:
        named = re.fullmatch(r"([\w.-]+).*; extra == \W(\w+)\W", requirement)
        if named and re.sub(r"[-_.]+", "-", named[1]).lower() == wanted:
            return named[2]
    return None
