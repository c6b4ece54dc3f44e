"""What figures of concept scans share."""

import pandas as pd
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from singflow.analyses.concepts import FEWEST, contrast
from singflow.artifacts.tables import iterate_row_groups, read_rows
from singflow.cli import Selection
from singflow.errors import check_labels
from singflow.figures.style import Frames, caption, of_space

CONTRAST = "contrast: AS less its mean over concepts (degrees)"
SHADES = colormaps["RdBu_r"]  # safe for colour-blind readers, white at 0


def read_scans(
    flags: Selection, wanted: list[str], most: int, key: str
) -> tuple[Frames, list[str]]:
    """The scans of the labels that choose_labels() returns, and these labels."""
    first = flags.path("concepts", space=flags.spaces[0], model=flags.models[0])
    block = next(iterate_row_groups(first, ["label"], ["label", "n"]))
    labels = choose_labels(block, wanted, most, key)
    return flags.gather("concepts", lambda path: read_rows(path, "label", labels)), labels


def choose_labels(block: pd.DataFrame, wanted: list[str], most: int, key: str) -> list[str]:
    """The wanted labels, or else the `most` labels with most images (ties by name).

    Raises InputError, with the parameter `key`, if a wanted label does not exist.
    """
    counts = (
        block.drop_duplicates("label").astype({"label": str}).set_index("label")["n"].sort_index()
    )
    check_labels(wanted, counts.index, key)
    return wanted or list(counts.sort_values(ascending=False, kind="stable").index[:most])


def with_contrast(scan: pd.DataFrame, label: str) -> pd.DataFrame:
    mine = scan[scan["label"] == label]
    return mine.assign(contrast=contrast(mine))


def spread(scan: pd.DataFrame, column: str) -> pd.Series | None:
    """Standard deviations over images, where a label has images enough."""
    return scan[column] if scan["n"].iloc[0] >= FEWEST else None


def count_images(count: int) -> str:
    return f"{count} image{'s' if count != 1 else ''}"


def caption_in(space: str, model: str, table: pd.DataFrame) -> str:
    rows = of_space(table, space)
    return caption(model, rows) + ("" if int(rows["null_dim"][model]) else " (no null space)")


def shades_up_to(largest: float) -> ScalarMappable:
    limit = largest if largest > 0 else 1.0
    return ScalarMappable(Normalize(-limit, limit), SHADES)
