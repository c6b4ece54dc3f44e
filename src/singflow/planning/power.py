"""What a study could see, before it runs: a table of leaks planted on made-up features, by `python docs/evidence.py --power 20`."""

from pathlib import Path

TABLE, ADVISED = Path(__file__).with_name("power.csv"), 4.0  # images a dimension


def told(images: int, width: int) -> str:
    """The smallest leak that the test finds in so many images, in words."""
    import pandas as pd

    table = pd.read_csv(TABLE, index_col="images_per_dim")["leak"]
    ratio, digits = images / width, 0 if images >= 10 * width else 1
    said = f"{images:,} images, {ratio:,.{digits}f} per feature dimension: {_found(table[table.index <= ratio].iloc[-1:].max())}"
    if ratio < ADVISED:
        said += f"; {ADVISED * width:,.0f} images: {_found(table[ADVISED])}"
    return said


def _found(leak: float) -> str:
    """A cell of the table in words; NaN: not even the largest leak that was planted."""
    if leak != leak:
        return "not even a large leak would be found"
    return f"a leak of {100 * leak:g} % of the meaning would be found, a smaller one perhaps"
