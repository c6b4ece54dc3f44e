"""What a check of the doctor found, and what its checks share."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """What a check found. status: ok | warn (it works, with a drawback) | fail (it will not work) | absent (there is nothing to check)."""

    name: str
    status: Literal["ok", "warn", "fail", "absent"]
    found: str
    mend: str = ""

    def __str__(self) -> str:
        """One aligned line, and how to fix it below."""
        indent = "\n" + " " * 24
        return (
            f"{self.status:<8}{self.name:<16}"
            + self.found.replace("\n", indent)
            + (f"{indent}-> {self.mend}" if self.mend else "")
        )
