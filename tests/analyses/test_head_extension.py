"""The head extension against scikit-learn on rows with more columns, and on planted null spaces."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from singflow.analyses import evidence as module
from singflow.analyses.bands import BANDS, Block
from singflow.analyses.floor import SplitHead
from singflow.analyses.geometry import complement, null_space
from singflow.analyses.head_extension import enough, head_extension, nested, ranked_null_directions
from singflow.analyses.readout import Fit, Nystroem
from singflow.analyses.summary import MEANING, NOTHING
from singflow.artifacts.files import write_json
from singflow.artifacts.tables import write_table
from singflow.figures import plot_head_extensions
from tests.analyses.test_bands import plain_kernels
from tests.analyses.test_readout import ALIKE, PAIRS, exact, nystroem, squares
from tests.analyses.test_readout import planted as images_of
from tests.data.manifests import CLASSES_FILE
from tests.results import BASIS, Results

FITS = Fit(0.0, 0.3), Fit(1.0, 0.1)
WEIGHTS = dict.fromkeys(BANDS, 0.0) | {"linear": 0.5, "softmax": 0.2, "relu": 0.3}


def planted(seed, content, *, n=200, rank=6, null_dim=7, dim=5, contents=3, noise=0.3, copies=0):
    """Images whose null coordinates alone determine `contents` directions of the embedding.

    `copies`: null coordinates of large variance that are almost principal coordinates.
    """
    generator = np.random.default_rng(seed)
    a, own = generator.standard_normal((n, rank)), generator.standard_normal((n, null_dim))
    b = own + 0.5 * a @ generator.standard_normal((rank, null_dim)) / np.sqrt(rank)
    told = np.linalg.qr(generator.standard_normal((null_dim, contents)))[0]
    into = np.linalg.qr(generator.standard_normal((dim, contents)))[0]
    z = a @ generator.standard_normal((rank, dim)) / np.sqrt(rank * dim)
    z += content * own @ told @ into.T / np.sqrt(contents)
    b = np.hstack([b, 10 * a[:, :copies] + 0.3 * generator.standard_normal((n, copies))])
    z += noise * generator.standard_normal((n, dim)) / np.sqrt(dim)
    return Block(a, b, a @ generator.standard_normal((rank, 4)), z, generator.permutation(n) % 4)


def curve_of(images, fits=FITS, landmarks=None, weights=WEIGHTS, threads=1):
    def blocks():
        return [images]

    own_words, n = module.FittedOwnWords.fit(blocks, None), len(images.fold)
    marks = module.Landmarks.draw(blocks, n, 0, landmarks or n)
    bands = marks.bands()
    readouts = marks.read_outs(blocks, bands, weights, [lambda part, _: own_words.remainder(part)])
    assert isinstance(readouts, Nystroem) == (landmarks is not None)
    spread = module.FoldVariance.of_all(blocks)
    measured = module.Measurement({}, pd.DataFrame(), own_words, readouts, fits, spread, None)
    most = min(images.null.shape[1], images.embeddings.shape[1])
    return head_extension(measured, most, 0.9, threads)


def slow(images, fits, without=None):
    """D by the number of directions, by scikit-learn's Ridge on rows of (flexible features, Q^T b).

    The products of the flexible features are the plain kernel. The directions are the right
    singular vectors of T_0 S^1/2, mapped by S^-1/2. S is the penalized scatter of b minus its
    prediction by the flexible features; T_0 is the read-out's part on b.
    """
    kernels = plain_kernels(images.principal, images.logits, np.arange(len(images.fold)))
    values, vectors = np.linalg.eigh(sum(w * kernels[name] for name, w in WEIGHTS.items() if w))
    x, z = vectors * np.sqrt(np.maximum(values, 0)), images.embeddings
    b = images.null - images.null.mean(axis=0)
    b = b / np.sqrt((b**2).sum(axis=1).mean()) * np.sqrt(fits[1].own)
    most, total = min(b.shape[1], z.shape[1]), 0.0
    gains = np.zeros(1 + most)
    for judge in set(np.unique(images.fold)) - {without}:
        made, judged = (images.fold != judge) & (images.fold != without), images.fold == judge

        def ridge(rows, alpha, target=z, made=made):
            return Ridge(alpha=alpha, solver="svd").fit(rows[made], target[made])

        def error(rows, alpha, judged=judged, ridge=ridge):
            return ((ridge(rows, alpha).predict(rows[judged]) - z[judged]) ** 2).sum()

        both, alpha = np.hstack([x, b]), fits[1].penalty
        slope = ridge(x, alpha, b)
        left = b[made] - slope.predict(x[made])
        scatter = left.T @ left + alpha * (slope.coef_ @ slope.coef_.T + np.eye(b.shape[1]))
        values, vectors = np.linalg.eigh(scatter)
        hidden = ridge(both, alpha).coef_[:, x.shape[1] :]
        _, _, right = np.linalg.svd(hidden @ (vectors * np.sqrt(values)) @ vectors.T)
        directions = np.linalg.qr((vectors / np.sqrt(values)) @ vectors.T @ right.T)[0]
        plain = error(x, fits[0].penalty)
        shown = [np.hstack([x, b @ directions[:, :q]]) for q in range(1, 1 + most)]
        gains[1:] += [plain - error(rows, alpha) for rows in shown]
        total += ((z[judged] - z[made].mean(axis=0)) ** 2).sum()
    return gains / total


@pytest.mark.parametrize(("rank", "null_dim", "dim"), [(6, 7, 5), (3, 2, 5), (4, 6, 2)])
@pytest.mark.parametrize("fits", [FITS, (Fit(0.0, 1.0), Fit(10.0, 3.0))])
def test_the_curve_is_that_of_scikit_learns_regressions_on_flexible_features_and_directions(
    rank, null_dim, dim, fits
):
    contents = min(null_dim, dim, 3)
    images = planted(7, 0.5, n=60, rank=rank, null_dim=null_dim, dim=dim, contents=contents)
    curve = curve_of(images, fits)
    expected = slow(images, fits)
    assert curve["directions"].tolist() == list(range(len(expected)))
    np.testing.assert_allclose(curve["unique_r2"], expected, atol=1e-7)
    without = np.array([slow(images, fits, fold) for fold in range(4)]).T
    intervals = [module.jackknife(*row, 0.9) for row in zip(expected, without, strict=True)]
    for end in ("low", "high"):
        ends = [getattr(interval, end) for interval in intervals]
        np.testing.assert_allclose(curve[f"unique_r2_{end}"], ends, atol=1e-6)


# more and fewer null coordinates than the embedding has dimensions
@pytest.mark.parametrize(("contents", "null_dim"), [(1, 7), (3, 7), (3, 4)])
def test_content_of_rank_3_saturates_the_curve_at_3(contents, null_dim):
    for seed in range(3):
        curve = curve_of(planted(seed, 0.7, null_dim=null_dim, contents=contents))
        gain, whole = curve["unique_r2"].to_numpy(), curve["unique_r2"].iloc[-1]
        assert enough(curve) == contents and whole > 0.1
        assert (np.diff(gain[: contents + 1]) > 0.1 * whole).all(), "every direction adds"
        assert (gain[contents:] <= gain[contents] + 0.03 * whole).all()


def test_null_coordinates_that_repeat_principal_ones_are_not_taken_for_content():
    assert [enough(curve_of(planted(seed, 0.7, copies=4))) for seed in range(5)] == [3] * 5


def test_kernels_with_landmarks_give_nearly_the_curve_of_exact_ones_and_threads_change_nothing():
    images = planted(0, 0.7, n=120, contents=1)
    wanted, half = curve_of(images), curve_of(images, landmarks=80)
    np.testing.assert_allclose(half["unique_r2"], wanted["unique_r2"], atol=0.03)
    assert half["unique_r2"].iloc[-1] > 0.1
    side_by_side = curve_of(images, landmarks=80, threads=3)
    pd.testing.assert_frame_equal(side_by_side, half, check_exact=True)


@pytest.mark.parametrize("form", [exact, nystroem])
def test_all_directions_together_are_the_read_out_with_b(form):
    block = images_of(k=7, m=5)
    readouts = form(block)[0] if form is exact else form(block, 60)
    for fit in FITS[1], Fit(0.01, 1.0):
        for left_out in ((2,), *PAIRS):
            found = nested(readouts.partial(fit.penalty, left_out, 5), fit)
            both = Fit(0.0, fit.penalty), fit
            ends = [readouts.errors(one, [left_out], squares(5))[0].sum(axis=1) for one in both]
            assert found.shape == (len(left_out), 1 + 5)  # five columns move in five directions
            np.testing.assert_allclose(found[:, [0, -1]].T, ends, rtol=10 * ALIKE)


def test_null_directions_lower_the_penalized_error_most():
    rng = np.random.default_rng(0)
    b, z = rng.standard_normal((60, 6)), rng.standard_normal((60, 3))
    alpha, gram = 2.0, b.T @ b + 2.0 * np.eye(6)
    factor = np.linalg.cholesky(gram)
    basis, read = ranked_null_directions(factor, np.linalg.solve(factor, b.T @ z))
    np.testing.assert_allclose(basis @ read, np.linalg.solve(gram, b.T @ z), atol=1e-12)

    def gain(directions):
        part = b @ directions
        scatter = part.T @ part + alpha * directions.T @ directions
        return np.trace(z.T @ part @ np.linalg.solve(scatter, part.T @ z))

    np.testing.assert_allclose(basis.T @ gram @ basis, np.eye(3), atol=1e-12)
    for q in (1, 2):
        others = [np.linalg.qr(rng.standard_normal((6, q)))[0] for _ in range(500)]
        assert gain(basis[:, :q]) > max(map(gain, others))


def test_without_content_no_number_of_directions_adds_anything_on_average():
    curves = np.array([curve_of(planted(seed, 0.0))["unique_r2"] for seed in range(20)])
    assert (curves[:, 1:].mean(axis=0) < 0).all()


def test_two_folds_give_no_interval_and_a_silent_null_part_no_direction():
    images = planted(0, 0.5)
    two = curve_of(replace(images, fold=images.fold % 2))
    assert two[["unique_r2_low", "unique_r2_high"]].isna().all(axis=None)
    assert two["unique_r2"].iloc[-1] > 0.1
    silent = curve_of(replace(images, null=np.full_like(images.null, 7.0)))
    assert np.ptp(silent["unique_r2"].iloc[1:]) == 0
    alone = curve_of(images, (FITS[0], Fit(0.0, 0.3)))
    assert alone["directions"].tolist() == [0] and alone["unique_r2"].tolist() == [0.0]


def curve(*d):
    ends = {"unique_r2_low": np.subtract(d, 0.1), "unique_r2_high": np.add(d, 0.1)}
    return pd.DataFrame({"directions": np.arange(len(d)), "unique_r2": np.array(d), **ends})


def test_the_fewest_directions_give_90_percent_of_what_all_add():
    assert enough(curve(0, 0.05, 0.089, 0.095, 0.1)) == 3 and enough(curve(0, 0, 0.9, 1.0)) == 2
    assert enough(curve(0, 0.2, -0.1, 0.1)) == 1 and enough(curve(0, -0.1, 0.1)) == 2
    assert enough(curve(0, 0.1, 0.0)) is enough(curve(0, 0.1, -0.1)) is enough(curve(0)) is None


def models_of(rows):
    """tables/models.csv of rows (space, model, null dimensions, D)."""
    table = pd.DataFrame(rows, columns=["space", "model", "null_dim", "unique_r2"])
    d = table["unique_r2"].astype(float)
    facts = {name: value for name, value in BASIS.items() if name not in table}
    facts |= {"unique_r2": d, "unique_r2_low": d - 0.01, "unique_r2_high": d + 0.01}
    facts |= {"unique_r2_quarter": d / 2, "unique_r2_half": d}
    facts |= {"verdict": np.where(d > 0.005, MEANING, NOTHING)}
    return table.assign(known_zero=False, n_evidence=20, **facts)


def test_the_step_gives_the_curve_of_its_own_test_and_the_table_has_every_model(tmp_path):
    generator, n, views, dim = np.random.default_rng(0), 24, 2, 4
    draw, fold, results = generator.standard_normal, np.arange(n) % 4, Results(tmp_path, shards=2)
    heads = {"timm/wide": draw((5, 12)), "tall": draw((20, 12))}
    image, view = np.repeat(np.arange(n), views), np.tile(np.arange(views, dtype=np.int32), n)
    features = {model: draw((n * views, 12)).astype(np.float32) for model in heads}
    embeddings = (features["timm/wide"] @ draw((12, dim))).astype(np.float32)
    hashes = [str(number) for number in range(n)]
    results.manifest(label="x", split="train", fold=fold, sha256=hashes)
    paths, table = results.read("manifest")["path"], tmp_path / "photos.csv"
    cameras = np.where(np.arange(n) < 14, "old", "")
    cameras[20] = "new"
    pd.DataFrame({"path": paths, "camera": cameras}).to_csv(table, index=False)
    texts, names = draw((3, dim)).astype(np.float32), {"labels": ["x"], "concepts": ["y", "z"]}
    results.texts(names, label_embeddings=texts[:1], concept_embeddings=texts[1:])
    models = models_of([("s", "timm/wide", 7, 0.1), ("s", "tall", 0, None)])
    write_table(results.path("tables/models.csv"), models)
    for shard, part in enumerate(np.array_split(np.arange(n * views), 2)):
        results.shard("embeddings", shard, embeddings[part], image[part], view[part])
        for model, rows in features.items():
            results.of(model).shard("features", shard, rows[part], image[part], view[part])
    unnamed = np.zeros((0, dim), np.float32)
    report = {"lambda": 0.1, "alpha_curve": [{"lambda": 0.1, "validation_r2": 0.2}]}
    told = {"margin": 0.005, "draws": 2, "lambdas": [0.1, 0.3], "folds": 4, "confidence": 0.9}
    told |= {"table": table, "class_list": CLASSES_FILE, "groups": "camera"}
    for model, weight in heads.items():
        own, basis, bias = results.of(model), null_space(weight).basis, np.zeros(len(weight))
        both = {"class_embeddings": unnamed, "other_embeddings": unnamed}
        own.tensors("classes", {"class_names": "[]"}, **both)
        own.tensors("projector", null_basis=basis)
        own.tensors("head", weight=weight, bias=bias)
        write_json(own.path("translator_report"), report)
        own.run("measure_evidence", **told, reference=None, seed=0)
        written, evidence = own.read("head_extensions"), own.read("evidence")
        assert written.dtypes.map(str).tolist() == ["int64", *["float64"] * 3]
        if not basis.size:
            assert written[["directions", "unique_r2"]].to_numpy().tolist() == [[0, 0]]
            assert evidence["unique_r2"] is evidence["lambdas"] is None
            assert own.read("evidence_groups").empty and own.read("evidence_texts").empty
            continue
        head = SplitHead(weight, bias, complement(basis), basis)
        block = head.block(features[model][view == 0], embeddings[view == 0], fold)
        weights, penalties = evidence["weights"], evidence["lambdas"]
        full = Fit(weights.pop("null"), penalties["with_null"])
        assert full.own, "the leak is found"
        groups = own.read("evidence_groups").set_index(["by", "group"])
        assert groups["n"].to_dict()["label", "x"] == groups.loc["predicted", "n"].sum() == n
        assert groups.loc["column", "n"].to_dict() == {"new": 1, "old": 14}
        d = groups["unique_r2"]
        assert d["label", "x"] == pytest.approx(evidence["unique_r2"], rel=0.1)
        assert d["column", "old"] > 0.05 and groups["p"].isna()["column", "new"]
        expected = curve_of(block, (Fit(0.0, penalties["without_null"]), full), None, weights)
        pd.testing.assert_frame_equal(written, expected, atol=1e-5)
    results.run("plot_head_extensions", models=list(heads))
    table = results.read("tables/head_extensions.csv")
    assert table["model"].tolist() == list(heads)
    assert table["directions_90"].isna().tolist()[1:] == [True]


def test_models_are_in_the_table_and_drawn_with_a_marker_where_enough_is_reached_or_at_the_end():
    curves = {"m": curve(0, *np.linspace(0.002, 0.1, 768)), "chance": curve(0, 0.01, 0.02)}
    curves |= {"none": curve(0), "falls": curve(0, -0.1)}
    sizes = {"m": 0.1, "chance": 0.001, "none": None, "falls": -0.1}
    models = models_of([("s", name, len(c) - 1, sizes[name]) for name, c in curves.items()])
    rows = plot_head_extensions.tabulate({"s": curves}, models)
    assert {"rank_rule", "null_dim", "seed", "n_evidence", "unique_r2_low"} <= set(rows)
    assert rows["directions_90"].fillna(-1).tolist() == [enough(curves["m"]), -1, -1, -1]
    figure = plot_head_extensions.draw({"s": curves}, rows, models)
    (part,) = figure.subfigs
    drawn = [line for line in part.axes[0].get_lines() if line.get_marker() != "None"]
    assert len({(line.get_color(), line.get_marker()) for line in drawn}) == len(drawn) == 4
    assert [line.get_markerfacecolor() == "white" for line in drawn] == [False, True, True, True]
    assert [line.get_markevery() for line in drawn] == [[enough(curves["m"])], [2], [0], [1]]
    for line, table in zip(drawn, curves.values(), strict=True):
        np.testing.assert_allclose(line.get_ydata(), 100 * table["unique_r2"])
    learned = {line.get_color(): line.get_ydata() for line in part.axes[1].get_lines()}
    np.testing.assert_allclose(learned[drawn[0].get_color()], [5, 10, 10])
    assert [text.get_text() for text in part.axes[1].get_xticklabels()] == ["5", "10", "20"]
    texts = [text.get_text() for text in part.legends[0].get_texts()]
    said = f"90 % of it with {enough(curves['m'])} of 768 directions"
    assert texts[0] == f"m (weak translator): D 10.00 % [9.00, 11.00], {said}"
    assert texts[1].endswith("[-0.90, 1.10], not above the margin")
    assert texts[2].endswith(": no null space")
    assert texts[3].endswith("D -10.00 % [-11.00, -9.00], not above the margin")
    plt.close(figure)
