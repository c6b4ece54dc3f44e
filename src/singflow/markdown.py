"""Texts as Markdown that says nothing but these texts."""

import re


def escaped(text: str) -> str:
    """A text as one line of Markdown that says nothing but this text, in a table, too."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return re.sub(r"([\\`*_\[\]<>|#~&$])", r"\\\1", line)


def as_list(text: str) -> str:
    """Lines as Markdown: the first in bold, the others as a list."""
    first, *lines = (escaped(line) for line in text.splitlines())
    return "\n".join([f"**{first}**", "", *(f"- {line}" for line in lines)])
