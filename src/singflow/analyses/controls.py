"""Controls: models whose answer is known."""

from typing import Literal

from pydantic import Field

from singflow.config.sections import Section


class Controls(Section):
    """Controls: models whose answer is known."""

    known: Literal["auto", "none"] = Field(
        "auto",
        description="auto: `singflow study` adds a known leak, and in conse_minilm a known zero; "
        "elsewhere the known zero is the blind check | none",
    )
