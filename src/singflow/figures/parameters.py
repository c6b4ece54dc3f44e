"""What the figures show."""

from pydantic import Field

from singflow.config.sections import MOST_SHOWN, Listed, Section, Text


class PlotLabels(Section):
    """The violins of |AS| per label."""

    labels: list[Listed] = Field([], description="labels to show; none: the 16 with most images")


class PlotConcepts(Section):
    """The concept scan of one label."""

    label: Text | None = Field(None, description="label to show; null: the one with most images")
    extremes: int = Field(8, ge=1, le=MOST_SHOWN, description="concepts shown from either end")


class PlotConceptScans(Section):
    """The extended concept scans of some labels (figures 15 and 16)."""

    labels: list[Listed] = Field([], description="labels to show; none: the two with most images")
    most: int = Field(
        40, ge=1, le=MOST_SHOWN, description="concepts shown per label: those nearest to it"
    )
