"""The floor: against a slow, plain implementation, and on planted null components with and without content."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from singflow.analyses import floor
from singflow.analyses.metrics import angle_deg
from singflow.analyses.unique_information import unique_information
from singflow.translators.crossfit import WHOLE, GroupSums, cross_validate, cross_validate_alike, split

LAMBDAS = [10.0**exponent for exponent in np.arange(-3, 3.1, 0.5)]


def manifest_of(n, folds, seed, given=0):
    """n images in folds; the last `given` are held out by the data itself."""
    fold = np.random.default_rng(seed).permutation(n) % folds
    held_out = np.arange(n) >= n - given
    fold[held_out] = 1
    return pd.DataFrame({"split": np.where(held_out | (fold == 0), "validation", "train"), "fold": fold})


class Planted:
    """Images with views, features (a, b) and embeddings, and all that a floor is measured with."""

    def __init__(
        self, seed, *, n=60, rank=7, null_dim=5, dim=4, views=2, folds=3, given=0, cross=None, offset=0.0, scale=1.0, lambdas=(0.3, 0.1)
    ):
        generator = np.random.default_rng(seed)
        self.rank, self.views, self.lambdas = rank, views, lambdas
        self.manifest = manifest_of(n, folds, seed, given)
        self.a = generator.standard_normal((n * views, rank)) + offset
        self.b = 0.5 * self.a @ generator.standard_normal((rank, null_dim)) + generator.standard_normal((n * views, null_dim))
        self.z = self.a @ generator.standard_normal((rank, dim)) + 0.3 * generator.standard_normal((n * views, dim)) + offset
        self.image, self.view = np.repeat(np.arange(n), views), np.tile(np.arange(views), n)
        self.split = split(self.manifest, folds if cross is None else cross)
        self.sums = GroupSums(self.split)
        self.sums.update(np.hstack([self.a, self.b]), self.z, self.image, self.view)
        self.texts, self.codes = generator.standard_normal((3, dim)), np.arange(n) % 3
        self.fitted = floor.Fitted(self.sums, rank, lambdas, self.split.place, scale)
        self.rows = rows_of(self.fitted, self.sums, self.a, self.b, self.z, self.split.groups, views)


def rows_of(fitted, sums, a, b, z, groups, views):
    """Rows in float32, split by the fits, as measure_floor has them."""
    origin = sums.origin[0][: a.shape[1]], sums.origin[1]
    known, hidden = (np.asarray(each, np.float32) for each in (np.hstack([a - origin[0], z - origin[1]]), b.copy()))
    predicted, rotated = (np.empty((len(groups), each.shape[1]), np.float32) for each in (b, a))
    rows = floor.Rows(known, hidden, predicted, rotated, origin, groups, views)
    fitted.leave_residuals(rows)
    return rows


def anew(fitted, rows, order):
    return fitted.exchange(rows).fit(rows, order)


def slow(planted, order, scale):
    """Scores by scikit-learn on rows that are made anew: IS, AS, conditional IS and AS, squared error."""
    own, groups, views = planted.split, planted.split.groups, planted.views
    row_order = (order[:, None] * views + np.arange(views)).ravel()

    def ridge(x, y, rows, penalty):
        scale = np.mean(np.sum((x[rows] - x[rows].mean(axis=0)) ** 2, axis=1))
        return Ridge(alpha=penalty * scale).fit(x[rows], y[rows])

    def fits(x, y, penalty):
        rows = [np.isin(groups, made)[planted.image] for made, _ in own.fits] if own.crossed else []
        return [ridge(x, y, mine, penalty) for mine in [*rows, np.isin(groups, own.whole)[planted.image]]]

    def place_of(image):
        return groups[image] if own.crossed else WHOLE

    def by_place(models, x):
        return np.stack([models[place_of(i)].predict(row[None])[0] for i, row in zip(planted.image, x, strict=True)])

    predicted = by_place(fits(planted.a, planted.b, planted.lambdas[1]), planted.a)
    moved = predicted + scale * (planted.b - predicted)[row_order]
    x = np.hstack([planted.a, moved])
    translators = fits(x, planted.z, planted.lambdas[0])
    original = by_place(translators, x)[::views]
    share = np.stack([translators[place_of(i)].coef_[:, planted.rank :] @ b for i, b in enumerate(moved[::views])])
    again = by_place(fits(planted.a, moved, planted.lambdas[1]), planted.a)[::views]
    surprise = np.stack([translators[place_of(i)].coef_[:, planted.rank :] @ b for i, b in enumerate(moved[::views] - again)])
    texts = planted.texts[planted.codes]
    before = angle_deg(original, texts)
    return {
        "is_deg": angle_deg(original, original - share),
        "as_deg": before - angle_deg(original - share, texts),
        "conditional_is_deg": angle_deg(original, original - surprise),
        "conditional_as_deg": before - angle_deg(original - surprise, texts),
        "squared_error": np.sum((original - planted.z[::views]) ** 2, axis=1),
    }


@settings(max_examples=15)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([{}, {"views": 1}, {"given": 9}, {"cross": 0}, {"offset": 1e3}, {"folds": 2, "views": 3}, {"scale": 0.7}]),
)
def test_a_permutation_scores_as_rows_that_are_made_anew_and_fitted_by_scikit_learn(seed, setting):
    planted = Planted(seed, **setting)
    order = planted.rows.permute(np.random.default_rng(seed))
    for chosen, scale in ((order, setting.get("scale", 1.0)), (np.arange(len(order)), 1.0)):
        fits = anew(planted.fitted, planted.rows, order) if chosen is order else planted.fitted.fit()
        scored = floor.score(fits, planted.split.place, planted.rows, planted.texts, planted.codes, chosen, scale)
        expected = slow(planted, chosen, scale)
        digits = 100 if "offset" in setting else 1  # features and embeddings are float32
        for name in floor.SCORES:
            np.testing.assert_allclose(scored.scores[name], expected[name], atol=2e-4 * digits, err_msg=name)
        np.testing.assert_allclose(scored.squared_error, expected["squared_error"], rtol=1e-4 * digits, atol=1e-5 * digits)


@settings(max_examples=5)
@given(st.integers(0, 2**32 - 1))
def test_images_beside_a_reference_are_scored_by_its_translators_as_by_scikit_learn(seed):
    reference = Planted(seed, views=2)
    generator, n, rank = np.random.default_rng(seed), 11, reference.rank
    a, b, z = (generator.standard_normal((n, each.shape[1])) for each in (reference.a, reference.b, reference.z))
    fitted = floor.Fitted(reference.sums, rank, reference.lambdas, np.full(n, WHOLE), 0.9)
    own = rows_of(fitted, reference.sums, a, b, z, np.full(n, WHOLE), 1)
    order, refitted = own.permute(generator), reference.rows.permute(generator)
    scored = floor.score(anew(fitted, reference.rows, refitted), np.full(n, WHOLE), own, reference.texts, np.arange(n) % 3, order, 0.9)

    def ridge(x, y, penalty):
        return Ridge(alpha=penalty * np.mean(np.sum((x - x.mean(axis=0)) ** 2, axis=1))).fit(x, y)

    trained = np.isin(reference.split.groups, reference.split.whole)[reference.image]
    row_order = (refitted[:, None] * 2 + np.arange(2)).ravel()
    of_group = [
        ridge(reference.a[rows], reference.b[rows], 0.1)
        for rows in (np.isin(reference.split.groups, made)[reference.image] for made, _ in reference.split.fits)
    ]
    crossed = np.stack(
        [of_group[reference.split.groups[i]].predict(row[None])[0] for i, row in zip(reference.image, reference.a, strict=True)]
    )
    moved = crossed + 0.9 * (reference.b - crossed)[row_order]
    translator = ridge(np.hstack([reference.a, moved])[trained], reference.z[trained], 0.3)
    predictor = ridge(reference.a[trained], moved[trained], 0.1)
    hidden = ridge(reference.a[trained], reference.b[trained], 0.1).predict(a)
    mine = hidden + 0.9 * (b - hidden)[order]
    original, weight = translator.predict(np.hstack([a, mine])), translator.coef_[:, rank:]
    np.testing.assert_allclose(scored.scores["is_deg"], angle_deg(original, original - mine @ weight.T), atol=2e-4)
    surprise = (mine - predictor.predict(a)) @ weight.T
    np.testing.assert_allclose(scored.scores["conditional_is_deg"], angle_deg(original, original - surprise), atol=2e-4)


def test_residuals_stay_in_their_group_and_every_image_gets_those_of_one():
    planted = Planted(0, given=9)
    order = planted.rows.permute(np.random.default_rng(1))
    groups = planted.rows.groups
    assert sorted(order) == list(range(len(order))) and (groups[order] == groups).all() and (order != np.arange(len(order))).mean() > 0.7


def test_fits_with_residuals_that_stay_where_they_are_are_the_fits_they_were():
    planted = Planted(3, offset=50.0)
    before, after = (dict(fits) for fits in (planted.fitted.fit(), anew(planted.fitted, planted.rows, np.arange(len(planted.rows.groups)))))
    for place, first in before.items():
        second = after[place]
        for name in ("visible", "predicted"):
            np.testing.assert_allclose(getattr(second, name).weight, getattr(first, name).weight, atol=1e-4)
        np.testing.assert_allclose(second.hidden, first.hidden, atol=1e-4)


def test_the_number_of_threads_changes_no_byte():
    planted = Planted(1, n=240)
    place, texts, sums = planted.split.place, planted.texts, planted.sums

    def run(threads):
        lambdas, scale, paths = floor.choose_penalties(sums, planted.rank, LAMBDAS, None, threads)
        facts = unique_information(sums, planted.rank, (lambdas["translator"], lambdas["principal"]), 0.95, threads)
        fitted = floor.Fitted(sums, planted.rank, (lambdas["translator"], lambdas["predictor"]), place, scale, threads, paths)
        rows = rows_of(fitted, sums, planted.a, planted.b, planted.z, planted.split.groups, planted.views)
        real, exchange = floor.score(fitted.fit(), place, rows, texts, planted.codes), fitted.exchange(rows)
        given = {"permutations": 9, "seed": 0, "threads": threads}
        return lambdas, scale, facts, floor.measure(real, exchange, rows, rows, place, texts, planted.codes, **given)

    (*chosen, one), (*anew, four) = run(1), run(4)
    assert chosen == anew
    pd.testing.assert_frame_equal(one.table, four.table, check_exact=True)
    for name in ("images", "labels"):
        for score, values in getattr(one, name).items():
            np.testing.assert_array_equal(getattr(four, name)[score], values)


def test_scores_do_not_depend_on_how_many_rows_are_looked_at_at_once(monkeypatch):
    planted = Planted(2, n=90)

    def scored():
        found = floor.score(planted.fitted.fit(), planted.split.place, planted.rows, planted.texts, planted.codes)
        return np.stack([*found.scores.values(), found.squared_error, found.baseline])

    whole = scored()
    for rows in (7, 40):  # fewer than a fold's images, and more
        monkeypatch.setattr(floor, "ROWS", rows)
        np.testing.assert_allclose(scored(), whole, rtol=1e-4, atol=1e-4)


def test_label_texts_are_looked_up_for_a_block_of_images_at_once(monkeypatch):
    planted, asked = Planted(2, n=90), []

    class Texts(np.ndarray):
        def __getitem__(self, rows):
            asked.append(np.size(rows))
            return np.asarray(super().__getitem__(rows))

    monkeypatch.setattr(floor, "ROWS", 7)
    floor.score(planted.fitted.fit(), planted.split.place, planted.rows, planted.texts.view(Texts), planted.codes)
    assert sum(asked) >= 90 and max(asked) < 30


def test_tables_and_p_values_are_those_of_the_permutations():
    real, permuted = {"is_mean_deg": 3.0, "as_abs_mean_deg": 1.0, "conditional_is_mean_deg": 2.0}, [4.0, 0.0, 0.5]
    table = pd.DataFrame([real, *(dict.fromkeys(real, value) for value in permuted)])
    images = {name: np.full(4, place) for place, name in enumerate(floor.SCORES)}
    labels = {"is_deg": np.array([[6.0, 2.0], [3.0, 1.0], [3.0, 2.0], [6.0, 3.0]])}
    floors = floor.Floors(table, {name: -values for name, values in images.items()}, images, labels)
    facts = {"permutations": 3, "p_is": 0.5, "p_as_abs": 0.5, "p_conditional_is": 0.5, "conditional_excess_deg": 0.5}
    assert floors.facts(judged=True) == facts
    assert floors.facts(judged=False) == facts | dict.fromkeys(["p_is", "p_as_abs", "p_conditional_is"])
    by_image = floors.of_images(np.arange(4)).iloc[3].to_dict()
    assert by_image == {"image_id": 3, "conditional_is_deg": -2, "conditional_as_deg": -3} | {f"floor_{n}": v[0] for n, v in images.items()}
    by_label = floors.of_labels(["a", "b"], np.array([3, 1]), judged=True)
    assert by_label[["label", "n", "is_deg", "floor_is_deg"]].to_numpy().tolist() == [["a", 3, 2.0, 4 / 3], ["b", 1, 2.0, 2.0]]
    assert by_label["p_is_deg"].tolist() == floor.label_p_values(labels["is_deg"]).tolist()
    assert floors.of_labels(["a", "b"], np.array([3, 1]), judged=False)["p_is_deg"].isna().all()


def trial(seed, images_per_dimension, content, *, predictable, width=24, null_dim=10, dim=8, permutations=20, beside=0):
    """Floors of planted images, of which the null component holds `content` of the principal one's meaning.

    beside: images that are scored in their place, with them as the reference.
    """
    generator, fitted, rank = np.random.default_rng(seed), int(images_per_dimension * width), width - null_dim
    n = fitted + beside
    a = generator.standard_normal((n, rank)) * np.arange(1, rank + 1) ** -0.5
    own = generator.standard_normal((n, null_dim)) * np.arange(1, null_dim + 1) ** -0.5 * 0.7
    b = 0.4 * own + 0.6 * a @ generator.standard_normal((rank, null_dim)) / np.sqrt(rank) if predictable else own
    seen, hidden = a @ generator.standard_normal((rank, dim)), own @ generator.standard_normal((null_dim, dim))
    size = np.sqrt(np.mean(np.sum(seen**2, axis=1)))
    hidden *= content * size / np.sqrt(np.mean(np.sum(hidden**2, axis=1)))
    bias = generator.standard_normal(dim)
    z = seen + hidden + 1.2 * size * bias / np.linalg.norm(bias) + 0.7 * size * generator.standard_normal((n, dim)) / np.sqrt(dim)
    (a, other_a), (b, other_b), (z, other_z) = (np.split(each, [fitted]) for each in (a, b, z))
    sums = GroupSums(split(manifest_of(fitted, 5, seed), 5))
    image = np.arange(fitted)
    sums.update(np.hstack([a, b]), z, image, np.zeros(fitted, dtype=int))
    alone, between = sums.regress(slice(0, rank)), sums.regress(slice(0, rank), slice(rank, None))
    paths = [alone.of(groups).decompose() for groups, _ in sums.split.fits]
    whole, (seen_alone, predictor) = cross_validate(sums, LAMBDAS), cross_validate_alike([alone, between], LAMBDAS, paths=paths)
    penalty, scale = floor.predictor_penalty(between, LAMBDAS[predictor.best])
    place = np.full(beside, WHOLE) if beside else sums.split.place
    fitted = floor.Fitted(sums, rank, (LAMBDAS[whole.best], penalty), place, scale, paths=paths)
    rows = scored = rows_of(fitted, sums, a, b, z, sums.split.groups, 1)
    if beside:
        scored = rows_of(fitted, sums, other_a, other_b, other_z, np.full(beside, WHOLE), 1)
    texts = generator.standard_normal((4, dim))
    codes = np.arange(len(scored.groups)) % 4
    real = floor.score(fitted.fit(), place, scored, texts, codes)
    floors = floor.measure(real, fitted.exchange(rows), rows, scored, place, texts, codes, permutations=permutations, seed=seed)
    real, permuted = floors.table.iloc[0], floors.table.iloc[1:]
    facts = {"delta_r2": whole.r2[whole.best] - seen_alone.r2[seen_alone.best], "as_mean_deg": real["as_mean_deg"]}
    for score in ("is_mean_deg", "conditional_is_mean_deg", "as_abs_mean_deg"):
        facts |= {score: real[score], f"floor_{score}": permuted[score].mean(), f"p_{score}": floor.p_value(real[score], permuted[score])}
    return facts | {"labels": np.mean(floor.label_p_values(floors.labels["is_deg"]) < 0.05)}


def trials(count, *given, **named):
    return pd.DataFrame([trial(seed, *given, **named) for seed in range(count)])


@pytest.mark.parametrize("predictable", [False, True])
def test_without_content_scores_are_at_their_floor_and_p_values_keep_their_level(predictable):
    found = trials(400, 4, 0.0, predictable=predictable)
    for score in ("is_mean_deg", "conditional_is_mean_deg", "as_abs_mean_deg"):
        real, at = found[score].mean(), found[f"floor_{score}"].mean()
        assert abs(real - at) <= max(0.05 * real, 0.3), score
        assert np.mean(found[f"p_{score}"] < 0.05) <= 0.07, score
    assert np.mean(found["p_is_mean_deg"] < 0.05) >= 0.03 and 0.03 <= found["labels"].mean() <= 0.07
    assert found["delta_r2"].mean() <= 0
    assert abs(found["as_mean_deg"].mean()) <= 2 * found["as_mean_deg"].std() / np.sqrt(len(found))


@pytest.mark.parametrize("predictable", [False, True])
def test_few_images_beside_a_reference_keep_the_level_without_content_and_show_it(predictable):
    found = trials(400, 4, 0.0, predictable=predictable, beside=20)
    for score in ("is_mean_deg", "conditional_is_mean_deg"):
        assert 0.03 <= np.mean(found[f"p_{score}"] < 0.05) <= 0.07, score
        assert abs(found[score].mean() - found[f"floor_{score}"].mean()) <= max(0.05 * found[score].mean(), 0.3), score
    assert 0.03 <= found["labels"].mean() <= 0.07
    found = trials(30, 4, 0.3, predictable=predictable, width=48, null_dim=20, dim=16, beside=20)
    assert np.mean(found["p_conditional_is_mean_deg"] < 0.05) >= 0.9


@pytest.mark.parametrize("predictable", [False, True])
def test_with_few_images_a_dimension_the_floor_is_rather_too_high(predictable):
    found = trials(100, 1.2, 0.0, predictable=predictable)
    assert max(np.mean(found[f"p_{score}"] < 0.05) for score in ("is_mean_deg", "conditional_is_mean_deg")) <= 0.07


@pytest.mark.parametrize("predictable", [False, True])
def test_content_is_found_and_what_it_adds_grows_with_it(predictable):
    found = trials(60, 4, 0.3, predictable=predictable, width=48, null_dim=20, dim=16)
    for score in ("is_mean_deg", "conditional_is_mean_deg"):
        assert np.mean(found[f"p_{score}"] < 0.05) >= 0.9, score
    added = [trials(12, 4, content, predictable=predictable, permutations=3)["delta_r2"].mean() for content in (0, 0.3, 0.6, 0.9)]
    assert added[0] <= 0 and (np.diff(added) > 0.01).all()


def test_a_null_component_that_knows_no_label_leaves_the_cross_fitted_as_at_zero_and_not_the_one_in_sample():
    crossed, in_sample = [], []
    for seed in range(40):
        generator, n, rank, null_dim, dim = np.random.default_rng(seed), 80, 8, 12, 6
        a, b = generator.standard_normal((n, rank)), generator.standard_normal((n, null_dim))
        texts, codes = np.concatenate([np.eye(2, dim), -np.eye(2, dim)]), np.arange(n) % 4
        z = texts[codes] + 0.5 * a @ generator.standard_normal((rank, dim)) + generator.standard_normal((n, dim))
        for folds, found in ((5, crossed), (0, in_sample)):
            sums = GroupSums(split(manifest_of(n, 5, seed), folds))
            sums.update(np.hstack([a, b]), z, np.arange(n), np.zeros(n, dtype=int))
            fitted = floor.Fitted(sums, rank, (0.01, 1.0), sums.split.place)
            rows = rows_of(fitted, sums, a, b, z, sums.split.groups, 1)
            scored = floor.score(fitted.fit(), sums.split.place, rows, texts, codes)
            train = sums.split.groups == 0 if not folds else np.ones(n, dtype=bool)
            found.append(scored.scores["as_deg"][train].mean())
    for found, is_zero in ((crossed, True), (in_sample, False)):
        assert (abs(np.mean(found)) <= 2 * np.std(found, ddof=1) / np.sqrt(len(found))) == is_zero


def test_a_label_that_leaks_is_found_among_many_that_do_not():
    generator = np.random.default_rng(0)
    scale = generator.uniform(1, 5, 30)
    sums = scale * (10 + generator.standard_normal((21, 30)))
    assert np.mean(floor.label_p_values(sums) < 0.05) <= 0.1
    sums[0, 7] += 6 * scale[7]
    p = floor.label_p_values(sums)
    assert p[7] == p.min() == pytest.approx(1 / (1 + 20 * 30)) and floor.label_p_values(np.zeros((5, 3))).tolist() == [1, 1, 1]


def test_a_p_value_counts_the_real_score_among_the_permutations():
    assert floor.p_value(2.0, np.array([1.0, 2.0, 3.0, 0.0])) == 3 / 5 and floor.p_value(9.0, np.zeros(19)) == 1 / 20
