"""Concept lists and class lists: one phrase a line."""

from pathlib import Path

from singflow.data import read_classes
from singflow.errors import InputError, printable


def read_vocabulary(path: Path) -> list[str]:
    """The phrases of a concept file, in order. Raises InputError for blank or repeated lines and for an empty file."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as UTF-8 text ({error}): name or save it anew") from None
    if not lines:
        raise InputError(f"{path}: holds no concepts: write one phrase a line")
    first: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        phrase = " ".join(line.split())
        if not phrase:
            raise InputError(f"{path}: line {number} is blank: remove it")
        if phrase != printable(phrase):
            raise InputError(f"{path}: line {number} holds control characters: {phrase!r}: remove them")
        if phrase.casefold() in first:
            raise InputError(f"{path}: line {number} repeats {phrase!r} of line {first[phrase.casefold()]}: remove one of them")
        first[phrase.casefold()] = number
    return [" ".join(line.split()) for line in lines]


def read_class_list(path: Path) -> list[str]:
    """Names of a head's classes in order: a CSV file as read_classes takes it, or a text file with one name a line."""
    return read_classes(path).names if path.suffix.lower() == ".csv" else read_vocabulary(path)
