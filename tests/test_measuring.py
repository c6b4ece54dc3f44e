"""The library's one call on arrays: planted answers, every form of the arrays, and refusals."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

import singflow
from singflow import Evidence, InputError
from singflow.analyses.metrics import angle_deg
from singflow.translators.arrays import clusters_of, folds_of
from singflow.translators.reference import Pool

RNG = np.random.default_rng(7)
CLASSES, NULL, DIM = 6, 8, 10
BASIS = np.linalg.qr(RNG.standard_normal((CLASSES + NULL, CLASSES + NULL)))[0]
WEIGHT = (RNG.standard_normal((CLASSES, CLASSES)) @ BASIS[:, :CLASSES].T).astype(np.float32)
BIAS = RNG.standard_normal(CLASSES).astype(np.float32)
TEXTS = RNG.standard_normal((CLASSES, DIM))
TEXTS /= np.linalg.norm(TEXTS, axis=1, keepdims=True)
TOLD = np.random.default_rng(3).standard_normal((CLASSES, DIM)) / np.sqrt(CLASSES)
HIDDEN = RNG.standard_normal((NULL, DIM)) / np.sqrt(NULL)


def planted(seed, n=240, leak=0.0):
    """Features and embeddings; the null component adds `leak` times its own meaning."""
    rng = np.random.default_rng([seed, 11])
    a, b = rng.standard_normal((n, CLASSES)), rng.standard_normal((n, NULL))
    x = (np.hstack([a, b]) @ BASIS.T).astype(np.float32)
    z = a @ TOLD + leak * b @ HIDDEN + 0.5 * rng.standard_normal((n, DIM)) + 1.0
    return x, z.astype(np.float32)


@pytest.fixture(scope="module")
def found():
    x, z = planted(0, leak=1.0)
    labels = np.array(["left", "right"], dtype=object)[np.arange(240) % 2]
    texts = {"left": TEXTS[0], "right": TEXTS[1]}
    return singflow.measure(x, (WEIGHT, BIAS), z, TEXTS, labels=labels, texts=texts)


def test_a_planted_leak_is_meaning_and_its_size_is_that_of_the_plant(found):
    x, z = planted(0, leak=1.0)
    hidden = x @ BASIS[:, CLASSES:] @ HIDDEN
    share = hidden.var(axis=0).sum() / z.var(axis=0).sum()
    assert found.verdict == "meaning" and found.p < 0.001
    low, high = found.interval
    assert 0.8 * share < low < found.d < high < 1.1 * share
    assert found.facts["null_dim"] == NULL and found.facts["r2_words"] < found.r2 < 1
    assert found.facts["turn_deg"] > 5 and 0.5 < found.facts["gain"] <= 1.1
    assert found.facts["detectable"] < 0.1


def test_no_leak_is_no_meaning_and_the_level_holds_in_50_null_studies():
    def called(seed):
        x, z = planted(seed, n=120)
        return singflow.measure(x, WEIGHT, z, margin=0, seed=seed, draws=2).p <= 0.05

    # Above the margin 0 the test is sharpest; more than this many of 50 have a chance of 0.1 %.
    assert sum(map(called, range(50))) <= binom.ppf(0.999, 50, 0.05)


def test_the_translator_and_the_scores_are_those_of_the_formulas(found):
    x, _ = planted(0, leak=1.0)
    null = BASIS[:, CLASSES:]
    split = singflow.null_space(WEIGHT)
    np.testing.assert_allclose(split.basis @ split.basis.T, null @ null.T, atol=1e-6)
    images, whole = found.images, found.translator
    energy = ((x @ null) ** 2).sum(1) / (x**2).sum(1)
    np.testing.assert_allclose(images["null_energy"], energy, rtol=1e-5)
    # The translators of the folds differ a little from the one of all images.
    before, after = whole(x), whole((x - x @ null @ null.T).astype(np.float32))
    np.testing.assert_allclose(images["is_deg"], angle_deg(before, after), atol=5)
    own = np.stack([TEXTS[row % 2] for row in range(240)])
    toward = angle_deg(before, own) - angle_deg(after, own)
    np.testing.assert_allclose(images["as_deg"], toward, atol=5)
    assert [*images] == ["is_deg", "null_energy", "as_deg", "floor_is_deg"]
    assert np.isfinite(images.to_numpy()).all() and len(images) == 240


def functions(x, size):
    return lambda: (x[start : start + size] for start in range(0, len(x), size))


def test_arrays_tensors_memory_maps_and_functions_give_the_same_bits(tmp_path, found):
    x, z = planted(0, leak=1.0)
    for name, array in (("x", x), ("z", z)):
        np.save(tmp_path / f"{name}.npy", array)
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xz"]
    linear = torch.nn.Linear(CLASSES + NULL, CLASSES)
    linear.weight.data, linear.bias.data = torch.from_numpy(WEIGHT), torch.from_numpy(BIAS)
    forms = [
        (torch.from_numpy(x), linear, torch.from_numpy(z).requires_grad_()),
        (mapped[0], [WEIGHT, BIAS], mapped[1]),
        (functions(x, 7), (torch.from_numpy(WEIGHT), BIAS), functions(torch.from_numpy(z), 100)),
        (x[:, None], SimpleNamespace(weight=WEIGHT[:, :, None, None], bias=BIAS), z[:, None]),
        (x.astype(np.float64), (WEIGHT, BIAS), z.astype(np.float64)),
    ]
    for features, head, embeddings in forms:
        again = singflow.measure(features, head, embeddings, TEXTS, threads=2)
        assert again.facts == found.facts
        np.testing.assert_array_equal(again.images["is_deg"], found.images["is_deg"])


def test_rows_of_a_group_and_copies_share_a_fold_so_that_no_copy_explains_another():
    rng = np.random.default_rng(4)
    x, _ = planted(5, n=24)
    z = rng.standard_normal((24, DIM)).astype(np.float32)  # nothing can be read from features
    x, copied = np.concatenate([x] * 10), np.concatenate([z] * 10)
    near = copied + 1e-4 * rng.standard_normal(copied.shape).astype(np.float32)
    patient = np.tile(np.arange(24), 10)
    assert singflow.measure(x, WEIGHT, near).r2 > 0.4  # each image helps its copies
    by_patient = singflow.measure(x, WEIGHT, near, groups=patient)
    exact = singflow.measure(x, WEIGHT, copied)
    assert by_patient.r2 < 0.05 and exact.r2 < 0.05 and by_patient.verdict != "meaning"


class Rows(list):
    """Images whose contents are those of a list."""

    @property
    def content(self):
        return [bytes([value]) for value in self]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=40))
def test_clusters_are_the_connected_components_of_copies_and_groups(rows):
    contents, groups = zip(*rows, strict=True)
    clusters = clusters_of(Pool(Rows(contents)), groups)
    wanted = list(range(len(rows)))  # by brute force
    for _ in rows:
        for i, one in enumerate(rows):
            for j, other in enumerate(rows):
                if one[0] == other[0] or one[1] == other[1]:
                    wanted[i] = wanted[j] = min(wanted[i], wanted[j])
    np.testing.assert_array_equal(clusters, pd.factorize(np.array(wanted))[0])


@given(st.lists(st.integers(0, 12), min_size=4, max_size=60), st.integers(2, 4), st.integers(0, 9))
def test_folds_hold_whole_clusters_and_differ_by_at_most_the_largest(rows, folds, seed):
    clusters = pd.factorize(np.array(rows))[0]
    if clusters.max() + 1 < folds:
        said = f"folds: is {folds}, but must be from 2 to|rows count as one image"
        with pytest.raises(InputError, match=said):
            folds_of(folds, clusters, seed)
        return
    fold = folds_of(folds, clusters, seed)
    np.testing.assert_array_equal(fold, folds_of(folds, clusters, seed))
    assert all(len(set(fold[clusters == cluster])) == 1 for cluster in set(clusters))
    sizes = np.bincount(fold, minlength=folds)
    assert sizes.min() > 0 and np.ptp(sizes) <= np.bincount(clusters).max()


def test_a_text_along_the_leak_is_hidden_and_others_are_not():
    x, _ = planted(6)
    rng = np.random.default_rng(8)
    toward = np.eye(DIM)[0]
    z = rng.standard_normal((240, DIM)) + np.outer(x @ BASIS[:, CLASSES] * 3, toward)
    evidence = singflow.measure(x, WEIGHT, z)
    both = np.concatenate([np.eye(DIM), -np.eye(DIM)])  # whose mean is 0
    table = evidence.texts(both, [f"{sign}{place}" for sign in "+-" for place in range(DIM)])
    assert set(table["text"][table["hidden"]]) == {"+0", "-0"} == set(table["text"][:2])
    assert table["unique_r2"].is_monotonic_decreasing and table["p"].between(0, 1).all()
    kinds = ["a"] * 2 + ["b"] * 2
    apart = evidence.texts(both[[0, 10, 1, 11]], ["+0", "-0", "+1", "-1"], kinds)
    assert set(apart["text"][apart["hidden"]]) == {"+0", "-0"}
    # A text that points along the leak only because it is centred with such a text is alone.
    alone = evidence.texts(both[[0, 1]], ["+0", "+1"], kinds=[0, 1]).set_index("text")
    together = evidence.texts(both[[0, 1]], ["+0", "+1"]).set_index("text")
    assert together["hidden"].all() and alone["hidden"].to_dict() == {"+0": True, "+1": False}


def test_the_group_with_the_leak_is_found():
    x, z = planted(9, n=400)
    half = np.arange(400) < 200
    z[half] += 2 * x[half] @ BASIS[:, CLASSES:] @ HIDDEN
    evidence = singflow.measure(x, WEIGHT, z, labels=half)
    table = evidence.groups().set_index("group")
    assert table["hidden"].to_dict() == {True: True, False: False} and (table["n"] == 200).all()
    traced = replace(evidence, facts=evidence.facts | {"verdict": "trace"})
    assert not traced.groups()["hidden"].any()
    assert not traced.texts(HIDDEN, range(len(HIDDEN)))["hidden"].any()
    assert traced.group_rows(pd.Series(half))["hidden"].tolist() == [False, True]  # as p says
    named = evidence.groups(["a" if one else None for one in half])
    assert named["group"].tolist() == ["a"] and named["unique_r2"][0] == table["unique_r2"][True]
    predicted = singflow.measure(x, WEIGHT, z).groups()
    assert predicted["n"].sum() == 400 and set(predicted["group"]) <= set(range(CLASSES))


def test_of_a_reference_translators_are_fitted_and_images_are_scored():
    x, z = planted(10, n=300, leak=1.0)
    small, large = slice(0, 30), slice(30, None)
    found = singflow.measure(x[small], WEIGHT, z[small], reference=(x[large], z[large]))
    alone = singflow.measure(x[large], WEIGHT, z[large])
    assert len(found.images) == 30 and found.facts["n"] == 300 and found.verdict == "meaning"
    np.testing.assert_allclose(found.translator.weight, alone.translator.weight, rtol=0.2, atol=0.1)
    assert len(found.groups(["a"] * 30)) == 1 and found.groups(["a"] * 300)["n"][0] == 300


def shuffled(rows, draw):
    return rows[np.random.default_rng([draw, 99]).permutation(len(rows))]


def wide(n, width=64, dim=24):
    """Features of more dimensions than classes, and embeddings that they tell."""
    draw = np.random.default_rng(n).standard_normal
    x, scale = draw((n, width)), np.linspace(2, 0.1, width)
    z = x * scale @ draw((width, dim)) + 2 * draw((n, dim))
    return (x * scale).astype(np.float32), draw((10, width)).astype(np.float32), z


SETS = {"few": (planted(0, 60, 1.0), WEIGHT), "planted": (planted(0, leak=1.0), WEIGHT)}
SETS["wide"] = (wide(300)[::2], wide(300)[1])


@pytest.mark.parametrize("of", SETS)
def test_of_rows_in_another_order_it_cannot_tell_and_from_200_on_it_asks_for_the_order(of):
    (x, z), weight = SETS[of]
    right = singflow.measure(x, weight, z, draws=2)
    assert right.verdict != "cannot tell" and right.facts["permuted_r2"] < 0.05 < right.r2
    for draw in range(4):
        found = singflow.measure(x, weight, shuffled(z, draw), draws=2)
        assert found.verdict == "cannot tell"
        assert ("in the same order?" in found.sentence) == (len(x) >= 200)


@pytest.mark.parametrize("whose", ["reference", "own"])
def test_of_a_reference_either_side_may_be_in_another_order(whose):
    x, z = planted(10, n=400, leak=1.0)
    mine, theirs = (x[:100], z[:100]), (x[100:], z[100:])
    right = singflow.measure(mine[0], WEIGHT, mine[1], reference=theirs, draws=2)
    assert right.verdict == "meaning" and right.r2 == right.facts["validation_r2"] > 0.4
    if whose == "own":
        mine = mine[0], shuffled(mine[1], 0)
    else:
        theirs = theirs[0], shuffled(theirs[1], 0)
    found = singflow.measure(mine[0], WEIGHT, mine[1], reference=theirs, draws=2)
    assert found.verdict == "cannot tell" and found.r2 < 0.01
    assert "are the images of the reference's kind?" in found.sentence


def test_near_copies_in_a_reference_are_left_out_and_those_in_other_folds_are_told():
    x, weight, z = wide(300)
    own, kept = x[:40] + 0.01, (x[40:], z[40:])
    without = singflow.measure(own, weight, z[:40], reference=kept, draws=2)
    found = singflow.measure(own, weight, z[:40], reference=(x, z + 1e-3), draws=2)
    assert found.facts["left_out"] == [*range(40)] and without.facts["left_out"] == []
    assert found.facts["n"] == without.facts["n"] == 300 == len(found.residuals.cluster)
    np.testing.assert_allclose(found.translator.weight, without.translator.weight, atol=0.02)
    assert "left out of the fits: 40 images of the reference" in str(found)
    assert "left out" not in str(without) and len(found.groups(["a"] * 40)) == 1
    twice, near = np.concatenate([x, x]), np.concatenate([z, z + 1e-3])
    apart = singflow.measure(twice, weight, near, draws=2)
    together = singflow.measure(twice, weight, near, draws=2, groups=[*range(300)] * 2)
    assert apart.facts["near_copies"] > 400 and together.facts["near_copies"] == 0
    assert "have near copies in other folds" in str(apart)
    assert "near copies" not in str(together) and together.r2 < apart.r2


def test_it_says_what_it_found_and_writes_it(found, tmp_path):
    said = str(found)
    assert said.startswith("Keep the features: its head drops at least ")
    assert f"p {found.p:.2g} for D above the margin 0.005" in said
    assert "8 of 14 dimensions" in said and "blind" not in said
    assert found._repr_markdown_().startswith(f"**{found.sentence}**\n\n- D 0.")
    row = found.to_frame()
    assert len(row) == 1 and row["unique_r2"][0] == found.d and row["verdict"][0] == "meaning"
    planted = found.controls[found.controls["control"] == "leak, even"]
    assert planted["meaning"].is_monotonic_increasing and planted["meaning"].iloc[-1] == 1
    found.save(tmp_path / "evidence")
    saved = json.loads((tmp_path / "evidence/evidence.json").read_text())
    assert saved == json.loads(json.dumps(found.to_dict()))
    again = Evidence.load(tmp_path / "evidence")
    assert again == found == pickle.loads(pickle.dumps(found))  # noqa: S301
    assert again != replace(found, seen=frozenset({"a"})) != replace(found, fits=None)
    looked = replace(found, hidden_groups=found.groups())
    assert looked == replace(looked) and found != looked != found
    assert again.groups().equals(found.groups())
    alone = Evidence.of(found.translator)
    assert alone.verdict == "" and alone.d is None and "without evidence" in str(alone)
    with pytest.raises(InputError, match="has no residuals, which texts and groups are tested by"):
        alone.texts(TEXTS, list("abcdef"))
    with pytest.raises(InputError, match="holds files: remove it, or name another folder"):
        found.save(tmp_path / "evidence")


def test_other_words_of_the_classes_are_a_blind_check(found):
    x, z = planted(0, leak=1.0)
    others = TEXTS + 0.2 * np.random.default_rng(1).standard_normal(TEXTS.shape)
    checked = singflow.measure(x, (WEIGHT, BIAS), z, (3.0 * TEXTS, others))
    assert checked.d == pytest.approx(found.d, abs=1e-9)  # texts are brought to norm 1
    assert abs(checked.facts["blind_unique_r2"]) < 0.005 and "blind check" in str(checked)
    assert checked.controls["control"][0] == "blind check"


def test_a_known_leak_is_the_head_cut_to_few_classes_and_a_head_of_nine_has_none(tmp_path):
    rng = np.random.default_rng(6)
    weight = rng.standard_normal((40, 48)).astype(np.float32)
    x = rng.standard_normal((200, 48)).astype(np.float32)
    z = (
        x @ weight.T @ rng.standard_normal((40, DIM)) / 40 + rng.standard_normal((200, DIM)) / 2
    ).astype(np.float32)
    found = singflow.measure(x, weight, z, controls=True, draws=2)
    assert found.verdict != "meaning" and found.facts["cut_head"]["classes"] == 2
    leak = found.controls.set_index("control").loc["known leak"]
    assert leak["unique_r2"] > 0.3 and leak["meaning"] == 1
    assert "known leak: found, in the head cut to 2 classes: D 0." in str(found)
    found.save(tmp_path / "evidence")
    assert Evidence.load(tmp_path / "evidence") == found
    nine = singflow.measure(x, weight[:9], z, controls=True, draws=2)
    assert "no known leak: a head is cut if it has 10 classes" in str(nine)
    assert "known leak" not in set(nine.controls["control"])


def test_a_head_without_null_space_has_no_verdict_but_that():
    x, z = planted(0)
    full = np.vstack([WEIGHT, BASIS[:, CLASSES:].T]).astype(np.float32)
    found = singflow.measure(x, full, z)
    assert (found.verdict, found.d, found.p) == ("no null space", None, None)
    assert "null space: 0 of 14 dimensions" in str(found) and found.images["is_deg"].max() == 0
    assert found.texts(TEXTS, list("abcdef")).empty and found.groups().empty
    assert len(found.plot().axes) == 1 and found.to_frame()["verdict"][0] == "no null space"


def spoiled(row, value, array):
    array = array.copy()
    array[row] = value
    return array


def once(rows):
    """A function that does not begin anew."""
    parts = iter([rows])
    return lambda: parts


def grows(rows):
    """A function that gives the rows once more on each call."""
    calls = []
    return lambda: calls.append(rows) or iter(calls)


X, Z = planted(0)
REFUSED = [
    (
        {"features": spoiled(9, np.nan, X)},
        r"features: row 9 holds NaN, or values that are infinite",
    ),
    ({"features": spoiled(3, 1e39, X.astype(float))}, r"features: row 3 .* infinite in float32"),
    ({"features": X[:-1]}, r"features is \(239, 1, 14\) and embeddings is \(240, 1, 10\)"),
    ({"embeddings": np.stack([Z, Z], 1)}, r"embeddings is \(240, 2, 10\) .*: give the same images"),
    ({"features": X[0]}, r"features: is a ndarray of shape \(14,\), not an array \(n, width\) or"),
    ({"features": lambda: iter([X[0], X[1]])}, r"features: its rows have the shape \(\), and"),
    ({"features": iter([X])}, r"features: can be read once alone: give a function that returns"),
    ({"features": X.astype(str)}, r"features: holds <U32, not numbers"),
    ({"features": [*X]}, r"features: is a list of shape \(\), .*: join rows with np\.stack, and b"),
    ({"head": WEIGHT.T}, r"head: has shape \(14, 6\), but features have 14 columns: give its tr"),
    ({"head": WEIGHT[:, :-1]}, r"head: has shape \(6, 13\) and type float32, but rows need 14 col"),
    ({"head": WEIGHT[:1]}, r"head: has 1 rows, or zeros alone: give a trained head of two classes"),
    ({"head": spoiled(2, np.nan, WEIGHT)}, r"head: row 2 holds NaN or infinite values"),
    ({"head": (WEIGHT, BIAS[:-1])}, r"head: its bias has shape \(5,\), but the weight has 6 rows"),
    ({"head": (WEIGHT, BIAS, BIAS)}, r"head: makes no array .*: give the weight, or a pair of we"),
    ({"class_texts": spoiled(4, 0, TEXTS)}, r"class_texts: row 4 is zero, and has no direction"),
    ({"class_texts": TEXTS[:5]}, r"class_texts: has 5 rows, but the head has 6 classes"),
    ({"class_texts": TEXTS[:, 1:]}, r"class_texts: has shape \(6, 9\) .* rows need 10 columns"),
    ({"groups": ["a"] * 239}, r"groups: has shape \(239,\), not \(240,\): give one an image"),
    ({"groups": [None] + ["a"] * 239}, r"groups: row 0 has none: give one a row"),
    ({"groups": ["a"] * 120 + ["b"] * 120}, r"folds: is 5, but must be from 2 to 2, the number"),
    ({"embeddings": np.ones_like(Z)}, r"embeddings: the 240 rows count as one image, because"),
    ({"folds": [0] * 240}, r"folds: must be whole numbers from 0 on, at least two different ones"),
    ({"groups": [0] * 240, "folds": [0, 1] * 120}, r"folds: rows 0 and 1 are copies or of one gr"),
    ({"folds": 3.0}, r"folds: is 3\.0, not a sequence: give a whole number, or the fold of each"),
    ({"texts": TEXTS}, r"texts: are those of labels: give labels, too"),
    ({"texts": TEXTS, "labels": [6] * 240}, r"texts: has none of the label 6: give one a label"),
    ({"texts": {0: TEXTS[0], 1: [1.0]}, "labels": [0] * 240}, r"texts: makes no array .* one len"),
    ({"reference": X}, r"reference: is a ndarray, not a pair: give \(features, embeddings\)"),
    ({"reference": (X, Z)}, r"reference: holds 240 of the images, row 0 among them"),
    ({"reference": (X[:, 1:], Z + 1)}, r"reference: has features and embeddings of \[13, 10\]"),
    ({"reference": (X, spoiled(1, np.nan, Z))}, r"reference embeddings: row 1 holds NaN"),
    ({"features": once(X)}, r"features: has no rows: a function must begin anew on each call"),
    ({"embeddings": grows(Z)}, r"embeddings: the function gave 240 rows .* and 480 on a later"),
    ({"reference": (X, once(Z + 1))}, r"reference embeddings: has no rows: a function must begin"),
    ({"margin": -1}, r"margin"),
    ({"confidence": 95}, r"confidence: is 95, but must be between 0 and 1"),
    ({"threads": 0}, r"threads: is 0, but must be a whole number from 1 on"),
    ({"seed": -1}, r"seed: is -1, but must be a whole number from 0 on"),
    ({"features": np.ones_like(X)}, r"the features of the training images are all alike"),
]


@pytest.mark.parametrize(("wrong", "line"), REFUSED, ids=range(len(REFUSED)))
def test_bad_input_is_refused_in_one_line(wrong, line):
    given = {"features": X, "head": WEIGHT, "embeddings": Z} | wrong
    with pytest.raises(InputError, match=line) as refused:
        singflow.measure(given.pop("features"), given.pop("head"), given.pop("embeddings"), **given)
    assert "\n" not in str(refused.value)


def test_questions_with_bad_input_are_refused(found):
    for call, line in [
        (lambda: found.texts(TEXTS[:, 1:], "abcdef"), r"embeddings: has shape \(6, 9\)"),
        (lambda: found.texts(TEXTS, "abc"), r"names: holds 3 texts, but embeddings has 6 rows"),
        (lambda: found.texts(TEXTS, "abcdef", kinds="a"), r"kinds: holds 1, not 6"),
        (lambda: found.texts(TEXTS, "abcdef", kinds=[*"abcde", None]), r"kinds: row 5 has none"),
        (lambda: found.groups(["a"]), r"labels: has shape \(1,\), not \(240,\): give one an image"),
        (lambda: found.groups([(1, 2)] * 240), r"labels: has shape \(240, 2\), not \(240,\)"),
    ]:
        with pytest.raises(InputError, match=line):
            call()


def test_on_arrays_neither_pytorch_nor_what_draws_is_loaded_and_nothing_is_logged():
    program = (
        "import logging, sys, numpy as np, singflow\n"
        "r = np.random.default_rng(0)\n"
        "x, z = r.standard_normal((60, 8)), r.standard_normal((60, 4))\n"
        "singflow.measure(x, r.standard_normal((3, 8)), z, draws=2)\n"
        "loaded = {'torch', 'matplotlib', 'sklearn', 'PIL', 'huggingface_hub'}\n"
        "assert not loaded & set(sys.modules), loaded & set(sys.modules)\n"
        "assert not logging.root.handlers and not logging.getLogger('singflow').handlers\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
