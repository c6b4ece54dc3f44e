"""The exception for faulty input, whose message says how to fix it."""

import difflib
import unicodedata
from collections.abc import Iterable


def printable(text: str) -> str:
    """The text with control characters, line separators and bytes that are not UTF-8 as escapes."""
    if text.isprintable():
        return text
    control = ("Cc", "Cs", "Zl", "Zp")
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in control else c
        for c in text
    )


class InputError(Exception):
    """Bad input. The message names the file, the value and what to do about it."""

    def __init__(self, message: str) -> None:
        super().__init__("\n".join(map(printable, message.split("\n"))))


def check_labels(wanted: Iterable[str], known: Iterable[str], key: str) -> None:
    """Raise InputError for labels that no image has. key: where the labels are written."""
    labels = list(known)
    fixes = []
    for label in wanted:
        if label not in labels:
            near = difflib.get_close_matches(label, labels, n=1)
            fix = f"did you mean {near[0]!r}?" if near else "tables/labels.csv lists them"
            fixes.append(f"{label!r} ({fix})")
    if fixes:
        raise InputError(f"{key}: no image has the label {', '.join(dict.fromkeys(fixes))}")
