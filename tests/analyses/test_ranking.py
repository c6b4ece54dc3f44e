from dataclasses import replace
from itertools import combinations, permutations, product

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from singflow.analyses.ranking import (
    CRITERIA,
    RATIOS,
    agreement_rows,
    beside_chart,
    case_columns,
    chart_rows,
    criterion_columns,
    criterion_parts,
    criterion_refits,
    excess_rows,
    order_rows,
    pair_rows,
    ranked_columns,
    render_orders,
    shared_dimension,
)
from singflow.analyses.refits import PARTS
from singflow.analyses.statistics import Sample

OPTIONS = {"resamples": 400, "confidence": 0.95, "seed": 0}
N = 60
STRATA = Sample(np.repeat([0, 1, 2], 20))


def best(columns):
    """Means with the best penalty alone."""
    return {model: each.mean(axis=0, keepdims=True) for model, each in columns.items()}


def nothing(columns):
    """What images add through fits that none of them changes."""
    return {model: np.zeros((4, *each.shape)) for model, each in columns.items()}


def controls(scores):
    """A controls table out of {(subspace, dimension): (IS, |AS|)} with one value an image."""
    blocks = [
        pd.DataFrame({"image_id": np.arange(N), "subspace": s, "dimension": d, "is_deg": i, "as_deg": -a, "as_abs_deg": a})
        for (s, d), (i, a) in scores.items()
    ]
    return pd.concat(blocks).sample(frac=1, random_state=0)


@pytest.fixture
def columns():
    generator = np.random.default_rng(0)
    image = generator.gamma(20.0, 0.05, (N, 1))
    noise = generator.normal(0, 0.02, (4, N, 6))
    means = {
        "a": [8, 1.0, 10, 1.0, 4, 0.4],
        "b": [6, 1.2, 6, 1.5, 3, 0.9],
        "c": [12, 1.0, 20, 1.2, 2, 0.25],
        "d": [8, 1.0, 10, 1.0, 4, 0.4],
    }
    return {model: image * np.array(mean) + noise[i] for i, (model, mean) in enumerate(means.items())}


def test_models_are_compared_at_the_largest_dimension_that_all_have():
    tables = [controls({("null", d): (1.0, 1.0) for d in dims}) for dims in ([8, 24, 280], [8, 24], [8, 24, 64])]
    assert shared_dimension(tables) == 24
    assert shared_dimension([tables[1], controls({("null", 5): (1.0, 1.0), ("random", 24): (1.0, 1.0)})]) is None
    assert shared_dimension([]) is None


def test_the_columns_behind_the_criteria_are_ordered_by_image():
    grow = np.arange(N, dtype=float)
    table = controls({("null", 9): (grow, grow / 2), ("random", 9): (3 * grow, grow), ("null", 4): (grow / 4, grow / 8)})
    expected = np.outer(grow, [1, 0.5, 3, 1, 0.25, 0.125])
    np.testing.assert_array_equal(criterion_columns(table, 9, 4), expected)
    assert np.isnan(criterion_columns(table, 9, None)[:, 4:]).all() and np.isnan(case_columns(table, "row", 9)).all()


def test_the_criteria_by_hand():
    means = np.array([8.0, 2.0, 10.0, 4.0, 3.0, 1.0])
    values = {name: float(value(means)) for name, (value, _) in CRITERIA.items()}
    assert values == {
        "is_per_as": 4.0, "is_per_as_over_control": 1.6, "is_per_as_equal_dim": 3.0, "is": 8.0, "is_excess": -2.0, "is_per_control": 0.8,
        "as_abs": 2.0, "as_abs_excess": -2.0, "as_abs_per_control": 0.5,
    }  # fmt: skip
    nothing = {name: float(value(np.zeros(6))) for name, (value, _) in CRITERIA.items()}
    assert {name for name, value in nothing.items() if np.isnan(value)} == {name for name in CRITERIA if "_per_" in name}


def test_places_follow_the_better_direction_and_ties_share_one(columns):
    orders = order_rows(columns | {"d": columns["a"]}, STRATA, best(columns), **OPTIONS)
    places = orders.pivot(index="criterion", columns="model", values="place")
    assert list(places.loc["is_per_as"]) == [2, 4, 1, 2]  # 8, 5, 12, 8
    assert list(places.loc["as_abs_per_control"]) == [3, 1, 2, 3]  # 1, 0.8, 0.83, 1
    assert list(places.loc["is_per_control"]) == [2, 1, 4, 2]  # 0.8, 1, 0.6, 0.8
    assert (orders["low"] < orders["value"]).all() and (orders["value"] < orders["high"]).all()
    undefined = order_rows({m: np.where([1, 1, 1, 1, 0, 0], each, np.nan) for m, each in columns.items()}, STRATA, best(columns), **OPTIONS)
    assert undefined[undefined["criterion"] == "is_per_as_equal_dim"][["value", "place"]].isna().all().all()
    assert len(order_rows({}, STRATA, {}, **OPTIONS)) == 0


def test_pairs_are_tested_on_the_same_images_and_corrected_for_their_number(columns):
    pairs = pair_rows(columns, nothing(columns), STRATA, best(columns), **OPTIONS).set_index(["criterion", "model_a", "model_b"])
    assert len(pairs) == len(CRITERIA) * 6
    for a, b in combinations("abcd", 2):
        row = pairs.loc["is", a, b]
        difference = columns[a][:, 0] - columns[b][:, 0]
        assert row["difference"] == pytest.approx(difference.mean()) and row["low"] < row["difference"] < row["high"]
        assert row["differ"] == ({a, b} != {"a", "d"}) == (row["p_holm"] <= 0.05)
    assert pairs.loc[("is", "a", "b"), "p"] < 1e-9 and pairs.loc[("is", "a", "b"), "p_holm"] < 1e-8
    same, apart = pairs.loc["is", "a", "d"], columns["a"][:, 0] - columns["d"][:, 0]
    error = Sample(STRATA.codes).error(apart)
    assert same["low"] < 0 < same["high"] and same["p"] == pytest.approx(2 * scipy.stats.t.sf(abs(apart.mean()) / error, N - 3))
    assert len(pair_rows({}, {}, STRATA, {}, **OPTIONS)) == 0


@pytest.mark.parametrize("classes", [0, 20])
def test_equal_ratios_at_levels_that_differ_fivefold_are_told_apart_in_3_to_7_percent_of_400_trials(classes):
    """Every column has noise and, where classes are a sample, class effects of its own; only the ratios of its mean are shared."""
    n, p = 160, {criterion: [] for criterion in CRITERIA}
    codes = np.arange(n) % (classes or 8)
    for trial in range(400):
        generator = np.random.default_rng([9, trial])

        def model(level, generator=generator):
            own = np.exp(0.3 * generator.standard_normal((codes.max() + 1, 6)) - 0.045)[codes] if classes else 1.0
            return level * np.array([10, 1, 15, 1.5, 5, 0.5]) * generator.gamma(4.0, 0.25, (n, 6)) * own

        drawn = {"a": model(5.0), "b": model(1.0), "c": model(1.0)}
        pairs = pair_rows(drawn, nothing(drawn), Sample(codes, bool(classes)), best(drawn), **OPTIONS | {"resamples": 2})
        for row in pairs.to_dict("records"):
            if (row["model_a"], row["model_b"]) == (("a", "b") if row["criterion"] in RATIOS else ("b", "c")):
                p[row["criterion"]].append(row["p"])
    levels = {criterion: np.mean(np.array(each) <= 0.05) for criterion, each in p.items()}
    assert all(len(each) == 400 for each in p.values()) and all(0.025 <= level <= 0.075 for level in levels.values()), levels
    assert 0.035 <= np.mean(list(levels.values())) <= 0.065


def test_a_real_difference_of_ratios_is_found_at_levels_that_differ_fivefold():
    generator = np.random.default_rng(0)
    noise = generator.gamma(9.0, 1 / 9, (2, N, 6))
    drawn = {"a": noise[0] * [50, 5, 50, 5, 50, 5], "b": noise[1] * [14, 1, 14, 1, 14, 1]}
    pairs = pair_rows(drawn, nothing(drawn), STRATA, best(drawn), **OPTIONS)
    assert pairs.set_index("criterion").at["is_per_as", "p"] < 1e-3


def test_excess_intervals_hold_the_spread_over_images_and_that_over_subspaces():
    generator = np.random.default_rng(0)
    null, random, row = generator.gamma(9.0, size=(3, N))
    table = controls({("null", 9): (null, null / 9), ("random", 9): (random, random / 9), ("row", 9): (row, row / 9)})
    report = [
        {"subspace": "null", "dimension": 9, "draws": 1, "stable": True, "is_deg_spread": 0.0, "as_abs_deg_spread": 0.0},
        {"subspace": "random", "dimension": 9, "draws": 5, "stable": False, "is_deg_spread": 2.0, "as_abs_deg_spread": 0.0},
        {"subspace": "row", "dimension": 9, "draws": 1, "stable": True, "is_deg_spread": 0.0, "as_abs_deg_spread": 0.0},
    ]
    (found,) = excess_rows(table, report, 9, STRATA, **OPTIONS | {"resamples": 8000})
    assert (found["dimension"], found["own"], found["n"], found["random_draws"], found["random_stable"]) == (9, True, N, 5, False)
    for other, values, error in (("random", random, 2.0 * np.sqrt(1.2)), ("row", row, 0.0)):
        difference = null - values
        images = np.sqrt(np.mean([difference[s == STRATA.codes].var(ddof=1) for s in range(3)]) / N)
        freedom = (images**2 + error**2) ** 2 / (images**4 / (N - 3) + error**4 / 4)
        middle, reach = found[f"is_deg_excess_{other}"], scipy.stats.t.ppf(0.975, freedom) * np.hypot(images, error)
        assert middle == pytest.approx(difference.mean())
        assert found[f"is_deg_excess_{other}_high"] - middle == pytest.approx(reach, rel=0.1)
        assert found[f"as_abs_deg_excess_{other}"] == pytest.approx(difference.mean() / 9)


@pytest.mark.parametrize(("draws", "classes"), [(5, 0.0), (10, 1.5)])
def test_the_excess_of_a_null_space_like_any_other_subspace_covers_0_in_93_to_97_percent_of_500_trials(draws, classes):
    n, missed, case = 120, 0, {"subspace": "random", "dimension": 9, "draws": draws, "stable": True}
    codes = np.arange(n) % 20
    for trial in range(500):
        generator = np.random.default_rng([4, trial])
        image, own = generator.gamma(9.0, 1 / 9, n), 10 + 0.4 * generator.standard_normal(draws + 1)
        effect = classes * generator.standard_normal((2, 20))[:, codes]
        null = own[0] * image + generator.normal(0, 2, n) + effect[0]
        each = own[1:, None] * image + generator.normal(0, 1, (draws, n))
        scores = {("null", 9): null, ("random", 9): each.mean(axis=0) + effect[1]}
        table = pd.concat(
            pd.DataFrame({"image_id": np.arange(n), "subspace": s, "dimension": d, "is_deg": v, "as_deg": v, "as_abs_deg": v})
            for (s, d), v in scores.items()
        )
        spread = each.mean(axis=1).std(ddof=1)
        report = [case | {"is_deg_spread": spread, "as_abs_deg_spread": spread}]
        (found,) = excess_rows(table, report, 9, Sample(codes, bool(classes)), **OPTIONS | {"seed": trial, "resamples": 200})
        missed += not found["is_deg_excess_random_low"] <= 0 <= found["is_deg_excess_random_high"]
    assert 0.03 <= missed / 500 <= 0.07


def test_intervals_hold_what_images_add_through_the_fits():
    generator = np.random.default_rng(0)
    null, random, through = generator.gamma(9.0, size=(3, N))
    through -= through.mean()
    table = controls({("null", 9): (null, null), ("random", 9): (random, random), ("null", 4): (null / 2, null / 2)})
    names = ranked_columns(9, 4)
    assert names == ["is_deg", "as_abs_deg", "control_is_deg", "control_as_abs_deg", "part_4_is_deg", "part_4_as_abs_deg"]
    assert ranked_columns(9, 9)[4:] == ["is_deg", "as_abs_deg"]
    known = {"reference": False, "image_id": np.arange(N)[::-1], "label": "a"}
    refits = pd.DataFrame(known | {name: (position + 1) * through[::-1] for position, name in enumerate(names)})
    added = criterion_refits(refits, pd.Series(np.arange(N)), 9, 4, STRATA)
    np.testing.assert_array_equal(added, np.outer(through, [1, 2, 3, 4, 5, 6]))
    assert (criterion_refits(None, pd.Series(np.arange(N)), 9, 4, STRATA) == 0).all()
    cases = [
        {"subspace": s, "dimension": 9, "draws": 1, "stable": True, "is_deg_spread": 0, "as_abs_deg_spread": 0} for s in ("null", "random")
    ]
    beside, reversed_ = replace(STRATA, reference=Sample(np.zeros(N, dtype=int))), through[::-1]
    below = criterion_refits(refits.assign(reference=True), pd.Series(np.arange(N)), 9, 4, beside)
    np.testing.assert_array_equal(below, np.vstack([np.zeros((N, 6)), np.outer(reversed_, [1, 2, 3, 4, 5, 6])]))
    assert criterion_refits(None, pd.Series(np.arange(N)), 9, 4, beside).shape == (2 * N, 6)
    halved = refits.assign(**{f"{name}_{part}": refits[name] * times for name in names for times, part in enumerate(PARTS)})
    parts = criterion_parts(halved.assign(reference=True), pd.Series(np.arange(N)), 9, 4, beside)
    assert parts.dtype == np.float32 and criterion_parts(None, pd.Series(np.arange(N)), 9, 4, beside).shape == parts.shape
    np.testing.assert_allclose(parts, below * np.arange(4)[:, None, None], rtol=1e-6)
    for sample, given, own, other in (
        (STRATA, refits, null + through, null - random + (1 - 3) * through),
        (beside, refits.assign(reference=True), np.append(null, reversed_), np.append(null - random, (1 - 3) * reversed_)),
    ):
        (found,) = excess_rows(table, cases, 9, sample, given, **OPTIONS | {"resamples": 4000})
        for column, values in (("is_deg_null", own), ("is_deg_excess_random", other)):
            reach = scipy.stats.t.ppf(0.975, N - 3) * sample.error(values)
            assert (found[f"{column}_high"] - found[f"{column}_low"]) / 2 == pytest.approx(reach, rel=0.1)


@pytest.mark.parametrize(
    ("shared", "answered", "factor"), [(1.0, 0.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.125, np.sqrt(0.875)), (1.0, 9.0, np.sqrt(0.5))]
)
def test_a_pair_counts_once_what_its_difference_gets_through_the_fits(columns, shared, answered, factor):
    """Both models share noise of the images that are scored, and what training images do together: neither is in the difference."""
    generator = np.random.default_rng(1)
    common, own = 40 * generator.standard_normal((2, 2, N, 6))
    own[1] = shared * own[0] + (1 - shared) * _orthogonal(own[0], generator)
    alone = {model: columns[model] for model in "ad"}
    answers = np.sqrt(answered) * own
    fits = {"a": np.concatenate([common + own, common + answers]), "d": np.concatenate([common, common])}
    row = pair_rows(alone, fits, STRATA, best(alone), **OPTIONS | {"resamples": 4000}).set_index("criterion").loc["is"]
    values = alone["a"][:, 0] - alone["d"][:, 0] + factor * own.sum(axis=0)[:, 0]
    error = STRATA.error(values)
    assert row["p"] == pytest.approx(2 * scipy.stats.t.sf(abs(row["difference"]) / error, N - 3), rel=1e-4)
    assert (row["high"] - row["low"]) / 2 == pytest.approx(scipy.stats.t.ppf(0.975, N - 3) * error, rel=0.1)


def _orthogonal(rows, generator):
    """Random rows, in every column at right angles to the given ones."""
    drawn = generator.standard_normal(rows.shape)
    return drawn - rows * np.sum(drawn * rows, axis=0) / np.sum(rows**2, axis=0)


def test_models_are_compared_on_the_same_draws_of_their_reference(columns):
    beside = replace(STRATA, reference=Sample(np.zeros(90, dtype=int)))
    added = np.random.default_rng(0).normal(0, 3.0, (90, 6))
    added -= added.mean(axis=0)
    alone = {model: columns[model] for model in "ab"}
    shared = {model: np.vstack([each, added]) for model, each in alone.items()}
    opposed = shared | {"b": np.vstack([columns["b"], -added])}
    found = []
    for sample, each in ((STRATA, alone), (beside, shared), (beside, opposed)):
        orders = order_rows(each, sample, best(alone), **OPTIONS).set_index("criterion")
        pairs = pair_rows(each, nothing(each), sample, best(alone), **OPTIONS).set_index("criterion")
        own = orders[orders["model"] == "a"]
        found.append([*pairs.loc["is", ["difference", "p", "low", "high"]], *(own["high"] - own["low"])])
    without, same, other = np.array(found, dtype=float)
    np.testing.assert_allclose(same[:4], without[:4])
    assert other[0] == without[0] and other[1] > without[1] and other[3] - other[2] > 1.5 * (without[3] - without[2])
    assert (same[4:] > 1.1 * without[4:]).all()


def test_orders_are_as_stable_as_all_choices_of_penalties_say():
    generator = np.random.default_rng(0)
    lambdas = {model: generator.gamma(2.0, size=(k, 6)) for model, k in zip("abc", (1, 3, 4), strict=True)}
    columns = {model: np.tile(each[0], (N, 1)) + generator.normal(0, 0.01, (N, 6)) for model, each in lambdas.items()}
    orders = order_rows(columns, STRATA, lambdas, **OPTIONS).set_index(["criterion", "model"])["stable_over_lambdas"]
    pairs = pair_rows(columns, nothing(columns), STRATA, lambdas, **OPTIONS).set_index(["criterion", "model_a", "model_b"])[
        "stable_over_lambdas"
    ]
    for criterion, (value, _) in CRITERIA.items():
        at = {model: value(each) for model, each in lambdas.items()}
        choices = list(product(*at.values()))
        for one in range(3):
            others = [other for other in range(3) if other != one]
            same = [all((each[one] > each[o]) == (choices[0][one] > choices[0][o]) for o in others) for each in choices]
            assert orders[criterion, "abc"[one]] == pytest.approx(np.mean(same))
            for o in others[: 2 - one]:
                if o > one:
                    kept = [(each[one] > each[o]) == (choices[0][one] > choices[0][o]) for each in choices]
                    assert pairs[criterion, "abc"[one], "abc"[o]] == pytest.approx(np.mean(kept))
    assert 0 < orders.min() < 1
    unknown = {model: np.full((1, 6), np.nan) for model in "abc"}
    assert order_rows(columns, STRATA, unknown, **OPTIONS)["stable_over_lambdas"].isna().all()
    assert pair_rows(columns, nothing(columns), STRATA, unknown, **OPTIONS)["stable_over_lambdas"].isna().all()


def test_a_row_space_that_is_too_small_leaves_its_columns_empty():
    table = controls({("null", 9): (1.0, 1.0), ("random", 9): (2.0, 1.0)})
    report = [
        {"subspace": s, "dimension": 9, "draws": 3, "stable": True, "is_deg_spread": 0.0, "as_abs_deg_spread": 0.0}
        for s in ("null", "random")
    ]
    (found,) = excess_rows(table, report, 9, STRATA, **OPTIONS)
    assert np.isnan(found["is_deg_row"]) and np.isnan(found["is_deg_excess_row_low"]) and found["row_draws"] == 0
    assert found["is_deg_excess_random"] == -1.0 and not found["row_stable"]


def test_orders_agree_as_scipy_says_within_a_space_and_across_spaces(columns):
    one = order_rows(columns, STRATA, best(columns), **OPTIONS).assign(space="s")
    other = one.assign(space="t", value=one["value"] * np.where(one["model"] == "c", -1, 1))
    agreement = agreement_rows(pd.concat([one, other]), 2000, seed=0)
    assert len(agreement) == 2 * (len(CRITERIA) - 1) + len(CRITERIA)
    value = one.pivot(index="model", columns="criterion", values="value")
    row = agreement[(agreement["space_a"] == "s") & (agreement["criterion_b"] == "as_abs_per_control")].iloc[0]
    assert row["n_models"] == 4 and row["criterion_a"] == "is_per_as"
    assert row["spearman"] == pytest.approx(scipy.stats.spearmanr(value["is_per_as"], -value["as_abs_per_control"]).statistic)
    assert row["kendall"] == pytest.approx(scipy.stats.kendalltau(value["is_per_as"], -value["as_abs_per_control"]).statistic)
    across = agreement[(agreement["space_a"] != agreement["space_b"]) & (agreement["criterion_a"] == "is")].iloc[0]
    flipped = value["is"] * np.where(value.index == "c", -1, 1)
    assert across["spearman"] == pytest.approx(scipy.stats.spearmanr(value["is"], flipped).statistic)
    two = agreement_rows(one[one["model"].isin(["a", "b"])], 100, seed=0)
    assert (two["n_models"] == 2).all() and two["spearman"].isna().all()


def test_the_text_names_the_models_from_best_to_worst_and_the_agreement(columns):
    orders = order_rows(columns, STRATA, best(columns), **OPTIONS).assign(space="s", marks="")
    orders.loc[orders["model"] == "b", "marks"] = "weak translator"
    text = render_orders(orders, agreement_rows(orders, 200, seed=0), {"s": 24})
    lines = {line.partition(":")[0].strip(): line.partition(": ")[2].split("  (")[0] for line in text.splitlines() if ": " in line}
    ranked, apart = lines["IS/|AS| (the paper's ratio)"].split("; not ranked: ")
    assert [each.split()[0] for each in ranked.split(" > ")] in (["c", "a", "d"], ["c", "d", "a"]) and apart.startswith("b* ")
    assert lines["|AS| over that of random subspaces, least first"].startswith("c 0.8")
    assert "IS/|AS| with 24 null directions each" in lines and "(tau " not in text
    assert "  *: weak translator\n" in text
    good = render_orders(orders.assign(marks=""), agreement_rows(orders, 200, seed=0), {"s": 24})
    assert good.count("(tau ") == 4 and "b 0.80 > c 0.8" in good and "not ranked" not in good


def test_where_every_translator_is_weak_nothing_is_ranked(columns):
    orders = order_rows(columns, STRATA, best(columns), **OPTIONS).assign(space="s", marks="weak translator")
    text = render_orders(orders, agreement_rows(orders, 200, seed=0), {"s": 24})
    assert text.startswith("Models in space s, in no order, because every translator is weak\n")
    assert " > " not in text and "(tau " not in text and "first" not in text and "IS/|AS| (the paper's ratio): a* " in text


def test_a_space_without_null_spaces_has_no_order():
    orders = order_rows({}, STRATA, {}, **OPTIONS).assign(space=pd.Series(dtype=str), marks="")
    agreement = agreement_rows(orders, 100, seed=0)
    assert len(agreement) == 0 and "no model has a null space" in render_orders(orders, agreement, {"s": None})


def test_the_order_agrees_with_the_papers_chart_as_scipy_says_from_five_common_models_on():
    ratios = pd.Series({"a": 5.0, "b": 4.0, "c": 9.0, "d": 1.0, "e": 2.0, "z": 7.0})
    ours = dict(zip("abcdef", [4.0, 6.0, 8.0, 1.0, 3.0, 99.0], strict=True))
    orders = pd.DataFrame(
        [{"space": "s", "criterion": each, "model": m, "value": v} for each in ("is_per_as", "is") for m, v in ours.items()]
    )
    (row,) = chart_rows(orders, ratios, 5000, seed=0).to_dict("records")
    mine, theirs = [ours[model] for model in "abcde"], [ratios[model] for model in "abcde"]
    assert (row["space_a"], row["criterion_a"], row["space_b"], row["n_models"]) == ("s", "is_per_as", "paper's chart", 5)
    assert row["spearman"] == pytest.approx(scipy.stats.spearmanr(mine, theirs).statistic)
    assert (row["kendall"], row["kendall_p"]) == pytest.approx(tuple(scipy.stats.kendalltau(mine, theirs)))
    every = [scipy.stats.spearmanr(mine, list(order)).statistic for order in permutations(theirs)]
    assert row["spearman_p"] == pytest.approx(np.mean(np.abs(every) >= row["spearman"] - 1e-9), abs=0.02)
    assert beside_chart(row).startswith("IS/|AS| beside the paper's chart, over 5 models: Spearman +0.90")
    assert "Spearman +0.90" in render_orders(orders.assign(place=1, marks=""), pd.DataFrame([row]), {"s": None})
    for fewer in (ratios.drop("a"), ratios[:0]):
        assert chart_rows(orders, fewer, 100, seed=0).empty
