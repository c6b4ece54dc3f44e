"""Files that cannot be used are refused in one line that names the file and the fault."""

import gzip
import os
import re

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from singflow.data.listing import list_archives, list_folder, list_table
from singflow.data.manifest import data_root, read_classes
from singflow.data.vocabulary import read_vocabulary
from singflow.errors import InputError
from tests.data.archives import pack, write_rows
from tests.data.manifests import CLASSES


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
    header = "class_index,synset,name\n" if content[0].isdigit() else ""
    return given(read_classes, "classes.csv", header + content)


def words(content):
    return given(read_vocabulary, "concepts.txt", content)


@case
def row(folder, **cells):
    """A table whose second row has these cells."""
    first = {"path": "a.png", "label": "cat", "class_index": "-1", "split": "", "prompt": ""}
    frame = pd.DataFrame([first, {**first, "path": "b.png", **cells}])
    frame.to_csv(folder / "table.csv", index=False)
    table(folder / "table.csv")


SAVE = "save it anew as comma-separated UTF-8"
AS_CSV = f"not readable as CSV (UnicodeDecodeError: …): {SAVE}"
COUNT = "class_index must count 0, 1, 2, ... in order, as the heads do"
OWN_NAME = "every class needs a name of its own"
RENAME = "rename or remove one of them"
QUOTE = "quote commas inside cells, remove those at line ends, and blank lines at the start"
MORE = f"rows have more cells than the first line, which names the columns: {QUOTE}"
CLASS_LISTS = [
    ("class_index,name\n0,a\n", "has no column 'synset'; it has class_index, name"),
    ("1,n1,a\n0,n2,b\n", COUNT),
    ("0,n1,sea lion\n1,n2,Sea_Lion\n", f"row 2 repeats 'Sea_Lion' of row 1: {RENAME}: {OWN_NAME}"),
    ("0,n1,a\n1,n1,b\n", "n1 stands for two classes, 'a' and 'b'"),
    ("class_index,synset,name\n", "holds no classes"),
]
TABLES = [
    (None, "no such file"),
    ("path,label\n,\n\n , \n", "holds no rows"),
    ("path,kind\na,b\n", "has no column 'label' (data.label_column); it has path, kind"),
    ("path,label\n\udcff.png,cat\n", AS_CSV),
    ("path,label\na,b,\nc,d,\n", MORE),
    ("path,label\na,cat\nb,dog, x\n",
     f"not readable as CSV (ParserError: … Expected 2 fields in line 3, saw 3): {SAVE}"),
]  # fmt: skip
WORDS = [
    ("a\r\n \t\r\nb\r\n\r\n", "line 2 is blank: fill or remove it"),
    ("x\nblue sky\nblue_Sky\n", f"line 3 repeats 'blue_Sky' of line 2: {RENAME}"),
    ("\n \n", "holds no concepts: write one phrase a line"),
    ("gr\udcf6\udcdfe\n", "not readable as UTF-8 text (UnicodeDecodeError: …): name …"),
    (None, "no such file"),
]  # fmt: skip
WRONG_CELLS = [
    *(({"class_index": text}, f"class_index {text!r} is outside the 1000 classes (0 to 999, or -1)")
      for text in ("1000", "2.5", "nan")),
    ({"split": "test"},
     "split 'test' is neither train nor validation (val): write one of them, or nothing"),
]  # fmt: skip
TEXTS = [
    *((classes(text), f"classes.csv: {said}") for text, said in CLASS_LISTS),
    *((given(table, "t.csv", text), f"t.csv: {said}") for text, said in TABLES),
    *((words(text), f"concepts.txt: {said}") for text, said in WORDS),
    (given(table, "t.parquet", "path,label\n"),
     "t.parquet: not readable as Parquet (ArrowInvalid: …): write it anew, or as CSV"),
    *((row(**cells), f"table.csv: line 3 (b.png): {said}") for cells, said in WRONG_CELLS),
    (row(prompt="x"),
     "table.csv: b.png: label 'cat' has two prompts, 'an image of a cat' and 'x': give it one"),
]  # fmt: skip


@case
def folder_of(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")
    list_folder(folder, CLASSES)


NO_IMAGES = (
    "data.root {}: holds no images in class folders (<root>/<class>/<image>): move images into "
    "such folders, or name the folder above them as data.root"
)


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
def parquet_of(folder, columns, label_column="label"):
    pixels = pa.array([{"bytes": b"x"}], pa.struct([("bytes", pa.binary())]))
    write_rows(folder / "a.parquet", [b"x"], [0], mask=pixels)
    found = parquet.read_table(folder / "a.parquet").rename_columns(columns)
    chosen = [name for name in columns if name != "-"]
    parquet.write_table(found.select(chosen), folder / "a.parquet")
    list_archives(folder, ["*.parquet"], label_column, CLASSES)


CUT = "it is cut, damaged or compressed: fetch or pack it anew, or take it out of data.archives"
TAR = "not readable as tar (…"
FOLDERS = [
    (given(lambda path: data_root("folder", str(path)), "a.png", "x"),
     "data.root {}/a.png: no such folder: correct data.root"),
    (folder_of("train/a/a.png", "val/a/b.png", "test/a/c.png"),
     "data.root {}: holds other folders beside train and val: test: move them out of it"),
    (folder_of("a.png"), NO_IMAGES),
    (named("b*.tar"),
     "data.archives: b*.tar: no file below {} has such a name: correct it, or data.root"),
    (named("empty.tar"), "data.archives: empty.tar: no image: name archives of images"),
]  # fmt: skip
END = "neither a member nor the end at byte"
DAMAGE = [
    (lambda content: b"", "empty file"),
    (gzip.compress, ""),
    (lambda content: content[:700], "unexpected end of data"),
    (lambda content: content[:1024] + b"x" + content[1025:], f"{END} 1024, or more after it"),
]
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
    (parquet_of(MANY), f"a.parquet: has several columns of images: left, right: {CALLED}"),
    (parquet_of(["-", "label", "-"]),
     f"a.parquet: has no column of images (bytes): {CALLED}"),
]  # fmt: skip


BELOW = [(case, f"{{}}/{said}") for case, said in [*TEXTS, *ARCHIVES]]


@pytest.mark.parametrize(("case", "said"), [*BELOW, *FOLDERS])
def test_bad_input_is_refused_in_one_line_with_its_file_its_fault_and_the_fix(
    tmp_path, monkeypatch, case, said
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as refused:
        case(tmp_path)
    parts = said.replace("{}", str(tmp_path)).split("…")  # which a library words
    assert re.fullmatch(".*".join(map(re.escape, parts)), str(refused.value))
