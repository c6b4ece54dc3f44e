"""What so many images can show: a curve out of planted data, which `python docs/evidence.py --power` writes."""

from pathlib import Path

TABLE, ADVISED = Path(__file__).with_name("power.csv"), 4.0  # images a dimension


def told(images: int, width: int, *, photos: bool) -> str:
    """What translators that are fitted on images can show, in words.

    Parameters
    ----------
    images : int
        Images that translators are fitted on.
    width : int
        Dimensions of the features.
    photos : bool
        Whether others are scored, beside which these are the reference.

    Returns
    -------
    str
        By the row of the table with as many images a dimension, or the next with fewer.
    """
    import pandas as pd

    table, column = pd.read_csv(TABLE), "leak_photos" if photos else "leak"
    ratio, digits = images / width, 0 if images >= 10 * width else 1
    reached = table[table["per_dimension"] <= ratio]
    row = table.iloc[max(len(reached) - 1, 0)].to_dict()
    advised = table.set_index("per_dimension").loc[ADVISED].to_dict()
    if len(reached):
        shown = f"R2 about {row['r2_share']:.0%} of the best, leaks from {row[column]:.0%} of the meaning are found"
    else:
        shown = f"R2 below {row['r2_share']:.0%} of the best, no leak below {row[column]:.0%} of the meaning is found"
    said = f"{images:,} images, {ratio:,.{digits}f} per feature dimension: {shown}"
    if ratio < ADVISED:
        said += f"; {ADVISED * width:,.0f} images: {advised['r2_share']:.0%}, leaks from {advised[column]:.0%}"
    return said
