"""The result of a check of `singflow doctor`."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail", "absent"]


@dataclass(frozen=True)
class Finding:
    """The result of a check."""

    name: str
    status: Status  # warn: it works, with a drawback; absent: there is nothing to check
    found: str
    fix: str = ""

    def __str__(self) -> str:
        """An aligned line, with the fix below it."""
        lines = self.found.split("\n") + ([f"-> {self.fix}"] if self.fix else [])
        return f"{self.status:<8}{self.name:<16}" + ("\n" + " " * 24).join(lines)
