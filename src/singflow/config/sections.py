"""The study: every key of params.yaml, its type, its limits and its unit.

One class per section. The same classes check params.yaml, write the JSON schema that the
Snakefile validates against, and parse the flags of the scripts.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict

from singflow.errors import printable

LOCAL = "checkpoints"  # folder of the user's own files, which both engines watch
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
MOST_LETTERS = 100  # of a name: several become one file name, and file systems take 255 bytes
# Upper bounds of numbers, with what lies beyond them.
MOST_THREADS = 1024  # no machine has more
MOST_DRAWS = 100_000  # resamples, permutations, epochs: no number that is shown gains a digit
MOST_AT_ONCE = 2**14  # rows of a batch: no device is faster with more
WIDEST = 2**17  # features, dimensions: no network is wider
MOST_SHOWN = 1000  # things in a figure or a cell of a table: no page has room for more
MOST_IMAGES = 10**9  # no collection has more
PENALTY = {
    "ge": 1e-6,
    "le": 1e9,
}  # of a ridge, times the variance: the sums of millions of rows have rounding of 1e-9 of it
MODEL = rf"(?:(?:timm|torchvision)/{NAME}|transformers/{NAME}(?:/{NAME})?|{NAME})"


def _refuse(value: str, pattern: str, allowed: str) -> str:
    if len(value) > MOST_LETTERS:
        raise ValueError(
            f"has {len(value)} characters: may have {MOST_LETTERS}, because it becomes a file name"
        )
    if not re.fullmatch(pattern, value):
        raise ValueError(f"may hold only {allowed}, because it becomes a file name")
    return value


def _text(value: str) -> str:
    if value == "None":
        raise ValueError("is how the scripts are told null: choose another")
    if "\\${" in value:
        raise ValueError("holds \\${, from which DVC takes the \\ away: choose another text")
    return value


def _name(value: str) -> str:
    return _refuse(
        value, NAME, "letters, digits, '_', '-' and '.', and starts with a letter or digit"
    )


def _model_name(value: str) -> str:
    return _refuse(
        value, MODEL, "a name of config/models.yaml or <source>/<id>, as in timm/resnet18.a1_in1k"
    )


def _shell_safe(value: str) -> str:
    value = at_home(value)
    if not value or re.search(r'["$`\\\x00-\x1f\x7f]', value):
        windows = ": write / for \\ (under WSL, C:\\ is /mnt/c/)" if "\\" in value else ""
        raise ValueError(
            f'must be a path without ", $, `, \\ or control characters, because it becomes part of a command{windows}'
        )
    return value


def at_home(path: str) -> str:
    """A path with the home folder in place of a leading `~`."""
    return os.path.expanduser(path)  # noqa: PTH111 (which takes the ./ off other paths)


def outside(path: str) -> Path:
    """Where something lies that neither git nor DVC need have: images, results of another study, what is kept between runs.

    `dvc exp run --temp` and `--queue` compute in a checkout of their own below .dvc/tmp/exps of the one in which they were started. A
    relative path is meant from the latter.
    """
    started, below, _ = Path.cwd().as_posix().partition("/.dvc/tmp/exps/")
    return Path(started, path) if below else Path(path)


Values = TypeVar("Values", bound=list[Any])


def unique(values: Values) -> Values:
    """Refuse a list in which a value stands more than once."""
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"lists {', '.join(map(str, repeated))} more than once")
    return values


def phrases(values: list[str], unit: str = "name") -> list[str]:
    """Refuse a list of names or phrases in which one is blank, holds control characters or is there twice."""
    first: dict[str, int] = {}
    plain = [" ".join(value.split()) for value in values]
    for number, phrase in enumerate(plain, start=1):
        if not phrase:
            raise ValueError(f"{unit} {number} is blank: fill or remove it")
        if phrase != printable(phrase):
            raise ValueError(f"{unit} {number} holds control characters: {phrase!r}: remove them")
        key = phrase.replace("_", " ").casefold()
        if key in first:
            raise ValueError(
                f"{unit} {number} repeats {phrase!r} of {unit} {first[key]}: rename or remove one of them"
            )
        first[key] = number
    return plain


def _listed(value: str) -> str:
    if not value.strip() or value.startswith("-"):
        raise ValueError(
            "must not be blank or start with '-', because it becomes one of several words after a flag"
        )
    return value


def _template(value: str) -> str:
    if "{}" not in value:
        raise ValueError("must hold {}, which stands for the label or concept")
    return value


def _imported(value: str) -> str:
    if not re.fullmatch(rf"{NAME}/{MODEL}:[0-9a-f]{{16,64}}", value):
        raise ValueError(
            "must be <space>/<model>:<first 16 or more digits of its SHA-256>, as `singflow import_translator` prints it"
        )
    return value


def hub_name(value: str) -> str:
    """Refuse what is neither `<owner>/<name>` in the hub nor checkpoints/<folder>."""
    if not re.fullmatch(rf"{LOCAL}/{NAME}|{NAME}/{NAME}", value):
        raise ValueError(
            f"must be a hub name as in kakaobrain/karlo-v1-alpha-image-variations, or {LOCAL}/<folder>"
        )
    return value


Text = Annotated[str, AfterValidator(_text)]
Name = Annotated[Text, AfterValidator(_name)]
ModelName = Annotated[Text, AfterValidator(_model_name)]
SafePath = Annotated[Text, AfterValidator(_shell_safe)]
Listed = Annotated[Text, AfterValidator(_listed)]
Template = Annotated[Listed, AfterValidator(_template)]
Imported = Annotated[Text, AfterValidator(_imported)]


class Section(BaseModel):
    """A section of params.yaml: unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        defer_build=True,
        allow_inf_nan=False,
        json_schema_serialization_defaults_required=True,
    )
