import math

import numpy as np
import pandas as pd
import pytest

from singflow.analyses.summary import (
    EMPTY,
    MEANING,
    NONE,
    SOME,
    UNJUDGED,
    ZERO,
    correlate_labels,
    render_text,
    summarize_labels,
    summarize_model,
    verdict,
)
from singflow.config.registry import ModelEntry

OPTIONS = {"resamples": 300, "confidence": 0.95, "min_r2": 0.2, "top1_margin": 10.0, "seed": 0}
ENTRY = ModelEntry(source="timm", id="resnet18.a1_in1k", reported_top1=70.0, reported_by="someone")
TRANSLATOR = {
    "alpha": 10.0, "lambda": 1.0, "lambda_at_edge": False, "folds": 5, "in_sample": False, "reference": None, "validation_cosine": 0.7,
    "baseline_cosine": 0.5, "validation_r2": 0.3, "n_train": 80, "n_validation": 20,
}  # fmt: skip
FLOOR = {
    "known_zero": False, "known_leak": False, "permutations": 20, "p_is": 1 / 21, "p_as_abs": 0.5, "p_conditional_is": 1 / 21,
    "conditional_excess_deg": 2.0,
    "r2_principal": 0.25, "delta_r2": 0.05, "delta_r2_low": 0.01, "delta_r2_high": 0.09,
}  # fmt: skip
PROJECTOR = {"null_dim": 280, "rank": 1000, "rule": "exact", "weight_dtype": "float32", "rank_stored": 1000, "rank_float64": 1000}


@pytest.fixture
def scores():
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "image_id": np.arange(40),
            "label": np.repeat(["a", "b"], [10, 30]),
            "class_index": np.repeat([3, -1], 20),
            "predicted_index": np.concatenate([np.full(15, 3), np.full(25, 9)]),
            "is_deg": generator.gamma(8.0, size=40),
            "as_deg": generator.normal(-0.5, 1.0, 40),
            "null_energy": generator.uniform(0, 0.2, 40),
            "logit_change": np.full(40, 1e-6),
            "control_is_deg": generator.gamma(10.0, size=40),
            "control_as_deg": generator.normal(0, 1, 40),
            "as_contrast_deg": generator.normal(-0.3, 1.0, 40),
            "matched_is_deg": generator.gamma(9.0, size=40),
            "floor_is_deg": generator.gamma(6.0, size=40),
            "conditional_is_deg": generator.gamma(7.0, size=40),
            "floor_conditional_is_deg": generator.gamma(5.0, size=40),
        }
    )


def test_intervals_hold_the_fit_where_it_is_known_and_say_what_they_hold(scores):
    through = np.linspace(-9, 9, len(scores))
    known = {"reference": False, "image_id": scores["image_id"], "label": scores["label"]}
    refits = pd.DataFrame(known | {"is_deg": through - through.mean()})
    others = pd.concat([refits.assign(reference=True)] * 3)
    alone, *both = (summarize_model(scores, PROJECTOR, TRANSLATOR, FLOOR, None, ENTRY, each, **OPTIONS) for each in (None, refits, others))
    for each, wider in zip(both, (1.5, 1.2), strict=True):
        assert (alone["intervals"], each["intervals"]) == ("images", "images, refit")
        assert each["is_mean"] == alone["is_mean"] and each["is_high"] - each["is_low"] > wider * (alone["is_high"] - alone["is_low"])
        assert (each["as_low"], each["as_high"]) == (alone["as_low"], alone["as_high"])


def test_a_row_holds_the_means_their_intervals_and_the_ratios(scores):
    row = summarize_model(scores, PROJECTOR, TRANSLATOR, FLOOR, None, ENTRY, **OPTIONS)
    size = scores["as_deg"].abs()
    expected = {
        "is_mean": scores["is_deg"].mean(),
        "as_mean": scores["as_deg"].mean(),
        "as_abs_mean": size.mean(),
        "control_is_mean": scores["control_is_deg"].mean(),
        "is_per_as": scores["is_deg"].mean() / size.mean(),
        "is_per_control": scores["is_deg"].mean() / scores["control_is_deg"].mean(),
        "is_per_matched": scores["is_deg"].mean() / scores["matched_is_deg"].mean(),
        "floor_is_mean": scores["floor_is_deg"].mean(),
        "conditional_is_mean": scores["conditional_is_deg"].mean(),
        "floor_conditional_is_mean": scores["floor_conditional_is_deg"].mean(),
        "as_contrast_mean": scores["as_contrast_deg"].mean(),
        "delta_r2": 0.05,
        "top1": 15 / 20,
        "max_logit_change": 1e-6,
    }
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    for name in ("is", "as", "as_abs", "control_is", "control_as"):
        assert row[f"{name}_low"] < row[f"{name}_mean"] < row[f"{name}_high"]
    within = scores.groupby("label")["is_deg"].var() * scores.groupby("label").size()
    half = 1.96 * math.sqrt(within.sum()) / 40
    assert row["is_high"] - row["is_low"] == pytest.approx(2 * half, rel=0.2)
    assert row["is_per_as_low"] < row["is_per_as"] < row["is_per_as_high"] and row["seed"] == 0
    assert (row["translator"], row["verdict"], row["note"]) == ("good", MEANING, "")


def test_a_single_label_has_no_contrast(scores):
    row = summarize_model(scores.assign(as_contrast_deg=np.nan), PROJECTOR, TRANSLATOR, FLOOR, None, ENTRY, **OPTIONS)
    assert row["as_contrast_mean"] is row["as_contrast_low"] is None


@pytest.mark.parametrize(
    ("null_dim", "changed", "expected"),
    [
        (0, {}, EMPTY),
        (9, {"known_zero": True}, ZERO),
        (9, {}, MEANING),
        (9, {"p_conditional_is": None, "known_zero": True}, ZERO),
        (9, {"p_conditional_is": None}, UNJUDGED),
        (9, {"p_conditional_is": 0.06}, SOME),
        (9, {"delta_r2_low": -0.01}, SOME),
        (9, {"delta_r2_low": None}, SOME),
        (9, {"p_conditional_is": 1.0, "delta_r2_low": 0.0}, NONE),
    ],
)
def test_the_verdict_follows_from_the_floor_and_from_what_the_null_space_adds(null_dim, changed, expected):
    assert verdict(null_dim, FLOOR | changed, None, 0.05) == expected


@pytest.mark.parametrize(
    ("zero", "expected"),
    [
        ({"delta_r2": -0.1, "p_conditional_is": 0.5, "conditional_excess_deg": 9.0}, MEANING),
        ({"delta_r2": 0.02, "p_conditional_is": 0.5, "conditional_excess_deg": 9.0}, SOME),
        ({"delta_r2": -0.1, "p_conditional_is": 0.05, "conditional_excess_deg": 1.9}, MEANING),
        ({"delta_r2": -0.1, "p_conditional_is": 0.05, "conditional_excess_deg": 2.1}, SOME),
        ({"delta_r2": 0.02, "p_conditional_is": 0.01, "conditional_excess_deg": 2.1}, NONE),
    ],
)
def test_only_what_lies_beyond_the_known_zero_counts(zero, expected):
    assert verdict(9, FLOOR, FLOOR | {"known_zero": True} | zero, 0.05) == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"known_zero": True, "p_conditional_is": 0.5, "delta_r2_low": -0.01}, "is at its floor and adds nothing, as it must be"),
        (
            {"known_zero": True, "p_conditional_is": 0.5},
            "yet adds to a linear read-out (Delta R2 +0.050): of the others, only what lies beyond",
        ),
        ({"known_zero": True}, "is above its floor, as it must not be"),
        ({"known_leak": True}, "is found to hold it, as it must be"),
        ({"known_leak": True, "p_conditional_is": 0.5}, "is not found to hold it beyond doubt"),
    ],
)
def test_the_text_says_first_whether_the_controls_came_out_as_they_must(scores, changes, words):
    row = summarize_model(scores, PROJECTOR, TRANSLATOR, FLOOR | changes, None, ENTRY, **OPTIONS)
    text = render_text("mine", pd.DataFrame([{"space": "s", "model": "m", **row}]), scores.assign(split="train"), 0.95, 0.2)
    first = text.partition("\n\n")[0].splitlines()[1:]
    assert first[0].startswith("Control in s: m") and words in " ".join(map(str.strip, first))


def test_without_a_null_space_the_ratios_are_undefined_and_the_note_says_why(scores):
    nothing = scores.assign(is_deg=0.0, as_deg=0.0, control_is_deg=0.0, control_as_deg=0.0)
    row = summarize_model(nothing, PROJECTOR | {"null_dim": 0}, TRANSLATOR, FLOOR, None, ENTRY, **OPTIONS)
    assert row["is_per_as"] is None and row["is_per_control"] is None
    assert (row["is_mean"], row["is_low"], row["is_high"]) == (0.0, 0.0, 0.0)
    assert "no null space" in row["note"]


def test_images_outside_the_classes_give_no_top1(scores):
    manifest, explained = scores.assign(split="train"), "top-1 -: no image has a label that is a class of the model"
    row = summarize_model(scores.assign(class_index=-1), PROJECTOR, TRANSLATOR, FLOOR, None, ENTRY, **OPTIONS)
    assert row["top1"] is None
    assert explained in render_text("mine", pd.DataFrame([{"space": "s", "model": "m", **row}]), manifest, 0.95, 0.2)
    known = summarize_model(scores, PROJECTOR, TRANSLATOR, FLOOR, None, ENTRY, **OPTIONS)
    assert explained not in render_text("mine", pd.DataFrame([{"space": "s", "model": "m", **known}]), manifest, 0.95, 0.2)


def floors_of(scores, p):
    """Labels beside their floors; p: p-values by label."""
    return scores.groupby("label")[["floor_is_deg"]].mean().assign(p_is_deg=pd.Series(p)).reset_index()


def test_label_rows_are_the_moments_of_their_images(scores):
    table = summarize_labels(scores, floors_of(scores, {"a": 0.5, "b": 0.5}), 0.95).set_index("label")
    mine = scores[scores["label"] == "a"]
    assert table.loc["a", "n"] == 10 and list(table.index) == ["a", "b"]
    assert table.loc["a", "as_abs_deg_mean"] == pytest.approx(mine["as_deg"].abs().mean())
    assert table.loc["a", "is_deg_std"] == pytest.approx(np.std(mine["is_deg"]))
    assert table.loc["a", "floor_is_deg_mean"] == pytest.approx(mine["floor_is_deg"].mean())


def test_labels_above_their_own_floor_are_flagged_and_their_false_discoveries_controlled():
    labels = [f"label {i:02d}" for i in range(20)]
    scores = pd.DataFrame({"label": labels, "is_deg": 1.0, "as_deg": 0.5, "floor_is_deg": 0.5})
    p = dict(zip(labels, [0.001, 0.004, *np.linspace(0.03, 1, 18)], strict=True))
    table = summarize_labels(scores, floors_of(scores, p).sample(frac=1, random_state=0), 0.95).set_index("label")
    assert table["leak_p"].tolist() == list(p.values())
    assert list(table.index[table["leaks"]]) == labels[:2]
    assert table.loc["label 01", "leak_q"] == pytest.approx(0.004 * 20 / 2)
    assert not summarize_labels(scores, floors_of(scores, dict.fromkeys(labels, np.nan)), 0.95)["leaks"].any()


def test_in_sample_the_text_judges_nothing_and_says_so(scores):
    nothing = dict.fromkeys(["p_is", "p_as_abs", "p_conditional_is", "delta_r2_low", "delta_r2_high"])
    row = summarize_model(scores, PROJECTOR, TRANSLATOR | {"in_sample": True, "folds": 0}, FLOOR | nothing, None, ENTRY, **OPTIONS)
    manifest = pd.DataFrame({"label": scores["label"], "split": "train"})
    text = render_text("mine", pd.DataFrame([{"space": "s", "model": "m", **row}]), manifest, 0.95, 0.2)
    assert text.count("in sample as in the paper") == 2 and UNJUDGED in text and row["p_is"] is None
    assert row["marks"] == "in sample" and text.count("\nm# ") == 2 and "# m: in sample: the translator has seen the images" in text


@pytest.mark.parametrize(
    ("rule", "end"), [("exact", " Rule exact takes the first."), ("exact64", " Rule exact64 takes the second."), ("energy", "")]
)
def test_the_text_says_where_the_rank_hangs_on_the_precision_and_by_how_many_directions(scores, rule, end):
    rows = []
    for model, rank, precision in (("a", 999, "float32"), ("b", 1000, "float32"), ("c", 990, "bfloat16")):
        projector = PROJECTOR | {"rule": rule, "weight_dtype": precision, "rank_stored": rank}
        row = summarize_model(scores, projector, TRANSLATOR, FLOOR, None, ENTRY, **OPTIONS)
        rows += [{"space": space, "model": model, **row} for space in "st"]
    manifest = pd.DataFrame({"label": scores["label"], "split": "train"})
    said = "Rank at the precision of the stored weights and at float64: "
    apart = f"{said}a 999 (float32) and 1000, 1 direction fewer; c 990 (bfloat16) and 1000, 10 directions fewer.{end}\n"
    assert apart in render_text("mine", pd.DataFrame(rows), manifest, 0.95, 0.2)
    alike = pd.DataFrame([row for row in rows if row["model"] == "b"])
    assert said not in render_text("mine", alike, manifest, 0.95, 0.2)


def test_labels_of_two_models_are_correlated_within_each_space():
    generator = np.random.default_rng(1)
    sizes = {"a": generator.gamma(1.0, size=30)}
    sizes |= {"b": sizes["a"] ** 2, "c": generator.gamma(1.0, size=30)}
    labels = pd.concat(
        pd.DataFrame({"space": s, "model": m, "label": [f"l{i}" for i in range(30)], "as_abs_deg_mean": size if s == "s" else 1.0})
        for s in "st"
        for m, size in sizes.items()
    )
    reliability = {(s, m): {"a": 0.9, "b": 0.4, "c": np.nan}[m] for s in "st" for m in "abc"}
    table = correlate_labels(labels, reliability, 500, seed=0).set_index(["space", "model_a", "model_b"])
    assert len(table) == 6 and (table["n_labels"] == 30).all()
    assert table.loc[("s", "a", "b"), "spearman"] == pytest.approx(1.0) and table.loc[("s", "a", "b"), "p_holm"] == pytest.approx(3 / 501)
    assert abs(table.loc[("s", "a", "c"), "spearman"]) < 0.5 and table.loc[("s", "a", "c"), "p"] > 0.01
    assert table.loc["t", "spearman"].isna().all()
    assert table.loc[("s", "a", "b"), "ceiling"] == pytest.approx(0.6) and np.isnan(table.loc[("s", "a", "c"), "ceiling"])


def test_a_single_model_has_no_pair_to_correlate():
    labels = pd.DataFrame({"space": "s", "model": "a", "label": ["x", "y"], "as_abs_deg_mean": [1.0, 2.0]})
    assert correlate_labels(labels, {("s", "a"): 0.5}, 500, seed=0).empty
    none = correlate_labels(labels[:0], {}, 500, seed=0)
    assert none.empty and {"spearman", "ceiling", "p_holm"} <= set(none)


@pytest.mark.parametrize(("r2", "weak"), [(0.19, True), (0.2, False), (-3.0, True)])
def test_the_text_warns_of_weak_translators_and_only_of_them(scores, r2, weak):
    row = summarize_model(scores, PROJECTOR, TRANSLATOR | {"validation_r2": r2}, FLOOR, None, ENTRY, **OPTIONS)
    manifest = pd.DataFrame({"label": scores["label"], "split": np.repeat(["validation", "train"], 20)})
    text = render_text("mine", pd.DataFrame([{"space": "s", "model": "m", **row}]), manifest, 0.95, 0.2)
    assert text.startswith("Study mine: 40 images, 2 labels, 20 images held out; rank rule exact, seed 0\n")
    assert (text.count("m*") == 2) == ("* WEAK TRANSLATOR" in text) == weak
    assert f"{row['is_mean']:.2f} [{row['is_low']:.2f}, {row['is_high']:.2f}]" in text
    assert "floor" in text and MEANING in text and max(map(len, text.splitlines())) <= 150


def test_a_known_zero_and_a_penalty_at_the_edge_are_marked_in_both_tables_of_the_text_and_explained(scores):
    row = summarize_model(scores, PROJECTOR, TRANSLATOR | {"lambda_at_edge": True}, FLOOR | {"known_zero": True}, None, ENTRY, **OPTIONS)
    assert row["marks"] == "known zero, penalty at the edge" and row["weights_id"] == ENTRY.id
    text = render_text("mine", pd.DataFrame([{"space": "s", "model": "m", **row}]), scores.assign(split="train"), 0.95, 0.2)
    assert text.count("\nm~^ ") == 2
    assert "~ m: known zero: the space is a function of its logits" in text and "^ m: the best penalty is at the edge" in text


@pytest.mark.parametrize(
    ("reported", "weights", "low"), [(70.0, "hub", False), (99.0, "hub", False), (99.0, "random", False), (None, "hub", False)]
)
def test_a_top1_near_the_reported_one_or_without_one_is_no_alarm(scores, reported, weights, low):
    entry = ModelEntry(source="timm", id="resnet18.a1_in1k", weights=weights, reported_top1=reported)
    close = scores.assign(predicted_index=scores["class_index"].where(scores.index < 19, 9))  # 19 of the 20 known ones
    assert summarize_model(close, PROJECTOR, TRANSLATOR, FLOOR, None, entry, **OPTIONS)["top1_low"] == low


@pytest.mark.parametrize(("weights", "low"), [("hub", True), ("random", False)])
def test_a_top1_far_below_the_reported_one_is_said_loudly_unless_the_weights_are_random(scores, weights, low):
    entry = ModelEntry(source="timm", id="resnet18.a1_in1k", weights=weights, reported_top1=70.0)
    row = summarize_model(scores.assign(predicted_index=1), PROJECTOR, TRANSLATOR, FLOOR, None, entry, **OPTIONS)
    manifest = pd.DataFrame({"label": scores["label"], "split": np.repeat(["validation", "train"], 20)})
    text = render_text("mine", pd.DataFrame([{"space": "s", "model": "m", **row}]), manifest, 0.95, 0.2)
    assert ("! TOP-1 FAR BELOW WHAT IS REPORTED: m (0.0 %, reported 70 %)" in text) == low == ("0.000!" in text)
    assert ("RANDOM WEIGHTS" in text) == (weights == "random")
