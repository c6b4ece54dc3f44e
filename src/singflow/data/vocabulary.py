"""Concept lists and class lists: one phrase a line."""

from pathlib import Path

from singflow.data.manifest import read_classes
from singflow.errors import InputError, printable
from singflow.system import regular


def read_vocabulary(path: Path) -> list[str]:
    """Read the phrases of a concept file.

    Parameters
    ----------
    path : Path
        UTF-8 text, one phrase a line.

    Returns
    -------
    list of str
        In order, with single spaces between words.

    Raises
    ------
    InputError
        For blank or repeated lines, control characters, and an empty or unreadable file.
    """
    try:
        lines = regular(path).read_text(encoding="utf-8-sig").splitlines()
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
    """Names of a head's classes.

    Parameters
    ----------
    path : Path
        A CSV file as read_classes takes it, or a text file with one name a line.

    Returns
    -------
    list of str
        In order.
    """
    return read_classes(path).names if path.suffix.lower() == ".csv" else read_vocabulary(path)
