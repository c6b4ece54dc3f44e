"""What the pictures show."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from singflow.config.sections import MOST_SHOWN, HubName, Listed, ModelName, Section, Text, unique


class Pictures(Section):
    """Pictures of what the null space holds (section 3.2 of the supplement)."""

    renderer: Literal["auto", "unclip", "words"] = Field(
        "auto",
        description="auto (unclip if the generator fits the space, and its weights and a GPU are "
        "there; else words) | unclip | words (no picture)",
    )
    generator: HubName = Field(
        "kakaobrain/karlo-v1-alpha-image-variations",
        description="UnCLIP generator: a hub name (make prefetch fetches it), or "
        "checkpoints/<folder> (paper: this one)",
    )
    revision: Annotated[Text, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]*$")] = Field(
        "main", description="branch, tag or commit of the generator in the hub"
    )
    dtype: Literal["float16", "float32"] = Field(
        "float16", description="float16 | float32: precision of the generator; float32 on a CPU"
    )
    decoder_steps: int = Field(25, ge=2, le=1000, description="denoising steps of its decoder")
    super_res_steps: int = Field(
        7, ge=2, le=1000, description="denoising steps of its super-resolution"
    )
    guidance: float = Field(8.0, ge=1, le=100, description="guidance scale of its decoder; 1: none")
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], AfterValidator(unique)] = Field(
        [0, 1, 2],
        min_length=1,
        description="seeds of the noise that pictures start from: all in figure 13, the first "
        "elsewhere",
    )
    images: Annotated[list[Listed], AfterValidator(unique)] = Field(
        [], description="images shown, by their path in the manifest; none: drawn by the seed"
    )
    count: int = Field(3, ge=1, le=MOST_SHOWN, description="images drawn when none are named")
    closeup: ModelName = Field(description="model of figures 6, 10, 11 and 13 (paper: ResNet50)")
    ladder_is_deg: Annotated[
        list[Annotated[float, Field(gt=0, lt=180)]], AfterValidator(unique)
    ] = Field(
        [4.0, 10.8, 23.0, 29.0, 36.2],
        min_length=1,
        description="degrees; IS of the steps of figure 10 (paper: these)",
    )
