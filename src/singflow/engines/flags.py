"""Values of params.yaml as flags of a command, spelled as DVC spells them."""

import shlex
from collections.abc import Mapping
from typing import Any


def at(study: Mapping[str, Any], key: str) -> Any:
    """The value of a key with dots in it, as in `data.root`."""
    found: Any = study
    for part in key.split("."):
        found = found[part]
    return found


def spell(values: Mapping[str, Any]) -> str:
    """Flags as DVC spells `${section}`: a list as several words after its flag, an empty list as nothing, texts quoted for a shell."""
    words = []
    for name, value in values.items():
        each = value if isinstance(value, list) else [value]
        words += (
            [f"--{name}", *(shlex.quote(one) if isinstance(one, str) else str(one) for one in each)]
            if each
            else []
        )
    return " ".join(words)
