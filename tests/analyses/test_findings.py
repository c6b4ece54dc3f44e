import numpy as np
import pandas as pd

from singflow.analyses.findings import TABLES, all_findings, findings, looked_at
from singflow.analyses.summary import FOUND, MEANING, MISSED, NOTHING, TRACE, UNTOLD, ZERO
from singflow.artifacts.tables import read_table
from tests.report.report_study import HOSTILE, write_study


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


def test_the_sentence_names_the_most_and_the_least_hidden_texts_and_each_text_once():
    twice = pd.concat([texts(van=0.05), texts(van=0.2), texts(sky=0.05)])  # label and concept
    few = "Hidden: tow truck, van, fur (of 6 texts); not found: flamingo, cairn."
    many = "Hidden: tow truck, van, x0 and 1,000 more of 1,006 texts; not found: flamingo, cairn."
    for table, said in (
        (NONE, ""),
        (texts(sky=0.05, cairn=-0.02), "None of 2 texts is hidden beyond chance."),
        (texts(sky=0.05, van=0.2), "Hidden: van (of 2 texts); not found: sky."),
        (twice, "Hidden: van (of 2 texts); not found: sky."),
        (texts(**MANY), few),
        (texts(**MANY, **{f"x{number}": 0.15 for number in range(1000)}), many),
    ):
        assert findings(table, groups()) == said


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
        "By label, D is largest for images of ant (22 %), and not found above the margin for cat. "
        "By predicted class, D is largest for images of ant (42 %). "
        "D is above the margin in no group of images (of 2) beyond chance."
    )


def test_texts_are_looked_at_only_where_something_was_found():
    verdicts = [MEANING, FOUND, TRACE, NOTHING, UNTOLD, MISSED, ZERO]
    models = pd.DataFrame({"space": "s", "model": [*"abcdefg"], "verdict": verdicts})
    assert looked_at(models)["model"].tolist() == ["a", "b"]
    of_all = pd.concat(texts(van=0.2).assign(space="s", model=name) for name in "abcdefg")
    elsewhere = texts(fur=0.3).assign(space="t", model="a")
    found = all_findings(
        models, pd.concat([of_all, elsewhere]), groups().assign(space="s", model="")
    )
    assert found == dict.fromkeys([("s", "a"), ("s", "b")], "Hidden: van (of 1 texts).")


def test_the_tables_hold_the_texts_and_groups_of_the_models_that_are_looked_at(tmp_path):
    write_study(tmp_path)  # of its models m1 and m2, only m1 has a D above the margin
    for name, columns in TABLES.items():
        table = read_table(tmp_path / f"results/tables/{name}.csv")
        assert table.columns[: 2 + len(columns)].tolist() == ["space", "model", *columns]
        assert table["model"].tolist() == ["m1", "m1"] and table["hidden"].all()
        assert table["n" if "n" in table else "n_evidence"].notna().all()
    said = " ".join((tmp_path / "results/tables/summary.txt").read_text().split())
    assert f"Hidden: fur, {HOSTILE} (of 2 texts). By label, D is largest" in said
    write_study(tmp_path / "none", null_dims=(0, 0))
    for name in TABLES:
        assert read_table(tmp_path / f"none/results/tables/{name}.csv").empty
