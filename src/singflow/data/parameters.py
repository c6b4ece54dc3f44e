"""Which images a study has."""

from typing import Literal

from pydantic import Field

from singflow.config.sections import (
    MOST_IMAGES,
    SafePath,
    Section,
    Text,
)


class Data(Section):
    """Which images are studied."""

    source: Literal["packaged", "folder", "table"] = Field(
        "packaged", description="packaged (20 ImageNet images) | folder (one folder a class) | table (CSV or Parquet)"
    )
    root: SafePath = Field(".", description="folder that image paths are relative to (packaged: not read)")
    table: SafePath | None = Field(
        "config/vocab/packaged.csv",
        description="one image a row: path, a label, perhaps class_index, prompt, split (folder: not read, but a file for DVC)",
    )
    label_column: Text = Field("label", min_length=1, description="column of the table that holds the label")
    classes: SafePath = Field("config/vocab/imagenet_1k.csv", description="the heads' classes in order: class_index, synset, name")
    per_class: int | None = Field(None, ge=1, le=MOST_IMAGES, description="images drawn per label; null: all (paper: 10)")
    max_pixels: int = Field(100000000, ge=1, le=10**9, description="pixels; larger images are rejected unread")
    max_rejected_fraction: float = Field(0.05, ge=0, le=1, description="share of unusable files that stops the run")
