"""How far numbers of two machines may differ, and to how many decimals git keeps them."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from singflow.artifacts.catalog import CATALOG, artifact_of

if TYPE_CHECKING:
    import pandas as pd


class Tolerance(NamedTuple):
    """How much numbers may differ: by absolute + relative * scale."""

    fields: str  # regular expression for their tensor, column or key
    absolute: float
    relative: float
    why: str
    in_git: str = ""  # format of its numbers in git, of which another processor changes no digit
    scale: str = "itself"  # the number itself, the norm of its row or the mean square of its tensor


PRINTED = "a printed number"
SPANS = "sine of the largest angle between the spans: a basis is free to rotate"
LOGITS = "logits; for null parts rounding alone"
FEW_IMAGES = "of few images: a small standard error times a large quantile"
P_VALUES = "p|p_holm|.*pearson.*"
SHARES = ".*(r2|cosine|energy|share|accuracy|gain|top1|softmax|difference|detectable).*"
TOLERANCES = (  # of artifacts for which the catalog states none
    Tolerance("null_basis", 1e-6, 0, SPANS),
    Tolerance("singular_values|tolerance", 0, 1e-6, "float64 sums"),
    Tolerance(PRINTED, 1e-1, 1e-3, "rounded for print"),
    Tolerance(".*(logit|max_error|orthonormality).*", 2e-3, 1e-3, LOGITS, ".3f"),
    Tolerance(P_VALUES, 2e-2, 0, "p-values and correlations", "#.3g"),
    Tolerance(".*(mse|loss).*", 0, 1e-2, "mean squares of small numbers", "#.3g"),
    Tolerance(SHARES, 1e-3, 0, "shares, cosines, and differences of shares", ".4f"),
    Tolerance("low|high", 1e-2, 1e-3, "ends of intervals, of degrees or of shares", ".4f"),
    Tolerance("contrast_deg_(low|high)", 1e-2, 1e-2, FEW_IMAGES, ".2f"),
    Tolerance(".*", 1e-2, 1e-3, "degrees, and what follows from them", ".2f"),
)
LEAST = 1e-6  # of tolerances that follow a scale: a tensor may be zero but for rounding
FEW = 4  # significant digits of parameters, which are no results of sums


def tolerance_of(name: str, field: str) -> Tolerance:
    """The tolerance of the artifact at a path below results/<study>/, or the first general one."""
    artifact = artifact_of(name)
    if artifact and (within := CATALOG[artifact].within):
        scale, relative = within
        return Tolerance(".*", LEAST if relative else 0, relative, "", scale=scale)
    return _general(field)


def _general(field: str) -> Tolerance:
    return next(tolerance for tolerance in TOLERANCES if re.fullmatch(tolerance.fields, field))


def kept(field: str, value: Any) -> Any:
    """A value as git keeps it, so that another processor gives the same in nearly all cases.

    Floats are rounded, but for those of at most FEW digits, such as parameters. A number that ends
    in 5, or in 5 and zeros, is moved by its last digit toward the value, so that it is still
    rounded rightly where fewer digits are shown.
    """
    if not isinstance(value, float):
        return value
    text = f"{value:.{FEW}g}"
    if float(text) != value:
        text = format(value, _general(field).in_git)
        mantissa, exponent, power = text.partition("e")
        if mantissa.rstrip("0").endswith("5"):
            number = Decimal(mantissa)
            last = Decimal(1).scaleb(int(number.as_tuple().exponent)).copy_sign(number)
            number += last if abs(value) > abs(float(text)) else -last
            text = f"{number}{exponent}{power}"
    return float(text) + 0.0  # no -0.0


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """A table as git keeps it."""
    result = table.copy()
    for name in table.select_dtypes("number"):
        result[name] = table[name].map(partial(kept, str(name)))
    return result
