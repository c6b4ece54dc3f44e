"""Planted differences: what counts as the same, what is named first, and in which words."""

import io
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from dvc.repo import Repo
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from safetensors.numpy import load_file
from scipy.stats import ortho_group

from singflow.artifacts.catalog import CATALOG, artifact_of
from singflow.artifacts.files import write_json
from singflow.artifacts.tables import write_csv, write_parquet
from singflow.artifacts.tensors import write_tensors
from singflow.artifacts.tolerances import TOLERANCES
from singflow.errors import InputError
from singflow.sharing.verification import (
    Verdict,
    compare,
    compare_files,
    hashes_of,
    place_in_pipeline,
    published,
    summary,
)
from tests.project import ROOT, files_of

IDENTICAL, WITHIN, DIFFERS, *_ = Verdict
REGISTRY, FEATURES = "registry/models/m.json", "features/m/shard-00000.safetensors"
PROJECTOR, FACTS = "projectors/m.safetensors", "translators/s/m/linear.json"
SCORES, PICTURES = "scores/s/m.parquet", "pictures/s/m.parquet"
MODELS, PRINTED = "tables/models.csv", "tables/summary.txt"
FIGURE, PDF = "figures/fig1.png", "figures/fig1.pdf"
METADATA = {"study": "demo", "software": '{"torch": "2.9"}', "head_max_error": "1e-06"}
METADATA |= {"device": "CPU (AVX2)"}
BASIS = ortho_group.rvs(8, random_state=0)
TURN = ortho_group.rvs(3, random_state=1)


def png(value, marked=0, height=40):
    """A grey picture 50 pixels wide, of which the first `marked` are lighter."""
    pixels = np.full((height, 50), value, dtype=np.uint8)
    pixels.flat[:marked] += 50
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A tree with a file of every kind."""
    here = tmp_path_factory.mktemp("tree")
    wide = np.random.default_rng(0).standard_normal((5000, 8)).astype(np.float32)
    images = np.arange(300)
    scores = {"image_id": images, "label": "a dog", "predicted_index": images % 7}
    scores |= {"is_deg": images / 10.0, "null_energy": 0.2}
    pictures = {"text": [None, "a rug"], "step": [np.nan, 1.5], "picture": [png(90), png(99)]}
    projector = {"null_basis": BASIS[:, :3], "singular_values": np.array([3.0, 1.0])}
    curve = [{"validation_r2": 0.5}, {"validation_r2": 0.25}]
    models = [("m", 20, 2.5, ""), ("null", 20, "", "weak")]
    write_json(here / REGISTRY, {"id": "m", "reported_top1": 75.1})
    write_tensors(here / FEATURES, {"features": wide, "image_id": np.arange(5000)}, METADATA)
    write_tensors(here / PROJECTOR, projector, METADATA)
    write_json(here / FACTS, {"alpha": None, "curve": curve, "n": 3})
    write_parquet(here / SCORES, pd.DataFrame(scores))
    write_parquet(here / PICTURES, pd.DataFrame(pictures))
    write_csv(here / MODELS, ["model", "n", "is_mean", "note"], models)
    write_json(here / "metrics.json", {"m": {"is_mean": 2.5}})
    for name, content in {
        PRINTED: b"Study demo: 20 images\nm   2.14 [1.70, 2.70]\n",
        FIGURE: png(90),
        PDF: b"%PDF figure",
        "report.html": b"<h1>demo</h1>",
        "logs/x.log": b"no artifact",
    }.items():
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_bytes(content)
    return here


@pytest.fixture
def trees(tree, tmp_path):
    return [shutil.copytree(tree, tmp_path / name) for name in ("here", "there")]


def verdicts(here, there):
    found = compare(here, hashes_of(there), lambda name, _: there / name)
    return {finding.name: finding for finding in found}


def tensors(name, field, change, **metadata):
    def edit(tree):
        content = load_file(tree / name)
        content[field] = change(content[field].copy())
        write_tensors(tree / name, content, METADATA | metadata)

    return name, edit


def table(name, change):
    def edit(tree):
        path = tree / name
        if path.suffix == ".csv":
            frame = pd.read_csv(path, keep_default_na=False, na_values=[""])
            change(frame).to_csv(path, index=False)
        else:
            write_parquet(path, change(pd.read_parquet(path)))

    return name, edit


def cell(name, row, **values):
    def change(frame):
        for key, value in values.items():
            frame[key] = frame[key].where(frame.index != row, value)
        return frame

    return table(name, change)


def facts(name, change):
    def edit(tree):
        content = json.loads((tree / name).read_text())
        change(content)
        write_json(tree / name, content)

    return name, edit


def text(name, old, new):
    def edit(tree):
        content = (tree / name).read_bytes()
        assert content.count(old) >= 1
        (tree / name).write_bytes(content.replace(old, new))

    return name, edit


def whole(name, content):
    return name, lambda tree: (tree / name).write_bytes(content)


def add(place, value):
    def change(tensor):
        tensor[place] += value
        return tensor

    return change


def plant(tree, *planted):
    for _, edit in planted:
        edit(tree)


def feature(place, value):
    return tensors(FEATURES, "features", add(place, value))


def made(**metadata):
    return tensors(FEATURES, "image_id", lambda ids: ids, **metadata)


PLANTED = {
    "a feature by rounding": (feature((4500, 2), 1e-6), WITHIN, r"tensor features\[4500, 2\]"),
    "the first of two features": (feature(([7, 9], [1, 1]), 5.0), DIFFERS,
        r"features\[7, 1\].*off by 5, "),
    "NaN in a feature": (feature((3, 0), np.nan), DIFFERS, r"features\[3, 0\]: nan here"),
    "infinity in a feature": (feature((3, 0), np.inf), DIFFERS, r"features\[3, 0\]: inf here"),
    "an image's number": (tensors(FEATURES, "image_id", add(6, 1)), DIFFERS,
        r"image_id\[6\]: 7 here, 6 there"),
    "a shape": (tensors(FEATURES, "image_id", lambda ids: ids[1:]), DIFFERS,
        r"shape and type of tensor image_id: \(\(4999,\)"),
    "a type": (tensors(FEATURES, "features", lambda wide: wide.astype(np.float64)), DIFFERS,
        "'float64'.* here, .*'float32'"),
    "a tensor more": (
        (FEATURES, lambda tree: write_tensors(tree / FEATURES, {"b": np.ones(1)}, {})), DIFFERS,
        r"tensors: \['b'\] here"),
    "a device": (made(device="NVIDIA A100"), WITHIN,
        r"device: NVIDIA A100 here, CPU \(AVX2\) there$"),
    "software": (made(software='{"torch": "3.0"}'), WITHIN, "software.torch: 3.0 here, 2.9 there$"),
    "other weights": (made(weights_sha256="9b"), WITHIN, "weights_sha256: 9b here, nothing there"),
    "metadata": (made(study="other"), DIFFERS, "study: other here, demo there"),
    "a number in metadata": (made(head_max_error="2e-06"), WITHIN, "head_max_error: 2e-06 here"),
    "a rotated basis": (tensors(PROJECTOR, "null_basis", lambda basis: basis @ TURN), WITHIN,
        "null_basis"),
    "another basis": (tensors(PROJECTOR, "null_basis", lambda _: BASIS[:, 1:4]), DIFFERS,
        r"spans .*: (1\.0|0\.9{9}\d*) here, 0"),
    "a longer basis": (tensors(PROJECTOR, "null_basis", lambda basis: basis * 1.1), DIFFERS,
        "orthonormal ones: 0.21"),
    "NaN in a basis": (tensors(PROJECTOR, "null_basis", add((0, 0), np.nan)), DIFFERS,
        "finite values of tensor null_basis: 23 here, 24"),
    "a singular value": (tensors(PROJECTOR, "singular_values", add(1, 1e-5)), DIFFERS,
        r"values\[1\]: 1.00001 here, 1.0 there"),
    "a score by rounding": (cell(SCORES, 40, is_deg=4.001), WITHIN,
        "column is_deg, row 40: 4.001 here, 4.0 there"),
    "a score not there": (cell(SCORES, 40, is_deg=np.nan), DIFFERS,
        "column is_deg, row 40: nan here"),
    "a label": (cell(SCORES, 40, label="a cat"), DIFFERS,
        "column label, row 40: a cat here, a dog there"),
    "a choice": (cell(SCORES, 9, predicted_index=0, is_deg=50.0), WITHIN,
        "column predicted_index, row 9, one of 1 rows in 300"),
    "choices in more than a hundredth": (table(SCORES, lambda frame: frame.assign(
        predicted_index=frame["predicted_index"].where(frame.index > 3, 8))), DIFFERS,
        "column predicted_index, row 0, one of 4 rows in 300 .*: 8 here, 0 there .*tolerance 3"),
    "a column": (table(SCORES, lambda frame: frame.drop(columns="null_energy")), DIFFERS,
        "columns: "),
    "a row": (table(SCORES, lambda frame: frame.drop(index=4)), DIFFERS,
        "rows: 299 here, 300 there"),
    "a picture's shade": (cell(PICTURES, 0, picture=png(93)), WITHIN, "column picture, row 0"),
    "another picture": (cell(PICTURES, 1, picture=png(9)), DIFFERS, "column picture, row 1"),
    "a damaged picture": (cell(PICTURES, 1, picture=b"no"), DIFFERS,
        "column picture, row 1: 2 bytes here"),
    "a text that was none": (cell(PICTURES, 0, text="a rug"), DIFFERS,
        "column text, row 0: a rug here, (nan|None) there"),
    "a table's number by more": (cell(MODELS, 0, is_mean=2.6), DIFFERS,
        "column is_mean, row 0: 2.6 here, 2.5 there"),
    "a table's whole number": (cell(MODELS, 1, n=21), DIFFERS,
        "column n, row 1: 21 here, 20 there"),
    "a model called null": (cell(MODELS, 1, model="x"), DIFFERS,
        "column model, row 1: x here, null there"),
    "a fact": (facts(FACTS, lambda c: c["curve"][1].update(validation_r2=0.2501)), WITHIN,
        "curve.1.validation_r2: 0.2501 here"),
    "a fact gone": (facts(FACTS, lambda c: c.pop("alpha")), DIFFERS,
        "alpha: nothing here, None there"),
    "what is copied": (facts(REGISTRY, lambda c: c.update(reported_top1=75.1000001)), DIFFERS,
        "reported_top1: 75.1000001 here"),
    "a metric": (facts("metrics.json", lambda c: c["m"].update(is_mean=3.5)), DIFFERS,
        "m.is_mean: 3.5 here, 2.5 there"),
    "only bytes of JSON": (text("metrics.json", b"\n", b"\n\n"), WITHIN,
        "metrics.json: within tolerance$"),
    "a printed number": (text(PRINTED, b"1.70", b"1.71"), WITHIN,
        "line 2, number 2: 1.71 here, 1.7 there"),
    "a printed word": (text(PRINTED, b"20 images", b"21 images"), DIFFERS,
        "line 1: Study demo: 21 images here"),
    "a line more": (text(PRINTED, b"2.70]\n", b"2.70]\nmore\n"), DIFFERS,
        "line 3: more here, nothing there"),
    "a figure's edge": (whole(FIGURE, png(90, marked=40)), WITHIN, "most at x 0, y 0"),
    "another figure": (whole(FIGURE, png(90, marked=41)), DIFFERS,
        r"x 0, y 0: \(140, 140, 140, 255\) here.*off by 0.02"),
    "a figure's size": (whole(FIGURE, png(90, height=30)), DIFFERS, r"\(30, 50\) here, \(40, 50\)"),
    "a PDF alone": (text(PDF, b"fig", b"FIG"), DIFFERS, "byte 5: 70 here, 102 there"),
    "the page alone": (text("report.html", b"demo", b"dem"), DIFFERS, "byte 7: 60 here, 111 there"),
}  # fmt: skip


def test_equal_trees_are_identical_and_logs_are_no_artifacts(trees):
    here, there = trees
    (here / "logs/x.log").write_text("other")
    (here / "figures/.hidden").write_text("being written")
    found = verdicts(here, there)
    assert {finding.verdict for finding in found.values()} == {IDENTICAL}
    assert set(found) == files_of(there).keys() - {"logs/x.log"}


@pytest.mark.parametrize(("planted", "verdict", "words"), PLANTED.values(), ids=PLANTED)
def test_a_planted_difference_is_judged_and_named_and_nothing_else_is(
    trees, planted, verdict, words
):
    here, there = trees
    plant(here, planted)
    found = verdicts(here, there)
    others = {name: one.verdict for name, one in found.items() if one.verdict != IDENTICAL}
    assert others == {planted[0]: verdict}
    assert re.search(words, str(found[planted[0]])), str(found[planted[0]])
    plant(there, planted)
    assert verdicts(here, there)[planted[0]].verdict == IDENTICAL


@pytest.mark.parametrize("name", [FEATURES, SCORES, MODELS, FACTS, FIGURE, PRINTED])
def test_a_file_that_cannot_be_read_is_named_on_either_side(trees, name):
    (trees[0] / name).write_bytes(b"\xff\xfe\x00 no such format")
    for here, there in (trees, reversed(trees)):
        finding = verdicts(here, there)[name]
        assert finding.verdict == DIFFERS
        assert re.match(rf"{trees[0] / name}: not readable .*remove it", finding.note)


def test_a_pdf_and_the_page_may_follow_an_artifact_that_is_within_tolerance(trees):
    here, there = trees
    names = ("a PDF alone", "the page alone", "a score by rounding")
    plant(here, *(PLANTED[name][0] for name in names))
    found = verdicts(here, there)
    assert found[SCORES].verdict == found[PDF].verdict == found["report.html"].verdict == WITHIN
    plant(here, PLANTED["another figure"][0])
    assert verdicts(here, there)[FIGURE].verdict == DIFFERS


def test_only_the_hash_is_known(trees):
    here, there = trees
    plant(here, PLANTED["a metric"][0])
    found = compare(here, hashes_of(there), lambda name, md5: None)
    (finding,) = [result for result in found if not result.good]
    said = (
        r"metrics.json: different; MD5: \w{32} here, \w{32} there; only the hash is known: .*--ag"
    )
    assert re.match(said, str(finding))


def test_the_order_is_that_of_the_pipeline(trees):
    here, there = trees
    for name in hashes_of(here):
        (here / name).write_bytes(b"other")
    tops = [name.split("/")[0] for name, finding in verdicts(here, there).items()]
    order = "registry features projectors translators scores pictures tables tables metrics.json"
    assert tops == [*order.split(), "figures", "figures", "report.html"]
    results = f"{ROOT}/results/demo/"

    def inside(side):
        paths = [entry.fs_path for entry in side]
        return [path.removeprefix(results) for path in paths if path.startswith(results)]

    with Repo(str(ROOT), config={"core": {"no_scm": True}}) as repo:
        steps = [(inside(stage.deps), inside(stage.outs)) for stage in repo.index.stages]
    assert sum(len(outs) for _, outs in steps) > 100
    written = [name for _, outs in steps for name in outs]
    assert all(artifact_of(name) for name in written)
    for deps, outs in steps:
        read = [name for name in written for dep in deps if f"{name}/".startswith(f"{dep}/")]
        last = max((place_in_pipeline(name)[0] for name in read), default=0)
        assert all(last <= place_in_pipeline(out)[0] for out in outs), (deps, outs)


@settings(max_examples=50)
@given(
    arrays(np.float64, (4, 3), elements=st.floats(-1e6, 1e6)),
    arrays(np.float64, (4, 3), elements=st.floats(-3, 3) | st.sampled_from([0.0, np.nan, np.inf])),
    st.sampled_from(["features/m/shard-0", "translators/s/m/linear", "translators/s/m/mlp3"]),
    st.sampled_from(["features", "weight", "logit_change", "validation_mse"]),
)
def test_a_file_is_the_same_as_itself_and_the_verdict_does_not_depend_on_the_side(
    tmp_path_factory, numbers, noise, name, field
):
    folder, name = tmp_path_factory.mktemp("pair"), f"{name}.safetensors"
    here, there = folder / "here", folder / "there"
    write_tensors(here, {field: numbers}, {})
    write_tensors(there, {field: numbers + noise * (np.abs(numbers) + 1) * 1e-2}, {})
    for path in (here, there):
        assert compare_files(name, path, path) == (name, WITHIN, (), "")
    forth, back = compare_files(name, here, there), compare_files(name, there, here)
    assert forth.verdict == back.verdict
    found = [[(d.where, d.size, d.allowed) for d in side.differences] for side in (forth, back)]
    assert found[0] == found[1]


def test_the_summary_says_what_is_the_same_and_what_is_not(trees):
    here, there = trees

    def said():
        return summary(list(verdicts(here, there).values()))

    assert said()[-1] == "the same: 12 artifacts: 12 identical"
    plant(here, PLANTED["software"][0], PLANTED["a score by rounding"][0])
    near = said()
    assert near[-1] == "the same: 12 artifacts: 10 identical, 2 within tolerance"
    assert "software.torch: 3.0 here, 2.9 there" in near
    worst = r"    nearest to its limit: scores/s/m.parquet: .*row 40.* \(off by 0.001, .* 0.014\)"
    assert re.fullmatch(worst, near[near.index("scores: 1 within tolerance") + 1])
    plant(here, PLANTED["a table's number by more"][0], PLANTED["a metric"][0])
    (here / FEATURES).unlink()
    (here / "tables/old.csv").write_text("a\n")
    assert said()[-5:] == [
        f"missing here: {FEATURES}: `singflow fetch`, or run the study; "
        "where only a tier was fetched, `--tier <tier>` looks at that alone",
        "only here: tables/old.csv: remove it if it is left from another study",
        "the first that differs: tables/models.csv: different; column is_mean, row 0: "
        "2.6 here, 2.5 there (off by 0.1, tolerance 0.013)",
        "also differs: metrics.json: different; m.is_mean: 3.5 here, 2.5 there (off by 1, "
        "tolerance 0.013)",
        "NOT the same: 13 artifacts: 8 identical, 1 within tolerance, 2 different, "
        "1 missing here, 1 only here",
    ]
    with pytest.raises(InputError, match=r"nowhere: no such folder.*--results"):
        hashes_of(here / "nowhere")


def test_a_lock_without_the_study_knows_nothing_and_one_that_leads_out_is_refused(tmp_path):
    lock = tmp_path / "dvc.lock"
    with pytest.raises(InputError, match=r"dvc\.lock: no such file"):
        published(lock, "demo")
    lock.write_text("stages: {}\n")
    assert published(lock, "demo") == {}
    for out, words in (
        ({"path": "results/demo/../../x", "md5": "0" * 32}, "not a path and a hash of a result"),
        ({"path": "results/demo/x", "md5": "ab/../../x"}, "not a path and a hash of a result"),
        ({"path": "results/demo/x"}, "not as DVC writes it"),
    ):
        lock.write_text(json.dumps({"stages": {"a": {"outs": [out]}}}))
        with pytest.raises(InputError, match=rf"dvc\.lock: .*{words}"):
            published(lock, "demo")


def test_the_docs_state_the_tolerances():
    lines = (ROOT / "docs/reproducibility.md").read_text().splitlines()
    for tolerance in TOLERANCES:
        fields = tolerance.fields.replace("|", r"\|")
        size = f"{tolerance.absolute:g} | {tolerance.relative:g}"
        kind = {"f": "decimals", "g": "digits"}
        kept = f" {tolerance.in_git[-2]} {kind[tolerance.in_git[-1]]}" if tolerance.in_git else ""
        assert f"| `{fields}` | {size} |{kept} | {tolerance.why} |" in lines
    times = {"itself": "itself", "row": "its row's norm", "tensor": "its tensor's root mean square"}
    for artifact in CATALOG.values():
        if artifact.within:
            scale, relative = artifact.within
            path = re.sub(r"\{(\w+)\}", r"<\1>", artifact.path)
            (line,) = (line for line in lines if f"`{path}`" in line and line.startswith("| "))
            assert f" | {relative:g} | {times[scale]} | " in line
