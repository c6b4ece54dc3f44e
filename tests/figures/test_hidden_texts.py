import numpy as np
import pandas as pd

from singflow.analyses.summary import FOUND, MEANING, NOTHING
from singflow.figures.plot_hidden_texts import FROM_BOTTOM, FROM_TOP, draw
from tests.figures.drawn import finding, models_table, names

LONG = "a label with <b>, $x$ and a name that is longer than any panel is wide"
ENDS = {"unique_r2_low": 0.1, "unique_r2_high": 0.3, "p": 0.01, "hidden": True}


def texts(model, d, space="s"):
    """Texts that are called by their D, the large ones hidden; the last has a long name."""
    d = np.asarray(d, dtype=float)
    named = [*map(str, d[:-1]), LONG]
    table = pd.DataFrame({"space": space, "model": model, "text": named, "unique_r2": d})
    return table.assign(unique_r2_low=d - 0.1, unique_r2_high=d + 0.1, p=0.5, hidden=d > 0.5)


def table_of(**verdicts):
    table = models_table(list(verdicts), "s", margin=0.005)
    return table.assign(verdict=list(verdicts.values()))


def drawn(texts, models):
    groups = texts.groupby(["space", "model"]).head(3).rename(columns={"text": "group"})
    return draw(texts, groups.assign(n=12), models)


def test_each_model_in_which_something_was_found_has_its_most_and_least_hidden_texts_and_groups():
    d = np.random.default_rng(0).permutation(100) / 100
    few = texts("leak", [0.2, 0.7, 0.1]).assign(p=[0.5, 0.01, np.nan])
    figure = drawn(
        pd.concat([texts("a", d), texts("b", d), few]), table_of(a=MEANING, b=NOTHING, leak=FOUND)
    )
    many, _, of_leak, groups = figure.axes
    order = sorted(d, reverse=True)
    wanted = [str(size) for size in (*order[:FROM_TOP], *order[-FROM_BOTTOM:]) if size != d[-1]]
    assert [name for name in names(many) if name[0] == "0"] == wanted
    titles = [axes.get_title("left").replace("\n", " ") for axes in (many, of_leak)]
    assert titles == ["a", "leak (weak translator)"]
    assert names(of_leak) == ["0.7", "0.2"], "a text without an interval is not drawn"
    assert names(groups) == ["0.7 (12)", "0.2 (12)"]
    of_a = f"of a drops meaning of 49 of 100 texts and {(d[:3] > 0.5).sum()} of 3 groups of images"
    assert of_a in finding(figure) and "1 of 2 texts and 1 of 2 groups" in finding(figure)
    bars, dots = of_leak.collections
    assert [bool(shade[:3].min() < 1) for shade in dots.get_facecolor()] == [True, False]
    ends = [segment[:, 0] for segment in bars.get_segments()]
    np.testing.assert_allclose(ends, [[60, 80], [10, 30]])
    assert of_leak.lines[-1].get_xdata() == [0.5, 0.5], "the margin"


def test_groups_that_are_too_small_have_no_panel():
    some = texts("a", [0.2, 0.7])
    groups = some.rename(columns={"text": "group"}).assign(n=2, p=np.nan)
    figure = draw(some, groups, table_of(a=MEANING))
    assert len(figure.axes) == 1 and "groups" not in finding(figure)
