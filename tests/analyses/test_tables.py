import pandas as pd
import pytest

from singflow.analyses.tables import qualify, qualify_pairs
from singflow.artifacts.tables import write_table


@pytest.fixture
def models():
    rows = [("s", "a", 9, 0.5, "good"), ("s", "b", 4, 0.1, "weak"), ("t", "a", 9, 0.3, "good"), ("t", "b", 4, 0.4, "good")]
    table = pd.DataFrame(rows, columns=["space", "model", "null_dim", "validation_r2", "translator"])
    return table.assign(rank_rule="exact", seed=7, alpha=1.0)


def test_rows_say_on_what_they_rest_in_their_own_order(models):
    table = qualify(pd.DataFrame({"space": ["t", "s", "s"], "model": ["b", "b", "a"], "x": [1, 2, 3]}), models)
    assert table.columns.tolist() == ["space", "model", "x", "rank_rule", "null_dim", "validation_r2", "translator", "seed"]
    assert table[["x", "validation_r2", "translator", "null_dim"]].values.tolist() == [
        [1, 0.4, "good", 4],
        [2, 0.1, "weak", 4],
        [3, 0.5, "good", 9],
    ]


def test_rows_without_a_space_know_no_translator(models):
    table = qualify(pd.DataFrame({"model": ["b", "a", "b"]}), models)
    assert table.values.tolist() == [["b", "exact", 4, 7], ["a", "exact", 9, 7], ["b", "exact", 4, 7]]


def test_of_a_pair_the_weaker_translator_speaks(models):
    pairs = pd.DataFrame({"space": ["s", "t"], "model_a": ["a", "a"], "model_b": ["b", "b"], "p": [0.1, 0.2]}, index=[5, 9])
    table = qualify_pairs(pairs, models)
    assert table.columns.tolist() == ["space", "model_a", "model_b", "p", "rank_rule", "validation_r2", "translator", "seed"]
    assert table[["p", "validation_r2", "translator"]].values.tolist() == [[0.1, 0.1, "weak"], [0.2, 0.3, "good"]]
    assert len(qualify_pairs(pairs[:0], models)) == 0


def test_a_table_is_written_whole_with_unix_line_ends(tmp_path):
    write_table(tmp_path / "deep/t.csv", pd.DataFrame({"a": [1.5], "b": ["x,y"]}))
    assert (tmp_path / "deep/t.csv").read_bytes() == b'a,b\n1.5,"x,y"\n'
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["t.csv"]
