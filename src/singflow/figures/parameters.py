"""What the figures show."""

from typing import Annotated

from pydantic import AfterValidator, Field

from singflow.config.sections import MOST_SHOWN, Listed, ModelName, Section, unique

MOST_PANELS = 6  # of figure 5, and so the most labels


class PlotLabels(Section):
    """The violins of |AS| per label."""

    labels: list[Listed] = Field([], description="labels to show; none: the 16 with most images")


class PlotConcepts(Section):
    """The concept scans of a few labels (figures 5, 15 and 16)."""

    labels: Annotated[list[Listed], AfterValidator(unique)] = Field(
        [],
        max_length=MOST_PANELS,
        description="labels to show, at most 6; none: the one with most images (paper: Arabian "
        "camel, jellyfish)",
    )
    shown: Annotated[list[ModelName], AfterValidator(unique)] = Field(
        [], description="models to show; none: all (paper: dinovit)"
    )
    extremes: int = Field(
        8,
        ge=1,
        le=MOST_SHOWN,
        description="concepts shown of each kind: nearest, strongest and weakest",
    )
