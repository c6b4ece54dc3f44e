import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from singflow.analyses.findings import HIDES, TABLES
from singflow.analyses.summary import (
    EMPTY,
    FOUND,
    MEANING,
    MISSED,
    NOTHING,
    TRACE,
    UNJUDGED,
    UNTOLD,
    Summary,
    add_verdicts,
    for_git,
    summarize_labels,
    summarize_model,
    verdict,
)
from singflow.analyses.tables import ZERO
from singflow.config.registry import ModelEntry
from singflow.report.sentences import stand_in
from singflow.report.summary import OF_OWN_WORDS, per_dimension, render_text
from tests.results import EVIDENCE, PROJECTOR, TRANSLATOR, UNMEASURED

SETTINGS = Summary(resamples=300)
ENTRY = ModelEntry(source="timm", id="resnet18.a1_in1k", reported_top1=70.0, reported_by="someone")


@pytest.fixture
def scores():
    generator = np.random.default_rng(0)
    normal, gamma = generator.normal, generator.gamma
    drawn = {"is_deg": gamma(8.0, size=40), "as_deg": normal(-0.5, 1.0, 40)}
    drawn |= {"null_energy": generator.uniform(0, 0.2, 40), "floor_is_deg": gamma(8.0, size=40)}
    drawn |= {"as_contrast_deg": normal(-0.3, 1.0, 40)}
    return pd.DataFrame(drawn).assign(
        image_id=np.arange(40), label=np.repeat(["a", "b"], [10, 30]), logit_change=1e-6
    )


CLIP = {"s": "open_clip"}  # the source of the space


def summarized(scores, evidence=(), translator=(), projector=(), entry=ENTRY):
    """The row of a model that differs from the usual one."""
    reports = PROJECTOR | dict(projector), TRANSLATOR | dict(translator), EVIDENCE | dict(evidence)
    given = {"n_images": 40, "top1_margin": 10.0, "seed": 0}
    return summarize_model(scores, *reports, entry, SETTINGS, **given)


NONE = [pd.DataFrame(columns=["space", "model", *columns]) for columns in TABLES.values()]


def text_of(scores, texts=NONE[0], rejected=0, controls=False, sources=CLIP, **rows):
    """The text of models of one space, by name, as summarize writes it."""
    models = [{"space": "s", "model": name, **row} for name, row in rows.items()]
    add_verdicts(models, 0.95)
    given = "mine", pd.DataFrame(models), sources, texts, NONE[1], scores.assign(split="train")
    return render_text(*given, rejected, 0.95, 0.2, controls=controls)


def cells(text):
    """Rows of the table in a text, in order, as lists of cells; the first is the header."""
    lines = text.split("\n")
    start = next(number for number, line in enumerate(lines) if line == "Space s") + 1
    end = next(number for number, line in enumerate(lines) if line.startswith("The paper's scores"))
    return [re.split(r"\s{2,}", line.strip()) for line in lines[start:end]]


def test_a_row_holds_the_means_their_intervals_the_ratios_and_what_the_test_found(scores):
    row = summarized(scores, projector={"top1": 0.75, "top1_images": 20})
    means = scores.assign(as_abs_deg=scores["as_deg"].abs()).mean(numeric_only=True)
    names = ["is", "as", "as_abs", "as_contrast"]
    expected = {f"{name}_mean": means[f"{name}_deg"] for name in names}
    expected["is_per_as"] = means["is_deg"] / means["as_abs_deg"]
    expected["is_per_mean_as"] = means["is_deg"] / abs(means["as_deg"])
    expected |= {"floor_is_mean": 4.6, "n_images": 40, "n_evidence": 640, "n_per_dim": 0.5}
    expected |= {"top1": 0.75, "max_logit_change": 1e-6, "seed": 0}
    renamed = {"n", "floor_is_deg"}
    expected |= {name: EVIDENCE[name] for name in EVIDENCE.keys() - renamed} | {"n_classes": 1000}
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    for name in names:
        assert row[f"{name}_low"] < row[f"{name}_mean"] < row[f"{name}_high"]
    half = 2.023 * scores["is_deg"].std() / math.sqrt(40)
    assert row["is_high"] - row["is_low"] == pytest.approx(2 * half, rel=0.1)
    assert row["is_per_as_low"] < row["is_per_as"] < row["is_per_as_high"]
    assert [row[name] for name in ("translator", "note", "intervals")] == ["not weak", "", "images"]
    assert row["weights_id"] == ENTRY.id
    alone = summarized(scores.assign(as_contrast_deg=np.nan))  # of a single label
    assert {alone[f"as_contrast_{part}"] for part in ("mean", "low", "high")} == {None}
    assert json.loads(json.dumps(row, allow_nan=False)) == row  # for metrics.json


def test_no_interval_of_an_angle_goes_below_0_and_those_of_signed_scores_may(scores):
    rare = np.array([0.01, 0.01, 0.01, 9.0])  # the interval about the mean is wider than the mean
    row = summarized(scores.iloc[:4].assign(is_deg=rare, as_deg=-rare))
    assert row["is_low"] == row["as_abs_low"] == 0.0
    assert row["as_mean"] < 0 < row["as_high"]


def test_is_over_mean_as_has_an_interval_only_where_mean_as_is_not_0(scores):
    shape = np.random.default_rng(1).normal(0.0, 1.0, 40)
    shape -= shape.mean()
    signs = np.tile([1.0, -1.0], 20)
    fixed = scores.assign(is_deg=8.0)
    for middle in (-2.0, 2.0):
        row = summarized(fixed.assign(as_deg=middle + shape))
        near, far = sorted(abs(row[f"as_{end}"]) for end in ("low", "high"))
        ends = [row[f"is_per_mean_as{end}"] for end in ("_low", "", "_high")]
        assert ends == pytest.approx([8.0 / far, 4.0, 8.0 / near])
    near_0, at_0 = (summarized(fixed.assign(as_deg=of)) for of in (0.1 + shape, signs))
    assert near_0["as_low"] < 0 < near_0["as_high"]
    assert near_0["is_per_mean_as"] == pytest.approx(80.0)
    assert at_0["as_mean"] == 0 and at_0["is_per_mean_as"] is None and at_0["is_per_as"] == 8.0
    for row in (near_0, at_0):
        assert row["is_per_mean_as_low"] is row["is_per_mean_as_high"] is None


def test_without_a_null_space_the_ratios_are_undefined_and_the_note_says_why(scores):
    nothing = UNMEASURED | {"floor_is_deg": 0.0, "floor_is_sd": 0.0}
    zero = scores.assign(is_deg=0.0, as_deg=0.0)
    row = summarized(zero, nothing, projector={"null_dim": 0})
    ratios = ["is_per_as", "is_per_as_low", "is_per_mean_as"]
    assert [row[name] for name in ratios] == [None] * 3
    assert [row["is_mean"], row["is_low"], row["is_high"]] == [0.0] * 3
    text = text_of(scores, m=row)
    assert cells(text)[1] == ["m", "0", "0.64", "0.30 (0.40)", "0.0", "0.0", "-", "-", "-", EMPTY]
    assert "no null space" in row["note"] and f"m: {row['note']}.\n" in text


# Verdicts


LEVEL = 0.05
CLEAR = {"null_dim": 280, "known_zero": False, "known_leak": False, "in_sample": False}
CLEAR |= {"validation_r2": 0.3, "permuted_r2": 0.001, "unique_r2_low": 0.03}
CLEAR |= {"p_holm": 0.01, "detectable": 0.03}
DOUBTFUL = CLEAR | {"p_holm": 0.06}
LOW, LEAK = {"p_holm": 1.0, "unique_r2_low": -0.01}, CLEAR | {"known_leak": True}


def test_the_verdict_follows_from_d_its_interval_and_what_the_study_could_have_seen():
    for row, expected in (
        (CLEAR, MEANING),
        (CLEAR | {"p_holm": LEVEL}, MEANING),
        (CLEAR | {"unique_r2_low": -0.01, "detectable": None}, MEANING),
        (DOUBTFUL, TRACE),
        (DOUBTFUL | {"unique_r2_low": 0.0006}, TRACE),
        (DOUBTFUL | {"unique_r2_low": 0.0004}, NOTHING),  # shown as 0.0 %
        (CLEAR | LOW, NOTHING),
        (CLEAR | LOW | {"detectable": 0.1}, NOTHING),
        (CLEAR | LOW | {"detectable": None}, UNTOLD),
        (LEAK, FOUND),
        (LEAK | LOW | {"detectable": None}, MISSED),
    ):
        assert verdict(row, LEVEL) == expected, row


FIRST = [  # what decides, from the first on
    ({"null_dim": 0}, EMPTY),
    ({"known_zero": True}, ZERO),
    ({"in_sample": True}, UNJUDGED),
    ({"unique_r2_low": None, "p_holm": 1.0}, UNTOLD),
    ({"permuted_r2": 0.3}, UNTOLD),
    ({"permuted_r2": None, "validation_r2": 0.01}, UNTOLD),
]


def test_what_forbids_a_verdict_comes_before_all_that_it_forbids():
    for rest in (CLEAR, LEAK):
        row = dict(rest)
        for change, expected in reversed(FIRST):
            row |= change
            assert verdict(rest | change, LEVEL) == verdict(row, LEVEL) == expected


def judged(**p):
    """Verdicts in one space on models with these p-values; zero and leak_ are controls."""
    rows = [
        CLEAR | {"model": name, "p": p_value, f"known_{name.partition('_')[0]}": True}
        for name, p_value in p.items()
    ]
    add_verdicts(rows, 0.95)
    return {row["model"]: (pytest.approx(row["p_holm"]), row["verdict"]) for row in rows}


def test_p_is_corrected_for_the_tested_models_of_a_space_and_controls_are_judged_by_their_own():
    found = judged(a=0.02, b=0.03, zero=0.001, leak_1=0.04, c=0.9, leak_2=0.06)
    assert found.pop("leak_1") == (0.04, FOUND) and found.pop("leak_2") == (0.06, MISSED)
    both = dict.fromkeys("ab", (0.06, TRACE))
    assert found == both | {"zero": (0.001, ZERO), "c": (0.9, TRACE)}
    assert judged(a=0.02, zero=0.001, leak_1=0.04)["a"] == (0.02, MEANING)
    untested = CLEAR | {"p": None, "unique_r2_low": None}
    rows = [CLEAR | {"p": 0.03}, untested, untested | {"null_dim": 0}]
    add_verdicts(rows, 0.95)
    assert [row["verdict"] for row in rows] == [MEANING, UNTOLD, EMPTY]
    assert [row["p_holm"] for row in rows] == [0.03, None, None]


# Labels


def test_label_rows_are_the_moments_of_their_images(scores):
    table = summarize_labels(scores).set_index("label")
    mine = scores[scores["label"] == "a"]
    scored = [f"{score}_deg_{kind}" for score in ("is", "as", "as_abs") for kind in ("mean", "std")]
    assert list(table) == ["n", *scored, "floor_is_deg_mean"] and list(table.index) == ["a", "b"]
    expected = {"n": 10, "as_abs_deg_mean": mine["as_deg"].abs().mean()}
    expected |= {"is_deg_std": np.std(mine["is_deg"])}
    expected |= {"floor_is_deg_mean": mine["floor_is_deg"].mean()}
    assert table.loc["a", list(expected)].to_dict() == pytest.approx(expected)


# The text that ends a run


def test_the_text_decides_first_and_then_has_numbers_and_the_meaning_of_its_columns(scores):
    row = summarized(scores.assign(is_deg=5.56))
    named = {"text": ["fur", "sky"], "unique_r2": [0.3, 0.1], "hidden": [True, False], "p": 0.5}
    texts = pd.DataFrame(named | {"space": "s", "model": "m"})
    first, decided, *_ = (text := text_of(scores, texts, rejected=2, m=row)).split("\n\n")
    assert first.startswith("Study mine: features or logits?")
    assert decided.startswith("m: keep the features: its head drops ")
    assert decided.endswith(", fur first (1 of 2 texts are hidden)")
    assert HIDES not in text and HIDES in text_of(
        scores, n=summarized(scores, {"p": 0.9, "unique_r2_low": 0.0})
    )
    header = "model|null dim|n per dim|R2 (words)|IS|floor|D [95 %]|turn|detectable (first)|verdict"
    line = f"m|280|0.5|0.30 (0.40)|5.6|4.6|0.060 [0.030, 0.090]|9|5.9 % (1.2 %)|{MEANING}"
    assert cells(text) == [header.split("|"), line.split("|")]
    assert f"m {row['as_mean']:+.2f}, {row['as_abs_mean']:.2f}, {row['is_per_as']:.1f}\n" in text
    explained = text.rpartition("\nm: Not shown to be hidden: sky.\n\n")[2]
    for column in ("IS: ", "floor: ", "D: ", "turn: ", "detectable: ", "n per dim: ", "R2: "):
        assert explained.count(column) == 1
    assert "2 of 42 files were left out (data/rejected.csv).\n" in explained
    assert "left out" not in text_of(scores, m=row)
    assert max(map(len, text.splitlines())) <= 150


def test_what_is_not_known_is_a_dash_no_zero_has_a_minus_and_counts_are_plain_numbers(scores):
    none = {"unique_r2": -1e-4, "unique_r2_low": -4e-4, "unique_r2_high": 4e-4, "p": 1.0}
    none |= {"turn_deg": 0.0, "detectable": None, "r2_words": None}
    row = summarized(scores, none, {"validation_r2": -0.003})
    table = cells(text_of(scores, a=row, b=summarized(scores, UNMEASURED)))
    assert table[1][6:] == ["below 0.0005", "0", "more than 30 % (1.2 %)", UNTOLD]
    assert table[1][3] == "0.00 (-)" and table[2][6:] == ["-", "-", "-", UNTOLD]
    assert [per_dimension(n) for n in (0.05, 9.96, 10.04, 1000.9)] == ["0.05", "10", "10", "1001"]


def test_controls_stand_last_with_their_marks_and_are_explained(scores):
    rows = {
        "leak": summarized(scores, {"known_leak": True}),
        "b": summarized(scores),
        "zero": summarized(scores, {"known_zero": True}, {"lambda_at_edge": True}),
        "a": summarized(scores),
    }
    marks = [row["marks"] for row in rows.values()]
    assert marks == ["known leak", "", "known zero, penalty at the edge", ""]
    text = text_of(scores, **rows)
    verdicts = [(row[0], row[-1]) for row in cells(text)[1:]]
    assert verdicts == [("b", MEANING), ("a", MEANING), ("leak+", FOUND), ("zero~^", ZERO)]
    said = text.partition("Space s")[0].partition("\nControls:\n")
    named = [re.findall(r"^([\w+~^]+): (?:keep|known)", part, re.MULTILINE) for part in said[::2]]
    assert named == [["b", "a"], ["leak+", "zero~^"]]
    assert "Signs beside the names: ~: known zero; +: known leak; ^: penalty at the edge." in text
    assert "^ The best penalty of zero in s is at the edge" in text


def test_the_text_names_near_copies_that_are_left_out_and_warns_of_those_in_other_folds(scores):
    left_out = {"left_out": [f"{name}.jpg" for name in "abcd"], "near_copies": None}
    few, many = ({"near_copies": copies, "n_compared": 100} for copies in (1, 2))
    left, few, many = (summarized(scores, translator=of) for of in (left_out, few, many))
    assert left["left_out"] == 4 and left["left_out_images"] == "a.jpg, b.jpg, c.jpg"
    text = " ".join(text_of(scores, a=left, b=few, c=many).split())
    assert "are left out of every fit: 4 for a in s (a.jpg, b.jpg, c.jpg, and others)." in text
    assert "NEAR COPIES IN OTHER FOLDS: 2 of 100 for c in s (frames" in text
    none = summarized(scores, translator={"left_out": [], "near_copies": None})
    text = text_of(scores, a=none, b=few)
    assert "left out of every fit" not in text and "NEAR COPIES" not in text


@pytest.mark.parametrize(("r2", "weak"), [(0.19, True), (0.2, False), (-3.0, True)])
def test_the_text_warns_of_weak_translators_and_only_of_them(scores, r2, weak):
    text = text_of(scores, m=summarized(scores, {}, {"validation_r2": r2}))
    assert ("* WEAK TRANSLATOR: m in s. It explains less than 0.2 of" in text) == weak
    assert cells(text)[1][0] == "m" + "*" * weak
    assert cells(text)[1][-1] == (UNTOLD if r2 < 0 else MEANING)


def test_own_words_are_a_row_of_a_space_without_a_known_zero_unless_the_study_wants_none(scores):
    row = summarized(scores)
    text = text_of(scores, controls=True, m=row)
    own = ["own words~", "280", "0.5", "-", "-", "-", "0.001", "-", "-", ZERO]
    assert cells(text)[2] == own and "~: known zero" in text
    assert " ".join(OF_OWN_WORDS.split()) in " ".join(text.split())
    zero = summarized(scores, {"known_zero": True})
    for other in (text_of(scores, m=row), text_of(scores, controls=True, m=row, zero=zero)):
        assert "own words~" not in other and OF_OWN_WORDS[:20] not in other


def test_a_space_that_stands_in_for_an_image_text_space_is_named_before_the_numbers(scores):
    said = stand_in({"s": "conse"})
    text = " ".join(text_of(scores, sources={"s": "conse"}, m=summarized(scores)).split())
    assert f" {said}. Space s model" in text and "docs/first-clip.md" in said
    assert stand_in({"s": "conse", "t": "open_clip"}) == ""


WELL = [(70.0, "hub", 19, False), (99.0, "hub", 19, False), (None, "hub", 2, False)]
BADLY = [(None, "hub", 0, True), (70.0, "hub", 0, True), (70.0, "random", 0, False)]


@pytest.mark.parametrize(("reported", "weights", "right", "low"), [*WELL, *BADLY])
def test_a_top1_far_too_low_is_said_loudly_unless_the_weights_are_random(
    scores, reported, weights, right, low
):
    entry = ENTRY.model_copy(update={"weights": weights, "reported_top1": reported})
    row = summarized(scores, projector={"top1": right / 20, "top1_images": 20}, entry=entry)
    text = text_of(scores, m=row)
    why = "like a guess" if reported is None else f"reported {reported:g} %"
    alarm = f"! TOP-1 FAR TOO LOW: m (0.0 %, {why})"
    assert row["top1_low"] == (alarm in text) == (cells(text)[1][0] == "m!") == low
    assert ("RANDOM WEIGHTS" in text) == (weights == "random")
    outside = summarized(scores, entry=entry)  # images that are of no class
    assert outside["top1"] is None and "TOP-1" not in text_of(scores, m=outside)


def test_git_keeps_four_significant_digits_of_every_number():
    row = {"is_mean": 27.161568785979908, "unique_r2": -3.996976924894484e-05, "p": 2.2549e-05}
    row |= {"margin": 0.005, "d": -0.0, "n": 12345, "detectable": None, "known_leak": True}
    kept = for_git(row)
    changed = {"is_mean": 27.16, "unique_r2": -3.997e-05, "p": 2.255e-05}
    assert kept == row | changed and json.dumps(kept).count("-0.0") == 0
    assert for_git(kept) == kept and math.isnan(for_git({"as_mean": math.nan})["as_mean"])
    assert kept["known_leak"] is True
