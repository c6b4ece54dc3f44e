"""What the page shows."""

from pydantic import Field

from singflow.config.sections import Section


class Report(Section):
    """The page that holds a study."""

    max_images: int = Field(
        10000,
        ge=1,
        le=100000,
        description="images shown one by one; if there are more, the seed draws a sample",
    )
