"""Files that cannot be used are refused in one line that names the file and the fault."""

import bz2
import gzip
import io
import json
import lzma
import os
import re
import struct
import zipfile
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from singflow.artifacts.tensors import write_tensors
from singflow.data.arrays import find_arrays
from singflow.data.imagenet import META, TRUTH
from singflow.data.imported import check_source
from singflow.data.importing import import_source
from singflow.data.listing import list_archives, list_folder, list_table
from singflow.data.manifest import data_root, read_classes
from singflow.data.vocabulary import read_vocabulary
from singflow.errors import InputError
from tests.data.archives import pack, write_rows
from tests.data.manifests import CLASSES
from tests.data.test_arrays import ROWS
from tests.data.test_imagenet import DEVKIT, IDS, NAMES, devkit, flat_folder, kaggle, packed_devkit
from tests.data.test_imagenet import IMAGES as VALIDATION
from tests.data.test_imagenet import write as write_files
from tests.data.test_importing import (
    BIAS,
    EMBEDDINGS,
    FEATURES,
    WEIGHT,
    N,
    edited,
    offer,
    write_offered,
)
from tests.data.test_importing import NAMES as KINDS


def case(function):
    """A function of a folder and more, as one that takes the rest and gives one of the folder."""
    return lambda *rest, **named: lambda folder: function(folder, *rest, **named)


def table(path):
    list_table(path, "label", CLASSES)


@case
def given(folder, read, name, content):
    """A file of this content, or none, that is read."""
    if content is not None:
        (folder / name).write_bytes(os.fsencode(content))
    read(folder / name)


def classes(content):
    header = "class_index,synset,name\n" if content[:1].isdigit() else ""
    return given(read_classes, "classes.csv", header + content)


def words(content):
    return given(read_vocabulary, "concepts.txt", content)


@case
def row(folder, kind, **cells):
    """A table whose second row has these cells."""
    first = {"path": "a.png", "label": "cat", "class_index": "-1", "split": "", "prompt": ""}
    frame = pd.DataFrame([first, {**first, "path": "b.png", **cells}])
    getattr(frame, {"csv": "to_csv", "parquet": "to_parquet"}[kind])(
        folder / f"table.{kind}", index=False
    )
    table(folder / f"table.{kind}")


WORKBOOKS = {
    "PK\x03\x04": "an Excel workbook (.xlsx) or another zip archive",
    "\udcd0\udccf\x11\udce0": "an Excel workbook (.xls)",
    "PAR1": "a Parquet file",
}
TEXTS = [
    (given(read_classes, "classes.csv", None), "classes.csv: no such file"),
    (classes(""), "classes.csv: not readable as CSV"),
    (classes("class_index,synset,name\n0,n1,\udcff\n"), "classes.csv: not readable as CSV"),
    (classes("class_index,name\n0,a\n"), "has no column 'synset'; it has class_index, name"),
    (classes("1,n1,a\n0,n2,b\n"), "class_index must count 0, 1, 2"),
    (classes("0,n1,a\n2,n2,b\n"), "class_index must count 0, 1, 2"),
    (classes("0,n1,sea lion\n1,n2,Sea_Lion\n"), "row 2 repeats 'Sea_Lion' of row 1"),
    (classes("0,n1,a\n1,n2, \n"), "row 2 is blank: fill or remove it: every class needs a name"),
    (classes("0,n1,a\n1,n2,\x1bb\n"), "classes.csv: row 2 holds control characters"),
    (classes("0,n1,a\n1,n1,b\n"), "classes.csv: n1 stands for two classes, 'a' and 'b'"),
    (classes("class_index,synset,name\n"), "classes.csv: holds no classes"),
    (given(table, "t.csv", None), "t.csv: no such file"),
    (given(table, "t.csv", ""), "t.csv: not readable as CSV"),
    (given(table, "t.csv", "path,label\n"), "t.csv: holds no rows"),
    (given(table, "t.csv", "path,label\n,\n\n,,,\n"), "t.csv: holds no rows"),
    (given(table, "t.csv", "path;label\n;\n"), "t.csv: holds no rows"),
    (given(table, "t.csv", "\u2028,\u2003\n"), "t.csv: has no column 'path' ... ; it has none"),
    (given(table, "t.csv", "path,kind\na,b\n"), "has no column 'label' (data.label_column); it"),
    (given(table, "t.csv", "path,label\n\udcff.png,cat\n"), "t.csv: not readable as CSV"),
    (given(table, "t.csv", "Path,PATH,label\na.png,b.png,cat\n"), "t.csv: has 2 columns 'path'"),
    (given(table, "t.csv", "path,label\na,b,\nc,d,\n"), "more cells than the header (line 2)"),
    (given(table, "t.csv", "path,label\na,cat\nb,dog, x\n"), "more cells than the header (line 3)"),
    (given(table, "t.parquet", None), "t.parquet: no such file"),
    (given(table, "t.parquet", "path,label\n"), "t.parquet: not readable as Parquet"),
    *(
        (row(kind, **cells), f"table.{kind}: line 3 (b.png): {said}")
        for kind in ("csv", "parquet")
        for cells, said in (
            *(
                ({"class_index": text}, f"class_index {text!r} is outside the 1000 classes (0 to")
                for text in ("1000", "-2", "2.5", "two", "nan", "inf")
            ),
            ({"split": "test"}, "split 'test' is neither train nor validation"),
            ({"prompt": "x"}, "label 'cat' has two prompts, 'an image of a cat' and 'x'"),
        )
    ),
    *(
        (given(read, f"t.{ending}", f"{start}\x14\0\6\0\udcff"), f"t.{ending}: is {kind}: ")
        for read in (table, read_classes, read_vocabulary)
        for ending in ("csv", "xlsx")
        for start, kind in WORKBOOKS.items()
    ),
    *((words(text), "concepts.txt: line 2 is blank") for text in ("a\n\nb", "a\n \t\nb\r\n")),
    *((words(text), "line 2 is blank") for text in ("a\r\n\r\nb\r\n", "a\n\nb\n\n")),
    *(
        (words(f"x\nblue sky\n{again}\n"), f"line 3 repeats {' '.join(again.split())!r} of line 2")
        for again in ("blue sky", "Blue Sky", "  blue   sky ", "BLUE\tSKY", "blue_Sky")
    ),
    (words("straße\nSTRASSE\n"), "concepts.txt: line 2 repeats 'STRASSE' of line 1"),
    *((words(text), "concepts.txt: holds no concepts") for text in ("", "\ufeff", "\n \n")),
    (words("gr\udcf6\udcdfe\n"), "concepts.txt: not readable as UTF-8 text"),
    (words(os.fsdecode("sand\n".encode("utf-16"))), "concepts.txt: not readable as UTF-8 text"),
    (words(None), "concepts.txt: no such file"),
    (read_vocabulary, "not readable as UTF-8 text"),  # a folder
]


@case
def folder_of(folder, *paths):
    write_files(folder, dict.fromkeys(paths, b"x"))
    list_folder(folder, CLASSES)


NO_IMAGES = "data.root {}: holds no images in class folders (<root>/<class>/<image>)"
FOLDERS = [
    (lambda folder: data_root("folder", f"{folder}/no"), "data.root {}/no: no such folder"),
    (given(lambda path: data_root("folder", str(path)), "a.png", "x"), "a.png: no such folder"),
    (folder_of("train/a/a.png", "val/a/b.png", "test/a/c.png"), "beside train and val: test: move"),
    (folder_of("a.png"), "{}: 1 image without labels: ... , or name the folder above as data.root"),
    (folder_of("a.txt"), f"{NO_IMAGES}; 1 of its files lie in none: name the folder above"),
    (folder_of(), NO_IMAGES),
]


@case
def damaged_tar(folder, damage):
    pack(folder / "all.tar", {"cat/a.png": b"a" * 400, "cat/b.png": b"b" * 400})
    (folder / "all.tar").write_bytes(damage((folder / "all.tar").read_bytes()))
    list_archives(folder, ["*.tar"], "label", CLASSES)


@case
def packed(folder, name, compress):
    pack(folder / "plain.tar", {"cat/a.png": b"a"})
    (folder / name).write_bytes(compress((folder / "plain.tar").read_bytes()))
    list_archives(folder, [name], "label", CLASSES)


@case
def named(folder, pattern):
    pack(folder / "a.tar", {"cat/a.png": b"a"})
    pack(folder / "empty.tar", {})
    (folder / "a.txt").write_text("text")
    os.mkfifo(folder / "pipe.tar")
    list_archives(folder, [pattern], "label", CLASSES)


@case
def parquet_of(folder, columns, label_column="label", labels=(0,)):
    pixels = pa.array([{"bytes": b"x"}] * len(labels), pa.struct([("bytes", pa.binary())]))
    images = [b"x"] * len(labels)
    write_rows(folder / "a.parquet", images, list(labels), group=len(labels), mask=pixels)
    found = parquet.read_table(folder / "a.parquet").rename_columns(columns)
    chosen = [name for name in columns if name != "-"]
    parquet.write_table(found.select(chosen), folder / "a.parquet")
    list_archives(folder, ["*.parquet"], label_column, CLASSES)


CUT = "it is cut or damaged: fetch or pack it anew, or take it out of data.archives"
MEND = "write the file with one that is called image"
FLIPPED = damaged_tar(lambda content: content[:1024] + b"x" + content[1025:])
COMPRESSORS = {"gunzip": gzip.compress, "bunzip2": bz2.compress, "unxz": lzma.compress}
ONE, MANY = ["image", "label", "-"], ["left", "label", "right"]
ARCHIVES = [
    (damaged_tar(lambda content: b""), f"all.tar: not readable as tar (empty file): {CUT}"),
    (damaged_tar(lambda content: b"no tar" * 200), f"all.tar: not readable as tar ( ... ): {CUT}"),
    (damaged_tar(lambda content: content[:700]), f"all.tar: ends within cat/a.png: {CUT}"),
    (damaged_tar(lambda content: content[:1024]), f"no end of the ... at byte 1024: {CUT}"),
    (damaged_tar(lambda content: content[:1100]), f"all.tar: ... : {CUT}"),
    (FLIPPED, f"no end of the archive, and no member, at byte 1024: {CUT}"),
    (damaged_tar(lambda content: content * 2), "goes on after its end at byte 2048, as joined tar"),
    *(
        (packed(name, compress), f"{name}: is compressed, ... unpack it with `{command} -k {name}`")
        for command, compress in COMPRESSORS.items()
        for name in ("all.tar.x", "all.tar")
    ),
    (named("b*.tar"), "data.archives: b*.tar: no file below"),
    (named("*.txt"), "a.txt: neither a .tar nor a .parquet file"),
    (named("pipe.tar"), "pipe.tar: not a regular file, but a pipe"),
    (named("empty.tar"), "empty.tar: no image in them"),
    (parquet_of(ONE, "kind"), "no column 'kind' of numbers or texts (data.label_column); it has i"),
    (parquet_of(MANY), f"a.parquet: has several columns of images: left, right: {MEND}"),
    (parquet_of(["-", "label", "-"]), f"has no column of images (bytes, path): {MEND}"),
    (parquet_of(ONE, labels=[[1]]), "has no column 'label' of numbers or texts"),
    (parquet_of(ONE, labels=[0] * 10_000), "has 10000 rows in ... bytes, too few for images: wri"),
]


@case
def unlabelled(folder, change):
    flat_folder(folder)
    write_files(folder, devkit())
    change(folder)
    list_folder(folder, CLASSES)


@case
def flat_tar(folder, name, images, change=lambda folder: None):
    pack(folder / name, images)
    change(folder)
    list_archives(folder, ["*.tar"], "label", CLASSES, CLASSES_TABLE)


@case
def without_solution(folder, below):
    kaggle(folder)
    (folder / "LOC_val_solution.csv").unlink()
    list_folder(folder / below, CLASSES)


def cut_devkit(folder):
    flat_folder(folder)
    packed_devkit(folder)
    path = folder / f"{DEVKIT}.tar.gz"
    path.write_bytes(path.read_bytes()[:200])
    list_folder(folder, CLASSES)


CLASSES_TABLE = Path(__file__).parents[2] / "config/vocab/packaged.csv"
PUT = f"put ImageNet's {DEVKIT}.tar.gz or Kaggle's LOC_val_solution.csv beside them, name a CSV"


def image(root):
    return root / f"val/{NAMES[2]}.JPEG"


DIFFERENT = f"images, but ... {DEVKIT} has labels of 6; the first difference is {NAMES[2]}: fetch"
DAMAGED = f"{DEVKIT}: not readable as ImageNet's devkit ... fetch it anew"
SOLUTION = f"ImageId,PredictionString\n{NAMES[0]},\n".encode()
OTHERS = [
    (devkit(IDS[:4]), f"val: 6 images, but ... {DEVKIT} has labels of 4; ... {NAMES[4]}: fetch"),
    (devkit([*IDS[:5], 9]), f"{DEVKIT}: meta.mat has no ILSVRC2012_ID 9: fetch it anew"),
    ({f"{DEVKIT}/data/{TRUTH}": b"one\n"}, DAMAGED),
    ({f"{DEVKIT}/data/{META}": b"MATLAB 5.0" * 99}, DAMAGED),
    ({"LOC_val_solution.csv": SOLUTION}, "LOC_val_solution.csv: line 2 names no synset: fetch it"),
]
IMAGENET = [
    (unlabelled(lambda root: image(root).unlink()), f"val: 5 {DIFFERENT}"),
    (unlabelled(lambda root: image(root).rename(root / "val/x.JPEG")), f"val: 6 {DIFFERENT}"),
    *((unlabelled(partial(write_files, files=files)), said) for files, said in OTHERS),
    (unlabelled(lambda root: (root / DEVKIT / "data" / META).unlink()), "holds no meta.mat: fetch"),
    (cut_devkit, f"{DEVKIT}.tar.gz: not readable as ImageNet's devkit"),
    *(
        (without_solution(below), f"CLS-LOC/val: 6 images without labels: {PUT}")
        for below in ("ILSVRC", "ILSVRC/Data/CLS-LOC/val")
    ),
    *(
        (flat_tar(name, VALIDATION), f"{name}: 6 images without labels: {PUT} ... folder for each")
        for name in ("ILSVRC2012_img_val.tar", "photos.tar")
    ),
    (
        flat_tar("a.tar", {"1.jpg": b"x"}, partial(write_files, files=devkit())),
        f"a.tar: 1 image without labels ({{}}/{DEVKIT} has labels of other names): {PUT}",
    ),
]


@case
def array(folder, make, place):
    """An array that is made at a path, and read from a place in it."""
    make(folder / place.partition(":")[0])
    find_arrays(f"{folder}/{place}", 2).whole()


def lying_npz(shape):
    header = io.BytesIO()
    facts = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, facts)

    def make(path):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("a.npy", header.getvalue() + bytes(400))

    return make


written, saved, zipped = case(Path.write_bytes), case(np.save), case(np.savez)


def of_npy(rows):
    file = io.BytesIO()
    np.save(file, rows)
    return file.getvalue()


@case
def in_folder(folder, **files):
    folder.mkdir()
    for name, rows in files.items():
        np.save(folder / f"{name}.npy", rows)


def mixed(folder):
    in_folder(a=ROWS)(folder)
    np.savez(folder / "a.npz", ROWS)


def in_hdf5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=ROWS > 0)


RAGGED, STORED = pa.table({"v": [[1.0, 2.0], [3.0]]}), of_npy(ROWS)
LIE = b'{"x":{"dtype":"F32","shape":[1000000,5],"data_offsets":[0,20000000]}}'
OBJECTS = np.array([[{}]], dtype=object)
HOLES = np.where(np.arange(23)[:, None] == 17, np.nan, ROWS)
LIED = struct.pack("<Q", len(LIE)) + LIE
ARRAYS = [
    (array(lambda path: None, "a.npy"), "a.npy: no such file"),
    (array(written(b""), "a.mat"), "a.mat: is none of .npy"),
    (array(saved(OBJECTS), "a.npy"), "a.npy: not readable"),
    (array(zipped(a=OBJECTS), "a.npz"), "a.npz:a: holds object, not numbers"),
    (array(saved(np.array([["a"]])), "a.npy"), "a.npy: holds <U1, not numbers: save it as float32"),
    (array(saved(HOLES), "a.npy"), "a.npy: row 17 holds NaN or infinite values"),
    (array(saved(np.full((3, 5), 1e300)), "a.npy"), "row 0 holds NaN ... or beyond float32"),
    (array(lying_npz((10**12, 5)), "a.npz"), "a.npz:a: ends after 20 of 1000000000000 rows"),
    (array(lying_npz((5, 10**12)), "a.npz"), "a.npz: ... no tower is so wide"),
    (array(written(b"1 2 3"), "a.npy"), "a.npy: not readable"),
    (array(written(STORED[:-8]), "a.npy"), "a.npy: not readable"),
    (array(written(LIED), "a.safetensors"), "a.safetensors: not readable"),
    (array(partial(parquet.write_table, RAGGED), "a.pq"), "its lists do not all have 2 numbers"),
    (array(written(b"PAR1" + bytes(30)), "a.parquet"), "a.parquet: not readable"),
    (array(written(b"\x89HDF\r\n\x1a\n" + bytes(30)), "a.hdf5"), "a.hdf5: not readable"),
    (array(in_hdf5, "a.h5"), "a.h5:features: holds bool, not numbers"),
    (array(in_folder(a=ROWS, b=ROWS[:0]), "parts"), "b.npy: its array has the shape (0, 5), wi"),
    (array(zipped(a=ROWS, b=ROWS), "a.npz"), "has more than one array of 2 dimensions; it has a ("),
    (array(zipped(a=ROWS, b=ROWS), "a.npz:up"), "a.npz: has no array 'up' of 2 dimensions"),
    (array(mixed, "mixed"), "mixed: ... whose files are of one kind"),
    (array(in_folder(a=ROWS, b=ROWS[:, :3]), "widths"), "widths: ... rows of different shapes"),
]


@case
def imported(folder, change, **changes):
    """What is offered for an import, changed."""
    write_offered(folder)
    change()
    import_source(folder / "source", offer(folder, **changes))


def classes_in_order(*rows):
    return lambda: Path("classes.txt").write_text("\n".join(KINDS[row] for row in rows))


@case
def asking(folder, *wanted):
    write_offered(folder)
    import_source(folder / "made", offer(folder))
    check_source(folder / "made", *wanted)


def listed_labels():
    frame = pd.read_csv("table.csv")
    frame.assign(kind=[[name] for name in frame["kind"]]).to_parquet("table.parquet")


def three_classes():
    edited(class_index=np.arange(N) % 4)
    np.savez("3.npz", w=WEIGHT[:3])


def saving(name, rows):
    return imported(lambda: np.save(name, rows))


def head_of(**rows):
    return imported(lambda: np.savez("head.npz", **rows))


def cells(**columns):
    return imported(lambda: edited(**columns))


@case
def class_names(folder, text):
    write_offered(folder)
    made = {"schema_version": "1", "class_names": text}
    write_tensors(folder / "head.safetensors", {"weight": WEIGHT, "bias": BIAS}, made)
    import_source(folder / "source", offer(folder, head="head.safetensors", classes=None))


OWN = ["features/mine"], ["sounds"]
NO_NAMES = ["{{", "5", "true", "[1, 2, 3, 4]", "{}", "[" * 100_000, '"abcd"', '["a", "a"]']
NO_NAMES += [json.dumps(["a", "b", "c", name]) for name in ("", "\0", "\ud800")]
ZEROS = EMBEDDINGS * (np.arange(N)[:, None] < 40)
IMPORTS = [
    (saving("features.npy", FEATURES[:-1]), "has 59 rows of features, but the table has 60"),
    (saving("embeddings.npy", EMBEDDINGS[:9]), "has 9 rows of embeddings"),
    (saving("embeddings.npy", FEATURES), "7 dimensions, but sounds has 5"),
    (saving("embeddings.npy", ZEROS), "embeddings.npy: row 40 holds zeros alone, which have no di"),
    (saving("features.npy", FEATURES * np.nan), "features.npy: row 0 holds NaN"),
    (saving("features.npy", FEATURES[::-1]), "logits.npy: row ... differs from W f + b by"),
    (saving("logits.npy", FEATURES[:, :1]), "logits.npy: has 1 columns, but the head has 4 rows"),
    (head_of(w=WEIGHT[:, :3]), "head.npz:w: has shape (4, 3), but the features have 7 columns"),
    (head_of(w=WEIGHT, b=BIAS[:2]), "head.npz:b: has shape (2,), but the head has 4 rows"),
    (head_of(w=WEIGHT, b=BIAS, t=BIAS), "its bias may be head.npz:b or head.npz:t: name it"),
    (head_of(w=0 * WEIGHT, b=BIAS), "head.npz:w: holds zeros alone"),
    (head_of(w=WEIGHT[:1]), "head.npz:w: has one row: write two classes"),
    (imported(classes_in_order(0, 1)), "classes.txt: has 2 classes, but the head"),
    (imported(classes_in_order(1, 0, 3, 2)), "'bee' (class 0) are predicted as 'ant' (class 1)"),
    (cells(file=["1.jpg"] * N), "table.csv: line 3: id '1.jpg' is that of row 0, too"),
    (cells(file=[" "] * N), "line 2: id '' is empty, unprintable or has .."),
    (cells(file=[f"../{row}" for row in range(N)]), "line 2: id '../0' is empty, unprintable or"),
    (cells(kind=["a\x07nt"] * N), "line 2: has no printable label"),
    (cells(kind=[""] * N), "line 2: has no printable label"),
    (cells(class_index=[9] * N), "line 2: class_index '9' is outside the 4 classes"),
    (cells(class_index=[1] * N), "line 2: class_index 1 is 'bee', but the label is 'ant', class 0"),
    (cells(sha256=["", "ab", *[""] * 58]), "line 3: sha256 is filled in some rows and empty in"),
    (cells(split=["test"] * N), "line 2: split 'test' is neither train nor validation"),
    (imported(listed_labels, table=Path("table.parquet")), "column 'kind' holds list< ... >: wri"),
    (imported(three_classes, head="3.npz", classes=None, logits=None), "outside the 3 classes"),
    *((class_names(text), "head.safetensors: class_names in its metadata is") for text in NO_NAMES),
    (class_names("[]"), "head.safetensors: has 0 classes, but the head has 4 rows"),
    (imported(lambda: None, table=None), "source: is no source yet: give --table"),
    (asking(["other"], ["sounds"], 1), "has nothing of other; its models are features/mine"),
    (asking(["features/mine"], ["clip"], 1), "has nothing of clip; its spaces are sounds"),
    (asking(*OWN, 4), "write extraction.views: 1"),
    (lambda folder: check_source(folder, *OWN, 1), "data.root {}: holds no rows"),
]


@pytest.mark.parametrize(
    ("case", "said"), [*TEXTS, *FOLDERS, *ARCHIVES, *IMAGENET, *ARRAYS, *IMPORTS]
)
def test_bad_input_is_refused_in_one_line_with_its_file_and_its_fault(
    tmp_path, monkeypatch, case, said
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as refused:
        case(tmp_path)
    pattern = ".*".join(map(re.escape, said.replace("{}", str(tmp_path)).split(" ... ")))
    assert re.search(pattern, str(refused.value)) and "\n" not in str(refused.value)
    assert not (tmp_path / "source").exists() and not list(tmp_path.glob(".source*"))
