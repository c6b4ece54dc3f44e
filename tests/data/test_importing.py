"""Features from elsewhere become a source, or are refused before a study begins."""

import hashlib
import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.shards import towers_in
from singflow.artifacts.tensors import read_tensors
from singflow.data import arrays, importing
from singflow.data.imported import (
    check_source,
    imported_shard,
    listed_rows,
    own_class_names,
    read_part,
    read_source,
    source_fingerprint,
)
from singflow.data.importing import Offer, import_source, study_of
from singflow.data.manifest import build_manifest
from singflow.data.parameters import Data
from singflow.errors import InputError
from tests.kills import killed

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
    write_offered(tmp_path)
    return tmp_path


def write_offered(folder):
    """What is imported, in the current folder."""
    table = {"file": [f"/data/{i}.jpg" for i in range(N)], "kind": [NAMES[i] for i in INDEX]}
    pd.DataFrame(table).to_csv("table.csv", index=False)
    np.save("features.npy", FEATURES)
    np.savez("head.npz", kernel=WEIGHT.T, offset=BIAS)  # as JAX has it
    np.save("logits.npy", (FEATURES @ WEIGHT.T + BIAS).astype(np.float16))
    np.save("embeddings.npy", EMBEDDINGS)
    (folder / "classes.txt").write_text("\n".join(NAMES))


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
    assert rows["sha256"][3] == hashlib.sha256(b"data/3.jpg").hexdigest()
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
    assert towers_in(root) == (["features/mine"], ["sounds"])
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
    assert towers_in(root)[0] == [f"features/{name}" for name in ("back", "mine", "two")]
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
    (here / "metadata/._metadata_0.parquet").write_bytes(b"\0\5\x16\7")
    bring(here, classes=None, table=here / "metadata")
    assert (read_source(here / "source")["class_index"] == INDEX).all()
    assert pd.read_csv(here / "source/classes.csv")["name"].tolist() == NAMES


def edited(**columns):
    pd.read_csv("table.csv").assign(**columns).to_csv("table.csv", index=False)


def test_a_head_of_other_classes_is_refused(here):
    bring(here)
    for weight in (WEIGHT[:3], np.vstack([WEIGHT, WEIGHT + 1])):
        np.savez("other.npz", w=weight)
        other = {"model": "features/other", "head": "other.npz", "classes": None, "logits": None}
        with pytest.raises(InputError, match=rf"{len(weight)} rows, but the source has 4 classes"):
            bring(here, **other)
    assert towers_in(here / "source")[0] == ["features/mine"]


def test_the_bias_is_found_by_its_size_and_its_name_and_zeros_are_a_bias(here):
    names = np.array(NAMES)  # an array of texts is none
    for arrays_of_head, said, place in (
        ({"kernel": WEIGHT.T, "offset": BIAS, "names": names}, "classes,", "head.npz"),
        ({"fc.weight": WEIGHT, "fc.bias": BIAS, "x": BIAS + 1}, "classes,", "head.npz:fc.weight"),
        ({"w": WEIGHT, "b": 0 * BIAS}, "classes,", "head.npz"),
        ({"w": WEIGHT, "mean": BIAS[:1], "sd": BIAS[:2]}, "without a bias", "head.npz:w"),
    ):
        np.savez("head.npz", **arrays_of_head)
        wanted = next((b for n, b in arrays_of_head.items() if b.shape == (C,) and n != "x"), 0)
        np.save("logits.npy", FEATURES @ WEIGHT.T + (wanted if "without" not in said else 0))
        assert said in bring(here, head=place)
        head, _ = read_tensors(CATALOG["head"].at(here / "source", model="features/mine"), ["bias"])
        np.testing.assert_array_equal(head["bias"], np.zeros(C) + wanted)
        shutil.rmtree(here / "source")


def test_rows_of_equal_content_are_copies_and_no_fold_follows_the_last_bits(here):
    folds = []
    for rounding in (0.0, 1e-6):
        embeddings = EMBEDDINGS * (1 + rounding)
        embeddings[[5, 40]] = embeddings[11]
        np.save("embeddings.npy", embeddings)
        assert "60 rows; 2 of them are copies" in bring(here)
        found, known = listed_rows(here / "source")
        assert len({known[f"data/{row}.jpg"].sha256 for row in (5, 11, 40)}) == 1
        data = Data(source="features", max_rejected_fraction=0.0)
        options = {"folds": 5, "seed": 0, "threads": 1, "known": known}
        folds.append(build_manifest(here, found, [], data, **options)[0])
        shutil.rmtree(here / "source")
    pd.testing.assert_frame_equal(*folds)
    by_path = folds[0].set_index("path")["fold"]
    assert by_path["data/5.jpg"] == by_path["data/11.jpg"] == by_path["data/40.jpg"]
    assert by_path.nunique() == 5


def test_a_refused_import_leaves_nothing_that_a_later_one_could_adopt(here):
    features = FEATURES.copy()
    features[3] = np.nan
    np.save("features.npy", features)
    with pytest.raises(InputError, match="row 3 holds NaN"):
        bring(here)
    assert not (here / "source").exists() and not list(here.glob(".source*"))
    good = np.arange(N) != 3
    pd.read_csv("table.csv")[good].to_csv("table.csv", index=False)
    np.save("features.npy", FEATURES[good])
    without = {"logits": None, "embeddings": None, "space": None, "dim": None}
    bring(here, **without)
    assert towers_in(here / "source") == (["features/mine"], [])
    np.save("embeddings.npy", EMBEDDINGS[good])
    bring(here, logits=None)
    found, _ = imported_shard(here / "source", ["data/4.jpg"], "embeddings", space="sounds")
    np.testing.assert_array_equal(found, EMBEDDINGS[4:5])


def test_a_second_import_adds_repeats_or_is_refused_where_it_would_replace_or_mix_rows(here):
    bring(here)
    before = folder_state(here / "source")
    assert "features/mine: was there already, and stays as it is" in bring(here)
    assert folder_state(here / "source") == before
    np.save("features.npy", FEATURES + 1e-3)
    with pytest.raises(
        InputError, match=r"has other files of features/mine already: remove .* and "
    ):
        bring(here, space="other", logits=None)
    np.save("embeddings.npy", EMBEDDINGS[::-1])
    with pytest.raises(InputError, match="has other files of sounds already"):
        bring(here, model="features/other", logits=None)
    assert folder_state(here / "source") == before
    edited(file=[f"{row}.png" for row in range(N)])
    with pytest.raises(InputError, match="has other ids than"):
        bring(here, model="features/other", space="other")
    (here / "new").mkdir()
    (here / "new/note").touch()
    with pytest.raises(InputError, match=r"new: holds files, but no rows.parquet of a source"):
        import_source(here / "new", offer(here))


def folder_state(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.nightly
@pytest.mark.parametrize("extended", [False, True])
def test_a_killed_import_leaves_what_was_there_and_the_same_command_ends_it(here, extended):
    if extended:
        bring(here)
        changes = {"model": "features/other", "space": "others", "dim": None}
    else:
        changes = {}
    given = repr(offer(here, **changes)).replace("PosixPath", "Path")
    before = towers_in(here / "source")
    added = changes.get("model", "features/mine"), changes.get("space", "sounds")
    whole = tuple(sorted({*names, name}) for names, name in zip(before, added, strict=True))
    seen = []
    for _ in killed(IMPORT.format(offer=given), here):
        seen.append(after := towers_in(here / "source"))
        for model in after[0]:
            found, _ = imported_shard(here / "source", IDS, "features", model=model)
            np.testing.assert_array_equal(found, FEATURES)
        for space in after[1]:
            found, _ = imported_shard(here / "source", IDS, "embeddings", space=space)
            np.testing.assert_array_equal(found, EMBEDDINGS)
        assert extended or after in (before, whole)
    assert len(seen) > 6 and seen[-1] == whole
    assert not list(here.glob(".source*"))


IDS = [f"data/{row}.jpg" for row in range(N)]
IMPORT = """
from singflow.data import importing
from singflow.data.importing import Offer
importing.ROWS = 32
importing.import_source(Path("source"), {offer})
"""


def test_a_part_of_other_rows_is_refused_by_every_reader(here):
    bring(here)
    edited(file=[f"/data/{row}.png" for row in range(N)])
    import_source(here / "other", offer(here, space="others", dim=None))
    root, said = here / "source", r"was not imported with the ids of .*rows.parquet: remove"
    shutil.copytree(here / "other/embeddings/others", root / "embeddings/others")
    shutil.copytree(here / "other/features/features/mine", root / "features/features/other")
    head, other = (f"heads/features/{name}.safetensors" for name in ("mine", "other"))
    shutil.copy(here / "other" / head, root / other)
    readers = [
        lambda: check_source(root, ["features/mine"], ["others"], 1),
        lambda: check_source(root, ["features/other"], ["sounds"], 1),
        lambda: imported_shard(root, IDS, "embeddings", space="others"),
        lambda: imported_shard(root, IDS, "features", model="features/other"),
        lambda: own_class_names(root, "features/other"),
        lambda: read_part(root, "head", ["weight", "bias"], model="features/other"),
    ]
    for read in readers:
        with pytest.raises(InputError, match=said):
            read()
    check_source(root, ["features/mine"], ["sounds"], 1)


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
