import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from singflow.analyses.geometry import null_space
from singflow.analyses.null_validation import PERTURBATIONS, effect, perturb, summarize_validation
from singflow.analyses.statistics import wilson


def head_and_features(seed, classes=30, width=80, n=40):
    generator = np.random.default_rng(seed)
    weight = generator.standard_normal((classes, width)).astype(np.float32)
    bias, features = generator.standard_normal(classes), generator.standard_normal((n, width))
    return weight, bias.astype(np.float32), np.abs(features).astype(np.float32)


def effects_of(weight, bias, features, basis, seed=0):
    deltas = perturb(features, np.arange(len(features)), weight, bias, basis, seed)
    effects = (effect(features, delta, weight, bias) for delta in deltas)
    return dict(zip(PERTURBATIONS, effects, strict=True))


@settings(max_examples=50)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_all_three_have_the_norm_of_the_images_null_component(classes, width, seed):
    weight, bias, features = head_and_features(seed, classes, width, 5)
    basis = null_space(weight).basis
    expected = np.linalg.norm(features.astype(np.float64) @ basis @ basis.T, axis=1)
    for effects in effects_of(weight, bias, features, basis).values():
        np.testing.assert_allclose(effects["norm"], expected, rtol=1e-6)


def test_the_null_perturbation_moves_logits_by_rounding_alone_and_is_removal():
    weight, bias, features = head_and_features(0)
    basis = null_space(weight).basis
    null = perturb(features, np.arange(len(features)), weight, bias, basis, 0)[0]
    projector = np.eye(80) - np.linalg.pinv(weight.astype(np.float64)) @ weight
    np.testing.assert_allclose(null, -features @ projector, atol=1e-10)
    effects = effect(features, null, weight, bias)
    assert 0 < effects["logit_change"].max() < 1e-5
    assert effects["softmax_change"].max() < 1e-5
    assert not effects["top1_changed"].any()


def test_effects_are_those_of_the_stored_feature_computed_directly():
    weight, bias, features = head_and_features(1)
    delta = np.random.default_rng(2).standard_normal(features.shape)
    stored = (features + delta).astype(np.float32).astype(np.float64)
    before, after = features.astype(np.float64) @ weight.T + bias, stored @ weight.T + bias
    rise = np.exp(after) / np.exp(after).sum(1, keepdims=True)
    rise -= np.exp(before) / np.exp(before).sum(1, keepdims=True)
    effects = effect(features, delta, weight, bias)
    np.testing.assert_allclose(effects["logit_change"], np.linalg.norm(after - before, axis=1))
    np.testing.assert_allclose(effects["softmax_change"], np.maximum(rise, 0).sum(1))
    assert effects["top1_changed"].tolist() == (before.argmax(1) != after.argmax(1)).tolist()
    assert effects["top1_changed"].nunique() == 2


def test_the_random_perturbation_moves_logits_as_an_isotropic_one_does():
    weight, bias, features = head_and_features(3, n=4000)
    effects = effects_of(weight, bias, features, null_space(weight).basis)["random"]
    squares = (effects["logit_change"] / effects["norm"]) ** 2
    expected = np.linalg.norm(weight) ** 2 / 80
    assert abs(squares.mean() - expected) < 4 * squares.std() / np.sqrt(len(squares))
    assert squares.std() < expected / 2


def test_the_random_draw_depends_on_seed_and_image_alone():
    weight, bias, features = head_and_features(4)
    basis = null_space(weight).basis
    identifiers = np.arange(40) + 7
    whole = perturb(features, identifiers, weight, bias, basis, 5)
    order = np.random.default_rng(0).permutation(40)
    for rows in (order[:3], order[3:]):
        part = perturb(features[rows], identifiers[rows], weight, bias, basis, 5)
        np.testing.assert_allclose(part, whole[:, rows], rtol=1e-9, atol=1e-12)
    assert not np.allclose(perturb(features, identifiers, weight, bias, basis, 6)[1], whole[1])
    first, second = whole[1, :2] / np.linalg.norm(whole[1, :2], axis=1, keepdims=True)
    assert not np.allclose(first, second)


def test_the_principal_perturbation_lowers_the_predicted_logit_most_of_all_of_its_norm():
    weight, bias, features = head_and_features(5)
    basis = null_space(weight).basis
    deltas = perturb(features, np.arange(40), weight, bias, basis, 0)
    predicted = (features @ weight.T + bias).argmax(1)
    null, random, fall = (np.vecdot(weight[predicted], delta) for delta in deltas)
    largest = np.linalg.norm(weight[predicted], axis=1) * np.linalg.norm(deltas[0], axis=1)
    np.testing.assert_allclose(fall, -largest, rtol=1e-6)
    assert (fall < random).all() and (fall < null).all()
    weight[3], bias[3] = 0, 1000  # the row of the predicted class gives no direction
    effects = effects_of(weight, bias, features, null_space(weight).basis)["principal"]
    assert not effects.to_numpy(dtype=float).any()


def test_the_summary_is_the_moments_and_wilsons_interval():
    drawn = np.random.default_rng(0).uniform(1, 2, (150, 3))
    effects = pd.DataFrame(drawn, columns=["norm", "logit_change", "softmax_change"])
    changed, kinds = drawn[:, 0] < 1.2, np.tile(PERTURBATIONS, 50)
    effects = effects.assign(perturbation=kinds, top1_changed=changed)
    table = summarize_validation(effects, 0.9)
    assert table["perturbation"].tolist() == PERTURBATIONS
    row, mine = table.iloc[1], effects[effects["perturbation"] == "random"]
    low, high = wilson(int(mine["top1_changed"].sum()), 50, 0.9)
    means = mine.drop(columns=["perturbation", "top1_changed"]).mean().add_suffix("_mean")
    expected = {"n": 50, "top1_changed_share": mine["top1_changed"].mean(), **means}
    expected |= {"logit_change_median": np.median(mine["logit_change"])}
    expected |= {"logit_change_max": mine["logit_change"].max()}
    expected |= {"top1_changed_low": low, "top1_changed_high": high}
    assert row.drop("perturbation").to_dict() == pytest.approx(expected)
