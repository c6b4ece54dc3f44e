"""Reads YAML files that people write, and explains what is wrong with them."""

import difflib
import re
import reprlib
from collections import Counter
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from singflow.errors import InputError
from singflow.system import regular

Checked = TypeVar("Checked", bound=BaseModel)
MOST_BYTES = 2**22  # of a YAML file, which takes a minute to read
MOST_VALUES = 100_000  # in a YAML file, with its aliases expanded
SHORT = reprlib.Repr()  # shortens values in messages
POWER = re.compile(r"([-+]?\d+)(\.\d*)?[eE]([-+]?)(\d+)")  # a number that YAML reads as text
CONFLICT = re.compile(rb"(<{7}|={7}|>{7})( |$)")  # a line by which git marks a conflict
SHORT.maxlevel, SHORT.maxlist, SHORT.maxdict, SHORT.maxstring, SHORT.maxother = 3, 20, 20, 300, 300


class _Loader(yaml.SafeLoader):
    """A safe YAML loader that refuses repeated keys; a key may override one of a merge (<<)."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = Counter(str(key.value) for key, _ in node.value)
        if repeated := sorted(key for key, times in keys.items() if times > 1):
            raise yaml.constructor.ConstructorError(
                None, None, f"{', '.join(repeated)}: written twice", node.start_mark
            )
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        number = super().construct_yaml_int(node)
        str(number)  # ValueError for a number of too many digits, as 59:59:59:... is one
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def read_yaml(path: str | Path, *, may_be_empty: bool = False) -> dict[str, Any]:
    """Read a YAML mapping in which no key is repeated."""
    try:
        if (size := regular(Path(path)).stat().st_size) > MOST_BYTES:
            raise ValueError(f"it has {size} bytes, and may have {MOST_BYTES}: shorten it")
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)  # noqa: S506
        if isinstance(content, dict) and _size(content, {}) > MOST_VALUES:
            raise ValueError("its aliases (*name) stand for too many values: write them out")
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file: run this in the folder of the repository, or name another"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: not readable: {error.strerror}") from None
    except InputError:
        raise
    except RecursionError:
        raise InputError(
            f"{path}: not valid YAML: nested too deeply, or an alias (*name) stands inside what "
            "it names"
        ) from None
    except Exception as error:  # noqa: BLE001 (YAML's constructors raise many kinds of exceptions)
        lines = Path(path).read_bytes().splitlines()
        if marked := [row for row, line in enumerate(lines, 1) if CONFLICT.match(line)]:
            raise InputError(
                f"{path}: holds conflict markers of a merge, first in line {marked[0]}: keep one "
                "side of every conflict, and remove the markers"
            ) from None
        hint = ": write / for \\ in paths" if "unknown escape character" in str(error) else ""
        raise InputError(f"{path}: not valid YAML: {error}{hint}") from None
    if content is None and may_be_empty:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a mapping of keys to values")
    return content


def _size(value: Any, sizes: dict[int, int]) -> int:
    """Number of values in parsed YAML with aliases expanded; `sizes` caches it by container id."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in sizes:
        inner = value.values() if isinstance(value, dict) else value
        sizes[id(value)] = 1 + sum(_size(item, sizes) for item in inner)
    return sizes[id(value)]


def read_section(path: Path, key: str, section: type[Checked]) -> Checked:
    """A section of the study that made some results; keys that it lacks have their defaults."""
    try:
        return section.model_validate(read_yaml(path).get(key))
    except ValidationError as error:
        fix = "remove the file, and run the workflow again"
        raise InputError(explain(error, section, f"{path}: {key}", fix)) from None


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The class of a key that holds a section; None for any other key."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def explain(
    error: ValidationError, model: type[BaseModel], origin: str, fix: str = "write it"
) -> str:
    """One line per mistake: the key, the value, what is wrong. fix: for a missing key."""
    mistakes = error.errors(include_url=False)
    return "\n".join(_line(mistake, model, origin, fix) for mistake in mistakes)


def _line(mistake: ErrorDetails, model: type[BaseModel], origin: str, fix: str) -> str:
    place, given = ".".join(map(str, mistake["loc"])) or "(whole file)", mistake["input"]
    if mistake["type"] == "missing":
        return f"{origin}: {place}: missing; {fix}"
    if mistake["type"] == "extra_forbidden":
        *above, key = mistake["loc"]
        for part in above:
            model = section_of(model.model_fields[str(part)]) or model
        siblings = sorted(model.model_fields)
        near = difflib.get_close_matches(str(key), model.model_fields, n=1, cutoff=0.5)
        fix = f"did you mean {near[0]!r}?" if near else f"valid keys are {', '.join(siblings)}"
        return f"{origin}: {place}: unknown key; {fix}"
    hint = ""
    if mistake["type"] == "float_type" and (number := POWER.fullmatch(str(given))):
        fix = f"{number[1]}{number[2] or '.0'}e{number[3] or '+'}{number[4]}"
        hint = f"; YAML reads {given} as text: write {fix}"
    if mistake["type"] == "value_error" and not mistake["loc"]:  # says itself what it is about
        return f"{origin}: {mistake['ctx']['error']}"
    value = "" if isinstance(given, dict | BaseModel) else f" {SHORT.repr(given)}"
    return f"{origin}: {place}:{value} {mistake['msg'].removeprefix('Value error, ')}{hint}"
