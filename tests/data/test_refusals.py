"""Files that cannot be used are refused in one line that names the file and the fault."""

import gzip
import io
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
from singflow.data.imported import check_source
from singflow.data.importing import import_source
from singflow.data.listing import list_archives, list_folder, list_table
from singflow.data.manifest import data_root, read_classes
from singflow.data.vocabulary import read_vocabulary
from singflow.errors import InputError
from tests.data.archives import pack, write_rows
from tests.data.manifests import CLASSES
from tests.data.test_arrays import ROWS
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
    header = "class_index,synset,name\n" if (content or "")[:1].isdigit() else ""
    return given(read_classes, "classes.csv", content and header + content)


def words(content):
    return given(read_vocabulary, "concepts.txt", content)


@case
def row(folder, kind, **cells):
    """A table whose second row has these cells."""
    first = {"path": "a.png", "label": "cat", "class_index": "-1", "split": "", "prompt": ""}
    frame = pd.DataFrame([first, {**first, "path": "b.png", **cells}])
    path = folder / f"table.{kind}"
    getattr(frame, f"to_{kind}")(path, index=False)
    table(path)


AS_CSV = "(UnicodeDecodeError: …): save it anew as comma-separated UTF-8"
SAVE = "save it anew as comma-separated UTF-8"
EMPTY = f"not readable as CSV (EmptyDataError: No columns to parse from file): {SAVE}"
COUNT = "class_index must count 0, 1, 2, ... in order, as the heads do"
OWN_NAME = "every class needs a name of its own"
RENAME = "rename or remove one of them"
QUOTE = "quote commas inside cells, remove those at line ends, and blank lines at the start"
MORE = f"rows have more cells than the first line, which names the columns: {QUOTE}"
OUTSIDE = "outside the {} classes (0 to {}, or -1)"
SPLIT = "split 'test' is neither train nor validation (val): write one of them, or nothing"
HERE = "0,n1,a\n1,n2,"
CLASS_LISTS = [
    (None, "no such file"),
    ("", EMPTY),
    ("class_index,synset,name\n0,n1,\udcff\n", f"not readable as CSV {AS_CSV}"),
    ("class_index,name\n0,a\n", "has no column 'synset'; it has class_index, name"),
    *((text, COUNT) for text in ("1,n1,a\n0,n2,b\n", "0,n1,a\n2,n2,b\n")),
    ("0,n1,sea lion\n1,n2,Sea_Lion\n", f"row 2 repeats 'Sea_Lion' of row 1: {RENAME}: {OWN_NAME}"),
    (f"{HERE} \n", f"row 2 is blank: fill or remove it: {OWN_NAME}"),
    (f"{HERE}\x1bb\n", f"row 2 holds control characters: '\\x1bb': remove them: {OWN_NAME}"),
    ("0,n1,a\n1,n1,b\n", "n1 stands for two classes, 'a' and 'b'"),
    ("class_index,synset,name\n", "holds no classes"),
]
TABLES = [
    (None, "no such file"),
    ("", EMPTY),
    *((f"path,label\n{rows}", "holds no rows") for rows in ("", ",\n\n , \n")),
    ("path;label\n;\n", "holds no rows"),
    ("path,kind\na,b\n", "has no column 'label' (data.label_column); it has path, kind"),
    ("path,label\n\udcff.png,cat\n", f"not readable as CSV {AS_CSV}"),
    ("path,label\na,b,\nc,d,\n", MORE),
    ("path,label\na,cat\nb,dog, x\n",
     f"not readable as CSV (ParserError: … Expected 2 fields in line 3, saw 3): {SAVE}"),
    ('path,label\na,"cat\n', f"not readable as CSV (ParserError: …): {SAVE}"),
]  # fmt: skip
WORDS = [
    *((text, "line 2 is blank: fill or remove it")
      for text in ("a\n\nb", "a\r\n \t\r\nb\r\n\r\n")),
    *((f"x\nblue sky\n{again}\n", f"line 3 repeats {said!r} of line 2: {RENAME}")
      for again in ("blue sky", "Blue Sky", "  blue   sky ", "BLUE\tSKY", "blue_Sky")
      for said in [" ".join(again.split())]),
    ("straße\nSTRASSE\n", f"line 2 repeats 'STRASSE' of line 1: {RENAME}"),
    *((text, "holds no concepts: write one phrase a line") for text in ("", "\ufeff", "\n \n")),
    *((text, "not readable as UTF-8 text (UnicodeDecodeError: …): name or save it anew")
      for text in ("gr\udcf6\udcdfe\n", os.fsdecode("sand\n".encode("utf-16")))),
    (None, "no such file"),
]  # fmt: skip
WRONG_CELLS = [
    *(({"class_index": text}, f"class_index {text!r} is {OUTSIDE.format(1000, 999)}")
      for text in ("1000", "-2", "2.5", "two", "nan", "inf")),
    ({"split": "test"}, SPLIT),
    ({"prompt": "x"}, "label 'cat' has two prompts, 'an image of a cat' and 'x': give it one"),
]  # fmt: skip
TEXTS = [
    *((classes(text), f"classes.csv: {said}") for text, said in CLASS_LISTS),
    *((given(table, "t.csv", text), f"t.csv: {said}") for text, said in TABLES),
    *((words(text), f"concepts.txt: {said}") for text, said in WORDS),
    (given(table, "t.parquet", None), "t.parquet: no such file"),
    (given(table, "t.parquet", "path,label\n"),
     "t.parquet: not readable as Parquet (ArrowInvalid: …): write it anew, or as CSV"),
    *((row(kind, **cells), f"table.{kind}: line 3 (b.png): {said}")
      for kind in ("csv", "parquet") for cells, said in WRONG_CELLS),
]  # fmt: skip


@case
def folder_of(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")
    list_folder(folder, CLASSES)


CORRECT = "no such folder: correct data.root in params.yaml"
NO_IMAGES = (
    "data.root {}: holds no images in class folders (<root>/<class>/<image>): move images into "
    "such folders, or name the folder above them as data.root"
)
FOLDERS = [
    (lambda folder: data_root("folder", f"{folder}/no"), f"data.root {{}}/no: {CORRECT}"),
    (given(lambda path: data_root("folder", str(path)), "a.png", "x"),
     f"data.root {{}}/a.png: {CORRECT}"),
    (folder_of("train/a/a.png", "val/a/b.png", "test/a/c.png"),
     "data.root {}: holds other folders beside train and val: test: move them out of it"),
    (folder_of("a.png"), NO_IMAGES),
    (folder_of(), NO_IMAGES),
    (read_vocabulary, "{}: not readable as UTF-8 text (…): name or save it anew"),
]  # fmt: skip


@case
def damaged_tar(folder, damage):
    pack(folder / "all.tar", {"cat/a.png": b"a" * 400, "cat/b.png": b"b" * 400})
    (folder / "all.tar").write_bytes(damage((folder / "all.tar").read_bytes()))
    list_archives(folder, ["*.tar"], "label", CLASSES)


@case
def named(folder, pattern):
    pack(folder / "a.tar", {"cat/a.png": b"a"})
    pack(folder / "empty.tar", {})
    (folder / "a.tar.gz").write_bytes(gzip.compress(b"a"))
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


CUT = "it is cut, damaged or compressed: fetch or pack it anew, or take it out of data.archives"
TAR = "not readable as tar (…"
FOLDERS += [
    (named("b*.tar"),
     "data.archives: b*.tar: no file below {} has such a name: correct it, or data.root"),
    (named("empty.tar"), "data.archives: empty.tar: no image: name archives of images"),
]  # fmt: skip
DAMAGE = [
    (lambda content: b"", "empty file"),
    (lambda content: b"no tar" * 200, ""),
    (gzip.compress, ""),
    (lambda content: content[:700], "unexpected end of data"),
    *((damage, "neither a member nor the end at byte 1024, or more after it") for damage in (
        lambda content: content[:1024], lambda content: content[:1100],
        lambda content: content[:1024] + b"x" + content[1025:])),
    (lambda content: content * 2, "neither a member nor the end at byte 2048, or more after it"),
]  # fmt: skip
ONE, MANY = ["image", "label", "-"], ["left", "label", "right"]
COLUMN = "(data.label_column); it has image, label: name another"
CALLED = "write the file with one that is called image"
ARCHIVES = [
    *((damaged_tar(damage), f"all.tar: {TAR}{said}): {CUT}") for damage, said in DAMAGE),
    (named("*.gz"),
     "a.tar.gz: neither a .tar nor a .parquet file: name only such files in data.archives, as in "
     "[train-*.tar], and unpack a compressed tar (gunzip -k)"),
    (named("pipe.tar"), "pipe.tar: not a regular file, but a pipe or a device: name a file"),
    (parquet_of(ONE, "kind"), f"a.parquet: has no column 'kind' {COLUMN}"),
    (parquet_of(ONE, "image.path"), f"a.parquet: has no column 'image.path' {COLUMN}"),
    (parquet_of(MANY), f"a.parquet: has several columns of images: left, right: {CALLED}"),
    (parquet_of(["-", "label", "-"]),
     f"a.parquet: has no column of images (bytes): {CALLED}"),
    (parquet_of(ONE, labels=[0] * 10_000),
     "a.parquet: not readable as Parquet (ValueError: 10000 rows in … bytes, too few for images): "
     "fetch or write it anew"),
]  # fmt: skip


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
NESTED = pa.table({"id": [0, 1], "label": [2, 3], "v": [[[1.0, 2.0]], [[3.0, 4.0]]]})
LIE = b'{"x":{"dtype":"F32","shape":[1000000,5],"data_offsets":[0,20000000]}}'
OBJECTS = np.array([[{}]], dtype=object)
HOLES = np.where(np.arange(23)[:, None] == 17, np.nan, ROWS)
LIED = struct.pack("<Q", len(LIE)) + LIE
UNREADABLE = "not readable as {} (…): save it anew"
KINDS_OF_FILES = ".npy, .npz, .safetensors, .parquet, .pq, .h5, .hdf5"
NOT_FINITE = (
    "row {} holds NaN or infinite values, or beyond float32: remove the row everywhere, or compute "
    "it anew"
)
TWO = "2 dimensions; it has a (23, 5), b (23, 5): name one as {}/a.npz:<key>"
UNREADABLES = {
    "a.npy": [saved(OBJECTS), written(b"1 2 3"), written(STORED[:-8])],
    "a.safetensors": [written(LIED)],
    "a.parquet": [written(b"PAR1" + bytes(30))],
    "a.hdf5": [written(b"\x89HDF\r\n\x1a\n" + bytes(30))],
}
ARRAYS = [
    *((array(make, name), f"{name}: {UNREADABLE.format(name[1:])}")
      for name, makes in UNREADABLES.items() for make in makes),
    *((array(make, name), f"{place}: holds {kind}, not numbers: save it as float32")
      for make, name, place, kind in (
          (zipped(a=OBJECTS), "a.npz", "a.npz:a", "object"),
          (saved(np.array([["a"]])), "a.npy", "a.npy", "<U1"),
          (in_hdf5, "a.h5", "a.h5:features", "bool"))),
    (array(lambda path: None, "a.npy"), "a.npy: no such file"),
    (array(written(b""), "a.mat"), f"a.mat: is none of {KINDS_OF_FILES}: save it as one of them"),
    (array(saved(HOLES), "a.npy"), f"a.npy: {NOT_FINITE.format(17)}"),
    (array(saved(np.full((3, 5), 1e300)), "a.npy"), f"a.npy: {NOT_FINITE.format(0)}"),
    (array(lying_npz((10**12, 5)), "a.npz"),
     "a.npz:a: ends after 20 of 1000000000000 rows: it is damaged, save it anew"),
    (array(lying_npz((5, 10**12)), "a.npz"),
     "a.npz: its array has the shape (5, 1000000000000): no tower is so wide"),
    (array(partial(parquet.write_table, RAGGED), "a.pq"),
     "a.pq:v: its lists do not all have 2 numbers: remove the rows that differ"),
    (array(partial(parquet.write_table, NESTED), "a.pq"),
     "a.pq: holds no array of numbers: write one row of numbers an image"),
    (array(in_folder(a=ROWS, b=ROWS[:0]), "parts"),
     "parts/b.npy: its array has the shape (0, 5), without a number in it: remove the file, or "
     "save it anew"),
    (array(zipped(a=ROWS, b=ROWS), "a.npz"), f"a.npz: has more than one array of {TWO}"),
    *((array(zipped(a=ROWS, b=ROWS), f"a.npz:{key}"), f"a.npz: has no array {key!r} of {TWO}")
      for key in ("up", "")),
    (array(mixed, "mixed"),
     "mixed: holds .npy and .npz files of arrays: name a folder whose files are of one kind "
     f"({KINDS_OF_FILES})"),
    (array(in_folder(a=ROWS, b=ROWS[:, :3]), "widths"),
     "widths: its arrays have rows of different shapes, (3,) and (5,): name one of them as "
     "<path>:<key>"),
]  # fmt: skip


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
NO_LISTS = ["{{", "5", "true", "[1, 2, 3, 4]", '{"a": 0}', '"abcd"', r'["a", "\ud800"]']
NO_LISTS += ["[" * 100_000]
NO_NAMES = [
    ('["a", "a"]', f"name 2 repeats 'a' of name 1: {RENAME}"),
    ('["a", ""]', "name 2 is blank: fill or remove it"),
    (r'["a", "\u0000"]', "name 2 holds control characters: '\\x00': remove them"),
]
NAMED = "head.safetensors: class_names in its metadata is"
ZEROS = EMBEDDINGS * (np.arange(N)[:, None] < 40)
EACH = "but the table has 60: give a row for every row of the table, in its order"
ORDER = "give --classes in the order of these rows"
UNPRINTABLE = "is empty, unprintable or has ..: rename it"
NO_LABEL = "line 2: has no printable label: name the column of labels as --label-column"
IMPORT = "import them with `singflow import_features`"
CELLS = [  # of the table, and what is said of them
    ({"file": ["1.jpg"] * N},
     "line 3: id '1.jpg' is that of row 0, too: remove one of the two from the table and from the "
     "arrays"),
    ({"file": [" "] * N}, f"line 2: id '' {UNPRINTABLE}"),
    ({"file": [f"../{row}" for row in range(N)]}, f"line 2: id '../0' {UNPRINTABLE}"),
    *(({"kind": [label] * N}, NO_LABEL) for label in ("a\x07nt", "")),
    ({"class_index": [9] * N}, f"line 2: class_index '9' is {OUTSIDE.format(4, 3)}"),
    ({"class_index": [1] * N},
     "line 2: class_index 1 is 'bee', but the label is 'ant', class 0: correct one of them"),
    ({"sha256": ["", "ab", *[""] * 58]},
     "line 3: sha256 is filled in some rows and empty in others: fill all cells of the column, or "
     "none"),
    ({"split": ["test"] * N}, f"line 2: {SPLIT}"),
]  # fmt: skip
IMPORTS = [
    *((cells(**columns), f"{{}}/table.csv: {said}") for columns, said in CELLS),
    (saving("features.npy", FEATURES[:-1]), f"features.npy: has 59 rows of features, {EACH}"),
    (saving("embeddings.npy", EMBEDDINGS[:9]), f"embeddings.npy: has 9 rows of embeddings, {EACH}"),
    (saving("embeddings.npy", FEATURES),
     "embeddings.npy: has 7 dimensions, but sounds has 5: name their space"),
    (saving("embeddings.npy", ZEROS),
     "embeddings.npy: row 40 holds zeros alone, which have no direction: compute it anew, or "
     "remove the row everywhere"),
    (saving("features.npy", FEATURES * np.nan), f"features.npy: {NOT_FINITE.format(0)}"),
    (saving("features.npy", FEATURES[::-1]),
     "logits.npy: row … differs from W f + b by …, and logits have a standard deviation of …: "
     "the features are not the input of this head, or rows or classes are in another order"),
    (saving("logits.npy", FEATURES[:, :1]),
     "logits.npy: has 1 columns, but the head has 4 rows: give the logits of this head"),
    (head_of(w=WEIGHT[:, :3]),
     "head.npz:w: has shape (4, 3), but the features have 7 columns: name the head of these "
     "features"),
    (head_of(w=WEIGHT, b=BIAS[:2]),
     "head.npz:b: has shape (2,), but the head has 4 rows: name its bias"),
    (head_of(w=WEIGHT, b=BIAS, t=BIAS),
     "head.npz: its bias may be head.npz:b or head.npz:t: name it, as in --bias <path>:<key>"),
    (head_of(w=0 * WEIGHT, b=BIAS),
     "head.npz:w: holds zeros alone: name the weight of a trained head"),
    (head_of(w=WEIGHT[:1]),
     "head.npz:w: has one row: write two classes, the first with weight and bias 0"),
    (imported(classes_in_order(0, 1)),
     f"{{}}/classes.txt: has 2 classes, but the head has 4 rows: {ORDER}"),
    (imported(classes_in_order(1, 0, 3, 2)),
     "top-1 is 0.000, but would be 1.000 in another order of classes: most rows of 'bee' (class "
     "0) are predicted as 'ant' (class 1): give --classes in the order of the head's rows"),
    (imported(listed_labels, table=Path("table.parquet")),
     "table.parquet: not readable as Parquet (…): write it anew, or as CSV"),
    (imported(three_classes, head="3.npz", classes=None, logits=None),
     f"{{}}/table.csv: line 5: class_index '3' is {OUTSIDE.format(3, 2)}"),
    *((class_names(text), f"{NAMED} {text[:100]!r}: {said}: save the head anew")
      for text, said in [*((text, "not a list of names") for text in NO_LISTS), *NO_NAMES]),
    (class_names("[]"), f"head.safetensors: has 0 classes, but the head has 4 rows: {ORDER}"),
    (imported(lambda: None, table=None),
     "{}/source: is no source yet: give --table, --features and --head; more models and spaces "
     "can be added later"),
    (asking(["other"], ["sounds"], 1),
     f"data.root {{}}/made: has nothing of other; its models are features/mine: {IMPORT}"),
    (asking(["features/mine"], ["clip"], 1),
     f"data.root {{}}/made: has nothing of clip; its spaces are sounds: {IMPORT}"),
    (asking(*OWN, 4),
     "{}/made/features/features/mine/shard-00000.safetensors: holds 1 views of an image: write "
     "extraction.views: 1"),
    (lambda folder: check_source(folder, *OWN, 1),
     "data.root {}: holds no rows.parquet: name a folder that `singflow import_features` wrote"),
]  # fmt: skip
BELOW = [(case, f"{{}}/{said}") for case, said in [*TEXTS, *ARCHIVES, *ARRAYS]]


@pytest.mark.parametrize(("case", "said"), [*BELOW, *FOLDERS, *IMPORTS])
def test_bad_input_is_refused_in_one_line_with_its_file_its_fault_and_the_fix(
    tmp_path, monkeypatch, case, said
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as refused:
        case(tmp_path)
    parts = said.replace("{}", str(tmp_path)).split("…")  # which a library words
    assert re.fullmatch(".*".join(map(re.escape, parts)), str(refused.value))
    assert not (tmp_path / "source").exists() and not list(tmp_path.glob(".source*"))
