"""How images and texts become features and embeddings."""

import json
from typing import Annotated, Literal

from pydantic import Field, model_validator

from singflow.config.sections import MOST_AT_ONCE, MOST_THREADS, Section, Template

Precision = Literal["float32", "tf32", "float16", "bfloat16"]
CPU_BATCH = 8  # most views per forward pass of one thread
GPU_BATCH = 256  # views per forward pass, where fewer do not have to do
# Most bytes of decoded views that wait for a tower. One image per thread may always wait.
WAITING_BYTES = 2**29
MOST_VIEWS = 100  # of an image, which are in memory at once; more crops would show nothing new
MOST_SHARDS = 99999  # their names have five digits


class Extraction(Section):
    """How images become features and embeddings."""

    views: int = Field(
        4,
        ge=1,
        le=MOST_VIEWS,
        description="views per image: the whole image, then random crops (paper: 1)",
    )
    crop_area: list[Annotated[float, Field(ge=0, le=1)]] = Field(
        [0.3, 1.0],
        min_length=2,
        max_length=2,
        description="share of the image's area in a crop: smallest, largest",
    )
    shards: int = Field(
        1, ge=1, le=MOST_SHARDS, description="jobs that the images of a model are split into"
    )
    shard_ids: list[str] = Field(
        ["00000"], description="names of the shards, from 00000 on (DVC needs the list)"
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=MOST_AT_ONCE,
        description="views per forward pass; on a CPU at most 8 a thread; null: on a GPU 256, or "
        "as many as fit",
    )
    decode_threads: int = Field(
        8,
        ge=1,
        le=MOST_THREADS,
        description="threads that decode images for a GPU, and cores that its jobs ask a cluster "
        "for; on a CPU they are threads (results do not depend on it)",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto (an NVIDIA GPU when there is one) | cpu | cuda"
    )
    precision: Precision = Field(
        "float32",
        description="float32 | tf32 (an NVIDIA GPU's faster float32) | float16 | bfloat16 (towers "
        "under autocast; paper: not said)",
    )
    top1_margin: float = Field(
        10.0,
        ge=0,
        le=100,
        description="percentage points below a model's reported top-1 that cause a warning",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Extraction":
        expected = [f"{shard:05d}" for shard in range(self.shards)]
        if self.shard_ids != expected:
            raise ValueError(
                f"shard_ids must name the {self.shards} shards: write {json.dumps(expected)}"
            )
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError(
                "crop_area is [smallest, largest] with 0 < smallest <= largest <= 1, not "
                f"{self.crop_area}"
            )
        return self


class Prompts(Section):
    """The texts that stand for labels and concepts in a space."""

    label_templates: list[Template] = Field(
        ["an image of a {}"],
        min_length=1,
        description="{} is the label, a(n) {} a or an before it; several are averaged "
        "(paper: this one)",
    )
    concept_templates: list[Template] = Field(
        ["{}"], min_length=1, description="{} is the concept, a(n) {} a or an before it"
    )
    batch_size: int = Field(64, ge=1, le=MOST_AT_ONCE, description="texts per forward pass")
