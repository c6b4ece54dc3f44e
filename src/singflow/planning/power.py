"""Which leaks a study could find, before it runs.

power.csv has the results for leaks planted on synthetic features; `python docs/evidence.py --power
20` made it.
"""

from pathlib import Path

TABLE, ADVISED = Path(__file__).with_name("power.csv"), 4.0  # ADVISED: images per dimension


def smallest_leak(images: int, width: int) -> str:
    """The smallest leak that the test finds with so many images and dimensions, in words."""
    import pandas as pd

    table = pd.read_csv(TABLE, index_col="images_per_dim")["leak"]
    ratio, digits = images / width, 0 if images >= 10 * width else 1
    said = (
        f"{images:,} images, {ratio:,.{digits}f} per feature dimension: "
        f"{_found(table[table.index <= ratio].iloc[-1:].max())}"
    )
    if ratio < ADVISED:
        said += f"; {ADVISED * width:,.0f} images: {_found(table[ADVISED])}"
    return said


def _found(leak: float) -> str:
    """A cell of the table in words; NaN means that not even the largest planted leak was found."""
    if leak != leak:
        return "not even a large leak would be found"
    return f"a leak of {100 * leak:g} % of the meaning would be found, a smaller one perhaps"
