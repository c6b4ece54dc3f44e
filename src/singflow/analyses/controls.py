"""Controls: models whose answer is known."""

from typing import Literal

from pydantic import Field

from singflow.config.sections import Section


class Controls(Section):
    """Controls: models whose answer is known."""

    known: Literal["auto", "none"] = Field(
        "auto",
        description="auto: `singflow study` adds the known zero and the known leak to a study of "
        "packaged classifiers | none",
    )
