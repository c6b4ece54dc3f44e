"""The exception for faulty input, whose message says how to fix it."""

import difflib
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

CONTROL = ("Cc", "Cs", "Zl", "Zp")
# Characters that change the direction of what follows, so that a text looks like another one.
DIRECTION = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
LONGEST = 4000  # characters of a line of a message
MOST_NAMES = 5  # that a message lists


def printable(text: str) -> str:
    """The text with escapes for controls, line separators and bytes that are not UTF-8."""
    if text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode()
        if unicodedata.category(c) in CONTROL or unicodedata.bidirectional(c) in DIRECTION
        else c
        for c in text
    )


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8, as bytes that the system could not read cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shortened(line: str) -> str:
    """A line without its middle if it is too long; the file is at its start, the fix at its end."""
    half = LONGEST // 2
    return line if len(line) <= LONGEST else f"{line[:half]} ... {line[-half:]}"


def listed(names: Collection[str]) -> str:
    """The first MOST_NAMES names in alphabetical order, and how many more there are."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(sorted(names)[:MOST_NAMES]) + more


class InputError(Exception):
    """Bad input. The message names the file, the value and what to do about it."""

    def __init__(self, message: str) -> None:
        super().__init__("\n".join(_shortened(printable(line)) for line in message.split("\n")))


def brief(error: Exception) -> str:
    """An error in one line, for a message, without advice to run the code in a file."""
    words = " ".join(str(error).split())[:300]
    if "weights_only" in str(error) or "allow_pickle" in str(error):
        words = "it is not one of tensors alone"
    return printable(f"{type(error).__name__}: {words}")


@contextmanager
def in_one_line(problem: str, fix: str = "") -> Iterator[None]:
    """Turn an exception of the block into InputError: the problem, the exception, and the fix."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 (libraries raise whatever damaged bytes provoke)
        raise InputError(f"{problem} ({brief(error)}){fix and ': '}{fix}") from None


@contextmanager
def readable_as(form: str, origin: object, fix: str) -> Iterator[None]:
    """Turn any exception of the block into InputError that names the file, its form and the fix."""
    with in_one_line(f"{origin}: not readable as {form}", fix):
        try:
            yield
        except FileNotFoundError:
            raise InputError(f"{origin}: no such file") from None


def check_labels(wanted: Iterable[str], known: Iterable[str], key: str) -> None:
    """Raise InputError for labels that no image has. key: where the labels are written."""
    labels = list(known)
    fixes = []
    for label in wanted:
        if label not in labels:
            near = difflib.get_close_matches(label, labels, n=1)
            some = ", ".join(map(repr, labels[:3]))
            fix = f"did you mean {near[0]!r}?" if near else f"labels are {some}, ..."
            fixes.append(f"{label!r} ({fix})")
    if fixes:
        raise InputError(f"{key}: no image has the label {', '.join(dict.fromkeys(fixes))}")
