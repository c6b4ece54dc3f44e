"""Features that somebody has become a folder that a study reads, or are refused."""

import hashlib
import shutil
import tracemalloc

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

import singflow
from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.shards import count_shards, read_manifest, towers_in
from singflow.artifacts.tensors import read_tensors, write_tensors
from singflow.config.registry import FeaturesEntry
from singflow.data import arrays
from singflow.data import features as saving
from singflow.data.imported import (
    check_source,
    imported_shard,
    listed_rows,
    own_class_names,
    read_source,
    source_fingerprint,
)
from singflow.data.manifest import build_manifest
from singflow.data.parameters import Data
from tests.project import ROOT, blocks
from tests.refusals import refused

N, D, C, M = 60, 7, 4, 5
NAMES = ["ant", "bee", "cat", "dog"]
RNG = np.random.default_rng(1)
INDEX = np.arange(N) % C
WEIGHT = np.linalg.qr(RNG.standard_normal((D, D)))[0][:C].astype(np.float32)
BIAS = RNG.standard_normal(C).astype(np.float32)
FEATURES = (RNG.standard_normal((N, D)) + 9 * WEIGHT[INDEX]).astype(np.float32)
LOGITS = FEATURES @ WEIGHT.T + BIAS
EMBEDDINGS = RNG.standard_normal((N, M)).astype(np.float32)
IDS = [f"data/{row}.jpg" for row in range(N)]
GIVEN = {
    "ids": IDS,
    "labels": INDEX,
    "features": FEATURES,
    "head": (WEIGHT, BIAS),
    "class_names": NAMES,
    "embeddings": EMBEDDINGS,
    "space": "sounds",
}
SOUNDS = {"sounds": FeaturesEntry(source="features", dim=M, text="file:checkpoints/sounds.npz")}
MINE = {"model": "features/mine"}
NO_SPACE = {"embeddings": None, "space": None}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "SHARD_ROWS", 16)  # four shards
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(folder="mine", **changes):
    return "\n".join(singflow.save_features(folder, **GIVEN | changes))


def state(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_has_what_was_given_in_shards_that_a_study_reads_in_any_order(here):
    said = save(logits=LOGITS.astype(np.float16), ids=[f"/{name}" for name in IDS])
    assert "60 rows; 0 of them are copies" in said
    assert "features/mine: 7 features, 4 classes, top-1 1.000; W f + b is within" in said
    rows = read_manifest(CATALOG["manifest"].at(here / "mine"))
    assert rows["path"].tolist() == IDS and (rows["class_index"] == INDEX).all()
    assert rows["label"].tolist() == [NAMES[row] for row in INDEX]
    assert rows["sha256"][3] == hashlib.sha256(b"data/3.jpg").hexdigest()
    head, made = read_tensors(CATALOG["head"].at(here / "mine", **MINE))
    assert np.array_equal(head["weight"], WEIGHT) and np.array_equal(head["bias"], BIAS)
    assert made["weights_sha256"] == hashlib.sha256(WEIGHT.tobytes() + BIAS.tobytes()).hexdigest()
    assert made["weight_dtype"] == "float32"
    order = RNG.permutation(N)[:40]
    for artifact, names, given in (
        ("features", MINE, FEATURES),
        ("embeddings", {"space": "sounds"}, EMBEDDINGS),
    ):
        folder = CATALOG[artifact].at(here / "mine", shard="00000", **names).parent
        assert count_shards(folder) == 4
        found, facts = imported_shard(here / "mine", rows["path"][order], artifact, **names)
        np.testing.assert_array_equal(found, given[order])
        assert artifact == "embeddings" or 0 < facts["head_max_error"] < 0.01
    check_source(here / "mine", ["features/mine"], SOUNDS, 1)


def test_a_dataset_of_h5py_is_an_array(here):
    with h5py.File("mine.h5", "w") as file:
        file["features"] = FEATURES
        save(features=file["features"])
    found, _ = imported_shard(here / "mine", IDS, "features", **MINE)
    np.testing.assert_array_equal(found, FEATURES)


def test_views_of_an_image_stay_together(here):
    views = np.stack([FEATURES, FEATURES + 1], axis=1)
    save(features=views, embeddings=np.stack([EMBEDDINGS, EMBEDDINGS - 1], axis=1), logits=LOGITS)
    found, _ = imported_shard(here / "mine", IDS[::-1], "features", **MINE)
    np.testing.assert_array_equal(found, views[::-1].reshape(-1, D))
    check_source(here / "mine", ["features/mine"], SOUNDS, 2)
    said = r"holds 2 views of an image: write extraction\.views: 2"
    refused(said, check_source, here / "mine", ["features/mine"], SOUNDS, 1)


def test_another_model_and_space_join_and_the_state_of_the_folder_changes(here):
    save()
    root, before = here / "mine", source_fingerprint(here / "mine")
    two = {"head": (WEIGHT[:2], BIAS[:2]), "class_names": NAMES[:2]}
    said = save(**two, **NO_SPACE, labels=None, model="two")
    assert "2 classes, top-1 1.000" in said  # of the rows of these classes
    back = {"head": (WEIGHT[::-1], BIAS[::-1]), "class_names": NAMES[::-1]}
    assert "4 classes, top-1 1.000" in save(**back, **NO_SPACE, model="timm/resnet18.a1_in1k")
    save(features=None, head=None, labels=None, class_names=None, space="others")
    save(model="efficientnet_lite0", **NO_SPACE)  # of the registry
    models = ["efficientnet_lite0", "features/mine", "features/two", "timm/resnet18.a1_in1k"]
    assert towers_in(root) == (models, ["others", "sounds"])
    assert own_class_names(root, "features/two") == NAMES[:2]
    assert own_class_names(root, "features/mine") is None
    check_source(root, ["features/two"], SOUNDS, 1)
    assert source_fingerprint(root) != before


def test_the_same_call_changes_nothing_and_none_replaces_what_is_there(here):
    save()
    before = state(here / "mine")
    save()
    for changes, said in (
        ({"features": FEATURES + 1e-3}, "mine: holds other values already: remove it"),
        ({"embeddings": EMBEDDINGS[::-1], "model": "new"}, "sounds: holds other values already"),
        ({"ids": IDS[::-1], "model": "new"}, "ids: mine has other ids, or another order"),
        ({"head": (WEIGHT[:3], BIAS[:3]), "class_names": None, "model": "new"},
         "class_names: 4 names, but the head has 3 rows: name its classes in their order"),
    ):  # fmt: skip
        refused(said, save, **changes)
    assert state(here / "mine") == before and not [*here.glob(".mine*")]


def test_labels_and_classes_without_names_are_told(here):
    save("unnamed", class_names=None)
    head = CATALOG["head"].at(here / "unnamed", model="features/unnamed")
    assert read_tensors(head, [])[1]["unnamed"] == "true"
    assert read_source(here / "unnamed")["label"][1] == "class 1"
    labels = ["CAT" if row else "a_wolf" for row in INDEX]
    save("texts", labels=labels, split=["validation"] * 20 + ["train"] * 40)
    rows = read_source(here / "texts")
    assert rows["label"][:2].tolist() == ["a wolf", "cat"]
    assert rows["class_index"][:2].tolist() == [-1, 2]
    names = ["ant_x", *NAMES[1:]]
    save("lines", class_names=names, labels=[names[row] for row in INDEX])
    assert (read_source(here / "lines")["class_index"] == INDEX).all()
    candidates, _ = listed_rows(here / "texts")
    assert [one.split for one in candidates[19:21]] == ["validation", "train"]


def folds_of(root):
    found, known = listed_rows(root)
    data = Data(source="features", max_rejected_fraction=0.0)
    return build_manifest(root, found, [], data, folds=5, seed=0, threads=1, known=known)[0]


def test_rows_of_equal_content_are_copies_and_no_fold_follows_the_last_bits(here):
    folds = []
    for name, rounding in (("one", 0.0), ("two", 1e-6)):
        embeddings = EMBEDDINGS * (1 + rounding)
        embeddings[[5, 40]] = embeddings[11]
        assert "60 rows; 2 of them are copies" in save(name, embeddings=embeddings)
        folds.append(folds_of(here / name))
    pd.testing.assert_frame_equal(*folds)
    by_path = folds[0].set_index("path")["fold"]
    assert by_path["data/5.jpg"] == by_path["data/11.jpg"] == by_path["data/40.jpg"]
    assert by_path.nunique() == 5 and hashlib.sha256(bytes(by_path)).hexdigest()[:8] == "c852a499"


def test_the_results_of_a_study_are_a_source_whose_drawn_split_is_drawn_again(here):
    save()
    shutil.copytree("mine", "results")
    (here / "results/classes.csv").unlink()
    path = CATALOG["manifest"].at(here / "results")
    folds_of(here / "mine").to_parquet(path)
    assert {one.split for one in listed_rows(here / "results")[0]} == {""}
    pd.testing.assert_frame_equal(folds_of(here / "results"), pd.read_parquet(path))
    check_source(here / "results", ["features/mine"], SOUNDS, 1)
    said = "results: holds other files: save into another folder; "
    refused(said, save, "results", model="new")


def test_a_square_head_is_told_by_its_logits_or_refused(here):
    weight = np.linalg.qr(RNG.standard_normal((C, C)))[0].astype(np.float32)
    features = (RNG.standard_normal((N, C)) / 9 + 9 * weight[INDEX]).astype(np.float32)
    logits = features @ weight.T + BIAS
    assert "top-1 1.000" in save(features=features, head=(weight, BIAS), logits=logits)
    linear = torch.nn.Linear(C, C)
    linear.weight.data = torch.from_numpy(weight)
    save("linear", features=features, head=linear)
    turned = {"features": features, "head": (weight.T, BIAS), "logits": logits}
    refused("logits: row .* or the weight is stored as", save, "other", **turned)
    said = "head: its weight is square, .*: give the model's logits"
    refused(said, save, "other", features=features, head=(weight, BIAS))


ONE_EACH = "give one for each id"
ORDER = {"class_names": ["bee", "ant", "dog", "cat"], "labels": [NAMES[row] for row in INDEX]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (ORDER, "class_names: top-1 is 0.000, but would be 1.000 in another order: most rows of"),
        ({"head": WEIGHT.T}, r"head: has shape \(7, 4\), .*: give its transpose, weight.T"),
        ({"head": None}, "features and head belong together: give both, or neither$"),
        ({"space": "a b"}, "^a b: may hold only letters"),
        ({"labels": None}, "other: holds no features yet: give features, head, and labels"),
        ({"ids": ["a", "a"]}, "ids: 'a' is given twice: leave one of the two out everywhere"),
        ({"ids": ["../a"]}, "ids: row 0: .* is no text, is empty, unprintable or has ..: rename"),
        ({"ids": []}, "ids: none are given"),
        ({"ids": IDS[:-1]}, f"labels: 60 for 59 ids: {ONE_EACH}"),
        ({"embeddings": EMBEDDINGS * (np.arange(N)[:, None] < 40)},
         "embeddings: row 40 holds zeros alone, which have no direction: compute it anew"),
        ({"features": FEATURES * np.nan}, "features: row 0 holds NaN, or values that are infinite"),
        ({"features": [*FEATURES]}, "features: is a list of shape .*: join rows with np.stack"),
        ({"logits": LOGITS[::-1]}, r"logits: row \d+ differs from W f \+ b by .*: the features"),
        ({"class_names": [1, 2, 3, 4]}, "class_names: are not texts: give str.name. for each"),
        ({"labels": [9] * N}, "labels: row 0 is 9, but the head has the rows 0 to 3: give a text"),
        ({"labels": [1.5] * N}, "labels: row 0 is .*: give an integer or a printable text"),
        ({"split": ["test"] * N}, "split: 'test' is neither train nor validation: correct it"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_leaves_nothing(here, changes, said):
    refused(said, save, "other", **changes)
    assert not [*here.iterdir()]


def test_a_study_of_what_a_folder_lacks_is_refused_before_it_runs(here):
    save()
    clip, wide = {"clip": SOUNDS["sounds"]}, SOUNDS["sounds"].model_copy(update={"dim": 9})
    for said, *wanted in (
        ("holds no data/manifest.parquet: name a folder that singflow.save_feat", here, [], {}),
        ("has nothing of other; its models are features/mine: ", here / "mine", ["other"], {}),
        ("has nothing of clip; its spaces are sounds: add it", here / "mine", [], clip),
        ("has 5 dimensions, but sounds has 9: name", here / "mine", [], {"sounds": wide}),
    ):
        refused(said, check_source, *wanted, 1)
    shard = CATALOG["features"].at(here / "mine", shard="00003", **MINE)
    tensors, made = read_tensors(shard)
    write_tensors(shard, {name: tensor[:3] for name, tensor in tensors.items()}, dict(made))
    said = "does not hold each of 1 views of each image once"
    refused(said, imported_shard, here / "mine", IDS, "features", **MINE)


PAGE = blocks((ROOT / "docs/features.md").read_text(encoding="utf-8"), "python")
FORMS = {  # of the page: its block, and the embeddings that it reads
    "NumPy": 'np.load("embeddings.npy", mmap_mode="r")  # (n, m)',
    "Parquet": "ParquetFile",
    "clip-retrieval": "img_emb",
}


def write_forms(folder, ids, labels, embeddings):
    """The same features as every program writes them."""
    rows = {"id": ids, "label": labels}
    arrays = {"features": FEATURES, "embeddings": embeddings}
    pd.DataFrame(rows).to_csv("birds.csv", index=False)
    (folder / "birds.txt").write_text("\n".join(NAMES))
    for name, array in (arrays | {"weight": WEIGHT, "bias": BIAS}).items():
        np.save(f"{name}.npy", array)
    lists = {name: list(array) for name, array in arrays.items()}
    pd.DataFrame(rows | lists).to_parquet("birds.parquet")
    for name in ("clip/img_emb", "clip/metadata"):
        (folder / name).mkdir(parents=True)
    for part, some in enumerate((slice(0, 25), slice(25, N))):
        np.save(f"clip/img_emb/img_emb_{part}.npy", embeddings[some].astype(np.float16))
        table = pd.DataFrame({"image_path": ids[some], "caption": labels[some]})
        table.to_parquet(f"clip/metadata/metadata_{part}.parquet")


@pytest.mark.parametrize("form", FORMS)
def test_the_lines_of_the_page_save_what_every_program_wrote(here, form):
    labels = [NAMES[row] for row in INDEX]
    ids = [f"birds/{label}/{row}.jpg" for row, label in enumerate(labels)]
    halves = EMBEDDINGS.astype(np.float16).astype(np.float32)  # as clip-retrieval has them
    write_forms(here, ids, labels, halves)
    (lines,) = [block for block in PAGE if FORMS[form] in block]
    exec(PAGE[0] + lines, {})  # noqa: S102
    root = here / "checkpoints/features/birds"
    assert read_source(root)["path"].tolist() == ids
    assert (read_source(root)["class_index"] == INDEX).all()
    for artifact, names, given in (
        ("features", {"model": "features/birds"}, FEATURES),
        ("embeddings", {"space": "clip_vit_l14"}, halves),
    ):
        np.testing.assert_array_equal(imported_shard(root, ids, artifact, **names)[0], given)
    head, _ = read_tensors(CATALOG["head"].at(root, model="features/birds"))
    assert np.array_equal(head["weight"], WEIGHT) and np.array_equal(head["bias"], BIAS)


def test_memory_holds_a_few_shards_and_not_the_array(here, monkeypatch):
    monkeypatch.setattr(arrays, "NUMBERS", 2**18)
    parts, rows = 40, np.ones((50, 10_000), np.float32)
    ids = range(50 * parts)
    given = {"features": lambda: (rows * part for part in range(parts)), "head": np.eye(4, 10_000)}
    tracemalloc.start()
    save(ids=ids, labels=[0] * len(ids), **given, **NO_SPACE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < parts * rows.nbytes / 4
