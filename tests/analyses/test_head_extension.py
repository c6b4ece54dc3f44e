"""The head extension: against scikit-learn on rows with more columns, and on planted null spaces of known content."""

import runpy

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from singflow.analyses.geometry import coordinate_axes, null_space
from singflow.analyses.head_extension import enough, extended_r2, gather, head_extension, null_directions
from singflow.analyses.unique_information import jackknife, unique_information
from singflow.artifacts.files import write_json
from singflow.artifacts.tables import read_parquet, write_parquet
from singflow.artifacts.tensors import write_tensors
from singflow.figures.head_extension import head_extensions
from singflow.translators.crossfit import GroupSums, cross_validate, penalties, split
from tests.data.manifests import whole
from tests.project import ROOT
from tests.translators.test_crossfit import LAMBDAS, SETTINGS, Study, ridge


def slow(study, rank, lambdas, left_out=None):
    """R2 by the number of directions, of scikit-learn's Ridge on rows of (a, Q^T b).

    The directions are the right singular vectors of T_0 S^1/2, mapped by S^-1/2; S: what of b is left where a has predicted it.
    """
    a, b, z = study.features[:, :rank], study.features[:, rank:], study.embeddings
    most = min(b.shape[1], z.shape[1])
    error, baseline = np.zeros(1 + most), 0.0
    for unseen in study.unseen:
        made, judged = study.training & ~unseen, unseen & (study.view == 0)
        if left_out is not None:
            made, judged = made & ~left_out, judged & ~left_out
        if not judged.any():
            continue
        scale = ((study.features[made] - study.features[made].mean(axis=0)) ** 2).sum(axis=1).mean()
        predictor = Ridge(alpha=lambdas[0] * scale, solver="svd").fit(a[made], b[made].reshape(made.sum(), -1))
        left = b[made] - predictor.predict(a[made]).reshape(b[made].shape)
        slope = predictor.coef_.reshape(b.shape[1], rank)
        values, vectors = np.linalg.eigh(left.T @ left + lambdas[0] * scale * (slope @ slope.T + np.eye(b.shape[1])))
        hidden = ridge(study.features[made], z[made], lambdas[0]).coef_[:, rank:]
        _, _, right = np.linalg.svd(hidden @ (vectors * np.sqrt(values)) @ vectors.T)
        directions = np.linalg.qr((vectors / np.sqrt(values)) @ vectors.T @ right.T)[0]
        for q in range(1 + most):
            x = np.hstack([a, b @ directions[:, :q]])
            own = ((x[made] - x[made].mean(axis=0)) ** 2).sum(axis=1).mean()
            fitted = ridge(x[made], z[made], lambdas[0] * scale / own if q else lambdas[1])
            error[q] += ((fitted.predict(x[judged]) - z[judged]) ** 2).sum()
        baseline += ((z[judged] - z[made].mean(axis=0)) ** 2).sum()
    return 1 - error / baseline


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from(SETTINGS), st.integers(1, 5), st.sampled_from(LAMBDAS), st.sampled_from(LAMBDAS))
def test_the_curve_is_that_of_scikit_learns_regressions_on_principal_coordinates_and_directions(seed, setting, rank, translator, principal):
    study = Study(seed, **setting)
    curve = head_extension(study.sums(), rank, (translator, principal), 0.9)
    expected = slow(study, rank, (translator, principal))
    assert curve["directions"].tolist() == list(range(len(expected)))
    np.testing.assert_allclose(curve["r2"], expected, atol=1e-7)
    if len(study.unseen) < 3:
        assert curve[["r2_low", "r2_high"]].isna().all().all()
    else:
        without = np.array([slow(study, rank, (translator, principal), left_out) for left_out in study.unseen])
        for place, row in curve.iterrows():
            assert (row["r2_low"], row["r2_high"]) == pytest.approx(jackknife(expected[place], without[:, place], 0.9), abs=1e-6)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(("rank", "dim"), [(2, 3), (4, 3), (4, 1), (1, 9)])
def test_the_ends_of_the_curve_are_the_two_regressions_of_unique_information(setting, rank, dim):
    sums = Study(7, **setting, dim=dim).sums()
    facts = unique_information(sums, rank, (0.1, 0.3), 0.9)
    curve = head_extension(sums, rank, (0.1, 0.3), 0.9)
    assert curve["r2"].iloc[0] == facts["r2_principal"]
    assert curve["r2"].iloc[-1] == pytest.approx(facts["r2"], abs=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.floats(1e-3, 1e3))
def test_no_other_directions_leave_a_smaller_penalized_squared_error(seed, rank, alpha):
    study, generator = Study(seed), np.random.default_rng(seed)
    made = study.sums().of([0, 1, 2])
    best = null_directions(made, rank, alpha)

    def loss(basis):
        sums = made.project(rank, basis)
        fitted = sums.solve(alpha)
        return sums.squared_error(fitted) + alpha * (fitted.weight**2).sum()

    for q in range(1, best.shape[1] + 1):
        others = [generator.standard_normal((6 - rank, q)), best[:, :q] + 0.1 * generator.standard_normal((6 - rank, q))]
        assert all(loss(best[:, :q]) <= loss(np.linalg.qr(other)[0]) * (1 + 1e-12) for other in others)


def planted(seed, content, *, rank=14, null_dim=10, dim=8, per_dimension=4, noise=0.3, contents=3, copies=0):
    """Sums of cross-fitted rows whose null coordinates tell of `contents` directions of the embedding what the principal do not.

    copies: further null coordinates, of large variance, that are almost principal ones.
    """
    generator, n = np.random.default_rng(seed), per_dimension * (rank + null_dim)
    a, own = generator.standard_normal((n, rank)), generator.standard_normal((n, null_dim))
    b = own + 0.5 * a @ generator.standard_normal((rank, null_dim)) / np.sqrt(rank)
    told = np.linalg.qr(generator.standard_normal((null_dim, contents)))[0]
    into = np.linalg.qr(generator.standard_normal((dim, contents)))[0]
    z = a @ generator.standard_normal((rank, dim)) / np.sqrt(rank * dim) + content * own @ told @ into.T / np.sqrt(contents)
    b = np.hstack([b, 10 * a[:, :copies] + 0.3 * generator.standard_normal((n, copies))])
    z += noise * generator.standard_normal((n, dim)) / np.sqrt(dim)
    manifest = pd.DataFrame({"split": "train", "fold": generator.permutation(n) % 5})
    sums = GroupSums(split(manifest, 5))
    sums.update(np.hstack([a, b]), z, np.arange(n), np.zeros(n, dtype=int))
    return sums, rank


def curve_of(sums, rank):
    lambdas = tuple(LAMBDAS[cross_validate(each, LAMBDAS).best] for each in (sums, sums.regress(slice(0, rank))))
    return extended_r2(sums, rank, lambdas)[0]


@pytest.mark.parametrize("contents", [1, 3])
@pytest.mark.parametrize("per_dimension", [4, 12])
@pytest.mark.parametrize("null_dim", [10, 6])  # more and fewer than the embedding has dimensions
def test_content_of_rank_3_saturates_the_curve_at_3(contents, per_dimension, null_dim):
    for seed in range(20):
        r2 = curve_of(*planted(seed, 0.5, per_dimension=per_dimension, null_dim=null_dim, contents=contents))
        gain, delta = r2 - r2[0], r2[-1] - r2[0]
        assert enough(pd.DataFrame({"directions": np.arange(len(r2)), "r2": r2})) == contents
        assert (np.diff(gain[: contents + 1]) > 0.15 * delta).all(), "every direction with content is seen to add"
        assert (gain[contents:] <= gain[contents] + 0.01 * delta).all() and delta > 0.1


def test_null_coordinates_that_repeat_principal_ones_are_not_taken_for_content():
    for seed in range(20):
        r2 = curve_of(*planted(seed, 0.5, copies=4))
        assert enough(pd.DataFrame({"directions": np.arange(len(r2)), "r2": r2})) == 3


def test_without_content_no_number_of_directions_adds_anything_on_average():
    curves = np.array([curve_of(*planted(seed, 0.0)) for seed in range(100)])
    gains = curves - curves[:, :1]
    assert (gains.mean(axis=0) <= 0).all() and (np.diff(gains.mean(axis=0)) < 0).all()


@pytest.mark.parametrize("images", [60, 9])
def test_the_rows_that_extend_a_head_are_orthonormal_and_change_none_of_its_logits(images):
    generator = np.random.default_rng(3)
    weight, features = generator.standard_normal((6, 20)), generator.standard_normal((images, 20))
    axes, rank = coordinate_axes(null_space(weight).basis, lambda: np.array_split(features, 3))
    assert (rank, axes.shape[1]) == ((6, 20) if images == 60 else (6, 6 + 8))
    np.testing.assert_allclose(axes.T @ axes, np.eye(axes.shape[1]), atol=1e-6)
    sums = GroupSums(split(pd.DataFrame({"split": "train", "fold": np.arange(images) % 3}), 3))
    sums.update(features @ axes, generator.standard_normal((images, 4)), np.arange(images), np.zeros(images, dtype=int))
    made = sums.of([0, 1])
    rows = (axes[:, rank:] @ null_directions(made, rank, *penalties(made, [0.1]))).T
    assert rows.shape == (4, 20)
    np.testing.assert_allclose(rows @ rows.T, np.eye(4), atol=1e-6)
    np.testing.assert_allclose(weight @ rows.T, 0, atol=1e-5)
    moved = features + generator.standard_normal((images, 4)) @ rows  # along the rows, which the old logits do not see
    np.testing.assert_allclose(moved @ weight.T, features @ weight.T, atol=1e-4)
    assert np.abs((moved - features) @ rows.T).min(axis=1).max() > 0.1
    residual = features - features.mean(axis=0)
    if images == 9:  # the axes hold all in which the features differ
        np.testing.assert_allclose(residual @ axes @ axes.T, residual, atol=1e-5)


def test_a_model_without_null_space_has_one_row_and_one_whose_null_part_is_silent_a_flat_curve():
    study = Study(0)
    curve = head_extension(study.sums(), 6, (0.1, 0.3), 0.9)
    facts = unique_information(study.sums(), 6, (0.1, 0.3), 0.9)
    assert curve["directions"].tolist() == [0] and curve["r2"].tolist() == [facts["r2_principal"]]
    assert curve["r2_low"].iloc[0] < curve["r2"].iloc[0] < curve["r2_high"].iloc[0]
    study.features[:, 4:] = 7.0
    curve = head_extension(study.sums(), 4, (0.1, 0.1), 0.9)
    assert len(curve) == 3 and np.ptp(curve["r2"]) < 1e-12 and enough(curve.assign(r2=0.5)) is None
    blind = head_extension(study.sums(), 0, (0.1, 0.1), 0.9)
    assert blind["r2"].iloc[0] == 0 < blind["r2"].iloc[-1]


def curve(*r2):
    return pd.DataFrame({"directions": np.arange(len(r2)), "r2": r2, "r2_low": np.subtract(r2, 0.1), "r2_high": np.add(r2, 0.1)})


@pytest.mark.parametrize(
    ("r2", "fewest"),
    [
        ([0.2, 0.25, 0.289, 0.295, 0.3], 3),
        ([0.0, 0.0, 0.9, 1.0], 2),
        ([0.2, 0.4, 0.1, 0.3], 1),
        ([0.2, 0.1, 0.3], 2),
        ([0.2, 0.3, 0.2], None),
        ([0.2, 0.3, 0.1], None),
        ([0.2], None),
    ],
)
def test_the_fewest_directions_give_90_percent_of_what_all_add(r2, fewest):
    assert enough(curve(*r2)) == fewest


def models_of(rows):
    """tables/models.csv of rows (space, model, null dimensions, Delta R2)."""
    table = pd.DataFrame(rows, columns=["space", "model", "null_dim", "delta_r2"])
    facts = {
        "n_images": 20,
        "rank_rule": "exact",
        "validation_r2": 0.1,
        "translator": "weak",
        "known_zero": False,
        "seed": 3,
        "marks": "weak translator",
    }
    return table.assign(delta_r2_low=table["delta_r2"] - 0.01, delta_r2_high=table["delta_r2"] + 0.01, **facts)


def test_the_table_has_a_row_for_each_model_and_no_number_where_nothing_is_added():
    models = models_of([("s", "a", 7, 0.1), ("s", "b", 0, 0.0), ("t", "a", 7, -0.1), ("t", "b", 0, 0.0)])
    table = gather({"s": {"a": curve(0.2, 0.3), "b": curve(0.2)}, "t": {"a": curve(0.2, 0.1), "b": curve(0.2)}}, models)
    assert table["directions_90"].fillna(-1).tolist() == [1, -1, -1, -1]
    assert table["space"].tolist() == list("sstt") and {"rank_rule", "null_dim", "seed", "n_images", "delta_r2_low"} <= set(table)


def run(name, **flags):
    script = runpy.run_path(str(ROOT / f"scripts/{name}.py"), run_name="x")
    script["main"](script["Flags"](**flags))


def test_the_scripts_measure_tabulate_and_draw_twice_with_the_same_bytes(tmp_path):
    generator, n, views = np.random.default_rng(0), 24, 2
    manifest = pd.DataFrame({"image_id": np.arange(n), "label": "x", "split": "train", "fold": np.arange(n) % 4})
    write_parquet(tmp_path / "manifest.parquet", whole(manifest))
    write_json(tmp_path / "floor.json", {"lambdas": {"translator": 0.1, "principal": 0.3}})
    heads = {"timm/wide": generator.standard_normal((5, 12)), "tall": generator.standard_normal((20, 12))}
    image, view = np.repeat(np.arange(n), views), np.tile(np.arange(views, dtype=np.int32), n)
    features = {model: generator.standard_normal((n * views, 12)).astype(np.float32) for model in heads}
    embeddings = (features["timm/wide"] @ generator.standard_normal((12, 4))).astype(np.float32)
    for folder, name, rows in [("s", "embeddings", embeddings), *((model, "features", rows) for model, rows in features.items())]:
        for shard, part in enumerate(np.array_split(np.arange(n * views), 2)):
            tensors = {name: rows[part], "image_id": image[part], "view": view[part]}
            write_tensors(tmp_path / folder / f"shard-{shard:05d}.safetensors", tensors, {})
    models_of([("s", "timm/wide", 7, 0.1), ("s", "tall", 0, 0.0)]).to_csv(tmp_path / "models.csv")
    for attempt in "ab":
        for model, weight in heads.items():
            write_tensors(tmp_path / model / "basis.safetensors", {"null_basis": null_space(weight).basis}, {})
            paths = {"manifest": tmp_path / "manifest.parquet", "features": tmp_path / model, "embeddings": tmp_path / "s"}
            paths |= {"projector": tmp_path / model / "basis.safetensors", "floor": tmp_path / "floor.json"}
            output = tmp_path / attempt / f"s/{model}.parquet"
            run("measure_head_extension", shards=2, folds=4, reference=None, confidence=0.9, threads=2, output=output, **paths)
            axes, rank = coordinate_axes(null_space(weight).basis, lambda model=model: [features[model]])
            sums = GroupSums(split(manifest, 4))
            sums.update(features[model] @ axes, embeddings, image, view)
            written = read_parquet(output, "head_extensions")
            pd.testing.assert_frame_equal(written, head_extension(sums, rank, (0.1, 0.3), 0.9), atol=1e-9)
            assert written.dtypes.map(str).tolist() == ["int64", *["float64"] * 3]
        paths = {"head_extensions": tmp_path / attempt, "table": tmp_path / "models.csv"}
        paths |= {name: tmp_path / attempt / f"drawn.{name}" for name in ("output", "png", "pdf")}
        run("plot_head_extensions", models=list(heads), spaces=["s"], **paths)
    table = pd.read_csv(tmp_path / "a/drawn.output")
    assert table["model"].tolist() == list(heads) and table["directions_90"].isna().tolist() == [False, True]
    for file in ("s/timm/wide.parquet", "s/tall.parquet", "drawn.output", "drawn.png", "drawn.pdf"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_sixteen_models_in_two_spaces_are_drawn_with_a_marker_where_enough_is_reached():
    generator = np.random.default_rng(0)
    names = [f"a_classifier_{number}" for number in range(16)]
    curves = {space: {name: curve(*np.cumsum(generator.uniform(-0.01, 0.03, 769))) for name in names} for space in "st"}
    curves["t"] |= {names[0]: curve(0.3), names[1]: curve(0.3, 0.2), names[2]: curve(0.3, 0.4).assign(r2_low=np.nan, r2_high=np.nan)}
    models = models_of([(space, name, len(table) - 1, 0.1) for space, tables in curves.items() for name, table in tables.items()])
    models.loc[models["model"] == names[5], ["delta_r2", "delta_r2_low", "delta_r2_high"]] = 0.001, -0.01, 0.01
    figure = head_extensions(curves, gather(curves, models), models)
    figure.canvas.draw()
    for (level, gain), (space, tables), legend in zip(
        (each.axes for each in figure.subfigs), curves.items(), (each.legends[0] for each in figure.subfigs), strict=True
    ):
        drawn = [line for line in gain.get_lines() if len(line.get_xdata()) != 2 or line.get_marker() != "None"]
        assert len(drawn) == len(level.get_lines()) == 16
        assert len({(line.get_color(), line.get_marker()) for line in drawn}) == 16
        for line, table in zip(drawn, tables.values(), strict=True):
            fewest = enough(table)
            assert line.get_markevery() == [len(table) - 1 if fewest is None else fewest]
        texts = [text.get_text() for text in legend.get_texts()]
        said = f"Delta R² +0.100 [+0.090, +0.110], 90 % of it with {enough(tables[names[3]])} of 768 directions"
        assert texts[3] == f"a_classifier_3 (weak translator): {said}"
        hollow = [line.get_markerfacecolor() == "white" for line in drawn]
        assert hollow == [names.index(model) == 5 for model in tables] and texts[5].endswith("[-0.010, +0.010], not beyond chance")
        if space == "t":
            assert texts[0].endswith(": no null space") and texts[1].endswith(", not above 0")
    plt.close(figure)
