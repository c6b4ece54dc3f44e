"""The page of a study: what it says, escapes and leaves out, and which sizes it can handle."""

import base64
import html
import io
import json
import re
import shutil
from itertools import product

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from singflow.analyses.summary import FOUND, MEANING, NOTHING, with_own_words
from singflow.analyses.tables import ZERO
from singflow.artifacts.catalog import FIGURES
from singflow.artifacts.files import write_bytes
from singflow.artifacts.tables import read_table
from singflow.config.reading import read_yaml
from singflow.errors import InputError
from singflow.figures.style import new_figure, save
from singflow.report import content
from singflow.report.content import MOST_SVG, machine, page_tables, step_table
from singflow.report.page import MOST_POINTS, sample, space_part
from singflow.report.sentences import blind_said, pairs_said, steering_said, warnings
from singflow.report.tables import MOST_ROWS, table
from tests.project import ROOT
from tests.refusals import refused
from tests.report.report_study import HOSTILE, write_page, write_study


def models(*rows):
    """tables/models.csv of a space; a row: (model, verdict, D or None), and what else differs."""
    found = []
    for (model, verdict, d), *more in rows:
        row = {
            "space": "s", "model": model, "verdict": verdict, "null_dim": 4, "n_per_dim": 2.0,
            "weights": "hub", "marks": "", "validation_r2": 0.4, "r2_words": 0.9, "is_mean": 7.0,
            "floor_is_mean": 6.5, "as_mean": 0.5, "as_abs_mean": 1.0, "is_per_as": 7.0,
            "top1_low": False, "top1": 0.1, "reported_top1": 70.0,
            "unique_r2": d, "unique_r2_low": None if d is None else d - 0.01,
            "unique_r2_high": None if d is None else d + 0.01, "margin": 0.005, "p_holm": 0.01,
            "turn_deg": 9.0, "detectable": 0.03, "detectable_first": None, "gain": 0.2,
            "null_r2": 0.12, "blind_unique_r2": 0.001,
            "known_zero": verdict == ZERO, "known_leak": verdict == FOUND, "rank_rule": "exact",
            "weight_dtype": "float32", "rank_stored": 20, "rank_float64": 20, "left_out": None,
            "left_out_images": "", "near_copies": 0, "n_compared": 40, "permuted_r2": 0.001,
        }  # fmt: skip
        found.append(row | (more[0] if more else {}))
    return pd.DataFrame(found)


FOUR = models(
    (("leak", FOUND, 0.06), {"detectable": None, "marks": "known leak"}),
    (("zero", ZERO, 0.0), {"marks": "known zero"}),
    (("a", MEANING, 0.04),),
    (("b", NOTHING, 0.0),),
)
TEXTS = pd.DataFrame(
    {"space": "s", "model": ["a", "b"], "text": ["fur", "tail"], "kind": "label", "p": 0.01}
).assign(unique_r2=0.2, unique_r2_low=0.1, unique_r2_high=0.3, hidden=True)
GROUPS = TEXTS.rename(columns={"text": "group", "kind": "by"}).assign(n=12)
COLUMNS = {"hidden_texts": TEXTS, "hidden_groups": GROUPS}


def part(models, **frames):
    """What the page says of the models of the space."""
    csv = COLUMNS | {"models": models, "model_pairs": pairs().assign(space="s")} | frames
    return space_part("s", csv, with_own_words(models))


def test_what_is_hidden_beyond_the_decision_stands_under_the_next_question():
    by = "By label, D is largest for images of fur (20 %)."
    assert part(FOUR)["found"] == [("a", f"Every text is hidden. {by}")]


def test_the_tables_of_numbers_have_a_dash_where_there_is_none():
    first, *_, zero = part(FOUR)["rows"]
    assert first == {
        "model": "a", "d": "4.0 % [3.0, 5.0]", "turn": "9°", "is": "7.0° (6.5°)",
        "detectable": "3 % (more than 30 %)", "blind": "0.10 %", "r2": "0.40 (0.90)",
    }  # fmt: skip
    assert zero["model"] == "zero~" and zero["d"] == "0.0 % [-1.0, 1.0]"
    missing = {"turn_deg": None, "blind_unique_r2": None}
    (none,) = part(models((("a", "no null space", None), missing)))["rows"]
    assert [none[name] for name in ("turn", "d", "detectable", "blind")] == ["-"] * 4
    small = {"unique_r2_low": -0.0004, "unique_r2_high": 0.0004}
    zero, _ = part(models((("a", NOTHING, 0.0001), small)))["rows"]
    assert zero["d"] == "below 0.05 %"


def test_own_words_are_the_known_zero_of_a_space_without_one():
    rows = models((("a", MEANING, 0.04),), (("b", NOTHING, 0.0), {"blind_unique_r2": 0.002}))
    found = part(rows)
    own = dict.fromkeys(("turn", "detectable", "blind", "r2", "is"), "-")
    assert found["rows"][2] == own | {"model": "own words~", "d": "0.2 %"}
    for none in (FOUR, rows.assign(blind_unique_r2=None)):
        assert with_own_words(none) is none
    two = with_own_words(pd.concat([rows, FOUR.assign(space="t")], ignore_index=True))
    assert two.loc[two["model"] == "own words", "space"].tolist() == ["s"]


def pairs(*rows):
    columns = ["model_a", "model_b", "difference", "low", "high", "p_holm", "differ"]
    return pd.DataFrame(rows, columns=columns)


APART, ALIKE = (-0.03, -0.04, -0.02, 0.001, True), (0.01, -0.02, 0.04, 0.4, False)
LESS, MORE = (-0.02, -0.05, 0.01, 0.2, False), (0.03, 0.02, 0.04, 0.001, True)
OF_THREE = "3.00 % [2.00, 4.00], p = 0.001"


def test_pairs_of_models_are_compared_by_d_in_one_sentence():
    largest = "The largest difference is 2.00 % [-1.00, 5.00], p = 0.2."
    three = "; ".join(f"a above {name} by {OF_THREE}" for name in "bcd")
    differ = "pairs of models differ: "
    for rows, said in (
        ([("a", "b", *LESS), ("a", "c", *ALIKE)], f"a, b and c cannot be told apart. {largest}"),
        ([("a", "b", *APART), ("a", "c", *ALIKE)], f"1 of 2 {differ}b above a by {OF_THREE}."),
        ([("a", name, *MORE) for name in "bcdef"], f"5 of 5 {differ}{three}; and others."),
    ):
        assert pairs_said(pairs(*rows)) == [f"By D, {said}"]
    assert pairs_said(pairs()) == []


def test_the_blind_check_is_said_once_and_is_a_warning_where_it_passes_the_margin():
    (sentence,) = blind_said(FOUR)
    assert "The largest D is 0.10 % (b); the margin is 0.5 %." in sentence
    assert blind_said(FOUR.assign(blind_unique_r2=np.nan)) == []
    passed = models((("a", MEANING, 0.04), {"blind_unique_r2": 0.006}), (("b", NOTHING, 0.0),))
    (warning,) = warnings(passed, 0.2)
    assert warning.startswith("The blind check exceeds the margin: a in s.")
    assert "proves nothing" in warning and "0.60 % (a)" in blind_said(passed)[0]


def steering(**change):
    rows = [
        {"model": model, "target_is_deg": target, "as_target_mean_deg": target / 2}
        for model, target in product(("zero", "a", "b"), (5.0, 10.0))
    ]
    same = {"space": "s", "prompt": "x", "n": 20, "n_reachable": 20, "as_target_std_deg": 0.3}
    return pd.DataFrame(rows).assign(**same | change)


def test_the_steering_table_says_where_it_tells_no_models_apart():
    text = steering_said(steering(), FOUR, 0.95)
    overlap = "the 95 % intervals of their mean AS overlap."
    assert text.startswith(f"All 3 models reach every target, and {overlap}")
    zero = "zero, a known zero, is steered as far as the others."
    assert text.endswith(f"{zero} So steering is no evidence of hidden meaning.")
    assert "known zero" not in steering_said(steering(), FOUR[2:], 0.95)
    near = [2.5, 5.0, 2.5, 5.25, 2.5, 5.0]  # half an interval is 2.09 * 0.3 / sqrt(20) = 0.14
    assert steering_said(steering(as_target_mean_deg=near), FOUR, 0.95) != ""
    far = steering(as_target_mean_deg=[2.5, 5.0, 2.5, 5.3, 2.5, 5.0])
    for silent in (far, steering(n_reachable=[20] * 5 + [19]), steering()[:2], steering()[:0]):
        assert steering_said(silent, FOUR, 0.95) == ""


PLAIN = models((("a", MEANING, 0.04),))


def test_warnings_name_what_is_wrong_with_a_model_and_nothing_else():
    poor = {"weights": "random", "top1_low": True, "marks": "weak translator", "rank_stored": 19}
    edge = {"marks": "in sample, penalty at the edge"}
    both = models((("a", MEANING, 0.04), poor), (("b", MEANING, 0.04), edge))
    text = " ".join(warnings(both, 0.2))
    for said in (
        "^ The best penalty of b in s is at the edge",
        "* WEAK TRANSLATOR: a in s. It explains less than 0.2",
        "RANDOM WEIGHTS, untrained: a. Their numbers",
        "! TOP-1 FAR TOO LOW: a (",
        "# In sample, as in the paper: the translator of b in s has seen",
        "a has rank 19 at the precision of its stored weights (float32), and 20 at float64.",
    ):
        assert said in text
    assert warnings(PLAIN, 0.2) == []


SHOWN = read_yaml(ROOT / "report/page.yaml")
CAPTIONS = {path.stem for path in (ROOT / "report/captions").glob("*.rst")}


def test_every_explained_column_is_shown_and_every_shown_one_explained():
    shown, tables = {"step", "jobs", "seconds", "longest", "peak_mb"}, SHOWN["tables"]
    for spec in tables.values():
        columns, own = set(spec["columns"].split()), spec.get("own", {}).keys()
        assert own <= columns and not own & SHOWN["columns"].keys()
        assert {spec["needs"]} <= columns if "needs" in spec else True
        shown |= columns - own
    assert SHOWN["columns"].keys() == shown


def test_every_figure_and_table_has_its_words_and_every_link_its_table():
    figures = [name for of in SHOWN["figures"].values() for name in of]
    assert sorted(figures) == sorted(FIGURES)
    said = {name for name, spec in SHOWN["tables"].items() if "about" in spec}
    assert {*figures, *SHOWN["tables"]} - said == CAPTIONS
    assert {name for of in SHOWN["links"].values() for name in of} <= SHOWN["tables"].keys()
    for name in CAPTIONS:  # Snakemake's report would show it in another type
        assert "`" not in (ROOT / f"report/captions/{name}.rst").read_text()


def test_a_benchmark_file_without_its_figures_is_named(tmp_path):
    for damaged in ("", "s\tmax_rss\n", "s\n1.0\n"):
        (file := tmp_path / "fit.tsv").write_text(damaged)
        with pytest.raises(InputError, match=f"{file}: not readable as a benchmark"):
            step_table(tmp_path, {})


PAPER = read_yaml(ROOT / "report/paper.yaml")
QUOTED = {"prompt": "an image of a jellyfish", "target_is_deg": 20.0, "labels": ["sports car"]}


def test_table_1_is_quoted_for_the_papers_models_labels_and_targets_alone(written):
    csv = {path.stem: read_table(path) for path in (written / "results/tables").glob("*.csv")}
    both, rejected = ["resnet50", "vgg16"], pd.DataFrame({"path": [], "reason": []})

    def tables(change, *, comparable=True, images=2000):
        case, same = QUOTED | change, pd.Series([comparable, False])
        toward = {name: case[name] for name in ("prompt", "target_is_deg")}
        frames = csv | {
            "models": csv["models"].assign(model=both),
            "orders": csv["orders"].assign(model=both),
            "steering": csv["steering"].assign(model=both, **toward),
            "translators": csv["translators"].assign(model=both, n=images),
        }
        made = page_tables(frames, rejected, PAPER, same, case["labels"], SHOWN, several=False)
        for name, of in made.items():
            titles = [title for title, _ in of["headers"]]
            made[name] = [dict(zip(titles, row, strict=True)) for row in of["rows"]]
        return made

    found = tables({})
    assert found["steering"][0]["paper AS (°)"] == 12.04
    first, second = found["models"]
    assert [first[f"paper {fact}"] for fact in ("null dimensions", "ratio")] == [1048, 25]
    assert [second[f"paper {fact}"] for fact in ("null dimensions", "ratio")] == ["", ""]
    ratios = {row["model"]: row["paper ratio"] for row in found["orders"]}
    assert ratios == {"resnet50": 25, "vgg16": ""}
    assert [row["paper MSE"] for row in found["translators"]] == [0.09136, ""]  # of the first alone
    assert "paper cosine" in found["translators"][0]
    assert "paper cosine" not in tables({}, images=1999)["translators"][0]
    other = tables({}, comparable=False)
    assert not [title for rows in other.values() for title in rows[0] if title.startswith("paper")]
    shorter = {"target_is_deg": 10.0}  # than the AS that the paper reaches
    labels = {"labels": []}, {"labels": ["sports car", "jeep"]}
    for change in ({"prompt": "an image of a pirate"}, *labels, shorter):
        assert "paper AS (°)" not in tables(change)["steering"][0]


def test_tables_keep_texts_as_they_are_and_round_numbers(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("label,n,p_holm,differ,note,low\n01,3,0.000123456,True,,\nNone,4,,False,x,\n")
    columns = ["label", "n", "p_holm", "differ", "note", "low", "absent"]
    found = table("t", "T", read_table(path), columns, SHOWN["columns"])
    assert found["rows"] == [["01", 3, 0.0001235, "yes", ""], ["None", 4, "", "no", "x"]]
    titles = [title for title, _ in found["headers"]]
    assert titles == ["label", "images", "p (Holm)", "differ", "note"]
    refused(r"missing\.csv", read_table, tmp_path / "missing.csv")


def test_of_too_many_rows_the_first_places_and_as_many_of_every_model_are_kept():
    frame = pd.DataFrame({"place": [2, 1] * MOST_ROWS, "n": range(2 * MOST_ROWS)})
    found = table("t", "T", frame, ["place", "n"], {})
    assert found["about"].startswith("5,000 of 10,000 rows, those of the first places")
    assert found["rows"] == [[1, 2 * row + 1] for row in range(MOST_ROWS)]
    frame = pd.DataFrame({"model": ["a"] * MOST_ROWS + ["b"] * MOST_ROWS, "n": 1})
    kept = [model for model, _ in table("t", "T", frame, ["model", "n"], {})["rows"]]
    assert kept == ["a"] * (MOST_ROWS // 2) + ["b"] * (MOST_ROWS // 2)


def in_script(page, name):
    """Content of a script of the page that holds JSON."""
    return json.loads(re.search(rf'id="{name}">(.*?)</script>', page, re.DOTALL)[1])


def test_of_many_texts_the_page_has_the_most_hidden_of_every_model_and_says_so(own):
    place = own / "results/tables/hidden_texts.csv"
    row = read_table(place).iloc[0].to_dict()
    many = [row | {"model": m, "text": f"{m}{d}", "unique_r2": d} for m in "ab" for d in range(99)]
    pd.DataFrame(many).to_csv(place, index=False)
    page = write_page(own)
    shown = in_script(page, "tables")["hidden_texts"]
    named = [values[shown["columns"].index("text")] for values in shown["rows"]]
    assert named == [f"{m}{d}" for d in range(98, 48, -1) for m in "ab"]
    said = "100 of 198 rows, as many of every model, those with the largest D; all are in the "
    assert shown["about"].endswith(f"{said}results folder, tables/hidden_texts.csv.")


def test_of_more_images_than_a_page_takes_a_sample_is_drawn_by_the_seed_and_the_page_says_so(own):
    assert np.array_equal(sample(10, 3, 10, 0), np.arange(10))
    drawn, again, other = (sample(10_000, 32, 10_000, seed) for seed in (0, 0, 1))
    assert len(drawn) == MOST_POINTS // 32 == len(set(drawn)) and (np.diff(drawn) > 0).all()
    assert np.array_equal(drawn, again) and not np.array_equal(drawn, other)
    page = write_page(own, max_images=5, confidence=0.9)
    assert "90 % intervals" in page
    shown = in_script(page, "tables")["images"]
    assert "5 of the 24 images are shown here one by one" in shown["about"]
    assert len(shown["rows"]) == 2 * 5


def test_the_table_of_photos_has_a_row_for_each_model_and_space_those_with_the_largest_is_first():
    images = pd.DataFrame({"path": ["p", "q"], "label": ["x", "y"]}, index=[1, 3])
    scores = pd.DataFrame({"is_deg": [1.26, 2.0], "as_deg": [0.0, np.nan]}, index=[1, 3])
    scores = scores.assign(angle_original_deg=1.0, angle_equivalent_deg=1.0, predicted_index=[1, 0])
    both, names = {"m": scores, "n": scores + 1}, {"m": ["cat", "dog"], "n": ["a", "b", "c"]}
    found = content.photo_scores(images, {"s": both}, names)
    columns = ["label", "model", "is_deg", "before", "after", "predicted", "path"]
    assert found[columns].iloc[0].tolist() == ["y", "n", 3.0, 2.0, 2.0, "b", "q"]
    assert found["is_deg"].tolist() == [3.0, 2.26, 2.0, 1.26]
    assert found["predicted"].tolist() == ["b", "c", "cat", "dog"]


def test_a_figure_is_made_to_fit_its_width_and_what_the_format_holds():
    for size, expected in (((3200, 100), (1600, 50)), ((400, 20000), (328, 16383))):
        found = base64.b64decode(content.webp(Image.new("RGBA", size, "white")))
        assert Image.open(io.BytesIO(found)).size == expected


def test_steps_are_added_up_by_rule(tmp_path):
    for name, seconds in (("fit/a", 1.5), ("fit/b", 2.5), ("one", 1.0)):
        path = tmp_path / f"{name}.tsv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"s\tmax_rss\n{seconds}\t-\n")
    rows = [row[:4] for row in step_table(tmp_path, {})["rows"]]
    assert rows == [["fit", 2, 4.0, 2.5], ["one", 1, 1.0, 1.0]]
    assert step_table(tmp_path / "none", {})["rows"] == []


STUDIES = {
    "one model, one label": {"models": ("m1",), "null_dims": (12,), "labels": ["x"]},
    "nothing but scores": {"extras": False, "r2": 0.1, "weights": "random"},
    "one image": {"n": 1},
    "two spaces, one null space": {"spaces": ("s", "t"), "null_dims": (12, 0)},
}


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_has_a_page(tmp_path, study):
    write_study(tmp_path, **STUDIES[study])
    names = {name: STUDIES[study][name] for name in ("models", "spaces") if name in STUDIES[study]}
    page = write_page(tmp_path, **names)
    assert page.count("<h1>") == 1 and page.endswith("</html>")
    assert ("<b>m1 in t</b>" in page) == ("spaces" in names)


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


def test_a_table_without_rows_and_a_figure_without_data_are_not_on_the_page(tmp_path, written):
    full = (written / "results/report.html").read_text()
    parts = ["probes", "orders", "spurious", "angle_ladder", "rejected", "hidden_texts"]
    assert {*parts, "hidden_groups", "images"} <= in_script(full, "tables").keys()
    assert set(re.findall(r'<details class="figure" name="\w+" id="(\w+)"', full)) == set(FIGURES)
    assert "undrawn" not in full
    write_study(tmp_path, models=("m1",), null_dims=(0,), extras=False)
    write_bytes(tmp_path / "results/data/rejected.csv", b"path,reason\n")
    paths = [tmp_path / f"results/figures/fig12.{kind}" for kind in ("png", "svg")]
    save(new_figure((3.4, 0.4)), *paths, needs="two images <of> a label")
    page = write_page(tmp_path, models=("m1",))
    assert not {*parts, "hidden_groups"} & in_script(page, "tables").keys()
    assert 'id="fig12"' not in page and 'id="fig11"' in page
    said = "Figure 12: probes before and after translation: not drawn here; it needs two images"
    assert f"{said} &lt;of&gt; a label." in page
    text = re.sub(r"<(script|style|pre).*?</\1>", "", page, flags=re.DOTALL)
    assert not re.search(r"Pearson|\bnan\b|\bNone%", text)


def test_a_large_drawing_is_on_the_page_as_a_picture_and_others_as_svg(own):
    large = own / "results/figures/fig5.svg"
    write_bytes(large, large.read_bytes() + b" " * MOST_SVG)
    page = write_page(own)
    kinds = dict(re.findall(r'id="full-(\w+)".*?src="data:image/([\w+]+);base64', page))
    assert kinds.pop("fig5") == "webp" and set(kinds.values()) == {"svg+xml"}


def test_the_page_asks_its_questions_in_order_and_the_decision_is_before_all_else(written):
    page = html.unescape((written / "results/report.html").read_text())
    parts = [
        '<section id="models">',
        "<b>m1</b>: keep the features: its head drops at least 4.0 % of the meaning, fur and ",
        '<img src="data:image/svg+xml;base64,',
        "s, the space of this study, is a stand-in for CLIP that ",
        'class="plain"',
        "<nav",
        *(f'<section id="{name}">' for name in ("labels", "checks", "photos")),
        "The paper's scores",
        '<section id="paper">',
        '<section id="data">',
    ]
    places = [page.index(part) for part in parts]
    assert places == sorted(places)


def test_what_a_run_took_is_a_page_among_the_logs_and_the_report_is_the_same_in_every_run(own):
    first, run = write_page(own), own / "results/logs/run.html"
    assert "only Snakemake measures them" in run.read_text()
    (own / "results/benchmarks").mkdir()
    (own / "results/benchmarks/one.tsv").write_text("s\tmax_rss\n1.25\t2.5\n")
    assert write_page(own) == first
    said = html.unescape(run.read_text())
    assert "<td>one</td><td>1</td><td>1.25</td><td>1.25</td><td>2.5</td>" in said
    assert machine() in said and machine() not in html.unescape(first)


def test_the_pages_hold_no_script_nor_place_of_the_data_and_no_link_without_an_end(written):
    page = (written / "results/report.html").read_text()
    assert HOSTILE not in page
    assert [HOSTILE in row for row in in_script(page, "tables")["labels"]["rows"]].count(True) == 2
    assert not re.search(r"<(script|img|link)[^>]+(src|href)=[\"']https?:", page)
    for path in (written / "results/report.html", written / "results/logs/run.html"):
        text = path.read_text()
        assert str(written) not in text
        text = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)  # hold links of libraries
        found = (re.findall(rf'<a [^>]*href="{start}([^"]*)"', text) for start in ("#", "(?!#)"))
        inside, outside = found
        assert outside and all((path.parent / link).is_file() for link in outside)
        assert set(inside) <= set(re.findall(r' id="([^"]*)"', text))


@pytest.mark.parametrize(("status", "listed"), [(0, True), (9, False)])
def test_a_gpu_is_named_only_if_its_driver_answers(tmp_path, monkeypatch, status, listed):
    driver = tmp_path / "nvidia-smi"
    driver.write_text(f"#!/bin/sh\necho NVIDIA H100\nexit {status}\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert machine().endswith(", NVIDIA H100") == listed
