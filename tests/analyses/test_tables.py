import pandas as pd
import pytest

from singflow.analyses import tables
from singflow.artifacts.tables import BASIS, read_table, write_table
from singflow.config.reading import read_yaml
from singflow.config.sections import PACKAGE_DATA
from tests.project import ROOT


@pytest.fixture
def models():
    rows = [
        ("s", "a", 9, 0.5, "not weak", tables.EDGE),
        ("s", "b", 4, 0.1, "weak", tables.WEAK),
        ("t", "a", 9, 0.3, "not weak", ""),
        ("t", "b", 4, 0.4, "not weak", tables.ZERO),
    ]
    names = ["space", "model", "null_dim", "validation_r2", "translator", "marks"]
    table = pd.DataFrame(rows, columns=names)
    return table.assign(rank_rule="exact", seed=7, alpha=1.0)


def test_rows_say_on_what_they_rest_in_their_own_order_without_a_space_on_no_translator(models):
    rows = pd.DataFrame({"space": ["t", "s", "s"], "model": ["b", "b", "a"], "x": [1, 2, 3]})
    table = tables.qualify(rows, models)
    assert table.columns.tolist() == ["space", "model", "x", *BASIS]
    found = table[["x", "validation_r2", "translator", "null_dim"]].values.tolist()
    assert found == [[1, 0.4, "not weak", 4], [2, 0.1, "weak", 4], [3, 0.5, "not weak", 9]]
    table = tables.qualify(pd.DataFrame({"model": ["b", "a", "b"]}), models)
    assert list(table) == ["model", "rank_rule", "null_dim", "seed"]
    a, b = ["a", "exact", 9, 7], ["b", "exact", 4, 7]
    assert table.values.tolist() == [b, a, b]


def test_of_a_pair_the_weaker_translator_speaks(models):
    pairs = pd.DataFrame({"space": ["s", "t"], "p": [0.1, 0.2]}, index=[5, 9])
    pairs.insert(1, "model_a", "a")
    pairs.insert(2, "model_b", "b")
    table = tables.qualify_pairs(pairs, models)
    basis = [name for name in BASIS if name != "null_dim"]
    assert table.columns.tolist() == ["space", "model_a", "model_b", "p", *basis]
    found = table[["p", "validation_r2", "translator"]].values.tolist()
    assert found == [[0.1, 0.1, "weak"], [0.2, 0.3, "not weak"]]
    assert list(table["marks"]) == [f"{tables.WEAK}, {tables.EDGE}", tables.ZERO]
    assert len(tables.qualify_pairs(pairs[:0], models)) == 0


def test_a_model_carries_its_marks_in_words_in_tables_and_as_signs_in_text(tmp_path):
    both = f"{tables.WEAK}, {tables.EDGE}"
    assert tables.join_marks({tables.WEAK: True, tables.ZERO: False, tables.EDGE: True}) == both
    assert tables.join_marks(dict.fromkeys(tables.MARKS, False)) == ""
    assert tables.marked("a", both) == "a*^" and tables.marked("a", "") == "a"
    assert tables.union_of_marks(tables.EDGE, "", both) == both and tables.union_of_marks() == ""
    signs = tables.legend(["", tables.ZERO, tables.WEAK])
    assert signs == "*: weak translator; ~: known zero" and tables.legend([""]) == ""
    write_table(tmp_path / "t.csv", pd.DataFrame({"model": ["a", "b"], "marks": ["", tables.ZERO]}))
    assert list(read_table(tmp_path / "t.csv")["marks"]) == ["", tables.ZERO]


PAPER = read_yaml(ROOT / "report/paper.yaml")


def test_the_papers_numbers_stand_beside_the_same_space_weights_and_labels_alone():
    row = {"space": "clip_vit_l14", "model": "resnet50", "weights": "hub"}
    row |= {"weights_id": "resnet50.IMAGENET1K_V1"}
    others = [{"space": "eva02_l14"}, {"model": "resnet18"}, {"weights": "random"}]
    others += [{"weights": "file"}, {"weights_id": "resnet50.IMAGENET1K_V2"}]
    rows, labels = pd.DataFrame([row, *(row | change for change in others)]), pd.Series(range(1000))
    assert list(tables.as_in_paper(rows, labels, PAPER)) == [True] + [False] * len(others)
    for classes in (range(999), range(-1, 1000)):
        assert not any(tables.as_in_paper(rows, pd.Series(classes), PAPER))


def test_the_papers_models_are_those_of_the_registry():
    registry = read_yaml(PACKAGE_DATA / "models.yaml")
    for name, entry in PAPER["models"].items():
        assert registry[name]["id"] == entry["weights"]
        null_dim = registry[name]["feature_dim"] - PAPER["classes"]
        assert entry.get("null_dim", null_dim) == null_dim
    assert read_yaml(PACKAGE_DATA / "spaces.yaml")[PAPER["space"]]["source"] == "open_clip"
    assert sum("ratio" in entry for entry in PAPER["models"].values()) == 13
