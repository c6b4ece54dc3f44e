"""Values of params.yaml as flags of a command."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any


def at(study: Mapping[str, Any], key: str) -> Any:
    """The value of a key with dots, as in `data.root`; KeyError if there is no such key."""
    found: Any = study
    for part in key.split("."):
        found = found[part]
    return found


def spell(values: Mapping[str, Any]) -> str:
    """Flags: an empty list is nothing, texts are quoted."""
    flags = []
    for name, value in values.items():
        words = value if isinstance(value, list) else [value]
        if words:
            flags += [
                f"--{name}",
                *(shlex.quote(word) if isinstance(word, str) else str(word) for word in words),
            ]
    return " ".join(flags)


def flags_of(study: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Flags of a command from the values of keys: sections, lists, single values.

    The name of a flag is the last part of its key, or stands before `=`.
    """
    words = []
    for text in keys:
        name, key = text.partition("=")[0].rpartition(".")[2], text.rpartition("=")[2]
        value = at(study, key)
        words.append(spell(value if isinstance(value, dict) else {name: value}))
    return " ".join(words)
