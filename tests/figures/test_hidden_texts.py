import numpy as np
import pandas as pd

from singflow.analyses.summary import FOUND, MEANING, NOTHING
from singflow.figures.plot_hidden_texts import LEAST, LETTERS, MOST, draw
from tests.figures.drawn import assert_apart, models_table, names, said

LONG = "a label with <b>, $x$ and a name that is longer than any panel is wide " * 3


def texts(model, d, space="s"):
    """Texts that are called by their D, the large ones hidden; the last has a long name."""
    d = np.asarray(d, dtype=float)
    named = [*map(str, d[:-1]), LONG]
    table = pd.DataFrame({"space": space, "model": model, "text": named, "unique_r2": d})
    return table.assign(unique_r2_low=d - 0.1, unique_r2_high=d + 0.1, p=0.5, hidden=d > 0.5)


def table_of(**verdicts):
    table = models_table(list(verdicts), "s", margin=0.005)
    return table.assign(verdict=list(verdicts.values()))


def test_each_model_in_which_something_was_found_has_a_panel_with_its_most_and_least_hidden_texts():
    d = np.random.default_rng(0).permutation(100) / 100
    some = pd.concat([texts("a", d), texts("b", d), texts("leak", [0.2, 0.7])])
    figure = draw(some, table_of(a=MEANING, b=NOTHING, leak=FOUND))
    many, few = [axes for axes in figure.axes if axes.get_visible()]
    shown = names(many)
    order = sorted(d, reverse=True)
    wanted = [order[:MOST], order[-LEAST:]]
    expected = [str(size) if size != d[-1] else "" for end in wanted for size in end]
    assert [name for name in shown if not name.endswith("…")] == [*filter(None, expected)]
    assert names(few) == [f"{LONG[: LETTERS - 1]}…", "0.2"]
    assert many.get_title("left") == "a\ns: 49 of 100 texts"
    assert few.get_title("left") == "leak (weak translator)\ns: 1 of 2 texts"
    assert figure.get_suptitle() == "The null space holds 50 of 102 texts, over 2 heads"
    dots = [line for line in few.get_lines() if line.get_marker() == "o"]
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [False, True]
    ends = [line.get_xdata() for line in few.get_lines() if len(line.get_xdata()) == 2]
    np.testing.assert_allclose(ends[:2], [[60, 80], [10, 30]])
    np.testing.assert_allclose(ends[-1], [0.5, 0.5])  # the margin
    figure.draw_without_rendering()
    for axes in (many, few):
        assert_apart(axes.get_yticklabels(), slack=1)


def test_a_text_without_an_interval_is_not_drawn_and_a_place_without_a_panel_has_the_legend():
    some = texts("a", [0.2, 0.7, 0.1]).assign(p=[0.5, 0.01, np.nan])
    (axes,) = draw(some, table_of(a=MEANING)).axes
    assert names(axes) == ["0.7", "0.2"]
    three = pd.concat(texts(model, [0.2, 0.7]) for model in "abc")
    *_, last = draw(three, table_of(a=MEANING, b=MEANING, c=MEANING)).axes
    assert said(last.get_legend()) == ["found", "not found", "margin"] and not last.axison
