"""Concept lists and class lists: one phrase a line."""

from pathlib import Path

from singflow.config.sections import phrases
from singflow.data.manifest import read_classes
from singflow.data.reading import refuse_workbook
from singflow.errors import InputError


def read_vocabulary(path: Path) -> list[str]:
    """Read the phrases of a concept file.

    Parameters
    ----------
    path : Path
        UTF-8 text, one phrase a line; blank lines at the end do not count.

    Returns
    -------
    list of str
        In order, with single spaces between words.

    Raises
    ------
    InputError
        For blank lines before the last phrase, repeated ones, control characters, and an empty or unreadable file.
    """
    refuse_workbook(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as UTF-8 text ({error}): name or save it anew") from None
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise InputError(f"{path}: holds no concepts: write one phrase a line")
    try:
        return phrases(lines, "line")
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


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
