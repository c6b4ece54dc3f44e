"""Values of params.yaml as flags of a command, written as DVC writes them."""

import shlex
from collections.abc import Mapping
from typing import Any


def at(study: Mapping[str, Any], key: str) -> Any:
    """The value of a key with dots, as in `data.root`; KeyError if there is no such key."""
    found: Any = study
    for part in key.split("."):
        found = found[part]
    return found


def spell(values: Mapping[str, Any]) -> str:
    """Flags as DVC writes `${section}`, with texts quoted for a shell.

    A list gives several words after its flag; an empty list gives nothing.
    """
    words = []
    for name, value in values.items():
        items = value if isinstance(value, list) else [value]
        words += (
            [
                f"--{name}",
                *(shlex.quote(item) if isinstance(item, str) else str(item) for item in items),
            ]
            if items
            else []
        )
    return " ".join(words)
