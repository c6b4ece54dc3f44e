"""The result of a check of `singflow doctor`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    status: ok | warn (it works, with a drawback) | fail (it will not work) | absent (there is
    nothing to check).
    """

    name: str
    status: Literal["ok", "warn", "fail", "absent"]
    found: str
    fix: str = ""

    def __str__(self) -> str:
        """An aligned line, with the fix below it."""
        indent = "\n" + " " * 24
        return (
            f"{self.status:<8}{self.name:<16}"
            + self.found.replace("\n", indent)
            + (f"{indent}-> {self.fix}" if self.fix else "")
        )
