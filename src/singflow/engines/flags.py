"""Values of params.yaml as flags of a command, written as DVC writes them."""

import shlex
from collections.abc import Mapping
from typing import Any

from singflow.config.public import PATHS

QUOTED = {f"{section}.{key}" for section, key in (*PATHS, ("translator", "reference"))}


def at(study: Mapping[str, Any], key: str) -> Any:
    """The value of a key with dots, as in `data.root`; KeyError if there is no such key."""
    found: Any = study
    for part in key.split("."):
        found = found[part]
    return found


def spell(values: Mapping[str, Any]) -> str:
    """Flags as DVC spells `${section}`: an empty list is nothing, texts are quoted for a shell."""
    flags = []
    for name, value in values.items():
        words = value if isinstance(value, list) else [value]
        if words:
            flags += [
                f"--{name}",
                *(shlex.quote(word) if isinstance(word, str) else str(word) for word in words),
            ]
    return " ".join(flags)


def named(keys: list[str]) -> dict[str, str]:
    """Keys by their flags: the last part of the key, or the name before `=`."""
    return {key.partition("=")[0].rpartition(".")[2]: key.rpartition("=")[2] for key in keys}


def flags_of(study: Mapping[str, Any], keys: list[str]) -> str:
    """Flags of a command: sections, then lists, then single values, as DVC can tell them apart.

    An empty section leaves two spaces, as in DVC.
    """
    values = {name: at(study, key) for name, key in named(keys).items()}
    sections = [spell(value) for value in values.values() if isinstance(value, dict)]
    lists = {name: value for name, value in values.items() if isinstance(value, list)}
    single = [
        f'--{name} "{values[name]}"' if key in QUOTED else f"--{name} {values[name]}"
        for name, key in named(keys).items()
        if not isinstance(values[name], dict | list)
    ]
    return " ".join([*sections, *([spell(lists)] if lists else []), *single])
