"""What tests of figures look at."""

import matplotlib.pyplot as plt
import pandas as pd


def names(axes):
    """Names on the vertical axis."""
    return [tick.get_text() for tick in axes.get_yticklabels()]


def said(legend):
    return [" ".join(text.get_text().split()) for text in legend.get_texts()]


def words(figure):
    """All texts of a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(plt.Text))


def finding(figure):
    """What the figure says above its panels."""
    return figure.get_suptitle().replace("\n", " ")


def models_table(models, spaces, weak="weak translator", **columns):
    """tables/models.csv; the first model has no marks."""
    rows = [
        {"space": space, "model": model, "marks": weak if number else ""}
        for space in spaces
        for number, model in enumerate(models)
    ]
    return pd.DataFrame(rows, columns=["space", "model", "marks"]).assign(**columns)
