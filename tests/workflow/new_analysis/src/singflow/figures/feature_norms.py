"""The figure of feature norms."""

import pandas as pd
from matplotlib.figure import Figure

from singflow.figures.style import STYLE, colour, plt


def feature_norms(table: pd.DataFrame) -> Figure:
    """Mean norm of every label's features, one row of dots per model.

    The table has the columns model, label and norm_mean.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
        for number, (model, rows) in enumerate(table.groupby("model", sort=False)):
            axes.plot(rows["norm_mean"], [model] * len(rows), "o", color=colour(number))
        axes.set_xlabel("mean norm of a label's features")
    return figure
