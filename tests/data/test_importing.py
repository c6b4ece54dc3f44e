"""Features from elsewhere become a source, or are refused before a study begins."""

import hashlib
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.shards import shard_path
from singflow.artifacts.tensors import read_tensors
from singflow.data import arrays, importing
from singflow.data.imported import (
    check_source,
    imported_shard,
    read_source,
    source_fingerprint,
    towers_of_source,
)
from singflow.data.importing import Offer, import_source, study_of
from singflow.errors import InputError

N, D, C, M = 60, 7, 4, 5
NAMES = ["ant", "bee", "cat", "dog"]
RNG = np.random.default_rng(1)
INDEX = np.arange(N) % C
WEIGHT = np.linalg.qr(RNG.standard_normal((D, D)))[0][:C].astype(np.float32)
BIAS = RNG.standard_normal(C).astype(np.float32)
FEATURES = (RNG.standard_normal((N, D)) + 9 * WEIGHT[INDEX]).astype(np.float32)
EMBEDDINGS = RNG.standard_normal((N, M)).astype(np.float32)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setattr(importing, "ROWS", 16)  # four shards
    monkeypatch.chdir(tmp_path)
    table = {"file": [f"/data/{i}.jpg" for i in range(N)], "kind": [NAMES[i] for i in INDEX]}
    pd.DataFrame(table).to_csv("table.csv", index=False)
    np.save("features.npy", FEATURES)
    np.savez("head.npz", kernel=WEIGHT.T, offset=BIAS)  # as JAX has it
    np.save("logits.npy", (FEATURES @ WEIGHT.T + BIAS).astype(np.float16))
    np.save("embeddings.npy", EMBEDDINGS)
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    return tmp_path


def offer(here, **changes):
    given = {
        "table": here / "table.csv",
        "id_column": "file",
        "label_column": "kind",
        "features": "features.npy",
        "head": "head.npz",
        "bias": None,
        "logits": "logits.npy",
        "embeddings": "embeddings.npy",
        "classes": here / "classes.txt",
        "model": "features/mine",
        "space": "sounds",
        "dim": M,
    }
    return Offer(**(given | changes))


def bring(here, **changes):
    return "\n".join(import_source(here / "source", offer(here, **changes)))


def test_a_source_has_what_was_given_in_shards_that_a_study_reads_in_any_order(here):
    said = bring(here)
    root = here / "source"
    assert "60 rows; 0 of them are copies" in said
    assert "features/mine: 7 features, 4 classes, top-1 1.000; W f + b is within" in said
    rows = read_source(root)
    assert rows["path"][7] == "data/7.jpg" and rows["label"][7] == "dog"
    assert (rows["class_index"] == INDEX).all() and (rows["split"] == "").all()
    assert rows["sha256"][3] == hashlib.sha256(EMBEDDINGS[3].tobytes()).hexdigest()
    head, made = read_tensors(CATALOG["head"].at(root, model="features/mine"), ["weight", "bias"])
    np.testing.assert_array_equal(head["weight"], WEIGHT)
    np.testing.assert_array_equal(head["bias"], BIAS)
    assert 0 < json.loads(made["head_max_error"]) < 0.01 and made["weight_dtype"] == "float32"
    order = RNG.permutation(N)[:40]
    for artifact, names, given in (
        ("features", {"model": "features/mine"}, FEATURES),
        ("embeddings", {"space": "sounds"}, EMBEDDINGS),
    ):
        folder = CATALOG[artifact].at(root, shard="00000", **names).parent
        assert len(list(folder.glob("shard-*"))) == 4
        found, _ = imported_shard(root, rows["path"][order], artifact, **names)
        np.testing.assert_array_equal(found, given[order])
    assert towers_of_source(root) == (["features/mine"], ["sounds"])
    study = yaml.safe_load(study_of(root))
    assert study["models"] == ["features/mine"] and study["data"]["source"] == "features"


def test_another_model_and_space_join_and_the_state_of_the_source_changes(here):
    bring(here)
    root, before = here / "source", source_fingerprint(here / "source")
    np.savez("two.npz", w=WEIGHT[:2], b=BIAS[:2])
    (here / "two.txt").write_text("ant\nbee")
    np.savez("back.npz", w=WEIGHT[::-1], b=BIAS[::-1])
    (here / "back.txt").write_text("\n".join(NAMES[::-1]))
    nothing = {"table": None, "logits": None, "embeddings": None, "space": None, "dim": None}
    said = bring(here, **nothing, model="features/two", head="two.npz", classes=here / "two.txt")
    assert "2 classes, top-1 1.000" in said  # of the rows of these classes
    back = nothing | {"model": "features/back", "head": "back.npz", "classes": here / "back.txt"}
    assert "4 classes, top-1 1.000" in bring(here, **back)
    made = read_tensors(CATALOG["head"].at(root, model="features/two"), [])[1]
    assert made.parsed("class_names", list) == ["ant", "bee"]
    assert towers_of_source(root)[0] == [f"features/{name}" for name in ("back", "mine", "two")]
    check_source(root, ["features/two"], ["sounds"], 1)
    assert source_fingerprint(root) != before


def test_a_source_without_names_of_classes_says_so(here):
    bring(here, classes=None)
    made = read_tensors(CATALOG["head"].at(here / "source", model="features/mine"), [])[1]
    assert made["unnamed"] == "true" and (read_source(here / "source")["class_index"] == -1).all()
    assert (here / "source/classes.csv").read_text().splitlines()[1] == "0,,class 0"


def test_ids_alone_have_the_label_of_their_folder(here):
    ids = [f"images/{NAMES[i]}/{row}.jpg" for row, i in enumerate(INDEX)]
    (here / "file_names.txt").write_text("\n".join(ids))
    bring(here, table=here / "file_names.txt", label_column="label")
    assert (read_source(here / "source")["class_index"] == INDEX).all()


def test_labels_name_the_classes_if_the_table_has_their_rows_also_in_the_files_of_a_folder(here):
    (here / "metadata").mkdir()
    table = pd.read_csv("table.csv").assign(class_index=INDEX)
    for number, part in ((0, table[:20]), (2, table[20:45]), (10, table[45:])):
        part.to_parquet(here / f"metadata/metadata_{number}.parquet")
    bring(here, classes=None, table=here / "metadata")
    assert (read_source(here / "source")["class_index"] == INDEX).all()
    assert pd.read_csv(here / "source/classes.csv")["name"].tolist() == NAMES


def edited(**columns):
    pd.read_csv("table.csv").assign(**columns).to_csv("table.csv", index=False)


def repeated():
    edited(file=[f"{max(row, 1)}.jpg" for row in range(N)])


def swapped():
    np.save("features.npy", FEATURES[::-1])


def other_order():
    names = [NAMES[row] for row in (1, 0, 3, 2)]
    Path("classes.txt").write_text("\n".join(names))


REFUSED = {
    "rows": (lambda: np.save("features.npy", FEATURES[:-1]), "has 59 rows of features, but the"),
    "embeddings": (lambda: np.save("embeddings.npy", EMBEDDINGS[:9]), "has 9 rows of embeddings"),
    "width": (lambda: np.save("embeddings.npy", FEATURES), "7 dimensions, but sounds has 5"),
    "head": (lambda: np.savez("head.npz", WEIGHT[:, :3]), "the features have 7 columns"),
    "bias": (lambda: np.savez("head.npz", w=WEIGHT, b=BIAS[:2]), "the head has 4 rows"),
    "binary": (lambda: np.savez("head.npz", w=WEIGHT[:1]), "has one row: write two classes"),
    "nan": (lambda: np.save("features.npy", FEATURES * np.nan), "row 0 holds NaN"),
    "logits": (swapped, "differs from W f + b by"),
    "logits' width": (lambda: np.save("logits.npy", FEATURES[:, :1]), "has 1 columns, but the"),
    "classes": (lambda: Path("classes.txt").write_text("ant\nbee"), "has 2 classes, but the head"),
    "order": (other_order, "most rows of 'bee' (class 0) are predicted as 'ant' (class 1)"),
    "twice": (repeated, "id '1.jpg' is that of row 0, too"),
    "empty id": (lambda: edited(file=[" "] * N), "is empty, unprintable or has .."),
    "outside": (lambda: edited(file=[f"../{row}" for row in range(N)]), "or has .."),
    "control": (lambda: edited(kind=["a\x07nt"] * N), "no printable label"),
    "no label": (lambda: edited(kind=[""] * N), "no printable label"),
    "class_index": (lambda: edited(class_index=[9] * N), "class_index '9' is outside the 4"),
    "split": (lambda: edited(split=["test"] * N), "neither train nor validation"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line_and_leaves_no_source(here, case):
    change, said = REFUSED[case]
    change()
    with pytest.raises(InputError) as refused:
        bring(here)
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert towers_of_source(here / "source") == ([], [])
    assert not list(here.glob("source/features/**/shard-*"))


def test_a_second_import_is_refused_where_it_would_replace_or_mix_rows(here):
    bring(here)
    with pytest.raises(InputError, match="has features of features/mine already"):
        bring(here, space="other")
    with pytest.raises(InputError, match="has embeddings of sounds already"):
        bring(here, model="features/other")
    edited(file=[f"{row}.png" for row in range(N)])
    with pytest.raises(InputError, match="has other ids than"):
        bring(here, model="features/other", space="other")
    with pytest.raises(InputError, match="is no source yet"):
        list(import_source(here / "new", offer(here, table=None)))


def test_what_a_killed_import_left_does_not_count_and_is_written_anew(here):
    bring(here)
    root = here / "source"
    shard_path(root / "embeddings/sounds", 3).unlink()
    CATALOG["head"].at(root, model="features/mine").unlink()
    assert towers_of_source(root) == ([], [])
    bring(here)
    assert towers_of_source(root) == (["features/mine"], ["sounds"])


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ((["other"], ["sounds"], 1), "has nothing of other; its models are features/mine"),
        ((["features/mine"], ["clip"], 1), "has nothing of clip; its spaces are sounds"),
        ((["features/mine"], ["sounds"], 4), "write extraction.views: 1"),
    ],
)
def test_a_study_that_asks_for_more_than_a_source_has_is_refused(here, wanted, said):
    bring(here)
    with pytest.raises(InputError, match=said):
        check_source(here / "source", *wanted)
    with pytest.raises(InputError, match="holds no rows"):
        check_source(here, *wanted)


def test_memory_holds_a_few_shards_and_not_the_array(here, monkeypatch):
    monkeypatch.setattr(importing, "ROWS", 1000)
    monkeypatch.setattr(arrays, "BLOCK", 2**15)
    np.save("large.npy", np.zeros((100_000, 64), np.float32))
    whole = Path("large.npy").stat().st_size
    tracemalloc.start()
    array = arrays.find_arrays("large.npy", 2)
    shards = sum(1 for _ in importing.write_shards(here, "features", array, 1, {}, model="m"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert shards == 100 and peak < whole / 4
