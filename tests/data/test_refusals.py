"""Files that cannot be used are refused in one line that names the file and the fault."""

import bz2
import gzip
import lzma
import os
import re
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from singflow.data.imagenet import META, TRUTH
from singflow.data.listing import list_archives, list_folder, list_table
from singflow.data.manifest import data_root, read_classes
from singflow.data.vocabulary import read_vocabulary
from singflow.errors import InputError
from tests.data.archives import pack, write_rows
from tests.data.manifests import CLASSES
from tests.data.test_imagenet import DEVKIT, IDS, NAMES, devkit, flat_folder, kaggle, packed_devkit
from tests.data.test_imagenet import IMAGES as VALIDATION
from tests.data.test_imagenet import write as write_files


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


WORKBOOK = "save it as text, a table as CSV UTF-8, and name that file"
FOREIGN = {  # files of another kind by their first bytes, and what to do
    "PK\x03\x04": f"an Excel workbook (.xlsx) or another zip archive: {WORKBOOK}",
    "\udcd0\udccf\x11\udce0": f"an Excel workbook (.xls): {WORKBOOK}",
    "PAR1": "a Parquet file: let its name end in .parquet",
}
AS_CSV = "(UnicodeDecodeError: …): save it anew as comma-separated UTF-8"
EMPTY = "not readable as CSV: it is empty: name or save it anew"
COUNT = "class_index must count 0, 1, 2, ... in order, as the heads do"
OWN_NAME = "every class needs a name of its own"
RENAME = "rename or remove one of them"
QUOTE = "quote commas inside cells, remove those at line ends"
OUTSIDE = "outside the {} classes (0 to {}, or -1)"
SPLIT = "split 'test' is neither train nor validation (val): write one of them, or nothing"
NO_PATH = "has no column 'path' (the image's path relative to data.root); it has none"
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
    *((f"path,label\n{rows}", "holds no rows") for rows in ("", ",\n\n,,,\n")),
    ("path;label\n;\n", "holds no rows"),
    ("\u2028,\u2003\n", NO_PATH),
    ("path,kind\na,b\n", "has no column 'label' (data.label_column); it has path, kind"),
    ("path,label\n\udcff.png,cat\n", f"not readable as CSV {AS_CSV}"),
    ("Path,PATH,label\na,b,c\n", "has 2 columns 'path': name one of them otherwise"),
    *((f"path,label\n{rows}", f"rows have more cells than the header (line {line}): {QUOTE}")
      for line, rows in ((2, "a,b,\nc,d,\n"), (3, "a,cat\nb,dog, x\n"))),
]  # fmt: skip
WORDS = [
    *((text, "line 2 is blank: fill or remove it")
      for text in ("a\n\nb", "a\n \t\nb\r\n", "a\r\n\r\nb\r\n", "a\n\nb\n\n")),
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
    *((given(read, f"t.{ending}", f"{start}\x14\0\6\0\udcff"), f"t.{ending}: is {said}")
      for read in (table, read_classes, read_vocabulary)
      for ending in ("csv", "xlsx", "ods", "txt") for start, said in FOREIGN.items()),
]  # fmt: skip


@case
def folder_of(folder, *paths):
    write_files(folder, dict.fromkeys(paths, b"x"))
    list_folder(folder, CLASSES)


CORRECT = "no such folder: correct data.root in params.yaml"
NO_IMAGES = "data.root {}: holds no images in class folders (<root>/<class>/<image>)"
PUT = (
    f"put ImageNet's {DEVKIT}.tar.gz or Kaggle's LOC_val_solution.csv beside them, name a CSV with "
    "the columns path and label as data.table, or sort them into a folder for each class"
)
ABOVE = "name the folder above as data.root"
FOLDERS = [
    (lambda folder: data_root("folder", f"{folder}/no"), f"data.root {{}}/no: {CORRECT}"),
    (given(lambda path: data_root("folder", str(path)), "a.png", "x"),
     f"data.root {{}}/a.png: {CORRECT}"),
    (folder_of("train/a/a.png", "val/a/b.png", "test/a/c.png"),
     "data.root {}: holds other folders beside train and val: test: move them out of it"),
    (folder_of("a.png"), f"{{}}: 1 image without labels: {PUT}, or {ABOVE}"),
    (folder_of("a.txt"), f"{NO_IMAGES}; 1 of its files lie in none: {ABOVE}, or move them"),
    (folder_of(), NO_IMAGES),
    (read_vocabulary, "{}: not readable as UTF-8 text or CSV (…): name or save it anew"),
]  # fmt: skip


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
NO_END = f"no end of the archive, and no member, at byte 1024: {CUT}"
JOINED = "goes on after its end at byte 2048, as joined tars do: keep them apart, and name each"
FOLDERS += [
    (named("b*.tar"),
     "data.archives: b*.tar: no file below {} has such a name: correct it, or data.root"),
    (named("empty.tar"), "data.archives: empty.tar: no image in them: name archives of images"),
]  # fmt: skip
DAMAGE = [
    (lambda content: b"", f"not readable as tar (empty file): {CUT}"),
    (lambda content: b"no tar" * 200, f"not readable as tar (…): {CUT}"),
    (lambda content: content[:700], f"ends within cat/a.png: {CUT}"),
    (lambda content: content[:1024], NO_END),
    (lambda content: content[:1100], NO_END),
    (lambda content: content[:1024] + b"x" + content[1025:], NO_END),
    (lambda content: content * 2, JOINED),
]
COMPRESSED = (
    "{0}: is compressed, so that no image can be read without all before it (images are compressed "
    "already): unpack it with `{1} -k {0}`, and name the .tar"
)
COMPRESSORS = {"gunzip": gzip.compress, "bunzip2": bz2.compress, "unxz": lzma.compress}
ONE, MANY = ["image", "label", "-"], ["left", "label", "right"]
COLUMN = "of numbers or texts (data.label_column); it has image, label: name another"
CALLED = "write the file with one that is called image"
ARCHIVES = [
    *((damaged_tar(damage), f"all.tar: {said}") for damage, said in DAMAGE),
    *((packed(name, compress), COMPRESSED.format(name, command))
      for command, compress in COMPRESSORS.items() for name in ("all.tar.x", "all.tar")),
    (named("*.txt"),
     "a.txt: neither a .tar nor a .parquet file: name archives alone in data.archives, as in "
     "[train-*.tar]"),
    (named("pipe.tar"), "pipe.tar: not a regular file, but a pipe or a device: name a file"),
    (parquet_of(ONE, "kind"), f"a.parquet: has no column 'kind' {COLUMN}"),
    (parquet_of(ONE, "image.path"), f"a.parquet: has no column 'image.path' {COLUMN}"),
    (parquet_of(ONE, labels=[[1]]), f"a.parquet: has no column 'label' {COLUMN}"),
    (parquet_of(MANY), f"a.parquet: has several columns of images: left, right: {CALLED}"),
    (parquet_of(["-", "label", "-"]),
     f"a.parquet: has no column of images (bytes, path): {CALLED}"),
    (parquet_of(ONE, labels=[0] * 10_000),
     "a.parquet: has 10000 rows in … bytes, too few for images: write it anew"),
]  # fmt: skip


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


def image(root):
    return root / f"val/{NAMES[2]}.JPEG"


OTHER, FEWER = (
    f"images, but {{}}/{DEVKIT} has labels of {labels}; the first difference is {name}: fetch what "
    "is missing, or remove what is too much"
    for labels, name in ((6, NAMES[2]), (4, NAMES[4]))
)
DAMAGED = "not readable as ImageNet's devkit (…): fetch it anew"
SOLUTION = f"ImageId,PredictionString\n{NAMES[0]},\n".encode()
OTHERS = [
    (devkit(IDS[:4]), f"val: 6 {FEWER}"),
    (devkit([*IDS[:5], 9]), f"{DEVKIT}: meta.mat has no ILSVRC2012_ID 9: fetch it anew"),
    ({f"{DEVKIT}/data/{TRUTH}": b"one\n"}, f"{DEVKIT}: {DAMAGED}"),
    ({f"{DEVKIT}/data/{META}": b"MATLAB 5.0" * 99}, f"{DEVKIT}: {DAMAGED}"),
    ({"LOC_val_solution.csv": SOLUTION},
     "LOC_val_solution.csv: line 2 names no synset: fetch it anew"),
]  # fmt: skip
IMAGENET = [
    (unlabelled(lambda root: image(root).unlink()), f"val: 5 {OTHER}"),
    (unlabelled(lambda root: image(root).rename(root / "val/x.JPEG")), f"val: 6 {OTHER}"),
    *((unlabelled(partial(write_files, files=files)), said) for files, said in OTHERS),
    (unlabelled(lambda root: (root / DEVKIT / "data" / META).unlink()),
     f"{DEVKIT}: holds no meta.mat: fetch it anew"),
    (cut_devkit, f"{DEVKIT}.tar.gz: {DAMAGED}"),
    *((without_solution(below),
       f"ILSVRC/Data/CLS-LOC/val: 6 images without labels: {PUT}, or {ABOVE}")
      for below in ("ILSVRC", "ILSVRC/Data/CLS-LOC/val")),
    *((flat_tar(name, VALIDATION), f"{name}: 6 images without labels: {PUT}")
      for name in ("ILSVRC2012_img_val.tar", "shard-00000.tar", "photos.tar")),
    (flat_tar("a.tar", {"1.jpg": b"x"}, partial(write_files, files=devkit())),
     f"a.tar: 1 image without labels ({{}}/{DEVKIT} has labels of other names): {PUT}"),
]  # fmt: skip


BELOW = [(case, f"{{}}/{said}") for case, said in [*TEXTS, *ARCHIVES, *IMAGENET]]


@pytest.mark.parametrize(("case", "said"), [*BELOW, *FOLDERS])
def test_bad_input_is_refused_in_one_line_with_its_file_its_fault_and_the_fix(
    tmp_path, monkeypatch, case, said
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as refused:
        case(tmp_path)
    parts = said.replace("{}", str(tmp_path)).split("…")  # which a library words
    assert re.fullmatch(".*".join(map(re.escape, parts)), str(refused.value))
