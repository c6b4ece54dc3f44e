import numpy as np
import pandas as pd
import pytest

from singflow.analyses.findings import TABLES, all_findings, decision, findings, looked_at
from singflow.analyses.power import images_needed
from singflow.analyses.summary import (
    EMPTY,
    FOUND,
    MEANING,
    MISSED,
    NOTHING,
    TRACE,
    UNJUDGED,
    UNTOLD,
)
from singflow.analyses.tables import ZERO
from singflow.artifacts.tables import read_table
from tests.report.report_study import HOSTILE, write_study
from tests.results import EVIDENCE, TRANSLATOR, UNMEASURED


def texts(**d):
    """Texts with this D and an interval of plus or minus .02; they are hidden from .1 on."""
    size = np.array([*d.values()], dtype=float)
    table = pd.DataFrame({"text": [name.replace("_", " ") for name in d], "unique_r2": size})
    ends = {"unique_r2_low": size - 0.02, "unique_r2_high": size + 0.02}
    return table.assign(kind="label", p=0.5, hidden=size >= 0.1, **ends)


def groups(by="label", **d):
    return texts(**d).rename(columns={"text": "group"}).assign(by=by, n=12)


NONE = texts()
MANY = {"fur": 0.1, "tow_truck": 0.3, "cairn": -0.02, "sky": 0.05, "van": 0.2, "flamingo": -0.03}


FACTS = TRANSLATOR | EVIDENCE | {"principal_dim": 1000, "null_dim": 280, "unique_r2": 0.0617}
NO, FEW = "no clear reason to keep the features: ", "too few images to tell: "
NEEDED = [images_needed(640, 1280, 0.1, found) for found in (None, 0.16)]
DECIDED = [  # verdict, what else differs, and what the decision must say
    (EMPTY, UNMEASURED, "the head has no null space"),
    (UNJUDGED, {}, "has seen the images that it translates"),
    (NOTHING, {}, "no reason to keep the features: 640 images show nothing in its null space (a"),
    (NOTHING, {}, "leak of 5.9 %, spread evenly, would show)"),
    (TRACE, {}, f"{NO}its null space adds a trace, 6.2 % of the meaning, not surely more than"),
    (
        MEANING,
        {},
        "keep the features: its head drops at least 3.0 % of the meaning, van first (1 of 2",
    ),
    (MEANING, {"unique_r2_low": 0.0389}, "at least 3.9 %"),  # never more than the interval allows
    (MEANING, {"unique_r2_low": -0.01}, "at least 0.5 %"),  # which the test has shown
    (MEANING, {"gain": 1.2}, "its head drops about 6.2 %"),  # D can exceed the leak
    (MEANING, {"blind_unique_r2": 0.006}, f"{NO}the blind check exceeds the margin"),
    (TRACE, {"blind_unique_r2": 0.006}, f"{NO}the blind check exceeds the margin"),
    (FOUND, {"blind_unique_r2": 0.006}, "known leak, found as it should be: its head drops at"),
    (MISSED, {}, "known leak, missed"),
    (ZERO, {"unique_r2": -1e-4}, "known zero, nothing found, as it should be"),
    (ZERO, {}, "known zero, but D is 6.2 %"),
    (ZERO, UNMEASURED, "known zero, not tested"),
    (UNTOLD, UNMEASURED, f"{FEW}640 where about {NEEDED[0]:,} would show 10 %"),
    (UNTOLD, {"detectable": 0.16}, f"640 where about {NEEDED[1]:,} would show 10 %"),
    (UNTOLD, {"validation_r2": 0.02, "permuted_r2": 0.03, "n": 100}, f"{FEW}100 where about"),
    (UNTOLD, {"validation_r2": 0.002}, "(R2 0.002). Are features and embeddings in the same"),
    (UNTOLD, {"validation_r2": -0.1, "near_copies": None}, "of the reference's kind?"),
]


@pytest.mark.parametrize(("verdict", "differs", "said"), DECIDED)
@pytest.mark.parametrize("missing", [None, np.nan])  # of one row, and of a table of several models
def test_every_verdict_is_a_decision_that_says_no_more_than_the_test_allows(
    verdict, differs, said, missing
):
    row = {k: missing if v is None else v for k, v in (FACTS | differs).items()}
    found = decision(row | {"verdict": verdict}, texts(sky=0.05, van=0.2))
    assert said in found and "nan" not in found
    of_table = {"n_evidence": row.pop("n"), "rank": row.pop("principal_dim"), "verdict": verdict}
    assert decision(row | of_table, texts(sky=0.05, van=0.2)) == found


def test_the_most_and_the_least_hidden_texts_are_named_and_each_text_once():
    twice = pd.concat([texts(van=0.05), texts(van=0.2), texts(sky=0.05)])  # label and concept
    least = "Not shown to be hidden: flamingo and cairn."
    more = texts(**MANY, **{f"x{number}": 0.15 for number in range(1000)})
    for table, first, others in (
        (NONE, "", ""),
        (texts(sky=0.05, cairn=-0.02), "", "No text is hidden."),
        (texts(van=0.2), ", van first (1 of 1 texts are hidden)", "Every text is hidden."),
        (twice, ", van first (1 of 2 texts are hidden)", "Not shown to be hidden: sky."),
        (texts(**MANY), ", tow truck, van and fur first (3 of 6 texts are hidden)", least),
        (more, ", tow truck, van and x0 first (1,003 of 1,006 texts are hidden)", least),
    ):
        assert decision(FACTS | {"verdict": MEANING}, table).partition("meaning")[2] == first
        assert findings(table, groups()) == others


def test_of_each_kind_of_groups_the_largest_and_one_that_is_not_above_the_margin_are_named():
    found = pd.concat(
        [
            groups(ant=0.22, bee=0.31, cat=-0.02).assign(p=[0.01, np.nan, 0.9]),
            groups("predicted", ant=0.42),
            groups("column", north=0.05, south=0.02),
            groups("nobody asked", east=0.3).assign(p=np.nan),
        ]
    )
    assert findings(NONE, found) == (
        "By label, D is largest for images of ant (22 %), and within the margin for cat. "
        "By predicted class, D is largest for images of ant (42 %). "
        "D is above the margin in no group of images (of 2) beyond chance."
    )


def test_texts_are_looked_at_only_where_something_was_found():
    verdicts = [MEANING, FOUND, TRACE, NOTHING, UNTOLD, MISSED, ZERO]
    models = pd.DataFrame({"space": "s", "model": [*"abcdefg"], "verdict": verdicts})
    assert looked_at(models)["model"].tolist() == ["a", "b"]
    of_all = pd.concat(texts(van=0.2).assign(space="s", model=name) for name in "abcdefg")
    elsewhere = texts(fur=0.3).assign(space="t", model="a")
    of_groups = groups().assign(space="s", model="")
    found = all_findings(models, pd.concat([of_all, elsewhere]), of_groups)
    assert found == dict.fromkeys([("s", "a"), ("s", "b")], "Every text is hidden.")


def test_the_tables_hold_the_texts_and_groups_of_the_models_that_are_looked_at(tmp_path):
    write_study(tmp_path)  # of its models m1 and m2, only m1 has a D above the margin
    for name, columns in TABLES.items():
        table = read_table(tmp_path / f"results/tables/{name}.csv")
        assert table.columns[: 2 + len(columns)].tolist() == ["space", "model", *columns]
        assert table["model"].tolist() == ["m1", "m1"] and table["hidden"].all()
        assert table["n" if "n" in table else "n_evidence"].notna().all()
    said = " ".join((tmp_path / "results/tables/summary.txt").read_text().split())
    assert f"of the meaning, fur and {HOSTILE} first (2 of 2 texts are hidden)" in said
    assert "m1: Every text is hidden. By label, D is largest" in said
    write_study(tmp_path / "none", null_dims=(0, 0))
    for name in TABLES:
        assert read_table(tmp_path / f"none/results/tables/{name}.csv").empty
