import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from singflow.analyses import steering
from singflow.analyses.geometry import null_space
from singflow.analyses.metrics import angle_deg
from singflow.analyses.steering import cosine_gradient, null_directions, steer, steering_scores
from singflow.translators.ridge import Affine
from tests.refusals import refused
from tests.results import BASIS, Results


def planted(seed, classes=6, width=20, dim=9, n=12):
    """A head, its null basis, a translator, features and a unit text."""
    generator = np.random.default_rng(seed)
    weight = generator.standard_normal((classes, width)).astype(np.float32)
    translator = Affine(generator.standard_normal((dim, width)), generator.standard_normal(dim))
    features = np.abs(generator.standard_normal((n, width))).astype(np.float32)
    text = generator.standard_normal(dim)
    return weight, null_space(weight).basis, translator, features, text / np.linalg.norm(text)


def directions_of(basis, translator, features, text):
    return null_directions(features, translator, basis, translator.weight @ basis, text)


def scores_of(weight, basis, translator, features, text, target):
    directions, texts = directions_of(basis, translator, features, text), [text] * len(features)
    return steering_scores(features, weight, translator, directions, text, np.array(texts), target)


SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=60)
@given(st.integers(1, 5), st.integers(2, 16), st.integers(2, 12), st.floats(1e-3, 1e3), SEEDS)
def test_the_gradient_is_autograds(n, width, dim, length, seed):
    draw = np.random.default_rng(seed).standard_normal
    features, weight = draw((n, width)), draw((dim, width))
    bias, text = draw(dim), length * draw(dim)
    f = torch.tensor(features, requires_grad=True)
    e = f @ torch.tensor(weight).T + torch.tensor(bias)
    cosine = torch.nn.functional.cosine_similarity
    cosine(e, torch.tensor(text)[None], dim=1, eps=1e-300).sum().backward()
    gradient = cosine_gradient(Affine(weight, bias)(features), text, weight)
    digits = 1e-8 * max(1, np.abs(f.grad.numpy()).max())
    np.testing.assert_allclose(gradient, f.grad, atol=digits, rtol=0)


@settings(max_examples=60)
@given(st.integers(1, 8), st.integers(9, 20), st.integers(2, 12), SEEDS)
def test_the_direction_is_the_projected_gradient_at_unit_length(classes, width, dim, seed):
    weight, basis, translator, features, text = planted(seed, classes, width, dim)
    directions = directions_of(basis, translator, features, text)
    wide = features.astype(np.float64)
    projected = cosine_gradient(translator(wide), text, translator.weight) @ (basis @ basis.T)
    projected /= np.linalg.norm(projected, axis=1, keepdims=True)
    np.testing.assert_allclose(directions.vectors, projected, atol=1e-8)
    np.testing.assert_allclose(directions.vectors @ weight.T, 0, atol=1e-10)
    moved = directions.vectors @ translator.weight.T
    np.testing.assert_allclose(directions.translated, moved, atol=1e-10)


@settings(max_examples=100)
@given(SEEDS, st.floats(0.01, 179))
def test_a_reachable_is_is_reached_by_the_stored_feature_and_no_other_is_marked_so(seed, target):
    weight, basis, translator, features, text = planted(seed)
    scores = scores_of(weight, basis, translator, features, text, target)
    directions = directions_of(basis, translator, features, text)
    assert scores["reachable"].tolist() == (directions.limit_deg() > target).tolist()
    reached = scores["reachable"].to_numpy()
    assert (scores["step"][reached] > 0).all()
    numbers = ["step", "is_deg", "as_target_deg", "as_label_deg", "logit_change"]
    assert (scores[numbers].notna().to_numpy() == reached[:, None]).all()
    steps, plain = scores["step"].to_numpy()[reached], features[reached]
    moved = steer(plain, directions.vectors[reached], steps)
    assert moved.dtype == np.float32
    angle = angle_deg(*(translator(rows.astype(np.float64)) for rows in (plain, moved)))
    np.testing.assert_allclose(angle, target, atol=1e-3)
    np.testing.assert_allclose(scores.loc[reached, "is_deg"], angle, atol=1e-9)


def test_the_limit_is_what_a_search_over_steps_finds():
    weight, basis, translator, features, text = planted(1)
    features = features.astype(np.float64)
    directions = directions_of(basis, translator, features, text)
    steps, limit = np.geomspace(1e-3, 1e8, 400)[:, None], directions.limit_deg()
    moved = [translator(steer(features, directions.vectors, step.repeat(12))) for step in steps]
    angles = np.array([angle_deg(directions.embeddings, embeddings) for embeddings in moved])
    assert (np.diff(angles, axis=0) > -1e-9).all()
    assert (angles <= limit + 1e-9).all()
    np.testing.assert_allclose(angles[-1], limit, atol=1e-5)
    for image in range(12):
        for beyond, reachable in ((-1e-3, True), (1e-3, False)):
            target = limit[image] + beyond
            scores = scores_of(weight, basis, translator, features, text, target)
            assert scores["reachable"][image] == reachable


def test_attribute_scores_are_the_falls_of_the_angles_whatever_the_length_of_the_text():
    weight, basis, translator, features, text = planted(3)
    label_texts = np.random.default_rng(0).standard_normal((12, 9))
    directions = directions_of(basis, translator, features, text)
    scores = steering_scores(features, weight, translator, directions, text, label_texts, 20)
    steered = steer(features, directions.vectors, scores["step"].to_numpy())
    moved = translator(steered.astype(np.float64))
    assert scores["reachable"].all()
    for column, texts in (("as_target_deg", text[None]), ("as_label_deg", label_texts)):
        before, after = (
            (rows * texts).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(texts, axis=1)
            for rows in (directions.embeddings, moved)
        )
        expected = np.degrees(np.arccos(before) - np.arccos(after))
        np.testing.assert_allclose(scores[column], expected, atol=1e-9)
    given = weight, basis, translator, features
    pd.testing.assert_frame_equal(scores_of(*given, 1e6 * text, 10), scores_of(*given, text, 10))


def test_without_null_space_nothing_is_reachable_and_nothing_comes_nearer():
    weight, _, translator, features, text = planted(5)
    nothing = np.zeros((20, 0))
    directions = directions_of(nothing, translator, features, text)
    turn, near = directions.closest_approach(text)
    assert (turn == 0).all() and np.allclose(near, angle_deg(directions.embeddings, text))
    scores = scores_of(weight, nothing, translator, features, text, 1)
    assert not scores["reachable"].any()
    assert scores.drop(columns=["target_is_deg", "reachable"]).isna().all(axis=None)


def test_a_translator_blind_to_the_null_space_and_a_text_already_met_offer_no_direction():
    weight, basis, translator, features, text = planted(6)
    mixed = np.random.default_rng(0).standard_normal((9, 6)) @ weight.astype(np.float64)
    blind = Affine(mixed, translator.bias)
    assert 0 < np.abs(blind.weight @ basis).max() < 1e-12
    assert not scores_of(weight, basis, blind, features, text, 1e-3)["reachable"].any()
    assert not directions_of(basis, blind, np.tile(features, (10_000, 1)), text).vectors.any()
    met = translator(features[:1].astype(np.float64))[0]
    scores = scores_of(weight, basis, translator, features, met, 1)
    assert scores["reachable"].tolist() == [False] + [True] * 11


def test_a_summary_is_over_the_images_that_reach_the_target_and_names_those_that_do_not():
    reached = {"step": [1.0, 2, 6, 4], "is_deg": [5.0, 5.1, 4.8, 50]}
    reached |= {"as_target_deg": [1.0, 2, 6, 8]}
    reached |= {"as_label_deg": [-1.0, 0, 4, 7], "logit_change": [1e-6, 3e-6, 2e-6, 5e-6]}
    scores = pd.DataFrame(reached).reindex(range(7))
    scores["target_is_deg"] = [5.0] * 3 + [50.0] * 3 + [90.0]
    scores = scores.assign(prompt="p", reachable=scores["step"].notna())
    table = steering.summarize_steering(scores).set_index("target_is_deg")
    expected = {"n": 3, "n_reachable": 3, "is_max_error_deg": 0.2, "step_mean": 3.0}
    expected |= {"as_target_mean_deg": 3.0, "as_label_mean_deg": 1.0, "logit_change_max": 3e-6}
    expected |= {"as_target_std_deg": np.sqrt(7), "as_label_std_deg": np.sqrt(7), "note": ""}
    assert table.loc[5.0].drop("prompt").to_dict() == pytest.approx(expected)
    assert table["n_reachable"].tolist() == [3, 1, 0]
    assert table["as_target_mean_deg"].tolist()[:2] == [3.0, 8.0]
    assert table["as_target_std_deg"].isna().tolist() == [False, True, True]
    assert np.isnan(table.loc[90.0, "as_target_mean_deg"])
    said = ["2 of 3 images cannot reach 50 degrees", "1 of 1 images cannot reach 90 degrees"]
    assert table["note"].tolist() == ["", *said]


LABELS = ["goose", "jeep"]
PROMPTS = ["an image of a jellyfish", "a $x$ text"]


@pytest.fixture
def study(tmp_path):
    """Inputs of steer_concepts: 11 images in 3 shards."""
    weight, basis, translator, features, text = planted(8, n=11)
    results = Results(tmp_path, shards=3)
    results.manifest(label=np.array(LABELS)[np.arange(11) % 2])
    results.tensors("head", weight=weight, bias=np.zeros(6, np.float32))
    results.tensors("projector", null_basis=basis)
    results.rows("features", features)
    results.translator(translator.astype(np.float32))
    texts = np.stack([text, *np.random.default_rng(0).standard_normal((3, 9))]).astype(np.float32)
    names = {"labels": LABELS, "concepts": [], "targets": PROMPTS}
    results.texts(names, target_embeddings=texts[:2], label_embeddings=texts[2:])
    results.models({"m": 14})
    return results


NUMBERS = ["target_is_deg", "step", "is_deg", "as_target_deg", "as_label_deg", "logit_change"]
STEERING_TYPES = {"image_id": "int64", "label": "str", "prompt": "str"}
STEERING_TYPES |= dict.fromkeys(NUMBERS, "float64") | {"reachable": "bool"}


def steer_concepts(study, **flags):
    wanted = {"prompts": PROMPTS, "target_is_deg": [30.0, 5.0], "labels": []} | flags
    study.run("steer_concepts", **wanted)
    return study.read("steering")


def test_the_scripts_steer_every_image_and_tabulate(study):
    table = steer_concepts(study)
    assert list(table.dtypes.astype(str).items()) == list(STEERING_TYPES.items())
    assert table["image_id"].tolist() == np.repeat(np.arange(11), 4).tolist()
    assert table["prompt"].tolist() == np.repeat(sorted(PROMPTS), 2).tolist() * 11
    assert table["target_is_deg"].tolist() == [5.0, 30.0] * 22
    assert table["label"].tolist() == np.repeat(np.array(LABELS)[np.arange(11) % 2], 4).tolist()

    weight, basis, translator, features, _ = planted(8, n=11)
    texts = np.random.default_rng(0).standard_normal((3, 9))
    directions = directions_of(basis, translator, features, texts[0])
    own = texts[1:][np.arange(11) % 2]
    expected = steering_scores(features, weight, translator, directions, texts[0], own, 30.0)
    assert expected["reachable"].any()
    expected = expected.drop(columns="logit_change")
    mine = table[(table["prompt"] == "a $x$ text") & (table["target_is_deg"] == 30)]
    mine = mine[expected.columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, expected, rtol=1e-4)

    study.run("tabulate_steering")
    rows = study.read("tables/steering.csv")
    wanted = [["s", "m", prompt, to, 11] for prompt in sorted(PROMPTS) for to in (5.0, 30.0)]
    assert rows[["space", "model", "prompt", "target_is_deg", "n"]].to_numpy().tolist() == wanted
    basis = BASIS | {"null_dim": 14}
    assert (rows[list(basis)] == pd.Series(basis)).all(axis=None)


def test_only_images_with_the_wanted_labels_are_steered_toward_the_prompts_of_the_texts(study):
    table = steer_concepts(study, labels=["jeep"])
    assert table["image_id"].tolist() == np.repeat([1, 3, 5, 7, 9], 4).tolist()
    other = r"prompts/s\.json: its targets are .*jellyfish.*, not steering\.prompts \['a jeep'\]"
    absent = r"steering.labels: no image has the label 'goosse' \(did you mean 'goose'\?\)"
    for flags, said in (({"labels": ["jeep", "goosse"]}, absent), ({"prompts": ["a jeep"]}, other)):
        refused(said, steer_concepts, study, **flags)


def test_without_prompts_the_tables_are_empty_and_have_their_columns(study):
    names = {"labels": LABELS, "concepts": [], "targets": []}
    study.texts(names, label_embeddings=np.ones((2, 9), np.float32))
    table = steer_concepts(study, prompts=[])
    assert table.empty and list(table.dtypes.astype(str).items()) == list(STEERING_TYPES.items())
    study.run("tabulate_steering")
    rows = study.read("tables/steering.csv")
    assert rows.empty and {"n_reachable", "note", "seed"} <= set(rows)
