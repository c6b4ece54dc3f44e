"""Which images a study has."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from singflow.config.sections import (
    MOST_IMAGES,
    MOST_SHOWN,
    Listed,
    SafePath,
    Section,
    Text,
    unique,
)


def _archive(value: str) -> str:
    parts = value.split("/")
    if {"", ".", ".."} & {*parts} or value.startswith("~") or not value.isprintable():
        raise ValueError("must be a file or glob below data.root, without .., and with / alone")
    if "\\" in value or any("**" in part and part != "**" for part in parts):
        raise ValueError("is no glob: write / for \\, and ** alone between slashes")
    return value


Archive = Annotated[Listed, AfterValidator(_archive)]
Archives = Annotated[list[Archive], Field(max_length=MOST_SHOWN), AfterValidator(unique)]


class Data(Section):
    """Which images are studied."""

    source: Literal["packaged", "folder", "table", "archive", "features"] = Field(
        "packaged",
        description="packaged (20 ImageNet images) | folder (one folder a class) | table (CSV or "
        "Parquet) | archive (tar, Parquet) | features (imported, no images)",
    )
    root: SafePath = Field(
        ".",
        description="folder that image paths are relative to (packaged: not read; features: what "
        "save_features wrote, or results)",
    )
    table: SafePath = Field(
        "config/vocab/packaged.csv",
        description="one row per image: path, label, and optionally class_index, prompt, split "
        "(read by source table and evidence.groups; must exist)",
    )
    archives: Archives = Field(
        [],
        description="source archive: tar and Parquet files below root, or globs, as in train-*.tar",
    )
    label_column: Text = Field(
        "label",
        min_length=1,
        description="column of the table, or of the archive's Parquet files, that holds the label",
    )
    classes: SafePath = Field(
        "config/vocab/imagenet_1k.csv",
        description="the heads' classes in order: class_index, synset, name, perhaps group",
    )
    per_class: int | None = Field(
        None, ge=1, le=MOST_IMAGES, description="images drawn per label; null: all (paper: 10)"
    )
    max_pixels: int = Field(
        100000000, ge=1, le=10**9, description="pixels; larger images are rejected unread"
    )
    max_rejected_fraction: float = Field(
        0.05, ge=0, le=1, description="the run stops above this share of unusable files"
    )

    @model_validator(mode="after")
    def _images_are_named(self) -> "Data":
        if self.source == "packaged" and self.root != ".":
            raise ValueError(
                f"data.root is {self.root}, but data.source packaged studies the packaged images: "
                "write data.source: folder (one folder a class), table or archive"
            )
        if self.source == "archive" and not self.archives:
            raise ValueError(
                "data.source archive needs data.archives: tar or Parquet files, or globs, as in "
                "archives: [train-*.tar]"
            )
        return self
