"""Which leaks a study could find, before it runs.

power.csv has the results for leaks planted on synthetic features; `python docs/evidence.py --power
20` made it.
"""

from pathlib import Path

TABLE, ADVISED = Path(__file__).with_name("power.csv"), 4.0  # ADVISED: images per dimension


def smallest_leak(images: int, width: int) -> str:
    """The smallest even leak that the test calls meaning with so many images, in words.

    It is read off between the rows of the table; more images than its last row has count as these.
    """
    ratio, digits = images / width, 0 if images >= 10 * width else 1
    said = f"{images:,} images, {ratio:,.{digits}f} per feature dimension: {_found(ratio)}"
    if ratio < ADVISED:
        said += f"; {ADVISED * width:,.0f} images: {_found(ADVISED)}"
    return said


def too_few(images: int, width: int) -> bool:
    """Whether so few images would call no leak of the table meaning."""
    import pandas as pd

    return bool(images / width < pd.read_csv(TABLE).dropna()["images_per_dim"].iloc[0])


def images_needed(images: int, width: int, leak: float, found: float | None) -> int:
    """About how many images show an even leak of this size, with two digits.

    found: the smallest leak that so many images show; None: none is known.
    """
    import numpy as np
    import pandas as pd

    table = np.log(pd.read_csv(TABLE).dropna().to_numpy()[::-1])

    def ratio(of: float) -> float:
        return float(np.exp(np.interp(np.log(of), table[:, 1], table[:, 0])))

    needed = max(ratio(leak) * width, 2 * images)
    if found is not None and not np.isnan(found):
        needed = images * ratio(leak) / ratio(found)
    return int(float(f"{needed:.2g}"))


def _found(ratio: float) -> str:
    import numpy as np
    import pandas as pd

    table = pd.read_csv(TABLE).dropna()
    ratios, leaks = table["images_per_dim"], table["leak"]
    if ratio < ratios.iloc[0]:
        return "too few to call any leak meaning"
    leak = np.exp(np.interp(np.log(ratio), np.log(ratios), np.log(leaks)))
    return f"an evenly spread leak of about {100 * leak:.2g} % would be called meaning"
