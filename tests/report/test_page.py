"""The page that holds a study: what it says, what it escapes, what it keeps out, and what it stands."""

import html
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from singflow.artifacts.tables import read_table
from singflow.errors import InputError
from singflow.report.content import machine, page_data, step_table
from singflow.report.page import MOST_POINTS, sample, script_json
from singflow.report.tables import MOST_ROWS, table
from singflow.report.thumbnails import COLUMNS, sheets, tile
from singflow.report.words import verdict, warnings, what_leaks
from tests.report.report_study import HOSTILE, write_page, write_study

LIMITS = {"is_deg": 12.0, "as_abs_deg": 4.0}


def models(rows):
    """tables/models.csv of rows (model, |AS|, IS, null dimensions, translator)."""
    return pd.DataFrame(
        [
            {
                "space": "s", "model": model, "null_dim": null_dim, "translator": translator, "weights": "hub", "top1_low": False,
                "is_mean": turn, "is_low": turn - 1, "is_high": turn + 1, "is_per_control": turn / 10,
                "as_abs_mean": size, "as_abs_low": size - 0.1, "as_abs_high": size + 0.1,
            }
            for model, size, turn, null_dim, translator in rows
        ]
    )  # fmt: skip


def controls(rows):
    """Own rows of tables/controls.csv of rows (model, excess of |AS|, excess of IS), each with a margin of 1."""
    columns = {"as_abs_deg": 1, "is_deg": 2}
    return pd.DataFrame(
        [
            {"space": "s", "model": row[0]}
            | {f"{score}_random": 2.0 for score in columns}
            | {f"{score}_excess_random_low": row[place] - 1 for score, place in columns.items()}
            | {f"{score}_excess_random_high": row[place] + 1 for score, place in columns.items()}
            for row in rows
        ]
    )


def pairs(differ):
    """tables/model_pairs.csv of {(model, model): whether they differ, by every criterion}."""
    criteria = ["as_abs", "is", "is_per_as", "is_per_as_over_control"]
    return pd.DataFrame(
        [
            {"space": "s", "criterion": criterion, "model_a": a, "model_b": b, "p_holm": 0.01, "differ": known}
            for criterion in criteria
            for (a, b), known in differ.items()
        ]
    )


ORDERS = pd.DataFrame(
    [
        {"space": "s", "criterion": criterion, "model": model, "place": place}
        for criterion, names in (("is_per_as", "ab"), ("is_per_as_over_control", "ba"))
        for place, model in enumerate(names, 1)
    ]
)


def said(rows, excess, *, differ=True, orders=ORDERS):
    return verdict(models(rows), controls(excess), pairs({("a", "b"): differ}), orders, "s", LIMITS)


def test_the_verdict_names_who_leaks_most_and_whether_that_is_more_than_chance():
    rows = [("b", 1.0, 6.0, 4, "good"), ("a", 5.0, 8.0, 4, "good")]
    text = said(rows, [("a", 3, 0), ("b", -3, 0)])
    assert text[0].startswith("The null space of a holds most about an image's class, that of b least; more than a random subspace")
    assert text[0].endswith(": a.")
    assert "most in a, 5.00° [4.90, 5.10], least in b, 1.00°" in text[1] and "most in a, 8.00°" in text[2]
    assert "the null space gives more in a, less in b" in text[3] and "no more and no less beyond chance in every model" in text[3]
    assert "IS/|AS|: a > b." in text[4] and text[4].endswith("b > a.")
    assert text[5].startswith("On average a exceeds")
    below = said(rows, [("a", -3, 0), ("b", -3, 0)])
    assert below[0].endswith("each holds less than a random subspace of its size.")


def test_the_verdict_does_not_rank_what_cannot_be_told_apart():
    text = said([("a", 1.0, 6.0, 4, "good"), ("b", 1.1, 6.0, 4, "good")], [("a", 0, 0), ("b", 0, 0)], differ=False)
    assert "cannot be told apart; none holds more than a random subspace" in text[0]
    assert "does not differ beyond chance" in text[1] and "a ≈ b" in text[4] and "no model reaches" in text[5]


def test_the_verdict_names_models_that_are_not_told_apart_from_the_first_or_last():
    rows = [("a", 3.0, 6.0, 4, "good"), ("b", 2.5, 6.0, 4, "good"), ("c", 1.0, 5.0, 4, "good")]
    order = pd.DataFrame([{"space": "s", "criterion": each, "model": model, "place": place}
                          for each in ("is_per_as", "is_per_as_over_control") for place, model in enumerate("abc", 1)])  # fmt: skip
    known = pairs({("a", "b"): False, ("b", "c"): False, ("a", "c"): True})
    text = verdict(models(rows), controls([(name, -3, 0) for name in "abc"]), known, order, "s", LIMITS)
    assert text[0].startswith("The null space of a (not told apart from b) holds most")
    assert "that of c (not told apart from b) least" in text[0] and "least in c (not told apart from b), 1.00°" in text[1]
    assert text[4].endswith("a ≈ b ≈ c (yet first and last differ).")


def test_the_verdict_of_one_model_of_weak_translators_and_of_no_null_space():
    text = said([("a", 1.0, 6.0, 4, "weak"), ("blind", 0.0, 0.0, 0, "good")], [("a", -2, 0)])
    assert text[0].startswith("blind: no null space") and "a (weak translator) holds less than a random subspace" in text[1]
    assert said([("blind", 0.0, 0.0, 0, "good")], []) == [text[0]]


def test_warnings_name_weak_translators_stand_ins_random_weights_and_low_accuracy():
    table = models([("a", 1.0, 6.0, 4, "weak")]).assign(weights="random", top1_low=True)
    text = " ".join(warnings(table, {"s": "conse"}, 0.2))
    assert all(word in text for word in ("random weights", "a in s explain less than 0.2", "stand-in for CLIP", "Top-1 far below"))
    assert warnings(models([("a", 1.0, 6.0, 4, "good")]), {"s": "open_clip"}, 0.2) == []


def test_what_leaks_prefers_labels_of_several_images_and_common_concepts():
    labels = pd.DataFrame({"space": "s", "model": "a", "label": ["x", "y"], "n": [1, 3], "as_abs_deg_mean": [9.0, 1.0], "leaks": False})
    concepts = pd.DataFrame({"space": "s", "model": "a", "kind": "strongest", "concept": ["fur", "sky", "fur"], "n": [1, 2, 4]})
    (row,) = what_leaks(models([("a", 1.0, 6.0, 4, "good")]), labels, concepts, "s")
    assert (row["labels"], row["concepts"], row["beyond_chance"]) == (["y (1.0°)"], ["fur", "sky"], False)


def test_json_in_a_script_cannot_end_it_and_comes_back_the_same():
    content = {"label": "</script><!--<b>& \u2028 ü"}
    text = script_json(content)
    assert not set("<>&\u2028") & set(text) and json.loads(text) == content


def test_tables_keep_texts_as_they_are_and_round_numbers(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("label,n,p_holm,leaks,note\n01,3,0.000123456,True,\nNone,4,,False,x\n")
    found = table("t", "T", read_table(path), ["label", "n", "p_holm", "leaks", "note", "absent"])
    assert found.rows == [["01", 3, 0.0001235, "yes", ""], ["None", 4, "", "no", "x"]]
    assert [title for title, _ in found.headers] == ["label", "images", "p (Holm)", "leaks", "note"]
    with pytest.raises(InputError, match=r"missing\.csv"):
        read_table(tmp_path / "missing.csv")


def test_of_too_many_rows_those_of_the_first_places_are_kept():
    frame = pd.DataFrame({"place": [2, 1] * MOST_ROWS, "n": range(2 * MOST_ROWS)})
    found = table("t", "T", frame, ["place", "n"])
    assert found.total == 2 * MOST_ROWS and found.rows == [[1, 2 * row + 1] for row in range(MOST_ROWS)]


def test_of_too_many_rows_as_many_of_every_model_are_kept():
    frame = pd.DataFrame({"model": ["a"] * MOST_ROWS + ["b"] * MOST_ROWS, "n": 1})
    kept = pd.Series([model for model, _ in table("t", "T", frame, ["model", "n"]).rows]).value_counts()
    assert dict(kept) == {"a": MOST_ROWS // 2, "b": MOST_ROWS // 2}


def test_of_more_images_than_a_page_takes_a_sample_is_drawn_by_the_seed():
    assert np.array_equal(sample(10, 3, 10, 0), np.arange(10))
    drawn = sample(10_000, 32, 10_000, 0)
    assert len(drawn) == MOST_POINTS // 32 == len(set(drawn)) and (np.diff(drawn) > 0).all()
    assert np.array_equal(drawn, sample(10_000, 32, 10_000, 0)) and not np.array_equal(drawn, sample(10_000, 32, 10_000, 1))


def test_neighbours_are_positions_among_the_images_shown_or_paths():
    manifest = pd.DataFrame({"path": list("pqrst"), "label": "x"})
    columns = {
        "is_deg": [1.234, 2.0],
        "as_deg": [0.0, np.nan],
        "angle_original_deg": 1.0,
        "angle_equivalent_deg": 1.0,
        "predicted_index": [1, 0],
    }
    near = pd.DataFrame({"original_id": [3, 0], "original_deg": 9.0, "equivalent_id": [-1, 1], "equivalent_deg": [np.nan, 8.0]})
    data = page_data(manifest, np.array([1, 3]), {"s": {"m": pd.DataFrame(columns)}}, {"s": {"m": near}}, {"m": ["cat", "dog"]})
    scores = data["scores"]["s"]["m"]
    assert (scores["original"], scores["equivalent"], data["outside"]) == ([1, -2], [-1, 0], ["p"])
    assert (scores["is"], scores["as"], scores["equivalent_deg"]) == ([1.23, 2.0], [0.0, None], [None, 8.0])
    assert [data["classes"][each] for each in scores["predicted"]] == ["dog", "cat"]


def test_thumbnails_show_the_whole_image_in_reading_order():
    tiles = [tile(Image.new("RGB", (20, 10), (number % 256, 0, 0)), 8) for number in range(COLUMNS**2 + 1)]
    assert tiles[0].size == (8, 8) and tiles[0].getpixel((0, 0)) == (255, 255, 255) and tiles[9].getpixel((4, 4)) == (9, 0, 0)
    assert len(sheets(tiles, 8)) == 2 and sheets([], 8) == []


def test_steps_are_added_up_by_rule(tmp_path):
    for name, seconds in (("fit/a", 1.5), ("fit/b", 2.5), ("one", 1.0)):
        path = tmp_path / f"{name}.tsv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"s\tmax_rss\n{seconds}\t-\n")
    assert [row[:4] for row in step_table(tmp_path).rows] == [["fit", 2, 4.0, 2.5], ["one", 1, 1.0, 1.0]]
    assert step_table(tmp_path / "none").rows == []


STUDIES = {
    "no null space": {"null_dims": (0, 0)},
    "one null space": {"null_dims": (12, 0)},
    "one model, one label": {"models": ("m1",), "null_dims": (12,), "labels": ["x"]},
    "nothing but scores": {"extras": False, "r2": 0.1, "weights": "random"},
    "one image": {"n": 1},
    "two spaces": {"spaces": ("s", "t")},
}


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_has_a_page(tmp_path, study):
    write_study(tmp_path, **STUDIES[study])
    page = write_page(tmp_path, **{name: names for name, names in STUDIES[study].items() if name in ("models", "spaces")})
    assert page.count("<h1>") == 1 and page.endswith("</html>")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with a study and its page, not to be changed."""
    folder = tmp_path_factory.mktemp("written")
    write_study(folder)
    write_page(folder)
    return folder


@pytest.fixture
def own(written, tmp_path):
    """A copy of it."""
    return shutil.copytree(written, tmp_path / "own")


def test_what_a_run_took_is_a_page_among_the_logs_and_the_report_is_the_same_in_every_run(own):
    first, run = write_page(own), own / "results/logs/run.html"
    assert "only Snakemake measures them" in run.read_text()
    (own / "results/benchmarks").mkdir()
    (own / "results/benchmarks/one.tsv").write_text("s\tmax_rss\n1.25\t2.5\n")
    assert write_page(own) == first
    assert "<td>one</td><td>1</td><td>1.25</td><td>1.25</td><td>2.5</td>" in run.read_text() and machine() in html.unescape(run.read_text())
    assert machine() not in html.unescape(first)


def test_the_pages_hold_no_script_nor_place_of_the_data_and_no_link_without_an_end(written):
    page = (written / "results/report.html").read_text()
    assert HOSTILE not in page and not re.search(r"<(script|img|link)[^>]+(src|href)=[\"']https?:", page)
    for path in (written / "results/report.html", written / "results/logs/run.html"):
        text = path.read_text()
        assert str(written) not in text
        text = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)  # which hold links of libraries
        inside, outside = (re.findall(rf'<a [^>]*href="{start}([^"]*)"', text) for start in ("#", "(?!#)"))
        assert outside and all((path.parent / each).is_file() for each in outside)
        assert set(inside) <= set(re.findall(r' id="([^"]*)"', text))


def test_a_page_of_a_sample_says_so_and_names_the_other_photos(own):
    page = write_page(own, max_images=5)
    assert "5 of the 24 images are shown here one by one" in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert len(data["images"]["path"]) == 5 and data["outside"]


def test_a_missing_figure_is_left_out(written, own):
    assert 'id="fig13"' in (written / "results/report.html").read_text()
    (own / "results/figures/fig13.png").unlink()
    assert 'id="fig13"' not in write_page(own)
