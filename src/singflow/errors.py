"""The one exception that means 'the input is at fault', with the fix in its message."""

import difflib
import unicodedata
from collections.abc import Iterable


def printable(text: str) -> str:
    """A text in which control characters, separators of lines and bytes that are not UTF-8 stand as escapes."""
    control = ("Cc", "Cs", "Zl", "Zp")
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in control else c
        for c in text
    )


class InputError(Exception):
    """Bad input: the message names the file, the value and what to do about it, in printable lines."""

    def __init__(self, message: str) -> None:
        super().__init__("\n".join(map(printable, message.split("\n"))))


def check_labels(wanted: Iterable[str], known: Iterable[str], key: str) -> None:
    """Refuse labels without an image."""
    labels = list(known)
    near = {
        label: difflib.get_close_matches(label, labels, n=1)
        for label in wanted
        if label not in labels
    }
    if near:
        mends = {
            label: f"did you mean {each[0]!r}?" if each else "tables/labels.csv lists them"
            for label, each in near.items()
        }
        named = ", ".join(f"{label!r} ({mend})" for label, mend in mends.items())
        raise InputError(f"{key}: no image has the label {named}")
