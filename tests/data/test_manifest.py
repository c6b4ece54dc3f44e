"""From files to a manifest: accepted, or rejected with a reason; the seed fixes the draw."""

import hashlib
import os
import random
from collections import Counter
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from subprocess import CompletedProcess
from threading import Barrier, Thread

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from threadpoolctl import threadpool_info, threadpool_limits

from singflow.data.images import FORMATS
from singflow.data.manifest import (
    Candidate,
    Inspected,
    Refusal,
    build_manifest,
    data_root,
    fill,
    inspect,
    list_folder,
    list_table,
    prompt_of,
    read_classes,
)
from singflow.data.vocabulary import read_vocabulary
from singflow.errors import InputError
from singflow.parallel import map_ahead, map_apart
from tests import PATIENCE
from tests.project import ROOT
from tests.results import Results

CLASSES_FILE = ROOT / "config/vocab" / "imagenet_1k.csv"
CLASSES = read_classes(CLASSES_FILE)
COLUMNS = {
    "image_id": "int64",
    "path": "str",
    "label": "str",
    "class_index": "int32",
    "prompt": "str",
    "split": "str",
    "fold": "int32",
    "width": "int32",
    "height": "int32",
    "sha256": "str",
}
NO_IMAGE = f"not an image, or none of {', '.join(FORMATS)}: convert it"
BAD = {"empty": b"", "text": b"not a picture", "cut": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0"}


def picture(path: Path, number: int, size: tuple[int, int] = (5, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (number % 256, number // 256, 77)).save(path, "PNG")
    return path


def tree(root: Path, *paths: str) -> Path:
    for number, path in enumerate(paths):
        picture(root / path, number)
    return root


def candidates(*paths: str, split: str = "") -> list[Candidate]:
    return [
        Candidate(path, Path(path).parts[0], -1, prompt_of(Path(path).parts[0]), split)
        for path in paths
    ]


def build(root: Path, found: list[Candidate], rejected=(), **changes):
    options = {
        "per_class": None,
        "folds": 5,
        "max_pixels": 100,
        "max_rejected_fraction": 1.0,
        "seed": 0,
        "threads": 2,
    }
    return build_manifest(
        root, found, list(rejected), **options | changes, progress=lambda results, total: results
    )


def sizes(folds: pd.Series, numbers: range) -> list[int]:
    """Images of each of the folds that there may be, the fewest first."""
    assert set(folds) <= set(numbers)
    return sorted(int((folds == number).sum()) for number in numbers)


def even(number: int, folds: int) -> list[int]:
    """Sizes of folds that differ by one at most, the smallest first."""
    return sorted(len(range(first, number, folds)) for first in range(folds))


# The list of classes


def test_a_class_is_found_by_synset_and_by_name_in_any_spelling():
    assert len(CLASSES.names) == 1000
    for text in (
        "n01484850",
        "N01484850",
        "great white shark",
        "Great_White_Shark",
        "  great white_shark ",
    ):
        assert CLASSES.find(text) == 2
    assert CLASSES.find("great white") == CLASSES.find("") == -1


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "no such file"),
        (b"", "not readable as CSV"),
        (b"class_index,synset,name\n0,n1,\xff\n", "not readable as CSV"),
        (b"class_index,name\n0,a\n", "has no column 'synset'; it has class_index, name"),
        (b"class_index,synset,name\n1,n1,a\n0,n2,b\n", "must count 0, 1, 2"),
        (b"class_index,synset,name\n0,n1,a\n2,n2,b\n", "must count 0, 1, 2"),
        (
            b"class_index,synset,name\n0,n1,sea lion\n1,n2,Sea_Lion\n",
            "row 2 repeats 'Sea_Lion' of row 1",
        ),
        (
            b"class_index,synset,name\n0,n1,a\n1,n2, \n",
            "row 2 is blank: fill or remove it: every class needs a name of its own",
        ),
        (b"class_index,synset,name\n0,n1,a\n1,n2,\x1bb\n", "row 2 holds control characters"),
        (b"class_index,synset,name\n0,n1,a\n1,n1,b\n", "n1"),
        (b"class_index,synset,name\n", "no classes"),
    ],
)
def test_a_faulty_list_of_classes_is_refused_with_file_and_fault(tmp_path, content, message):
    path = tmp_path / "classes.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_classes(path)
    assert str(path) in str(error.value) and message in str(error.value)


# The texts of labels


@pytest.mark.parametrize(
    "article, names",
    [
        (
            "an",
            (
                "Egyptian cat|ear|Irish setter|otter|umbrella|upright|usher|unimportant "
                "thing|onesie|hourglass|heirloom|honest face|éclair|8"
            ),
        ),
        (
            "a",
            (
                "tench|European gallinule|unicycle|uniform|used car|utility pole|UK plug|one-way "
                "street|ewe|yurt|house|hon|honeycomb|_x|犬|"
            ),
        ),
    ],
)
def test_a_template_with_either_article_takes_the_one_that_is_said(article, names):
    for name in names.split("|"):
        assert (
            fill("an image of a(n) {}, a(n) {} alone", name)
            == f"an image of {article} {name}, {article} {name} alone"
        )


@given(st.text(), st.text(st.characters(exclude_characters="()")))
def test_no_other_template_is_changed_by_what_it_is_filled_with(name, template):
    assert fill(f"{template}a {{}}", name) == template.replace("{}", name) + f"a {name}"
    assert prompt_of(name) == "an image of a " + name


# A folder


def test_folders_are_synsets_or_names_or_labels_of_their_own(tmp_path):
    tree(
        tmp_path,
        "n01440764/a.png",
        "great_white_shark/deep/er/b.png",
        "my_own_cat/c.png",
        "Two Words/d.png",
    )
    found, rejected = list_folder(tmp_path, CLASSES)
    assert found == [
        Candidate("Two Words/d.png", "Two Words", -1, "an image of a Two Words"),
        Candidate(
            "great_white_shark/deep/er/b.png",
            "great white shark",
            2,
            "an image of a great white shark",
        ),
        Candidate("my_own_cat/c.png", "my own cat", -1, "an image of a my own cat"),
        Candidate("n01440764/a.png", "tench", 0, "an image of a tench"),
    ]
    assert rejected == []


@pytest.mark.parametrize("held_out", ["val", "validation"])
def test_folders_train_and_val_give_the_split(tmp_path, held_out):
    tree(
        tmp_path,
        "train/n01440764/a.png",
        "train/own_cat/b.png",
        f"{held_out}/tench/c.png",
        "train/loose.png",
        "top.png",
    )
    found, rejected = list_folder(tmp_path, CLASSES)
    assert {(c.path, c.label, c.class_index, c.split) for c in found} == {
        ("train/n01440764/a.png", "tench", 0, "train"),
        ("train/own_cat/b.png", "own cat", -1, "train"),
        (f"{held_out}/tench/c.png", "tench", 0, "validation"),
    }
    assert sorted(rejected) == [
        ("top.png", "not in a class folder"),
        ("train/loose.png", "not in a class folder"),
    ]


def test_train_may_be_a_class_like_any_other(tmp_path):
    found, _ = list_folder(tree(tmp_path, "train/a.png", "car/b.png"), CLASSES)
    assert {(c.label, c.split) for c in found} == {("train", ""), ("car", "")}


def test_a_folder_beside_train_and_val_does_not_turn_them_into_labels(tmp_path):
    tree(tmp_path, "train/tench/a.png", "val/tench/b.png", "test/tench/c.png")
    with pytest.raises(InputError, match="test"):
        list_folder(tmp_path, CLASSES)


def test_a_file_outside_the_class_folders_is_rejected(tmp_path):
    found, rejected = list_folder(tree(tmp_path, "cat/a.png", "b.png"), CLASSES)
    assert [c.path for c in found] == ["cat/a.png"]
    assert rejected == [("b.png", "not in a class folder")]


def test_a_link_back_to_the_root_is_followed_once(tmp_path):
    tree(tmp_path, "cat/a.png")
    (tmp_path / "cat" / "loop").symlink_to(tmp_path)
    found, _ = list_folder(tmp_path, CLASSES)
    assert [c.path for c in found] == ["cat/a.png"]


def test_a_link_to_itself_is_a_file_outside_the_class_folders(tmp_path):
    tree(tmp_path, "cat/a.png")
    (tmp_path / "self").symlink_to("self")
    found, rejected = list_folder(tmp_path, CLASSES)
    assert [c.path for c in found] == ["cat/a.png"]
    assert rejected == [("self", "not in a class folder")]


def test_a_linked_class_folder_is_listed(tmp_path):
    tree(tmp_path / "elsewhere", "a.png")
    tree(tmp_path / "root", "cat/b.png")
    (tmp_path / "root" / "dog").symlink_to(tmp_path / "elsewhere")
    found, _ = list_folder(tmp_path / "root", CLASSES)
    assert [(c.path, c.label) for c in found] == [("cat/b.png", "cat"), ("dog/a.png", "dog")]


def test_a_class_folder_that_is_a_link_to_another_is_not_dropped_in_silence(tmp_path):
    tree(tmp_path, "cat/a.png")
    (tmp_path / "tiger").symlink_to("cat")
    found, rejected = list_folder(tmp_path, CLASSES)
    assert any(
        path.startswith("tiger")
        for path in [c.path for c in found] + [path for path, _ in rejected]
    )


def test_a_folder_that_cannot_be_listed_is_not_dropped_in_silence(tmp_path, monkeypatch):
    tree(tmp_path, "cat/a.png", "dog/b.png")
    monkeypatch.chdir(tmp_path / "dog")
    # A path longer than the system allows cannot be listed, not even by root, whom permissions do
    # not stop.
    for _ in range(20):
        Path("d" * 250).mkdir()
        os.chdir("d" * 250)
    _, rejected = list_folder(tmp_path, CLASSES)
    assert [reason for path, reason in rejected if path.startswith("dog/ddd")] == [
        "unreadable: File name too long"
    ]


HOSTILE = [
    "two words.png",
    "it's.png",
    'a "quote".png',
    "$(touch x).png",
    "a;b.png",
    "-rf.png",
    "*.png",
    "{input}.png",
    "é漢字🐟.png",
]


@pytest.mark.parametrize(
    "name", [*HOSTILE, "Screenshot at 10.00.00\u202fAM.png", "family 👩\u200d👧.png"]
)
def test_any_printable_name_is_data(tmp_path, name):
    tree(tmp_path, f"cat/{name}", f"{name}/x.png", "dog/y.png")
    found, rejected = list_folder(tmp_path, CLASSES)
    assert {c.path for c in found} == {
        f"cat/{name}",
        f"{name}/x.png",
        "dog/y.png",
    } and rejected == []
    manifest, _ = build(tmp_path, found)
    assert set(manifest["path"]) == {c.path for c in found}


def test_a_name_that_is_not_utf8_is_rejected(tmp_path):
    tree(tmp_path, "cat/a.png")
    (tmp_path / "cat" / "a.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/cat/\xff\xfe.png"))
    tree(tmp_path, "cat/b.png")
    found, rejected = list_folder(tmp_path, CLASSES)
    assert [c.path for c in found] == ["cat/b.png"]
    ((path, reason),) = rejected
    assert (
        path == "cat/\\udcff\\udcfe.png" and "not UTF-8" in reason and "rename the file" in reason
    )


@pytest.mark.parametrize("name", ["two\nlines.png", "red\x1b[31m.png", "tab\t.png"])
def test_a_control_character_in_a_name_is_rejected_and_not_printed(tmp_path, name):
    found, rejected = list_folder(tree(tmp_path, "cat/a.png", f"cat/{name}"), CLASSES)
    assert [c.path for c in found] == ["cat/a.png"]
    ((path, reason),) = rejected
    assert "rename the file" in reason
    assert path.isprintable()


def test_a_folder_name_of_underscores_alone_is_no_label(tmp_path):
    found, rejected = list_folder(tree(tmp_path, "cat/a.png", "__/b.png"), CLASSES)
    assert [c.label for c in found] == ["cat"]
    assert [path for path, _ in rejected] == ["__/b.png"]


LITTER = [
    *(
        ".DS_Store",
        "Thumbs.db",
        "THUMBS.DB",
        "desktop.ini",
        "._a.png",
        ".directory",
        "@eaDir/a.png",
        "$RECYCLE.BIN/a.png",
    ),
    *(
        ".ipynb_checkpoints/a-checkpoint.png",
        ".thumbnails/normal/a.png",
        "__MACOSX/cat/._a.png",
        ".hidden.png",
    ),
]


@pytest.mark.parametrize("split", ["", "train/"])
@pytest.mark.parametrize("below", ["", "cat/", "cat/deep/"])
def test_litter_is_neither_a_class_nor_rejected_and_the_log_says_how_much(
    tmp_path, caplog, below, split
):
    tree(
        tmp_path,
        f"{split}cat/a.png",
        f"{split}cat/deep/b.png",
        *(f"val/{path}" for path in ("cat/c.png",) if split),
    )
    tree(tmp_path, *(f"{place}{path}" for place in {split + below, ""} for path in LITTER))
    caplog.set_level("INFO")
    found, rejected = list_folder(tmp_path, CLASSES)
    assert {c.path for c in found} - {"val/cat/c.png"} == {
        f"{split}cat/a.png",
        f"{split}cat/deep/b.png",
    }
    assert {c.label for c in found} == {"cat"} and {c.split for c in found} == (
        {"train", "validation"} if split else {""}
    )
    assert rejected == []
    (line,) = [record.getMessage() for record in caplog.records]
    assert (
        line.startswith(f"{len(LITTER) * len({split + below, ''})} files and folders skipped")
        and ".DS_Store" in line
    )


def test_nothing_is_said_where_nothing_is_skipped_and_a_hidden_folder_may_hold_the_root(
    tmp_path, caplog
):
    found, _ = list_folder(tree(tmp_path / ".data", "cat/a.png"), CLASSES)
    assert [c.path for c in found] == ["cat/a.png"] and not caplog.records


@pytest.mark.parametrize("folders", [("Train", "Val"), ("TRAIN", "Validation")])
def test_train_and_val_may_have_capitals(tmp_path, folders):
    found, _ = list_folder(
        tree(tmp_path, f"{folders[0]}/tench/a.png", f"{folders[1]}/tench/b.png"), CLASSES
    )
    assert [(c.label, c.split) for c in found] == [("tench", "train"), ("tench", "validation")]


def test_a_root_that_is_a_class_folder_is_said_to_be_one(tmp_path):
    tree(tmp_path, "a.png", "b.png")
    with pytest.raises(
        InputError,
        match=r"2 of its files lie in none: name the folder above as data\.root, or move them",
    ):
        list_folder(tmp_path, CLASSES)


def test_a_missing_or_empty_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"data\.root .*/missing: no such folder"):
        data_root("folder", str(tmp_path / "missing"))
    with pytest.raises(InputError, match="no such folder"):
        data_root("table", str(picture(tmp_path / "a.png", 0)))
    assert data_root("folder", str(tmp_path)) == tmp_path
    with pytest.raises(InputError, match=f"data.root {tmp_path}: holds no images in class folders"):
        list_folder(tmp_path, CLASSES)
    (tmp_path / "cat").mkdir()
    with pytest.raises(InputError, match="holds no images in class folders"):
        list_folder(tmp_path, CLASSES)


# A table


def listed(tmp_path: Path, rows: list[dict], kind: str = "csv", label_column: str = "label"):
    table = tmp_path / f"table.{kind}"
    frame = pd.DataFrame(rows)
    if kind == "csv":
        frame.to_csv(table, index=False)
    else:
        frame.to_parquet(table)
    return list_table(table, label_column, CLASSES)


@pytest.mark.parametrize("kind", ["csv", "parquet", "pq"])
def test_a_table_needs_a_path_and_a_label_and_may_have_the_rest(tmp_path, kind):
    found, rejected = listed(
        tmp_path,
        [{"path": "a.png", "kind": "tench"}, {"path": "d/b c.png", "kind": "my cat"}],
        kind,
        "kind",
    )
    assert rejected == []
    assert found == [
        Candidate("a.png", "tench", 0, "an image of a tench"),
        Candidate("d/b c.png", "my cat", -1, "an image of a my cat"),
    ]
    full = [
        {
            "path": "a.png",
            "label": "fish",
            "class_index": 0,
            "prompt": "one fish",
            "split": "train",
        },
        {"path": "b.png", "label": "fish", "class_index": 1, "prompt": "one fish", "split": "val"},
        {"path": "c.png", "label": "cat", "class_index": -1, "prompt": None, "split": "validation"},
        {"path": "d.png", "label": "n01484850", "class_index": None, "prompt": None, "split": None},
        {"path": "e.png", "label": None, "class_index": 3, "prompt": None, "split": None},
        {"path": "f.png", "label": None, "class_index": -1, "prompt": None, "split": None},
        {"path": "g.png", "label": " ", "class_index": None, "prompt": None, "split": None},
    ]
    found, rejected = listed(tmp_path, full, kind)
    assert found == [
        Candidate("a.png", "fish", 0, "one fish", "train"),
        Candidate("b.png", "fish", 1, "one fish", "validation"),
        Candidate("c.png", "cat", -1, "an image of a cat", "validation"),
        Candidate("d.png", "great white shark", 2, "an image of a great white shark"),
        Candidate("e.png", "tiger shark", 3, "an image of a tiger shark"),
    ]
    assert rejected == [("f.png", "no printable label"), ("g.png", "no printable label")]


def test_text_that_looks_like_a_number_or_a_gap_stays_text(tmp_path):
    found, _ = listed(
        tmp_path,
        [
            {"path": "007", "label": "NA"},
            {"path": "1e5", "label": "null"},
            {"path": "nan", "label": "12"},
        ],
    )
    assert [(c.path, c.label) for c in found] == [("007", "NA"), ("1e5", "null"), ("nan", "12")]


@pytest.mark.parametrize(
    "row, message",
    [
        (
            {"class_index": "1000"},
            "class_index '1000' is outside the 1000 classes (0 to 999, or -1)",
        ),
        ({"class_index": "-2"}, "class_index '-2' is outside the 1000 classes"),
        ({"class_index": "2.5"}, "class_index '2.5' is outside"),
        ({"class_index": "two"}, "class_index 'two' is outside"),
        ({"class_index": "nan"}, "class_index 'nan' is outside"),
        ({"class_index": "inf"}, "class_index 'inf' is outside"),
        ({"split": "test"}, "split 'test' is neither train nor validation"),
        ({"prompt": "another"}, "label 'cat' has two prompts, 'an image of a cat' and 'another'"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_faulty_row_is_named_with_line_and_value(tmp_path, row, message, kind):
    rows = [{"path": "a.png", "label": "cat", "class_index": "-1", "split": "", "prompt": ""}]
    with pytest.raises(InputError) as error:
        listed(tmp_path, [*rows, {**rows[0], "path": "b.png", **row}], kind)
    assert f"table.{kind}: line 3 (b.png): {message}" in str(error.value)


def test_a_missing_column_is_named_with_the_columns_there_are(tmp_path):
    with pytest.raises(
        InputError,
        match=r"table\.csv: has no column 'species' \(data\.label_column\); it has path, label",
    ):
        listed(tmp_path, [{"path": "a.png", "label": "cat"}], label_column="species")
    with pytest.raises(
        InputError, match=r"table\.parquet: has no column 'path' \(.*\); it has file, label"
    ):
        listed(tmp_path, [{"file": "a.png", "label": "cat"}], "parquet")


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("table.csv", None, "no such file"),
        ("table.csv", b"", "not readable as CSV"),
        ("table.csv", b"path,label\n", "holds no rows"),
        (
            "table.csv",
            "\u2028,\u2003\n".encode(),
            "has no column 'path' (the image's path relative to data.root); it has none",
        ),
        ("table.csv", b"path,label\n\xff.png,cat\n", "not readable as CSV"),
        ("table.parquet", None, "no such file"),
        ("table.parquet", b"path,label\n", "not readable as Parquet"),
    ],
)
def test_an_unreadable_table_is_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        list_table(tmp_path / name, "label", CLASSES)
    assert str(tmp_path / name) in str(error.value) and message in str(error.value)


@pytest.mark.parametrize(
    "rows",
    [
        "a.png,cat,\nb.png,dog,\n",
        "a.png,cat, wild\nb.png,dog, wild\n",
        "a.png,cat\nb.png,dog, wild\n",
    ],
)
def test_rows_with_more_cells_than_the_header_are_refused_and_never_shifted(tmp_path, rows):
    table = tmp_path / "table.csv"
    table.write_text("path,label\n" + rows)
    with pytest.raises(
        InputError, match=r"table\.csv: (rows have more cells than the header|not readable as CSV)"
    ):
        list_table(table, "label", CLASSES)


@pytest.mark.parametrize(
    "path", ["../x.jpg", "a/../../x.jpg", "a/..", "/etc/passwd", "//x.jpg", ""]
)
def test_a_path_that_leaves_the_root_is_rejected(tmp_path, path):
    found, rejected = listed(
        tmp_path, [{"path": path, "label": "cat"}, {"path": "a..b/..c.png", "label": "cat"}]
    )
    assert [c.path for c in found] == ["a..b/..c.png"]
    ((refused, reason),) = rejected
    assert refused == path and reason.startswith("outside the data root")


@pytest.mark.parametrize("again", ["d/a.png", "./d/a.png", "d//a.png"])
def test_a_path_listed_twice_is_rejected_the_second_time(tmp_path, again):
    found, rejected = listed(
        tmp_path, [{"path": "d/a.png", "label": "cat"}, {"path": again, "label": "dog"}]
    )
    assert [(c.path, c.label) for c in found] == [("d/a.png", "cat")]
    assert rejected == [(again, "listed twice")]


def test_a_control_character_in_a_listed_path_or_label_is_rejected(tmp_path):
    found, rejected = listed(
        tmp_path, [{"path": "a\nb.png", "label": "cat"}, {"path": "c.png", "label": "c\nat"}]
    )
    assert found == []
    assert "rename the file" in rejected[0][1] and rejected[1] == ("c.png", "no printable label")


def text_table(tmp_path: Path, content: str, label_column: str = "label"):
    (tmp_path / "table.csv").write_bytes(content.encode())
    return list_table(tmp_path / "table.csv", label_column, CLASSES)


@pytest.mark.parametrize(
    "name",
    [
        path
        for path in LITTER
        if path not in (".hidden.png", ".directory") and path[1:2] not in "it"
    ],
)
def test_litter_in_a_table_is_skipped_and_what_is_hidden_is_taken_at_its_word(
    tmp_path, caplog, name
):
    caplog.set_level("INFO")
    found, rejected = listed(
        tmp_path,
        [
            {"path": path, "label": "cat"}
            for path in (f"cat/{name}", f"x\\{name}", ".hidden/.a.png")
        ],
    )
    assert [c.path for c in found] == [".hidden/.a.png"] and rejected == []
    assert "2 files and folders skipped" in caplog.text


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "header", ["path,label,split", "Path, LABEL ,Split", "\ufeffPATH,Label,SPLIT"]
)
def test_separators_capitals_and_blank_rows_of_spreadsheets_are_understood(
    tmp_path, separator, end, header
):
    lines = [
        "",
        ",,",
        header,
        "",
        "a.png,my_cat,Val",
        ",,",
        " , ,",
        'b.png,"a, b; c\td",TRAIN',
        "c.png,my cat,",
        ",,",
        ",,,,",
        "",
        "",
    ]
    content = (
        end.join(lines)
        .replace('"a, b; c\td"', "*")
        .replace(",", separator)
        .replace("*", '"a, b; c\td"')
    )
    if separator == "\t":
        content = content.replace(" \t \t", " \t\t")
    if header.startswith("\ufeff"):
        content = "\ufeff" + content.replace("\ufeff", "")
    found, rejected = text_table(tmp_path, content)
    assert [(c.path, c.label, c.split) for c in found] == [
        ("a.png", "my cat", "validation"),
        ("c.png", "my cat", ""),
    ]
    assert rejected == [("b.png", "no printable label")]  # for the tab in it
    with pytest.raises(
        InputError, match=r"line 5 \(a\.png\): split 'Test' is neither train nor validation \(val\)"
    ):
        text_table(tmp_path, content.replace("Val", "Test"))


@pytest.mark.parametrize("content", ["path,label\n,\n\n,,,\n", "path;label\n;\n"])
def test_a_table_of_blank_rows_holds_no_rows(tmp_path, content):
    with pytest.raises(InputError, match=r"table\.csv: holds no rows"):
        text_table(tmp_path, content)


def test_blank_rows_of_parquet_are_skipped_too(tmp_path):
    rows = [
        {"path": "a.png", "label": "cat"},
        {"path": None, "label": " "},
        {"path": "b.png", "label": "cat"},
    ]
    found, rejected = listed(tmp_path, rows, "parquet")
    assert [c.path for c in found] == ["a.png", "b.png"] and rejected == []


def test_a_row_that_is_short_has_empty_cells(tmp_path):
    found, rejected = text_table(tmp_path, "path,label,split\na.png,cat\nb.png\n")
    assert [(c.path, c.split) for c in found] == [("a.png", "")] and rejected == [
        ("b.png", "no printable label")
    ]


def test_a_column_that_is_there_twice_is_refused_unless_one_is_spelled_as_asked_for(tmp_path):
    with pytest.raises(InputError, match=r"table\.csv: has 2 columns 'path'"):
        text_table(tmp_path, "Path,PATH,label\na.png,b.png,cat\n")
    found, _ = text_table(tmp_path, "Path,path,label\na.png,b.png,cat\n")
    assert [c.path for c in found] == ["b.png"]
    assert [c.label for c in text_table(tmp_path, "path,Animal\na.png,cat\n", "animal")[0]] == [
        "cat"
    ]


@pytest.mark.parametrize("suffix", ["csv", "xlsx", "xls", "ods", "txt"])
@pytest.mark.parametrize(
    "start, kind",
    [(b"PK\x03\x04", r"\.xlsx"), (b"\xd0\xcf\x11\xe0", r"\.xls"), (b"PAR1", "Parquet")],
)
def test_a_workbook_is_named_for_what_it_is(tmp_path, suffix, start, kind):
    path = tmp_path / f"table.{suffix}"
    path.write_bytes(start + b"\x14\0\6\0\xff")
    for read in (
        lambda: list_table(path, "label", CLASSES),
        lambda: read_classes(path),
        lambda: read_vocabulary(path),
    ):
        with pytest.raises(
            InputError,
            match=(
                rf"table\.{suffix}: is .*{kind}.*: (save it as text, "
                r"a table as CSV|let its name end)"
            ),
        ):
            read()


def test_underscores_are_spaces_in_labels_of_tables_as_in_those_of_folders(tmp_path):
    tree(tmp_path, "my_own_cat/a.png", "Great_White_Shark/b.png")
    table, _ = listed(
        tmp_path,
        [
            {"path": path, "label": Path(path).parts[0]}
            for path in ("Great_White_Shark/b.png", "my_own_cat/a.png")
        ],
    )
    assert table == list_folder(tmp_path, CLASSES)[0]
    given, _ = listed(tmp_path, [{"path": "a.png", "label": "my_fish", "class_index": 3}])
    assert given == [Candidate("a.png", "my fish", 3, "an image of a my fish")]


# The manifest


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Files by number: g0..g23 are distinct pictures; b0..b23 are empty, text, cut or absent."""
    root = tmp_path_factory.mktemp("pool")
    for number in range(24):
        picture(root / f"g{number}", number)
        if number % 4 < 3:
            (root / f"b{number}").write_bytes(list(BAD.values())[number % 4])
    return root


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.sampled_from(["cat", "dog", "my fish"]),
            st.sampled_from(["", "", "train", "validation"]),
        ),
        max_size=24,
    ),
    st.none() | st.integers(1, 6),
    st.integers(0, 3),
    st.integers(0, 5),
    st.integers(1, 4),
    st.integers(2, 7),
)
def test_accepted_and_rejected_are_together_all_that_was_found(
    pool, files, per_class, refused, seed, threads, folds
):
    found = [
        Candidate(f"{'bg'[good]}{i}", label, -1, prompt_of(label), split)
        for i, (good, label, split) in enumerate(files)
    ]
    earlier = [(f"loose{i}", "not in a class folder") for i in range(refused)]
    good = Counter((label, split) for usable, label, split in files if usable)
    taken = {key: min(number, per_class or number) for key, number in good.items()}
    by_split = Counter()
    for (_, split), number in taken.items():
        by_split[split] += number
    undecided, train, validation = (by_split[split] for split in ("", "train", "validation"))
    smallest, *_, largest = even(undecided + train, folds)
    fewest = max(0, smallest - train) if train else max(min(1, undecided), smallest)
    held_out = range(fewest, min(undecided, largest) + 1)
    sides = [
        Counter(train=train + undecided - number, validation=validation + number)
        for number in held_out
    ]
    try:
        manifest, rejected = build(
            pool, found, earlier, per_class=per_class, folds=folds, seed=seed, threads=threads
        )
    except InputError:
        assert not all(side["train"] and side["validation"] for side in sides)
        return
    assert sorted([*manifest["path"], *(path for path, _ in rejected)]) == sorted(
        [c.path for c in found] + [path for path, _ in earlier]
    )
    assert Counter(manifest["split"]) in [
        side for side in sides if side["train"] and side["validation"]
    ]
    assert set(earlier) <= set(rejected)
    original = {c.path: c for c in found}
    for row in manifest.to_dict("records"):
        candidate = original[row["path"]]
        assert row["path"].startswith("g")
        assert (row["label"], row["prompt"]) == (candidate.label, candidate.prompt)
        assert row["split"] == (candidate.split or ("train" if row["fold"] else "validation"))
    assert (
        Counter((original[path].label, original[path].split) for path in manifest["path"]) == taken
    )
    given = manifest["path"].map(lambda path: original[path].split) == "validation"
    for drawn, numbers in ((manifest[~given], range(folds)), (manifest[given], range(1, folds))):
        assert sizes(drawn["fold"], numbers) == even(len(drawn), len(numbers))
        for _, alike in drawn.groupby("label"):
            assert sizes(alike["fold"], numbers) == even(len(alike), len(numbers))
    undrawn = f"not drawn: data.per_class is {per_class}"
    for path, reason in set(rejected) - set(earlier):
        key = original[path].label, original[path].split
        assert reason == undrawn if path.startswith("g") else reason != ""
        assert reason != undrawn or taken.get(key) == per_class


def test_the_manifest_has_its_columns_types_and_contents(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (7, 3), "red").save(tmp_path / "turned.jpg", exif=exif)
    picture(tmp_path / "b.png", 1, (4, 9))
    found = [
        Candidate("turned.jpg", "tench", 0, "one tench", "validation"),
        Candidate("b.png", "cat", -1, "one cat", "train"),
    ]
    manifest, rejected = build(tmp_path, found)
    assert {column: str(kind) for column, kind in manifest.dtypes.items()} == COLUMNS
    assert list(manifest.columns) == list(COLUMNS)
    digests = [
        hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        for name in ("b.png", "turned.jpg")
    ]
    assert manifest.to_numpy().tolist() == [
        [0, "b.png", "cat", -1, "one cat", "train", 0, 4, 9, digests[0]],
        [1, "turned.jpg", "tench", 0, "one tench", "validation", 1, 3, 7, digests[1]],
    ]
    assert rejected == []


def test_image_ids_count_from_0_in_the_order_of_the_paths(pool):
    manifest, _ = build(pool, [Candidate(f"g{i}", "cat", -1, "") for i in (3, 1, 10, 0, 2)])
    assert manifest["image_id"].tolist() == [0, 1, 2, 3, 4]
    assert manifest["path"].tolist() == ["g0", "g1", "g10", "g2", "g3"]


def labelled(numbers: dict[str, int]) -> list[Candidate]:
    waiting = count()
    return [
        Candidate(f"g{next(waiting)}", label, -1, prompt_of(label))
        for label, number in numbers.items()
        for _ in range(number)
    ]


def test_per_class_takes_that_many_of_each_label_or_all_there_are(pool):
    found = labelled({"cat": 9, "dog": 5, "newt": 2})
    manifest, rejected = build(pool, found, per_class=4)
    assert Counter(manifest["label"]) == {"cat": 4, "dog": 4, "newt": 2}
    assert Counter(reason for _, reason in rejected) == {"not drawn: data.per_class is 4": 6}
    assert len(build(pool, found)[0]) == 16


def test_an_unusable_file_is_replaced_by_the_next_of_its_label(tmp_path):
    names = [f"cat/{i}.png" for i in range(8)]
    tree(tmp_path, *names)
    drawn = list(build(tmp_path, candidates(*names), per_class=3)[0]["path"])
    (tmp_path / drawn[0]).write_bytes(b"")
    (tmp_path / drawn[2]).write_bytes(b"no picture")
    again, rejected = build(tmp_path, candidates(*names), per_class=3)
    assert len(again) == 3 and drawn[1] in set(again["path"])
    assert {(drawn[0], "empty file"), (drawn[2], NO_IMAGE)} == {
        pair for pair in rejected if not pair[1].startswith("not drawn")
    }
    assert len(rejected) == 5


def test_one_label_is_drawn_alike_whatever_other_labels_there_are(pool):
    cats = labelled({"cat": 10})
    alone, _ = build(pool, cats, per_class=4)
    beside, _ = build(
        pool, cats + [Candidate(f"g{i}", "dog", -1, "") for i in range(10, 20)], per_class=4
    )
    assert set(alone["path"]) == set(beside.loc[beside["label"] == "cat", "path"])


def test_order_of_listing_and_threads_do_not_change_the_manifest(pool):
    found = labelled({"cat": 9, "dog": 8}) + [
        Candidate(f"b{i}", "cat", -1, prompt_of("cat")) for i in range(8)
    ]
    found += [
        Candidate(f"g{i}", "newt", -1, prompt_of("newt"), "validation" if i % 2 else "train")
        for i in range(17, 24)
    ]
    first, first_rejected = build(pool, found, per_class=5)
    for threads in (1, 3, 16):
        shuffled = random.Random(threads).sample(found, len(found))  # noqa: S311
        again, rejected = build(pool, shuffled, per_class=5, threads=threads)
        pd.testing.assert_frame_equal(again, first)
        assert rejected == first_rejected


LABELS = {
    "one label": {"cat": 20},
    "labels of different sizes": {"cat": 10, "dog": 7, "newt": 3},
    "labels of one size": {"cat": 5, "dog": 5, "eel": 5, "newt": 5},
    "labels of one image": {f"kind {number}": 1 for number in range(20)},
}


def test_another_seed_draws_other_images(pool):
    draws = {
        frozenset(build(pool, labelled({"cat": 24}), per_class=6, seed=seed)[0]["path"])
        for seed in range(8)
    }
    assert len(draws) == 8


@pytest.mark.parametrize("numbers", LABELS.values(), ids=LABELS)
def test_another_seed_gives_other_folds_and_holds_out_others(pool, numbers):
    manifests = [build(pool, labelled(numbers), seed=seed)[0] for seed in range(8)]
    assert len({tuple(manifest["fold"]) for manifest in manifests}) == 8
    assert (
        len(
            {
                frozenset(manifest.loc[manifest["split"] == "validation", "path"])
                for manifest in manifests
            }
        )
        > 6
    )


def test_every_image_is_drawn_and_held_out_as_often_as_any_other(pool):
    manifests = [
        build(pool, labelled({"cat": 12}), per_class=6, folds=3, seed=seed)[0]
        for seed in range(100)
    ]
    drawn = Counter(path for manifest in manifests for path in manifest["path"])
    held_out = Counter(
        path
        for manifest in manifests
        for path in manifest.loc[manifest["split"] == "validation", "path"]
    )
    assert len(drawn) == len(held_out) == 12
    assert min(drawn.values()) > 30 and max(drawn.values()) < 70
    assert min(held_out.values()) > 4 and max(held_out.values()) < 34


@pytest.mark.parametrize("numbers", LABELS.values(), ids=LABELS)
def test_every_image_is_in_every_fold_as_often_as_any_other_whatever_its_label(pool, numbers):
    folds = np.array([build(pool, labelled(numbers), seed=seed)[0]["fold"] for seed in range(100)])
    often = np.array([(folds == number).sum(axis=0) for number in range(5)])
    assert often.shape == (5, 20)
    assert often.min() > 5 and often.max() < 38


@pytest.mark.parametrize(
    "folds, number, held_out",
    [(5, 20, 4), (2, 20, 10), (10, 20, 2), (20, 20, 1), (5, 3, 1), (2, 2, 1)],
)
def test_the_first_of_the_folds_is_held_out_but_never_nothing(pool, folds, number, held_out):
    for seed in range(10):
        manifest, _ = build(pool, labelled({"cat": number}), folds=folds, seed=seed)
        assert Counter(manifest["split"]) == {"validation": held_out, "train": number - held_out}
        assert ((manifest["split"] == "validation") == (manifest["fold"] == 0)).all()


@pytest.mark.parametrize("folds", [2, 3, 5, 7, 24])
@pytest.mark.parametrize(
    "numbers",
    [*LABELS.values(), {"cat": 11, "dog": 8, "newt": 2}, {"cat": 1, "dog": 22, "newt": 1}],
)
def test_folds_differ_by_one_image_at_most_and_so_do_the_shares_of_each_label(pool, numbers, folds):
    for seed in range(4):
        manifest, _ = build(pool, labelled(numbers), folds=folds, seed=seed)
        assert sizes(manifest["fold"], range(folds)) == even(len(manifest), folds)
        assert (manifest["fold"] == 0).any()
        for label, alike in manifest.groupby("label"):
            assert sizes(alike["fold"], range(folds)) == even(numbers[label], folds)


def test_the_splits_of_the_source_are_kept_and_drawn_from_apart(pool):
    found = [
        Candidate(f"g{i}", "cat", -1, "", "train" if i < 9 else "validation") for i in range(12)
    ]
    manifest, _ = build(pool, found, per_class=4)
    assert Counter(manifest["split"]) == {"train": 4, "validation": 3}
    assert set(manifest.loc[manifest["split"] == "validation", "path"]) == {"g9", "g10", "g11"}


def test_images_that_the_source_holds_out_are_in_any_fold_but_the_first_and_the_others_in_all(pool):
    found = [
        Candidate(f"g{i}", "cat" if i % 2 else "dog", -1, "", "validation" if i < 9 else "train")
        for i in range(24)
    ]
    for seed in range(20):
        manifest, _ = build(pool, found, seed=seed)
        held_out = manifest["split"] == "validation"
        assert set(manifest.loc[held_out, "path"]) == {f"g{i}" for i in range(9)}
        assert sizes(manifest.loc[held_out, "fold"], range(1, 5)) == [2, 2, 2, 3]
        assert sizes(manifest.loc[~held_out, "fold"], range(5)) == [3, 3, 3, 3, 3]


@pytest.mark.parametrize("number", [1, 4])
def test_of_a_few_images_without_a_split_among_many_that_have_one_some_are_held_out_whatever_the_seed(  # noqa: E501
    pool, number
):
    found = [
        replace(candidate, split="train") if place >= number else candidate
        for place, candidate in enumerate(labelled({"cat": 7, "dog": 8}))
    ]
    for seed in range(40):
        manifest, _ = build(pool, found, seed=seed)
        held_out = manifest["split"] == "validation"
        assert held_out.any() and set(manifest.loc[held_out, "path"]) <= {
            f"g{place}" for place in range(number)
        }
        assert sizes(manifest["fold"], range(5)) == [3, 3, 3, 3, 3]


@pytest.mark.parametrize("split, missing", [("train", "validation"), ("validation", "train")])
def test_a_study_without_one_of_the_splits_is_refused(pool, split, missing):
    with pytest.raises(InputError, match=f"no image is in the split {missing}"):
        build(pool, [Candidate(f"g{i}", "cat", -1, "", split) for i in range(4)])


def test_one_image_is_enough_with_a_reference_alone_and_two_are_without(pool):
    with pytest.raises(
        InputError,
        match=(
            r"^1 image, (.*): at least 2 are needed, .*: add images, "
            r"or write translator.reference: packaged"
        ),
    ):
        build(pool, labelled({"cat": 1}))
    manifest, _ = build(pool, labelled({"cat": 1}), referenced=True)
    assert len(manifest) == 1
    for seed in range(5):
        manifest, _ = build(pool, labelled({"cat": 1, "dog": 1}), seed=seed)
        assert sorted(zip(manifest["split"], manifest["fold"] == 0, strict=True)) == [
            ("train", False),
            ("validation", True),
        ]


@pytest.mark.parametrize("copies", [(1, 2, 3, 1, 4, 1, 3), (5, 1, 1), (2, 1, 2, 1, 2)])
def test_copies_are_together_where_folds_of_single_images_would_part_them(tmp_path, copies):
    for number, many in enumerate(copies):
        for copy in range(many):
            picture(tmp_path / f"{'cat' if copy % 2 else 'dog'}/{copy} of {number}.png", number)
    names = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")]
    for seed in range(20):
        manifest, _ = build(tmp_path, candidates(*names), folds=3, seed=seed)
        assert len(manifest) == sum(copies) and manifest["sha256"].nunique() == len(copies)
        assert (manifest.groupby("sha256")[["split", "fold"]].nunique() == 1).all(axis=None)


@pytest.mark.parametrize("per_class", [None, 3])
def test_of_copies_on_both_given_sides_those_in_train_are_left_out_and_others_drawn(
    tmp_path, caplog, per_class
):
    for number in range(5):
        picture(tmp_path / f"cat/{number}.png", number)
    picture(tmp_path / "cat/held out.png", 9)
    picture(tmp_path / "dog/copy.png", 9)
    held_out, copied = (
        candidates("cat/held out.png", split="validation"),
        candidates("dog/copy.png", split="train"),
    )
    twin = replace(copied[0], path="cat/0 held out.png", split="validation")
    picture(tmp_path / twin.path, 0)
    found = [
        *candidates(*(f"cat/{number}.png" for number in range(5)), split="train"),
        *held_out,
        *copied,
        twin,
    ]
    for seed in range(10):
        manifest, rejected = build(
            tmp_path, found, per_class=per_class, seed=seed, max_rejected_fraction=0.0
        )
        assert (manifest.groupby("sha256")["split"].nunique() == 1).all()
        assert set(manifest.loc[manifest["split"] == "validation", "path"]) == {
            "cat/held out.png",
            "cat/0 held out.png",
        }
        assert (manifest["split"] == "train").sum() == (per_class or 4)
        left_out = {("dog/copy.png", "a copy of cat/held out.png, which is held out")}
        assert left_out <= set(rejected)
        assert {c.path for c in found} == {*manifest["path"], *(path for path, _ in rejected)}
    assert (
        "images of train are left out: they are copies, byte for byte, of images that are held out"
        in caplog.text
    )


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_copy_without_a_split_takes_that_of_the_copy_with_one(tmp_path, split):
    for number in range(6):
        picture(tmp_path / f"cat/{number}.png", number)
    picture(tmp_path / "cat/given.png", 0)
    found = [
        *candidates(*(f"cat/{number}.png" for number in range(6))),
        *candidates("cat/given.png", split=split),
    ]
    for seed in range(20):
        manifest, _ = build(tmp_path, found, seed=seed)
        side = manifest.set_index("path")["split"]
        assert side["cat/0.png"] == side["cat/given.png"] == split
        assert (manifest.groupby("sha256")["fold"].nunique() == 1).all()


@pytest.mark.parametrize("label", ["cat", "dog"])
def test_copies_of_one_image_are_in_one_fold_and_on_one_side_of_the_split(tmp_path, label):
    (tmp_path / label).mkdir()
    for number in range(8):
        content = picture(tmp_path / "cat" / f"{number}.png", number).read_bytes()
        (tmp_path / label / f"copy of {7 - number}.png").write_bytes(content)
    names = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")]
    held_out, folds = set(), set()
    for seed in range(20):
        manifest, _ = build(tmp_path, candidates(*names), folds=4, seed=seed)
        assert len(manifest) == 16 and manifest["sha256"].nunique() == 8
        for column in ("split", "fold"):
            assert (manifest.groupby("sha256")[column].nunique() == 1).all()
        assert (manifest["split"] == "validation").sum() == 4
        assert sizes(manifest["fold"], range(4)) == [4, 4, 4, 4]
        held_out.add(frozenset(manifest.loc[manifest["split"] == "validation", "sha256"]))
        folds.add(tuple(manifest["fold"]))
    assert len(held_out) > 10 and len(folds) == 20


def test_a_study_of_copies_of_one_image_is_refused(tmp_path):
    for number in range(6):
        picture(tmp_path / f"{'cat' if number % 2 else 'dog'}/{number}.png", 0)
    with pytest.raises(InputError, match=r"^1 image in 6 copies, "):
        build(
            tmp_path,
            candidates(*(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))),
        )


def test_too_many_unusable_files_stop_the_run_with_the_reasons(pool):
    bad = [
        Candidate("b0", "cat", -1, ""),
        Candidate("b1", "dog", -1, ""),
        Candidate("b3", "dog", -1, ""),
    ]
    found = labelled({"cat": 4, "dog": 4}) + bad
    loose = [("loose.png", "not in a class folder")]
    manifest, rejected = build(pool, found, loose, max_rejected_fraction=4 / 12)
    assert (len(manifest), len(rejected)) == (8, 4)
    with pytest.raises(InputError) as error:
        build(pool, found, loose, max_rejected_fraction=0.33)
    first, *listing = str(error.value).splitlines()
    assert first.startswith(
        "4 of 12 files are unusable, more than data.max_rejected_fraction (0.33)"
    )
    assert listing == [
        *(f"  {path}: {reason}" for path, reason in sorted(rejected)),
        f"  looked for {pool}/b3",
    ]
    assert [path for path, _ in sorted(rejected)] == ["b0", "b1", "b3", "loose.png"]
    assert error.value.rejected == sorted(rejected)


def refused(root: Path, found: list[Candidate], rejected=()) -> list[str]:
    with pytest.raises(Refusal) as error:
        build(root, found, rejected, max_rejected_fraction=0.1)
    assert len(error.value.rejected) == len(found) + len(rejected)
    lines = str(error.value).splitlines()
    assert len(lines) < 10
    return lines


def test_a_thousand_absent_files_take_a_few_lines(tmp_path):
    first, reason, *rest = refused(
        tmp_path, candidates(*(f"cat/{number:04}.png" for number in range(1000)))
    )
    assert first.startswith("1000 of 1000 files are unusable")
    assert reason == "  cat/0000.png and 999 others: unreadable: No such file or directory"
    assert rest == [f"  looked for {tmp_path}/cat/0000.png"]


def test_reasons_are_told_by_how_many_files_they_hold_for_and_the_rare_ones_counted(pool):
    reasons = [(f"f{number}", f"reason {'abcdefg'[number % 7]} {number}") for number in range(12)]
    lines = refused(pool, [], reasons)
    assert lines[1:3] == ["  f0 and 1 others: reason a 0", "  f1 and 1 others: reason b 1"]
    assert lines[5:] == ["  4 more for 3 other reasons"]


@pytest.mark.parametrize(
    "root, listed_as, mend",
    [
        ("photos", "photos/cat/{}", "write data.root: {tmp}"),
        ("photos", "old/place/cat/{}", "take old/place/ off the paths"),
        ("photos/cat", "cat/{}", "write data.root: {tmp}/photos"),
        (".", "cat/{}", "write data.root: {tmp}/photos"),
        ("photos", "/mnt/old/cat/{}", "take /mnt/old/ off the paths"),
        ("photos", "cat\\{}", "write / for \\ in the paths"),
        (
            "photos",
            "C:\\old\\cat\\{}",
            "write / for \\ in the paths and take C:/old/ off the paths",
        ),
        ("photos", "photos\\cat\\{}", "write data.root: {tmp} and write / for \\ in the paths"),
    ],
)
def test_a_wrong_root_or_prefix_is_told_with_the_one_that_fits(tmp_path, root, listed_as, mend):
    names = [f"{number}.png" for number in range(4)]
    tree(tmp_path, *(f"photos/cat/{name}" for name in names))
    table = tmp_path / "table.csv"
    pd.DataFrame(
        {"path": [listed_as.format(name) for name in [*names, "away.png"]], "label": "cat"}
    ).to_csv(table, index=False)
    lines = refused(tmp_path / root, *list_table(table, "label", CLASSES))
    assert lines[-1] == (
        f"  4 of 5 tried are elsewhere, as {tmp_path}/photos/cat/0.png: {mend.format(tmp=tmp_path)}"
    )
    assert lines[-2].startswith("  looked for ")


def test_paths_too_long_for_a_name_are_told_like_others(tmp_path):
    lines = refused(tmp_path, [*candidates("cat/a.png"), Candidate("x" * 300, "cat", -1, "")])
    assert lines[1:] == [
        "  cat/a.png: unreadable: No such file or directory",
        f"  {'x' * 300}: unreadable: File name too long",
        f"  looked for {tmp_path}/cat/a.png",
    ]


def test_files_not_drawn_do_not_count_as_unusable(pool):
    manifest, rejected = build(pool, labelled({"cat": 20}), per_class=2, max_rejected_fraction=0.0)
    assert (len(manifest), len(rejected)) == (2, 18)


def test_a_study_of_bad_files_alone_is_refused_whatever_the_limit(pool):
    with pytest.raises(InputError, match="2 of 2 files are unusable"):
        build(
            pool,
            [Candidate("b0", "cat", -1, ""), Candidate("b1", "dog", -1, "")],
            max_rejected_fraction=1.0,
        )


def test_a_file_that_vanished_or_cannot_be_read_is_rejected_as_unreadable(tmp_path):
    tree(tmp_path, "cat/a.png", "cat/b.png")
    (tmp_path / "cat" / "folder").mkdir()
    (tmp_path / "cat" / "loop").symlink_to("loop")
    (tmp_path / "cat" / "dangling").symlink_to("nowhere")
    manifest, rejected = build(
        tmp_path,
        candidates(
            *(f"cat/{name}" for name in ("a.png", "b.png", "folder", "loop", "dangling", "gone"))
        ),
    )
    assert len(manifest) == 2
    assert [path for path, _ in rejected] == ["cat/dangling", "cat/folder", "cat/gone", "cat/loop"]
    assert all(reason.startswith("unreadable: ") for _, reason in rejected)
    assert rejected[2] == ("cat/gone", "unreadable: No such file or directory")


def test_a_named_pipe_is_rejected_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    results: list[Inspected | str] = []
    worker = Thread(
        target=lambda: results.append(inspect(tmp_path, Candidate("pipe", "", -1, ""), 100)),
        daemon=True,
    )
    worker.start()
    worker.join(PATIENCE)
    finished = list(results)
    if worker.is_alive():
        os.close(os.open(tmp_path / "pipe", os.O_WRONLY))
        worker.join()
    assert len(finished) == 1 and isinstance(finished[0], str)


# The threads


@given(st.lists(st.integers(), max_size=60), st.integers(1, 5))
def test_map_ahead_gives_what_map_gives(items, threads):
    assert list(map_ahead(lambda item: item * 3, items, threads)) == [item * 3 for item in items]


@given(st.integers(1, 4), st.integers(1, 40))
def test_map_ahead_takes_at_most_4_items_a_thread_more_than_it_gave(threads, consumed):
    taken = count()
    results = map_ahead(lambda item: item, (next(taken) for _ in range(100)), threads)
    assert list(islice(results, consumed)) == list(range(consumed))
    results.close()
    assert consumed <= next(taken) <= consumed + 4 * threads


@pytest.mark.parametrize(("most", "ahead"), [(0, 3), (2, 3), (5, 5), (99, 12)])
def test_map_ahead_takes_no_more_than_it_is_told_but_one_for_each_thread(most, ahead):
    taken = count()
    results = map_ahead(lambda item: item, (next(taken) for _ in range(100)), 3, most=most)
    assert next(results) == 0
    results.close()
    assert next(taken) == 1 + ahead


@pytest.mark.parametrize(("threads", "expected"), [(None, 2), (1, 1), (3, 1)])
def test_map_apart_leaves_a_thread_of_blas_to_each_of_its_threads_and_then_as_many_as_before(
    threads, expected
):
    def blas(item):
        return item, {
            pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"
        }

    with threadpool_limits(2, user_api="blas"):
        assert list(map_apart(blas, range(4), threads)) == [(item, {expected}) for item in range(4)]
        assert blas(0) == (0, {2})


def test_map_ahead_works_in_all_its_threads_at_once():
    meeting = Barrier(3)
    assert list(
        map_ahead(lambda item: (meeting.wait(timeout=PATIENCE), item)[1], range(6), 3)
    ) == list(range(6))


def test_map_ahead_passes_on_an_error_after_the_results_before_it():
    results = map_ahead(lambda item: 6 // (3 - item), range(1000), 2)
    assert list(islice(results, 3)) == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)


# The script


def run_script(tmp_path: Path, **flags) -> CompletedProcess[str]:
    known = {
        "source": "packaged",
        "root": ".",
        "table": ROOT / "config/vocab/packaged.csv",
        "label_column": "label",
        "classes": CLASSES_FILE,
        "per_class": None,
        "folds": 5,
        "max_pixels": 100_000_000,
        "max_rejected_fraction": 0.05,
        "seed": 0,
        "threads": 2,
        "log": tmp_path / "logs/log.txt",
    }
    return Results(tmp_path / "out").start("build_manifest", tmp_path, **known | flags)


@pytest.mark.parametrize("folds, drawn", [(5, 5), (4, 4), (0, 5)])
def test_the_script_writes_the_manifest_of_the_packaged_images(tmp_path, folds, drawn):
    result = run_script(tmp_path, folds=folds)
    assert result.returncode == 0, result.stderr
    manifest = pd.read_parquet(tmp_path / "out/data/manifest.parquet")
    assert {column: str(kind) for column, kind in manifest.dtypes.items()} == COLUMNS
    packaged = pd.read_csv(ROOT / "config/vocab" / "packaged.csv")
    assert (
        manifest[["path", "label", "class_index"]].to_numpy().tolist()
        == packaged.to_numpy().tolist()
    )
    assert np.array_equal(manifest["image_id"], np.arange(20))
    assert sizes(manifest["fold"], range(drawn)) == [20 // drawn] * drawn
    assert Counter(manifest["split"]) == {"train": 20 - 20 // drawn, "validation": 20 // drawn}
    root = data_root("packaged", "")
    assert manifest["sha256"].tolist() == [
        hashlib.sha256((root / path).read_bytes()).hexdigest() for path in packaged["path"]
    ]
    assert (tmp_path / "out/data/rejected.csv").read_text() == "path,reason\n"
    assert sorted(path.name for path in (tmp_path / "out/data").iterdir()) == [
        "manifest.parquet",
        "rejected.csv",
    ]
    assert (
        f"20 images under 19 labels, {20 // drawn} held out; 0 left out"
        in (tmp_path / "logs" / "log.txt").read_text()
    )


def test_the_script_ends_with_the_list_and_without_output_when_all_files_are_bad(tmp_path):
    (tmp_path / "data" / "my cat").mkdir(parents=True)
    for name, content in BAD.items():
        (tmp_path / "data" / "my cat" / f"{name}; $(x).png").write_bytes(content)
    result = run_script(tmp_path, source="folder", root=tmp_path / "data", table=None)
    assert result.returncode == 1
    assert "3 of 3 files are unusable" in result.stderr and "Traceback" not in result.stderr
    for name, reason in (("empty", "empty file"), ("text", "not an image"), ("cut", "")):
        assert f"\n  my cat/{name}; $(x).png: {reason}" in result.stderr
    assert not (tmp_path / "out").exists()
    assert f"all are listed in {tmp_path / 'logs' / 'rejected.csv'}" in result.stderr
    assert len((tmp_path / "logs" / "rejected.csv").read_text().splitlines()) == 4
