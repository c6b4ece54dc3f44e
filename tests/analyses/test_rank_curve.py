import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.special import softmax

from singflow.analyses.geometry import logit_change, null_space, remove_null
from singflow.analyses.metrics import angle_deg
from singflow.analyses.rank_curve import CHUNK, CurveStatistics
from singflow.figures import plot_rank_curves
from singflow.translators.crossfit import WHOLE, CrossFitted
from singflow.translators.ridge import Affine
from tests.results import BASIS, Results

KEPT = [1.0, 0.6, 0.25]
RULES = ["exact", "energy", "centered"]


def case(seed, classes, width, n=9, rank=None, dim=4, folds=3):
    """A head, features, a translator per fold and one for other images, a text per image."""
    generator = np.random.default_rng(seed)
    draw, inner = generator.standard_normal, rank or width
    weight = draw((classes, inner)) @ draw((inner, width))
    features = np.abs(draw((n, width)))
    maps = tuple(Affine(draw((dim, width)), draw(dim)) for _ in range(folds + 1))
    place = generator.integers(WHOLE, folds, n).astype(np.int32)
    texts = draw((n, dim))
    unit = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    return weight, draw(classes), features, CrossFitted(maps, place, place), unit


def curve(weight, bias, features, translators, texts, kept=KEPT, energy=0.9, cuts=(), order=None):
    statistics = CurveStatistics(weight, bias, translators, kept, energy)
    for image_id in np.split(np.arange(len(features)) if order is None else order, cuts):
        statistics.update(image_id, features[image_id], texts[image_id])
    return statistics.table()


def directly(weight, bias, features, translators, texts, point, rank, energy):
    """One row, out of an equivalent feature for every image and all logits at once."""

    def translated(rows):
        pairs = zip(translators.member_of, rows, strict=True)
        return np.stack([translators.members[place](row[None])[0] for place, row in pairs])

    options = ("fixed", 1.0, rank) if point == "share" else (point, energy)
    split = null_space(weight, *options)
    equivalent = remove_null(features, split.basis)
    before, after = features @ weight.T + bias, equivalent @ weight.T + bias
    change = logit_change(weight, features, equivalent)
    original, moved = translated(features), translated(equivalent)
    image = angle_deg(original, moved)
    attribute = angle_deg(original, texts) - angle_deg(moved, texts)
    spread = np.sqrt(((before - before.mean(1, keepdims=True)) ** 2).sum(1))
    kept = np.linalg.norm(remove_null(weight, split.basis)) / np.linalg.norm(weight)
    return {
        "rank": split.rank,
        "null_dim": split.basis.shape[1],
        "energy": kept**2,
        "n": len(features),
        "logit_change_mean": change.mean(),
        "logit_change_max": change.max(),
        "logit_relative_mean": (change / spread).mean(),
        "softmax_change_mean": np.abs(softmax(after, 1) - softmax(before, 1)).sum(1).mean() / 2,
        "top1_changed": (after.argmax(1) != before.argmax(1)).mean(),
        "is_mean_deg": image.mean(),
        "is_std_deg": image.std(),
        "as_mean_deg": attribute.mean(),
        "as_abs_mean_deg": np.abs(attribute).mean(),
    }


def assert_direct(table, data, energy):
    for row in table.to_dict("records"):
        point, _ = row.pop("point"), row.pop("kept")
        expected = directly(*data, point, row["rank"], energy)
        assert row == pytest.approx(expected, abs=1e-6), point


SEEDS, SIZES, ENERGIES = st.integers(0, 2**32 - 1), st.integers(2, 14), st.floats(0.05, 0.95)
CUTS, ORDERS = st.lists(st.integers(0, 9)), st.permutations(range(9))


@settings(max_examples=25)
@given(SEEDS, SIZES, SIZES, st.integers(1, 3), ENERGIES, CUTS, st.integers(0, 4), ORDERS)
def test_every_point_is_the_removal_of_its_null_space_whatever_the_cuts_the_folds_and_the_order(
    seed, classes, width, deficit, energy, cuts, folds, order
):
    data = case(seed, classes, width, rank=max(1, width - deficit), folds=folds)
    table = curve(*data, energy=energy, cuts=sorted(cuts), order=np.array(order))
    assert table["point"].tolist() == ["share"] * len(KEPT) + RULES
    assert_direct(table, data, energy)


def test_more_images_than_fit_in_a_chunk_are_all_counted():
    data = case(0, 6, 9, n=6 * CHUNK + 3)
    assert np.bincount(data[3].member_of + 1).min() > CHUNK
    assert_direct(curve(*data), data, 0.9)


def test_invariance_goes_as_the_rank_falls_and_the_rules_say_what_they_promise():
    kept = list(np.linspace(0.02, 1, 20))
    table = curve(*case(1, 30, 50, n=40), kept=kept)
    shares, rules = table[table["point"] == "share"], table.set_index("point").loc[RULES]
    assert shares["kept"].tolist() == sorted(kept, reverse=True)
    assert shares["rank"].tolist() == [max(1, round(share * 30)) for share in shares["kept"]]
    assert shares["logit_change_mean"].is_monotonic_increasing
    exact, of_energy, centered = rules.to_dict("records")
    assert exact["logit_change_max"] < 1e-10 and exact["is_mean_deg"] > 1
    assert of_energy["energy"] >= 0.9 > of_energy["energy"] - 0.1
    assert centered["softmax_change_mean"] < 1e-12 < 1e-2 < centered["logit_relative_mean"]
    assert (centered["top1_changed"], centered["kept"]) == (0, 29 / 30)


def test_heads_without_a_null_space_of_one_class_and_blind_ones_and_shares_given_twice():
    table = curve(*case(2, 20, 7)).set_index("point")
    row = table.loc["exact"]
    assert (row["rank"], row["null_dim"], row["energy"]) == (7, 0, 1)
    assert not row["logit_change_mean":].any()
    assert table.loc["energy", "is_mean_deg"] > 0
    table = curve(*case(3, 5, 8), kept=[0.01, 0.6, 0.6, 0.01])
    shares = table.loc[table["point"] == "share", ["kept", "rank"]]
    assert shares.to_numpy().tolist() == [[0.6, 3], [0.01, 1]]
    weight, bias, features, translators, texts = case(4, 1, 6)
    assert curve(weight, bias, features, translators, texts)["logit_relative_mean"].isna().all()
    blind = curve(np.zeros((3, 6)), np.zeros(3), features, translators, texts)
    assert blind["rank"].tolist() == [0] * 6
    assert not blind["logit_change_max"].any()


def test_the_scripts_measure_tabulate_and_draw_view_0(tmp_path):
    """Of two models, one has no null space, and one has a translator for each of 3 folds."""
    data = {"timm/wide": case(5, 5, 12, n=11), "tall": case(6, 20, 12, n=11, folds=0)}
    place, texts, labels = data["timm/wide"][3].member_of, data["tall"][-1][:4], list("abacabadabc")
    assert {*place.tolist()} == {WHOLE, 0, 1, 2}
    own = texts[["dcba".index(label) for label in labels]]
    results = Results(tmp_path, shards=2)
    fold, split = np.where(place == WHOLE, 1, place), np.where(place > 0, "train", "validation")
    results.manifest(label=labels, fold=fold, split=split)
    results.texts({"labels": list("dcba")}, label_embeddings=texts)
    results.models({"timm/wide": 7, "tall": 0})
    for model, (weight, bias, features, translators, _) in data.items():
        mine = results.of(model)
        mine.tensors("head", {"weight_dtype": weight.dtype.name}, weight=weight, bias=bias)
        mine.translator(translators.whole, translators.members[:WHOLE])
        mine.rows("features", features)
        mine.run("measure_rank_curve", kept=KEPT, energy=0.9)
        expected = curve(weight, bias, features, translators, own)
        found = mine.read("rank_curves")
        pd.testing.assert_frame_equal(found, expected, rtol=1e-9, atol=1e-9)
    results.run("plot_rank_curves", models=list(data))
    table = results.read("tables/rank_curves.csv")
    assert table["model"].tolist() == ["timm/wide"] * 6 + ["tall"] * 6
    assert table["removed_dim"].tolist()[3:6] == [7, 12 - table["rank"][4], 8]
    assert set(table.loc[table["model"] == "tall", "null_dim"]) == {0}
    pixels = np.asarray(Image.open(results.path("figures/rank_curves.png")).convert("L"))
    assert (np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]) == 255).all()


def test_sixteen_models_in_two_spaces_are_told_apart_and_the_rules_are_marked():
    tables = {f"a_classifier_{number}": curve(*case(number, 9, 12)) for number in range(16)}
    models = pd.DataFrame([(s, m) for s in "st" for m in tables], columns=["space", "model"])
    models = models.assign(**BASIS)
    rows = plot_rank_curves.tabulate({"s": tables, "t": tables}, models)
    figure = plot_rank_curves.draw(rows, models)
    assert len(figure.axes) == 6
    for axes in figure.axes:
        curves = [line for line in axes.get_lines() if line.get_linestyle() != "None"]
        looks = {(line.get_color(), line.get_linestyle()) for line in curves}
        assert len(looks) == len(curves) == 16
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        points = np.concatenate([line.get_xydata() for line in axes.get_lines()])
        assert ((points >= [left, low]) & (points <= [right, high])).all()
        marked = [line.get_marker() for line in axes.get_lines() if line.get_linestyle() == "None"]
        assert marked.count("o") == marked.count("s") == marked.count("D") == 16
    plt.close(figure)
