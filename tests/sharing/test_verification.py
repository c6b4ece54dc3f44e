"""Planted differences: what counts as the same, what is named, and what DVC and git know."""

import io
import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import load_file
from scipy.stats import ortho_group

from singflow.artifacts.files import write_json
from singflow.artifacts.tables import write_csv, write_parquet
from singflow.artifacts.tensors import write_tensors
from singflow.errors import InputError
from singflow.sharing.verification import Verdict, compare, hashes_of, published, summary
from tests.project import AUTHOR, ROOT, files_of

IDENTICAL, WITHIN, UNREAD, DIFFERS, *_ = Verdict
REGISTRY, FEATURES = "registry/models/m.json", "features/m/shard-00000.safetensors"
PROJECTOR, EVIDENCE = "projectors/m.safetensors", "evidence/s/m.json"
SCORES, PICTURES = "scores/s/m.parquet", "pictures/s/m.parquet"
MODELS, PRINTED = "tables/models.csv", "tables/summary.txt"
FIGURE, PDF, SVG = (f"figures/fig1.{end}" for end in ("png", "pdf", "svg"))
PAGES = {PDF: b"%PDF 1 %%EOF", SVG: b"<svg>1</svg>", "report.html": b"<h1>1</h1></html>"}
PAGES[PRINTED] = b"Study demo: 1 image\n"
METADATA = {"study": "demo", "software": '{"torch": "2.9"}', "head_max_error": "1e-06"}
BASIS = ortho_group.rvs(8, random_state=0)
TURN = ortho_group.rvs(3, random_state=1)


def png(value):
    file = io.BytesIO()
    Image.fromarray(np.full((40, 50), value, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A tree with a file of every kind."""
    here = tmp_path_factory.mktemp("tree")
    wide = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    images = np.arange(300)
    scores = {"image_id": images, "label": "a dog", "predicted_index": images % 7}
    scores |= {"is_deg": images / 10.0, "null_energy": 0.2}
    pictures = {"text": [None, "a rug"], "step": [np.nan, 1.5], "picture": [png(90), png(99)]}
    projector = {"null_basis": BASIS[:, :3], "singular_values": np.array([3.0, 1.0])}
    evidence = {"unique_r2": 0.05, "turn_deg": 20.0, "detectable": None, "n": 3, "lambdas": [1.0]}
    write_json(here / REGISTRY, {"id": "m", "reported_top1": 75.1})
    write_tensors(here / FEATURES, {"features": wide, "image_id": np.arange(50)}, METADATA)
    write_tensors(here / PROJECTOR, projector, METADATA)
    write_json(here / EVIDENCE, evidence)
    write_parquet(here / SCORES, pd.DataFrame(scores))
    write_parquet(here / PICTURES, pd.DataFrame(pictures))
    write_csv(here / MODELS, ["model", "n", "d"], [("m", 20, 2.5), ("null", 20, "")])
    write_json(here / "metrics.json", {"m": {"unique_r2": 0.05}})
    (here / "params.yaml").write_text("study: demo\nmargin: 0.005\n")
    for name, content in {**PAGES, FIGURE: png(90), "logs/x.log": b"no artifact"}.items():
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_bytes(content)
    return here


@pytest.fixture
def trees(tree, tmp_path):
    return [shutil.copytree(tree, tmp_path / name) for name in ("here", "there")]


def verdicts(here, there):
    return {one.name: one for one in compare(here, hashes_of(there), lambda name: there / name)}


def tensors(name, field, change, **metadata):
    def edit(path):
        content = load_file(path)
        content[field] = change(content[field].copy())
        write_tensors(path, content, METADATA | metadata)

    return name, edit


def table(name, change):
    def edit(path):
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


def facts(name, **values):
    def edit(path):
        write_json(path, json.loads(path.read_text()) | values)

    return name, edit


def whole(name, content):
    return name, lambda path: path.write_bytes(content)


def feature(place, value):
    def change(tensor):
        tensor[place] += value
        return tensor

    return tensors(FEATURES, "features", change)


def basis(change):
    return tensors(PROJECTOR, "null_basis", change)


def made(**metadata):
    return tensors(FEATURES, "image_id", lambda ids: ids, **metadata)


def chosen(rows):
    def change(frame):
        kept = frame.index >= rows
        return frame.assign(
            predicted_index=frame["predicted_index"].where(kept, 8),
            is_deg=frame["is_deg"].where(kept, 99.0),
        )

    return table(SCORES, change)


PLANTED = {
    "a feature by rounding": (feature((45, 2), 1e-5), WITHIN, r"features \(float32\)\[45, 2\]"),
    "NaN in a feature": (feature((3, 0), np.nan), DIFFERS, r"\[3, 0\]: nan here"),
    "an image's number": (tensors(FEATURES, "image_id", lambda ids: ids + (ids == 6)), DIFFERS,
        r"image_id \(int64\)\[6\]: 7 here, 6 there"),
    "software": (made(software='{"torch": "3.0"}'), WITHIN, "^$"),
    "metadata": (made(study="other"), DIFFERS, "metadata study: other here, demo there"),
    "a rotated basis": (basis(lambda old: old @ TURN), WITHIN, "distance of the spans"),
    "another basis": (basis(lambda _: BASIS[:, 1:4]), DIFFERS, r"spans: 1\.41.* here, 0"),
    "a score by rounding": (cell(SCORES, 40, is_deg=4.001), WITHIN, r"is_deg\[40\]: 4.001 here"),
    "a score": (cell(SCORES, 40, is_deg=4.1), DIFFERS, r"is_deg\[40\]: 4.1 here, 4.0 there"),
    "a label": (cell(SCORES, 40, label="a cat"), DIFFERS, r"label\[40\]: a cat here, a dog there"),
    "choices": (chosen(3), WITHIN, "another choice in 3 of 300 rows, first in row 0"),
    "too many choices": (chosen(4), DIFFERS, r"4 of 300 rows.*\(tolerance 3\)"),
    "a column": (table(SCORES, lambda frame: frame.drop(columns="null_energy")), DIFFERS,
        "column null_energy: only there"),
    "a row": (table(SCORES, lambda frame: frame.drop(index=4)), DIFFERS, r"shape \(299,\) here"),
    "a picture": (cell(PICTURES, 1, picture=png(98)), UNREAD, "^$"),
    "a damaged picture": (cell(PICTURES, 1, picture=png(98)[:-20]), DIFFERS,
        r"picture\[1\]: \d+ bytes here"),
    "a table's number": (cell(MODELS, 0, d=2.6), DIFFERS, r"column d\[0\]: 2.6 here, 2.5 there"),
    "D by rounding": (facts(EVIDENCE, unique_r2=0.0501), WITHIN, "unique_r2: 0.0501 here"),
    "D by the margin": (facts(EVIDENCE, unique_r2=0.055), DIFFERS, "unique_r2: 0.055 here"),
    "a number where none was": (facts(EVIDENCE, detectable=0.1), DIFFERS, "0.1 here, None there"),
    "a fact more": (facts(EVIDENCE, p=0.5), DIFFERS, "p: only here"),
    "only bytes of JSON": (whole("metrics.json", b'{"m": {"unique_r2": 5e-2}}'), WITHIN, "^$"),
    "another figure": (whole(FIGURE, png(91)), UNREAD, "^$"),
    "a damaged figure": (whole(FIGURE, png(91).replace(b"IDAT", b"IDAT0")), DIFFERS,
        "not readable"),
}  # fmt: skip
PLANTED |= {
    f"other bytes of {name}": (whole(name, old.replace(b"1", b"2")), UNREAD, "^$")
    for name, old in PAGES.items()
}
PLANTED |= {f"nothing in {name}": (whole(name, b""), DIFFERS, "it is empty") for name in PAGES}


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
    name, edit = planted
    edit(here / name)
    found = verdicts(here, there)
    others = {name: one.verdict for name, one in found.items() if one.verdict != IDENTICAL}
    assert others == {name: verdict}
    assert re.search(words, found[name].said), found[name].said
    assert verdicts(there, here)[name].verdict == verdict


@pytest.mark.parametrize("name", [FEATURES, SCORES, MODELS, EVIDENCE, "params.yaml"])
def test_a_file_that_cannot_be_read_is_named_on_either_side(trees, name):
    (trees[0] / name).write_bytes(b"\xff\xfe\x00 no such format")
    for here, there in (trees, reversed(trees)):
        finding = verdicts(here, there)[name]
        assert finding.verdict == DIFFERS
        assert re.match(rf"{trees[0] / name}: not readable .*remove it", finding.said)


def test_the_summary_says_what_is_the_same_what_is_not_and_what_nobody_compared(trees):
    here, there = trees

    def said(*planted):
        for name, edit in (PLANTED[one][0] for one in planted):
            edit(here / name)
        return summary([*verdicts(here, there).values()])

    assert said()[-1] == "the same: 14 artifacts: 14 identical"
    near = said("software", "a score by rounding")
    assert near[-1] == "the same: 14 artifacts: 12 identical, 2 within tolerance"
    assert "metadata software.torch: 3.0 here, 2.9 there" in near
    pages = said("a picture", "another figure", "other bytes of report.html")
    assert pages[-2].startswith(f"3 not compared: {PICTURES}, {FIGURE}, report.html: ")
    assert pages[-1].startswith("the same, where compared: ")
    (here / FEATURES).unlink()
    (here / "tables/old.csv").write_text("a\n")
    missing, added, first, *_, end = said("a table's number", "D by the margin")[-5:]
    assert missing.startswith(f"1 missing here: {FEATURES}") and "tables/old.csv" in added
    assert f"{EVIDENCE}: unique_r2: 0.055 here, 0.05 there" in first
    assert end.startswith("NOT the same: ")
    with pytest.raises(InputError, match=r"nowhere: no such folder.*--results"):
        hashes_of(here / "nowhere")


STAGES = """
stages:
  data: {cmd: "true", outs: ["results/${study}/data"]}
  report:
    cmd: "true"
    outs: ["results/${study}/tables", {"results/${study}/metrics.json": {cache: false}}]
"""


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with folders as outputs, whose study is committed but not pushed."""
    folder = tmp_path / "repository"
    for name, content in {
        "results/demo/data/rejected.csv": "path,reason\na,small\n",
        "results/demo/tables/models.csv": "model,d\nm,2.5\n",
        "results/demo/metrics.json": '{"m": 2.5}\n',
        "params.yaml": (ROOT / "params.yaml").read_text(),
        "dvc.yaml": STAGES,
        ".gitignore": "/results/*/*/\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    for name, value in AUTHOR.items():
        monkeypatch.setenv(name, value)
    run("git init -q", "dvc init -q", f"dvc remote add -q -d lab {tmp_path}/lab", *COMMIT)
    return folder / "results/demo"


COMMIT = ("git add -A", "git commit -qm t")
TABLE = "tables/models.csv"


def run(*commands):
    for command in commands:
        subprocess.run(command.split(), check=True)


def against_published(results, rev="HEAD", remote=None):
    with published("demo", rev, remote) as (known, original, by_dvc):
        return by_dvc, {one.name: one for one in compare(results, known, original)}


def test_a_published_study_is_read_from_the_cache_the_remote_and_git(repository, tmp_path):
    run("dvc commit -q -f", "dvc push -q", *COMMIT, "git tag study/demo")
    by_dvc, found = against_published(repository)
    assert by_dvc and len(found) == 3
    assert {one.verdict for one in found.values()} == {IDENTICAL}
    (repository / "metrics.json").write_text('{"m": 2.6}\n')
    (repository / "data/rejected.csv").unlink()
    (repository / TABLE).write_text("model,d\nm,3.5\n")
    run("dvc commit -q -f", *COMMIT)  # a study with other numbers
    before = files_of(repository.parents[1] / ".dvc")
    for gone in (None, tmp_path / "repository/.dvc/cache"):
        if gone:
            shutil.rmtree(gone)
            before = files_of(repository.parents[1] / ".dvc")
        _, found = against_published(repository, rev="study/demo")
        assert found["data/rejected.csv"].verdict == Verdict.MISSING
        assert found["metrics.json"].said.startswith("m: 2.6 here, 2.5 there")
        assert found[TABLE].said.startswith("column d[0]: 3.5 here, 2.5 there")
        assert files_of(repository.parents[1] / ".dvc") == before, "nothing was written"
