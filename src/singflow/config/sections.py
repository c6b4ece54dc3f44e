"""The base class of all sections of params.yaml, and the types of their values.

The same classes check params.yaml, parse the flags of the scripts, and make the JSON schema.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict

from singflow.errors import printable

PACKAGE_DATA = Path(__file__).parents[1] / "packaged"  # registries, vocab/ and reference/
LOCAL = "checkpoints"  # folder of the user's own files; Snakemake and DVC notice changes in it
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
LONGEST_PATH, LONGEST_NAME = 4000, 255  # bytes: what file systems take
MOST_LETTERS = 100  # in a name: several names make one file name, of at most 255 bytes
# Upper bounds of numbers, and why no larger number is needed.
MOST_THREADS = 1024  # no machine has more
MOST_DRAWS = 100_000  # resamples, epochs: more change no digit that is shown
MOST_AT_ONCE = 2**14  # rows of a batch: no device is faster with more
WIDEST = 2**17  # features, dimensions: no network is wider
MOST_SHOWN = 1000  # items in a figure or a cell of a table: no page has room for more
MOST_IMAGES = 10**9  # no collection has more
# Ridge penalty, relative to the variance: sums over millions of rows have a rounding error of
# 1e-9 of the variance.
PENALTY = {"ge": 1e-6, "le": 1e9}
MODEL = rf"(?:(?:timm|torchvision|features)/{NAME}|transformers/{NAME}(?:/{NAME})?|{NAME})(?:@cut)?"


def matching(pattern: str, words: str) -> AfterValidator:
    """Refuse a text that does not match the pattern, with these words."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(words)
        return value

    return AfterValidator(check)


def _short(value: str) -> str:
    if len(value) > MOST_LETTERS:
        raise ValueError(
            f"has {len(value)} characters: may have {MOST_LETTERS}, because it becomes a file name"
        )
    return value


def _text(value: str) -> str:
    if value == "None":
        raise ValueError("is how the scripts are told null: choose another")
    if "\\${" in value:
        raise ValueError("holds \\${, from which DVC takes the \\ away: choose another text")
    return value


def _shell_safe(value: str) -> str:
    value = at_home(value)
    if reason := too_long(value):
        raise ValueError(reason)
    if not value or re.search(r'["$`\\\x00-\x1f\x7f]', value):
        windows = ": write / for \\ (under WSL, C:\\ is /mnt/c/)" if "\\" in value else ""
        raise ValueError(
            'must be a path without ", $, `, \\ or control characters, because it becomes part '
            f"of a command{windows}"
        )
    return value


def too_long(path: str) -> str:
    """Why no file system takes a path; empty if it is short enough."""
    content = path.encode(errors="surrogatepass")
    longest = max(map(len, content.split(b"/")))
    if len(content) <= LONGEST_PATH and longest <= LONGEST_NAME:
        return ""
    return (
        f"has {len(content)} bytes: a path may have {LONGEST_PATH}, and a name in it {LONGEST_NAME}"
    )


def at_home(path: str) -> str:
    """The path with a leading `~` expanded, if it stands for the home folder of a user."""
    return os.path.expanduser(path)  # noqa: PTH111 (Path.expanduser removes a leading ./)


def at_hand(path: Path) -> Path:
    """A file of config/ or reference/: the one in this folder, or else the packaged one."""
    shipped = PACKAGE_DATA / path.as_posix().removeprefix("config/")
    return shipped if shipped.exists() and not path.exists() else path


def outside(path: str) -> Path:
    """Place of files that neither git nor DVC tracks: images, other studies' results, caches."""
    # `dvc exp` works in a checkout below .dvc/tmp/exps, from which relative paths lead astray.
    started, below, _ = Path.cwd().as_posix().partition("/.dvc/tmp/exps/")
    return Path(started, path) if below else Path(path)


Values = TypeVar("Values", bound=list[Any])


def unique(values: Values) -> Values:
    """Raise ValueError if a value is repeated."""
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"lists {', '.join(map(str, repeated))} more than once")
    return values


def phrases(values: list[str], unit: str = "name") -> list[str]:
    """Phrases with single spaces; ValueError if one is blank, repeated or unprintable."""
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
                f"{unit} {number} repeats {phrase!r} of {unit} {first[key]}: rename or remove one "
                "of them"
            )
        first[key] = number
    return plain


Text = Annotated[str, AfterValidator(_text)]
FileName = Annotated[Text, AfterValidator(_short)]
Name = Annotated[
    FileName,
    matching(
        NAME,
        "may hold only letters, digits, '_', '-' and '.', and starts with a letter or digit, "
        "because it becomes a file name",
    ),
]
ModelName = Annotated[
    FileName,
    matching(
        MODEL,
        "may hold only a name of config/models.yaml or <source>/<id>, as in "
        "timm/resnet18.a1_in1k, because it becomes a file name",
    ),
]
SafePath = Annotated[Text, AfterValidator(_shell_safe)]
Column = Annotated[
    Text,
    matching(
        r'[^"$`\\\x00-\x1f\x7f]+',
        'must name a column without ", $, `, \\ or control characters, because it becomes part of '
        "a command",
    ),
]
Listed = Annotated[
    Text,
    matching(
        r"(?s)(?!-)\s*\S.*",
        "must not be blank or start with '-', because it becomes one of several words after a flag",
    ),
]
Template = Annotated[
    Listed, matching(r"(?s).*\{\}.*", "must hold {}, which stands for the label or concept")
]
Imported = Annotated[
    Text,
    matching(
        rf"{NAME}/{MODEL}:[0-9a-f]{{16,64}}",
        "must be <space>/<model>:<first 16 or more digits of its SHA-256>, as `singflow "
        "import_translator` prints it",
    ),
]
HubName = Annotated[
    Text,
    matching(
        rf"{LOCAL}/{NAME}|{NAME}/{NAME}",
        f"must be a hub name as in kakaobrain/karlo-v1-alpha-image-variations, or {LOCAL}/<folder>",
    ),
]


class Section(BaseModel):
    """A section of params.yaml: unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        defer_build=True,
        allow_inf_nan=False,
        json_schema_serialization_defaults_required=True,
    )
