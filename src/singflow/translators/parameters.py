"""Where the null space begins, and how features are translated."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from singflow.config.sections import (
    MOST_AT_ONCE,
    MOST_DRAWS,
    PENALTY,
    WIDEST,
    Imported,
    ModelName,
    SafePath,
    Section,
    unique,
)


class Projector(Section):
    """Where the null space begins (equation 3)."""

    rule: Literal["exact", "exact64", "energy", "fixed", "centered"] = Field(
        "exact", description="exact | exact64 | energy | fixed | centered (paper: exact)"
    )
    energy: float = Field(
        0.99, gt=0, le=1, description="rule energy: share of ||W||^2 in the principal space"
    )
    rank: int | None = Field(
        None, ge=0, le=WIDEST, description="rule fixed: dimensions of the principal space"
    )

    @model_validator(mode="after")
    def _has_rank(self) -> "Projector":
        if self.rule == "fixed" and self.rank is None:
            raise ValueError("rule fixed needs a rank: write rank: <number>")
        return self


def _crossed(folds: int) -> int:
    if folds == 1:
        raise ValueError("must be 0 or at least 2: one fold leaves no images to fit on")
    return folds


class Translation(Section):
    """How features are translated into the space (equation 4)."""

    kind: Literal["linear"] = Field(
        "linear", description="linear: ridge regression (paper: linear)"
    )
    folds: Annotated[int, AfterValidator(_crossed)] = Field(
        5,
        ge=0,
        le=1000,
        description="an image is scored by a translator fitted on the other folds; 0: one "
        "translator for all, in sample without a reference (paper: 0)",
    )
    lambdas: list[Annotated[float, Field(**PENALTY)]] = Field(
        [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0],
        min_length=1,
        description="ridge penalties tried, times the mean squared distance of the features from "
        "their mean",
    )
    reference: SafePath | None = Field(
        None,
        description="results folder of a study on whose images translators are fitted; packaged: "
        "507 ImageNet images; null: none",
    )
    imported: list[Imported] = Field(
        [],
        description="released translators that replace fitted ones, as `singflow "
        "import_translator` prints them",
    )


class Training(Section):
    """How nonlinear translators are trained (section 1.1 of the supplement)."""

    losses: Annotated[list[Literal["mse", "cosine", "both"]], AfterValidator(unique)] = Field(
        ["mse", "cosine", "both"],
        min_length=1,
        description="losses tried; the lowest held-out MSE is kept (paper: all three)",
    )
    width: int = Field(256, ge=1, le=2**14, description="units of the hidden layers")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of hidden units dropped in training")
    learning_rate: float = Field(0.001, gt=0, le=1, description="AdamW's step size")
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW's decoupled weight decay")
    batch_size: int = Field(128, ge=2, le=MOST_AT_ONCE, description="rows per step")
    epochs: int = Field(
        100, ge=1, le=MOST_DRAWS, description="passes over the training rows at most"
    )
    patience: int = Field(
        8,
        ge=1,
        le=MOST_DRAWS,
        description="epochs without a better held-out loss that end the training",
    )


class Comparison(Section):
    """Which nonlinear translators are compared with the linear one."""

    models: Annotated[list[ModelName], AfterValidator(unique)] = Field(
        description="models for which they are trained; may be empty"
    )
    kinds: Annotated[list[Literal["mlp3", "mlp4", "residual"]], AfterValidator(unique)] = Field(
        ["mlp3", "mlp4", "residual"], description="architectures (paper: all three)"
    )
