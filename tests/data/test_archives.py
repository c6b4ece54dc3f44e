import os
import tarfile
import tracemalloc

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from singflow.data import archives
from singflow.data.archives import archive_fingerprint, state
from singflow.data.images import read_image
from singflow.data.listing import list_archives, list_folder
from singflow.data.manifest import inspect
from singflow.data.parameters import Data
from singflow.parallel import map_ahead
from tests.data.archives import add, pack, picture, write_rows
from tests.data.manifests import CLASSES, build
from tests.refusals import refused


def listed(root, *patterns, label_column="label"):
    found, rejected, _ = list_archives(root, list(patterns or ["*.tar"]), label_column, CLASSES)
    return {candidate.path: candidate for candidate in found}, dict(rejected)


def labels(root, *patterns, **options):
    found, rejected = listed(root, *patterns, **options)
    assert rejected == {}
    return {path: (each.label, each.class_index, each.split) for path, each in found.items()}


# Labels and splits of tars


def test_a_tar_of_a_folder_tree_is_labelled_as_the_folder_is(tmp_path):
    tree = {"n01440764/a.png": 1, "my_cat/b.PNG": 2, "my_cat/deep/c.jpeg": 3}
    for name, shade in tree.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(picture(shade))
    of_folder = list_folder(tmp_path / "photos", CLASSES)[0]
    for around in ("", "./", "photos/", "/data/imagenet/"):
        pack(tmp_path / "all.tar", {around + name: picture(shade) for name, shade in tree.items()})
        above = around.removeprefix("./").removeprefix("/")
        assert labels(tmp_path) == {
            f"all.tar/{above}{image.path}": (image.label, image.class_index, "")
            for image in of_folder
        }


def test_folders_of_train_and_val_in_a_tar_decide_the_split_and_so_do_names_of_archives(tmp_path):
    names = ("d/train/cat/a.png", "d/train/dog/b.png", "d/Val/cat/c.png")
    pack(tmp_path / "all/all.tar", dict.fromkeys(names, b"a"))
    sides = [facts[::2] for facts in labels(tmp_path / "all").values()]
    assert sides == [("cat", "train"), ("dog", "train"), ("cat", "validation")]
    for name in ("imagenet-train-0000.tar", "imagenet-validation-00.tar"):
        pack(tmp_path / name, {"cat/a.png": name.encode(), "dog/b.png": name.encode()})
    both = ["train", "train", "validation", "validation"]
    assert [facts[2] for facts in labels(tmp_path).values()] == both
    assert [facts[2] for facts in labels(tmp_path, "*[0-9]0.tar").values()] == both
    of_one = labels(tmp_path, "*train*").values()
    assert {facts[2] for facts in of_one} == {""}, "one of them alone decides nothing"


def sample(key, **members):
    return {f"{key}.{ending}": content for ending, content in members.items()}


def test_samples_of_webdataset_shards_have_the_label_beside_them(tmp_path, caplog):
    first = sample("a/0", jpg=b"x", cls=b"3\n", json=b'{"label": 9}')
    first |= sample("1", cls=b"cock", txt=b"caption", PNG=b"y")
    second = sample("1", **{"left.jpg": b"l", "right.jpg": b"r", "cls": b"my_cat"})
    pack(tmp_path / "shard-0.tar", first)
    pack(tmp_path / "shard-1.tar", second)
    with caplog.at_level("INFO"):
        got = labels(tmp_path)
    assert got == {
        "shard-0.tar/a/0.jpg": ("tiger shark", 3, ""),
        "shard-0.tar/1.PNG": ("cock", CLASSES.find("cock"), ""),
        "shard-1.tar/1.left.jpg": ("my cat", -1, ""),
        "shard-1.tar/1.right.jpg": ("my cat", -1, ""),
    }
    assert "5 files and folders skipped" in caplog.text and "*.cls" in caplog.text


BAD, NONE = "none of the 1000 classes", "no label: no .cls beside it"
STATED = [
    ({}, NONE),
    ({"cls": b"1000"}, f"no label: 1000 is {BAD}"),
    ({"cls": b"9" * 2**17}, "a label of more than 1000 characters: give it a short one"),
    ({"cls": b"a\0b"}, "no printable label"),
]


@pytest.mark.parametrize(("stated", "reason"), STATED)
def test_a_sample_without_a_label_that_can_be_used_is_rejected(tmp_path, stated, reason):
    pack(tmp_path / "shard.tar", sample("0", jpg=b"x", cls=b"0") | sample("1", jpg=b"y", **stated))
    found, rejected = listed(tmp_path)
    assert list(found) == ["shard.tar/0.jpg"] and rejected == {"shard.tar/1.jpg": reason}


# Members that are no images


def test_members_that_cannot_be_read_safely_are_rejected_each_with_its_reason(tmp_path, caplog):
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        add(tar, "cat", type=tarfile.DIRTYPE)
        add(tar, "cat/first.png", b"old")
        for name in ("cat/first.png", "dog/Last.PNG"):
            add(tar, name, b"new")
        add(tar, "cat/../../etc/passwd.png", b"x")
        add(tar, "cat/soft.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "cat/hard.png", type=tarfile.LNKTYPE, linkname="cat/first.png")
        add(tar, "cat/device.png", type=tarfile.CHRTYPE)
        add(tar, "cat/pipe.png", type=tarfile.FIFOTYPE)
        add(tar, "cat/line\nbreak.png", b"x")
        add(tar, b"cat/\xff.png".decode("utf-8", "surrogateescape"), b"x")
        for name in ("cat/._first.png", "cat/.DS_Store", "__MACOSX/cat/a.png", ".git/x.png"):
            add(tar, name, b"x")
        add(tar, "cat/notes.txt", b"x")
        add(tar, "README", b"x")
    with caplog.at_level("INFO"):
        found, rejected = listed(tmp_path)
    assert {path: read_image(tmp_path, candidate, 100) for path, candidate in found.items()} == {
        "all.tar/cat/first.png": b"new",
        "all.tar/dog/Last.PNG": b"new",
        "all.tar/cat/notes.txt": b"x",
    }
    name = "name is not UTF-8 or holds control characters: rename the file"
    reasons = {
        "first.png": "a later member of the tar has its name, and replaces it",
        "../../etc/passwd.png": "outside the data root: paths are relative to it and without ..",
    }
    linked = ("soft.png", "hard.png", "device.png", "pipe.png")
    reasons |= dict.fromkeys(linked, archives.NO_CONTENT)
    reasons |= dict.fromkeys(("line\\nbreak.png", "\\udcff.png"), name)
    rejected_in_folder = {f"all.tar/cat/{path}": reason for path, reason in reasons.items()}
    assert rejected == rejected_in_folder | {"all.tar/README": "not in a class folder"}
    assert "4 files and folders skipped" in caplog.text


# Archives that cannot be used


def test_headers_that_claim_more_than_there_is_are_refused(tmp_path):
    for kind in (tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME):
        info = tarfile.TarInfo("cat/b.png")
        info.size, info.type = 2**60, kind
        claims = info.tobuf(tarfile.GNU_FORMAT)
        for content in (claims, tarfile.TarInfo("cat/a.png").tobuf() + claims):
            (tmp_path / "all.tar").write_bytes(content)
            refused(r"all\.tar: .*: it is cut, damaged or", listed, tmp_path)


@pytest.mark.parametrize("name", ["/data/a.tar", "a/../b.tar", "a\\b.tar", "**.tar"])
def test_archives_are_named_below_the_root(name):
    with pytest.raises(ValueError, match="archives"):
        Data(source="archive", archives=[name])


# Parquet


def test_labels_of_a_parquet_file_are_names_of_its_schema_classes_or_texts(tmp_path):
    tench, spelled = "tench, Tinca tinca", [f"{name}, of a kind" for name in CLASSES.names]
    counted = [("tench", 0), ("goldfish", 1), ("tiger shark", 3)]
    named = [(tench, -1), ("my cat", -1), ("goldfish", 1)]
    files = {
        "names": ([1, 0, 2], ["my_cat", tench, "goldfish"], named),
        "imagenet": ([0, 1, 3], spelled, counted),
        "texts": (["n01440764", "my_cat", "3"], None, [("tench", 0), ("my cat", -1), ("3", -1)]),
    }
    for name, (cells, names, expected) in files.items():
        write_rows(tmp_path / f"{name}.parquet", [b"x"] * 3, cells, names)
        assert labels(tmp_path, f"{name}.parquet") == {
            f"{name}.parquet/{row:09d}": (*facts, "") for row, facts in enumerate(expected)
        }


def test_rows_without_a_label_or_an_image_are_rejected(tmp_path):
    images = [picture(0), None, {"bytes": None, "path": "/etc/passwd"}, picture(1), picture(2)]
    write_rows(tmp_path / "a.parquet", images, [0, 0, 0, None, -1])
    found, rejected = listed(tmp_path, "a.parquet")
    assert rejected == {
        "a.parquet/000000003": "no label: neither a number nor a text",
        "a.parquet/000000004": f"no label: -1 is {BAD}",
    }
    first, *others = [inspect(tmp_path, candidate, 10**6) for candidate in found.values()]
    assert (first.width, first.height, first.bytes) == (8, 6, len(picture(0)))
    reason = "a row without an image's bytes: write the images into the file, as Dataset"
    assert others == [f"unreadable: {reason}.push_to_hub does"] * 2


def test_images_are_in_the_column_called_image_or_in_the_only_one(tmp_path):
    pixels = pa.array([{"bytes": b"y"}], pa.struct([("bytes", pa.binary())]))
    write_rows(tmp_path / "a.parquet", [b"x"], [0], mask=pixels)
    table = parquet.read_table(tmp_path / "a.parquet", columns=["label", "mask"])
    parquet.write_table(table, tmp_path / "b.parquet")
    for name, content in (("a.parquet", b"x"), ("b.parquet", b"y")):
        (image,) = listed(tmp_path, name)[0].values()
        assert read_image(tmp_path, image, 100) == content


def test_a_row_group_that_is_too_large_is_refused(tmp_path, monkeypatch):
    write_rows(tmp_path / "a.parquet", [b"x" * 1000] * 4, [0] * 4, group=4)
    monkeypatch.setattr(archives, "MOST_GROUP", 900)
    said = r"a row group has \d+ bytes, .* write it anew with fewer rows in each"
    refused(said, listed, tmp_path, "a.parquet")


# What is read, and how much of it at once


def test_the_pass_over_a_tar_reads_headers_alone_and_an_image_is_read_where_it_lies(tmp_path):
    # of 1,000 members, and 20 GB that the disk does not have
    with (tmp_path / "big.tar").open("wb") as file:
        for number in range(1000):
            info = tarfile.TarInfo(f"cat/{number:04d}.png")
            info.size = 20 * 10**6
            file.write(info.tobuf(tarfile.GNU_FORMAT) + picture(number))
            file.seek(-(-info.size // 512) * 512 - len(picture(number)), os.SEEK_CUR)
        file.write(bytes(10240))
    tracemalloc.start()
    found, rejected = listed(tmp_path)
    listing = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    content = read_image(tmp_path, found["big.tar/cat/0777.png"], 10**8)
    reading = tracemalloc.get_traced_memory()[1] - tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(found) == 1000 and not rejected
    assert content.startswith(picture(777)) and len(content) == 20 * 10**6
    assert listing < 10**7 and reading < 21 * 10**6


def test_row_groups_are_read_once_in_order_and_memory_is_bounded_by_a_few(tmp_path):
    size, rows = 2 * 10**5, 120
    contents = [os.urandom(size) for _ in range(rows)]
    for number in range(4):
        part = contents[30 * number : 30 * number + 30]
        write_rows(tmp_path / f"{number}.parquet", part, list(range(30)), group=10)
    found, _ = listed(tmp_path, "*.parquet")
    archives._group.cache_clear()
    before, most = pa.total_allocated_bytes(), 0
    read = map_ahead(lambda candidate: read_image(tmp_path, candidate, 10**6), found.values(), 2)
    for content, expected in zip(read, contents, strict=True):
        assert content == expected
        most = max(most, pa.total_allocated_bytes() - before)
    assert archives._group.cache_info().misses == 12, "row groups are read again"
    assert most < 7.5 * 10 * size  # two that are kept, and what one takes while it is read
    assert read_image(tmp_path, found["0.parquet/000000003"], 10**6) == contents[3]


def test_an_archive_that_was_replaced_is_not_read_from_memory(tmp_path):
    write_rows(tmp_path / "a.parquet", [picture(1)], [0])
    (image,) = listed(tmp_path, "a.parquet")[0].values()
    assert read_image(tmp_path, image, 100) == picture(1)
    write_rows(tmp_path / "a.parquet", [picture(2)], [0])
    os.utime(tmp_path / "a.parquet", ns=(1, 1))
    assert read_image(tmp_path, image, 100) == picture(2)


def test_a_manifest_of_archives_has_their_places_and_damaged_images_are_rejected(tmp_path):
    kinds = [(label, row) for label in ("cat", "rabbit") for row in range(4)]
    good = {f"{label}/{row}.png": picture(row + 10 * len(label)) for label, row in kinds}
    pack(tmp_path / "a.tar", good)
    pack(tmp_path / "b.tar", {"cat/x.png": picture(99, "JPEG")[:300], "cat/y.png": b"no image"})
    found, rejected, _ = list_archives(tmp_path, ["*.tar"], "label", CLASSES)
    manifest, rejected = build(tmp_path, found, rejected, folds=2, max_rejected_fraction=0.2)
    assert len(manifest) == 8
    assert [path for path, _ in rejected] == ["b.tar/cat/x.png", "b.tar/cat/y.png"]
    assert list(manifest.columns[-3:]) == ["archive", "offset", "bytes"]
    assert list(manifest.dtypes[-2:]) == ["int64", "int64"]
    content = (tmp_path / "a.tar").read_bytes()
    for row in manifest.itertuples():
        image = read_image(tmp_path, row, 100)
        assert content[row.offset : row.offset + row.bytes] == image and row.archive == "a.tar"


# What the engines see


def test_a_fingerprint_is_of_names_and_contents_alone_and_is_kept_without_archives(tmp_path):
    archive, manifest = tmp_path / "data/a.tar", tmp_path / "manifest.parquet"
    pack(archive, {"cat/a.png": b"a"})
    first = state(tmp_path / "data", ["*.tar"], manifest)
    os.utime(archive, (1, 1))
    assert state(tmp_path / "data", ["a.*"], manifest) == first
    assert archive_fingerprint(tmp_path / "data", ["a.tar"]) == first
    frame = pd.DataFrame({"path": ["a"]})
    frame.attrs[archives.ATTRIBUTE] = first
    frame.to_parquet(manifest)
    assert state(tmp_path / "absent", ["*.tar"], manifest) == first
    assert state(tmp_path / "absent", ["*.tar"], tmp_path / "none.parquet") is None
    content = archive.read_bytes()
    archive.write_bytes(content[:-1] + b"x")
    assert state(tmp_path / "data", ["*.tar"], manifest) != first
    archive.write_bytes(content)
    archive.rename(tmp_path / "data/b.tar")
    assert state(tmp_path / "data", ["*.tar"], manifest) != first
