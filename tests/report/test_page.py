"""The page that holds a study: what it says, what it escapes, what it keeps out, and what it stands."""

import html
import json
import re
import shutil
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from singflow.analyses.ranking import CHART
from singflow.analyses.summary import EMPTY, MEANING, NONE, SOME, UNJUDGED, ZERO
from singflow.artifacts.tables import read_table
from singflow.config.reading import read_yaml
from singflow.errors import InputError
from singflow.report.content import machine, page_data, page_tables, pearson, step_table
from singflow.report.page import MOST_POINTS, sample, script_json
from singflow.report.tables import MOST_ROWS, table
from singflow.report.thumbnails import COLUMNS, sheets, tile
from singflow.report.words import verdict, warnings, what_leaks
from tests.project import ROOT
from tests.report.report_study import HOSTILE, write_page, write_study

LIMITS = {"is_deg": 12.0, "as_abs_deg": 4.0}


def models(rows, verdicts=None, floor=4.0, p=1 / 21):
    """tables/models.csv of rows (model, |AS|, IS, null dimensions, translator); verdicts: by model, where they are not `meaning`."""
    return pd.DataFrame(
        [
            {
                "space": "s", "model": model, "null_dim": null_dim, "translator": translator, "weights": "hub", "top1_low": False,
                "is_mean": turn, "is_low": turn - 1, "is_high": turn + 1, "is_per_control": turn / 10,
                "as_abs_mean": size, "as_abs_low": size - 0.1, "as_abs_high": size + 0.1,
                "verdict": (verdicts or {}).get(model, MEANING) if null_dim else EMPTY, "floor_is_mean": floor, "p_conditional_is": p,
                "conditional_is_mean": 3.0, "floor_conditional_is_mean": 2.5,
                "known_zero": (verdicts or {}).get(model) == ZERO, "known_leak": model == "leak",
                "rank_rule": "exact", "weight_dtype": "float32", "rank_stored": 20, "rank_float64": 20,
                "delta_r2": 0.02, "delta_r2_low": 0.01, "delta_r2_high": 0.03, "marks": "weak translator" * (translator == "weak"),
            }
            for model, size, turn, null_dim, translator in rows
        ]
    )  # fmt: skip


def controls(rows):
    """Own rows of tables/controls.csv of rows (model, excess of |AS|, excess of IS), each with a margin of 1."""
    columns = {"as_abs_deg": 1, "is_deg": 2}
    return pd.DataFrame(
        [
            {"space": "s", "model": row[0], "marks": ""}
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
        {"space": "s", "criterion": criterion, "model": model, "place": place, "marks": ""}
        for criterion, names in (("is_per_as", "ab"), ("is_per_as_over_control", "ba"))
        for place, model in enumerate(names, 1)
    ]
)


ALONE = pd.DataFrame(columns=["space_a", "space_b"])


def said(rows, excess, *, differ=True, orders=ORDERS, agreement=ALONE, limits=LIMITS, **evidence):
    return verdict(models(rows, **evidence), controls(excess), pairs({("a", "b"): differ}), orders, agreement, "s", limits, 0.05)


def test_the_verdict_says_first_what_is_above_the_floor_and_ranks_by_the_rest_only_where_something_is():
    rows, excess = [("b", 1.0, 6.0, 4, "good"), ("a", 5.0, 8.0, 4, "good")], [("a", 3, 0), ("b", -3, 0)]
    text = said(rows, excess)
    assert text[0] == (
        "A (conditional IS 3.00°, floor 2.50°; Delta R² +0.020) and b (conditional IS 3.00°, floor 2.50°; Delta R² +0.020) "
        "hold meaning beyond what the principal space tells."
    )
    mixed = said(rows, excess, verdicts={"a": SOME, "b": NONE})
    assert mixed[0] == (
        "In a (conditional IS 3.00°, floor 2.50°; Delta R² +0.020) there is some sign of meaning in the null space; "
        "in b (conditional IS 3.00°, floor 2.50°; Delta R² +0.020) there is no sign of meaning in the null space."
    )
    assert mixed[1].startswith("The null space of a")
    nothing = said(rows, excess, verdicts={"a": NONE, "b": NONE}, floor=9.0)
    assert "no sign of meaning" in nothing[0] and nothing[1].startswith("How far an image moves")


@pytest.mark.parametrize(("p", "judged"), [(0.5, "is at its floor"), (0.01, "is above its floor, as it must not be")])
def test_controls_are_said_first_and_ranked_nowhere(p, judged):
    rows = [("a", 5.0, 8.0, 4, "good"), ("zero", 9.0, 9.0, 4, "good"), ("leak", 9.0, 9.0, 4, "good")]
    text = said(rows, [("a", 3, 0), ("zero", 9, 9), ("leak", 9, 9)], verdicts={"zero": ZERO}, p=p)
    assert text[0].startswith(f"zero, where nothing can be hidden, {judged}") and text[1].startswith("leak, whose null space holds")
    assert "is found to hold it, as it must be" in text[1] and text[2].startswith("A ")
    assert not any("zero" in sentence or "leak" in sentence for sentence in text[2:])
    alone = said(rows[1:2], [("zero", 9, 9)], verdicts={"zero": ZERO}, p=p)
    assert len(alone) == 1


def test_in_sample_nothing_is_said_of_a_floor():
    rows = [("b", 1.0, 6.0, 4, "good"), ("a", 5.0, 8.0, 4, "good")]
    text = said(rows, [("a", 3, 0), ("b", -3, 0)], verdicts={"a": UNJUDGED, "b": UNJUDGED}, p=None)
    assert text[0].startswith("Images are scored in sample") and "floor can be trusted" in text[0] and text[1].startswith("How far")
    alone = said(rows[:1], [("b", 9, 9)], verdicts={"b": ZERO}, p=None)
    assert alone == ["Images are scored in sample: no floor can be trusted."]


def test_the_verdict_names_who_leaks_most_and_whether_that_is_more_than_chance():
    rows = [("b", 1.0, 6.0, 4, "good"), ("a", 5.0, 8.0, 4, "good")]
    text = said(rows, [("a", 3, 0), ("b", -3, 0)])
    assert text[1].startswith("The null space of a holds most about an image's class, that of b least; more than a random subspace")
    assert text[1].endswith(": a.")
    assert "most in a, 5.00° [4.90, 5.10], least in b, 1.00°" in text[2] and "most in a, 8.00°" in text[3]
    assert "the null space gives more in a, less in b" in text[4] and "no more and no less beyond chance in every model" in text[4]
    assert "as we read it: a > b." in text[5] and text[5].endswith("b > a.")
    assert text[6] == (
        'On average a exceeds what the paper\'s authors call "substantial" (IS above 12° or |AS| above 4°); the floor of IS is 4.00° in a.'
    )
    assert len(said(rows, [("a", 3, 0), ("b", -3, 0)], limits=None)) == 6
    below = said(rows, [("a", -3, 0), ("b", -3, 0)])
    assert below[1].endswith("each holds less than a random subspace of its size.")


def test_the_verdict_does_not_rank_what_cannot_be_told_apart():
    text = said([("a", 1.0, 6.0, 4, "good"), ("b", 1.1, 6.0, 4, "good")], [("a", 0, 0), ("b", 0, 0)], differ=False)
    assert "cannot be told apart; none holds more than a random subspace" in text[1]
    assert "does not differ beyond chance" in text[2] and "a ≈ b" in text[5] and "no model reaches" in text[6]
    assert text[6].endswith("the floor of IS is 4.00° in b and 4.00° in a.")


def test_the_verdict_names_models_that_are_not_told_apart_from_the_first_or_last():
    rows = [("a", 3.0, 6.0, 4, "good"), ("b", 2.5, 6.0, 4, "good"), ("c", 1.0, 5.0, 4, "good")]
    order = pd.DataFrame([{"space": "s", "criterion": each, "model": model, "place": place, "marks": "penalty at the edge" * (model == "b")}
                          for each in ("is_per_as", "is_per_as_over_control") for place, model in enumerate("abc", 1)])  # fmt: skip
    known = pairs({("a", "b"): False, ("b", "c"): False, ("a", "c"): True})
    text = verdict(models(rows), controls([(name, -3, 0) for name in "abc"]), known, order, ALONE, "s", LIMITS, 0.05)
    assert text[1].startswith("The null space of a (not told apart from b) holds most")
    assert "that of c (not told apart from b) least" in text[1] and "least in c (not told apart from b), 1.00°" in text[2]
    assert text[5].endswith("a ≈ b^ ≈ c (yet first and last differ).")


def test_the_verdict_of_one_model_of_weak_translators_and_of_no_null_space():
    text = said([("a", 1.0, 6.0, 4, "good"), ("blind", 0.0, 0.0, 0, "good")], [("a", -2, 0)])
    assert text[0].startswith("blind: no null space") and "a holds less than a random subspace" in text[2]
    assert said([("blind", 0.0, 0.0, 0, "good")], []) == [text[0]]


RANKING = ("most", " > ", " ≈ ", "least", "Order", "told apart")


def test_weak_translators_are_ranked_nowhere_and_the_page_begins_with_that_where_all_are():
    rows, excess = [("b", 1.0, 6.0, 4, "weak"), ("a", 5.0, 8.0, 4, "weak")], [("a", 3, 0), ("b", -3, 0)]
    orders = ORDERS.assign(marks="weak translator")
    text = said(rows, excess, orders=orders)
    assert text[0].startswith("Every translator is weak: ") and text[1].startswith("A* (conditional IS 3.00°")
    assert not [sentence for sentence in text if any(word in sentence for word in RANKING)]
    orders = ORDERS.assign(marks=["", "weak translator", "weak translator", ""])
    text = said([("b", 1.0, 6.0, 4, "weak"), ("a", 5.0, 8.0, 4, "good")], excess, orders=orders)
    assert "b*: a weak translator, so in no order." in text and any(sentence.startswith("In a, removing") for sentence in text)
    assert not [sentence for sentence in text if any(word in sentence for word in RANKING)]


def test_of_many_models_the_first_sentence_says_names_and_counts():
    names = "abcdef"
    rows = [(name, 3.0 - 0.1 * place, 6.0, 4, "good") for place, name in enumerate(names)]
    orders = pd.DataFrame([{"space": "s", "criterion": each, "model": name, "place": place, "marks": ""}
                           for each in ("is_per_as", "is_per_as_over_control") for place, name in enumerate(names, 1)])  # fmt: skip
    known = pairs({(a, b): (a, b) == ("a", "f") for a, b in combinations(names, 2)})
    text = verdict(models(rows), controls([(name, -3, 0) for name in names]), known, orders, ALONE, "s", LIMITS, 0.05)
    assert text[0] == "A, b, c, d, e and f hold meaning beyond what the principal space tells."
    assert text[1].startswith("The null space of a (not told apart from 4 others) holds most about an image's class, that of f (not")


def test_warnings_name_weak_translators_stand_ins_random_weights_and_low_accuracy():
    table = models([("a", 1.0, 6.0, 4, "weak")]).assign(weights="random", top1_low=True)
    other = models([("b", 1.0, 6.0, 4, "good")]).assign(marks="known zero, penalty at the edge")
    text = " ".join(warnings(pd.concat([table, other]), {"s": "conse"}, 0.2))
    assert (
        "~ Known zeros: b in s. " in text and "^ The best penalty of b in s is at the edge" in text and "* Weak translators: a in s" in text
    )
    assert all(word in text for word in ("random weights", "a in s explain less than 0.2", "stand-in for CLIP", "Top-1 far below"))
    assert warnings(models([("a", 1.0, 6.0, 4, "good")]), {"s": "open_clip"}, 0.2) == []
    seen = models([("a", 1.0, 6.0, 4, "good")]).assign(marks="in sample")
    assert warnings(seen, {"s": "open_clip"}, 0.2) == [
        "# In sample, as in the paper: the translator of a in s has seen the images that it translates."
    ]
    lost = models([("a", 1.0, 6.0, 4, "good")]).assign(rank_stored=19)
    assert warnings(lost, {"s": "open_clip"}, 0.2) == [
        "Rank at the precision of the stored weights and at float64: a 19 (float32) and 20, 1 direction fewer. Rule exact takes the first."
    ]


def test_what_leaks_are_labels_of_several_images_above_their_own_floor_and_common_concepts():
    degrees = {"is_deg_mean": [30.0, 6.0, 8.0], "floor_is_deg_mean": [1.0, 2.0, 9.0], "leaks": [True, True, False]}
    labels = pd.DataFrame({"space": "s", "model": "a", "label": ["x", "y", "z"], "n": [1, 3, 3], **degrees})
    concepts = pd.DataFrame({"space": "s", "model": "a", "kind": "strongest", "concept": ["fur", "sky", "fur"], "n": [1, 2, 4]})
    (row,) = what_leaks(models([("a", 1.0, 6.0, 4, "good")]), labels, concepts, "s")
    assert (row["labels"], row["concepts"]) == (["y (6.0°, floor 2.0°)"], ["fur", "sky"])
    assert (row["conditional_is"], row["conditional_floor"]) == ("3.00°", "floor 2.50°")
    assert (row["verdict"], row["floor"], row["delta_r2"], row["delta_r2_interval"]) == (MEANING, "4.00°", "+0.020", "+0.010 to +0.030")


def test_the_agreement_with_the_papers_chart_is_said_where_there_is_one():
    rows, excess = [("b", 1.0, 6.0, 4, "good"), ("a", 5.0, 8.0, 4, "good")], [("a", 3, 0), ("b", -3, 0)]
    row = {"space_a": "s", "space_b": CHART, "n_models": 6, "spearman": 0.6, "spearman_p": 0.24, "kendall": 0.4667, "kendall_p": 0.27}
    text = said(rows, excess, agreement=pd.DataFrame([row, row | {"space_a": "t"}]))
    words = "IS/|AS| beside the paper's chart, over 6 models: Spearman +0.60 (p 0.24), Kendall +0.47 (p 0.27)."
    assert text.count(words) == 1 and words not in said(rows, excess)


PAPER = read_yaml(ROOT / "report/paper.yaml")
STEERED = {"prompt": "an image of a jellyfish", "target_is_deg": 20.0, "labels": ["sports car"], "same": True}


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({}, True),
        ({"same": False}, False),
        ({"prompt": "an image of a pirate"}, False),
        ({"labels": []}, False),
        ({"labels": ["sports car", "jeep"]}, False),
        ({"target_is_deg": 10.0}, False),  # shorter than the AS that the paper reaches
    ],
)
def test_table_1_is_quoted_for_the_papers_models_labels_and_targets_alone(written, change, shown):
    case = STEERED | change
    csv = {path.stem: read_table(path) for path in (written / "results/tables").glob("*.csv")}
    csv["models"] = csv["models"].assign(model=["resnet50", "vgg16"])
    csv["steering"] = csv["steering"].assign(model=["resnet50", "vgg16"], prompt=case["prompt"], target_is_deg=case["target_is_deg"])
    csv["translators"] = csv["translators"].assign(model=["resnet50", "vgg16"], n=2000)
    same = pd.Series([case["same"], False])
    rejected = pd.DataFrame({"path": [], "reason": []})
    tables = page_tables(csv, rejected, PAPER, same, case["labels"], {}, several=False)
    found = dict(zip([title for title, _ in tables["steering"].headers], tables["steering"].rows[0], strict=True))
    assert found.get("paper AS (°)") == (12.04 if shown else None)
    heads, fitted = ([title for title, _ in tables[name].headers] for name in ("models", "translators"))
    assert ("paper null dimensions" in heads) == ("paper cosine" in fitted) == ("paper MSE" in fitted) == case["same"]
    if case["same"]:
        assert [row[fitted.index("paper MSE")] for row in tables["translators"].rows] == [0.09136, ""]  # of the first model alone
    csv["translators"]["n"] = 1999
    again = page_tables(csv, rejected, PAPER, same, case["labels"], {}, several=False)
    assert "paper cosine" not in [title for title, _ in again["translators"].headers]


def test_the_papers_correlation_is_quoted_for_its_13_models_alone():
    charted = [model for model, each in PAPER["models"].items() if "ratio" in each]
    probes = pd.DataFrame({"space": "clip_vit_l14", "model": charted, "pearson": 0.9, "pearson_n": 13})
    same = probes[["space", "model"]]
    assert pearson(probes, PAPER, same).endswith("is 0.900 over 13 models here; the paper has 0.972.")
    for ours, theirs in ((probes[1:], same[1:]), (probes, same[1:]), (probes, same.assign(space="eva02_l14"))):
        assert "the paper" not in pearson(ours, PAPER, theirs)
    more = pd.concat([probes, probes[:1].assign(model="resnet18")])
    assert "the paper" not in pearson(more, PAPER, same)


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


def test_a_page_of_16_models_and_imagenets_labels_holds_a_few_megabytes_of_tables_and_scores():
    n, spaces, models = 100_000, ["clip_vit_l14", "siglip"], [f"torchvision/model_{number}.IMAGENET1K_V1" for number in range(16)]
    shown = sample(n, len(spaces) * len(models), 10_000, 0)
    columns = ["is_deg", "as_deg", "angle_original_deg", "angle_equivalent_deg", "original_deg", "equivalent_deg"]
    drawn = pd.DataFrame(np.random.default_rng(0).uniform(10, 90, (len(shown), len(columns))), columns=columns)
    drawn = drawn.assign(predicted_index=0, original_id=shown - 1, equivalent_id=shown + 1)
    paths = pd.DataFrame({"path": [f"n01440764/n01440764_{number:05d}.JPEG" for number in range(n)], "label": "great white shark"})
    frames = {space: dict.fromkeys(models, drawn) for space in spaces}
    assert len(script_json(page_data(paths, shown, frames, frames, {model: ["great white shark"] for model in models}))) < 2.5e6
    rows = pd.DataFrame({"space": "clip_vit_l14", "model": models[0], "label": "great white shark", "kind": "strongest", "place": 1,
                         "concept": "a photo taken under water", "n": 1300}, index=range(20 * MOST_ROWS))  # fmt: skip
    rows[["angle_mean_deg", "contrast_deg", "contrast_deg_low", "contrast_deg_high", "as_mean_deg"]] = 12.34
    assert len(script_json(table("t", "T", rows, list(rows)).rows)) < 1e6


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
